"""DM3/DM4, TIA, and the choice of a format."""

import struct

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.io.formats import FORMATS
from tomoseg.io.raw import open_raw

STACK = np.random.default_rng(5).integers(-4000, 4000, (5, 6, 7)).astype(np.int16)


def _ser(stack, version=0x0210, kind=0x4122, delta=(2e-9, 2e-9), valid=None):
    """Return a TIA series: header, offsets, and images with their bottom row first."""
    n, ny, nx = stack.shape
    wide = version >= 0x0220
    head = struct.pack("<hhhiiii", 0x4949, 0x0197, version, kind, 0x4152, n, n if valid is None else valid)
    dimension = struct.pack("<iiddiii", 1, n, 0.0, 1.0, 0, 0, 0)
    codes = {"u1": 1, "u2": 2, "u4": 3, "i2": 5, "i4": 6, "f4": 7, "f8": 8, "c8": 9}
    code = codes[f"{stack.dtype.kind}{stack.dtype.itemsize}"]
    image_head = struct.pack("<ddiddihii", 0.0, delta[1], 0, 0.0, delta[0], 0, code, nx, ny)
    start = len(head) + (8 if wide else 4) + len(dimension)
    first = start + n * (8 if wide else 4) * 2
    step = len(image_head) + ny * nx * stack.itemsize + 8  # 8 bytes of tag after each image
    offsets = np.array([first + i * step for i in range(n)], "<u8" if wide else "<u4")
    out = head + struct.pack("<q" if wide else "<i", start) + dimension + offsets.tobytes() + offsets.tobytes()
    return out + b"".join(image_head + image[::-1].tobytes() + bytes(8) for image in stack)


@pytest.mark.parametrize("version", [0x0210, 0x0220])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4", "f8"])
def test_tia_series(tmp_path, version, dtype):
    stack = np.abs(STACK // 40).astype(dtype)
    (tmp_path / "a_1.ser").write_bytes(_ser(stack, version))
    with open_raw(tmp_path / "a_1.ser") as series:
        assert (series.format, series.shape, series.dtype) == ("TIA", stack.shape, np.dtype(dtype))
        np.testing.assert_array_equal(series.read(slice(None)), stack)
        np.testing.assert_array_equal(series.read([4, 3, 0]), stack[[4, 3, 0]])
        assert series.pixel_size.nm == pytest.approx(2.0)
        assert series.angles_deg is None


def _emi(path, mode):
    data = f"<Data><Label>Mode</Label><Value>{mode}</Value><Unit></Unit></Data>"
    path.write_bytes(b"junk" + f"<ObjectInfo><X><Root>{data}</Root></X></ObjectInfo>".encode() + b"\0junk")


def test_tia_settings_beside_the_series(tmp_path):
    (tmp_path / "a_1.ser").write_bytes(_ser(STACK))
    (tmp_path / "a_2.ser").write_bytes(_ser(STACK + 1))
    _emi(tmp_path / "a.emi", "STEM nP SA Zoom Diffraction")
    for name in ("a.emi", "a_1.ser"):
        with open_raw(tmp_path / name) as series:
            assert series.path.name == "a_1.ser"
            np.testing.assert_array_equal(series.read([2]), STACK[[2]])
            assert series.metadata["Mode"] == "STEM nP SA Zoom Diffraction"
            assert series.pixel_size.nm == pytest.approx(2.0)
    with open_raw(tmp_path / "a.emi") as series:
        assert "'a_1' (5 x 6 x 7) is used, not 'a_2' (5 x 6 x 7)" in series.notes[0]
    with open_raw(tmp_path / "a.emi", "a_2") as series:
        np.testing.assert_array_equal(series.read([2]), STACK[[2]] + 1)
    _emi(tmp_path / "a.emi", "TEM uP Diffraction")
    with open_raw(tmp_path / "a.emi") as series:
        assert series.pixel_size.nm is None
    (tmp_path / "b.emi").write_bytes(b"<ObjectInfo><broken</ObjectInfo>")
    with pytest.raises(InputError, match="beside it"):
        open_raw(tmp_path / "b.emi")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_ser(STACK)[:-20], r"truncated.*5 images.*4 complete"),
        (_ser(STACK)[:100], "truncated"),
        (_ser(STACK)[:20], "truncated"),
        (_ser(STACK, kind=0x4120), "spectra"),
        (_ser(STACK, valid=0), "empty"),
        (_ser(STACK, valid=2_000_000), "empty"),
        (_ser(STACK, valid=500_000), "truncated"),
        (_ser(STACK[:1]), "single 2D image"),
        (_ser(STACK.astype(np.complex64)), "complex"),
    ],
)
def test_tia_series_that_cannot_be_used(tmp_path, content, message):
    (tmp_path / "a.ser").write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_raw(tmp_path / "a.ser")


def test_tia_images_of_different_sizes(tmp_path):
    content = bytearray(_ser(STACK))
    content[-(8 + 6 * 7 * 2 + 4) : -(8 + 6 * 7 * 2)] = struct.pack("<i", 5)
    (tmp_path / "a.ser").write_bytes(content)
    with pytest.raises(InputError, match="image 5 has another size"):
        open_raw(tmp_path / "a.ser")


def test_the_real_tia_series(real_data):
    from rsciio.tia import file_reader

    (other,) = file_reader(str(real_data / "formats/tia_64x64x5.ser"))
    for name in ("tia_64x64x5.ser", "tia_64x64x5.emi"):
        with open_raw(real_data / f"formats/{name}") as series:
            assert (series.shape, series.dtype) == ((5, 64, 64), np.float32)
            np.testing.assert_array_equal(series.read(slice(None)), other["data"])
            assert series.pixel_size.nm == pytest.approx(6.281833616298531)
            assert series.metadata["High tension"] == "200 kV"


def test_the_real_dm3_needle(real_data):
    from rsciio.digitalmicrograph import file_reader

    path = real_data / "tilt-series/needle-dm3/HAADF.dm3"
    with open_raw(path) as series:
        assert (series.format, series.shape, series.dtype) == ("Digital Micrograph", (91, 64, 64), np.uint16)
        np.testing.assert_array_equal(series.angles_deg, np.arange(-90, 91, 2))
        assert series.pixel_size.nm == pytest.approx(17.9949, rel=1e-5)
        np.testing.assert_array_equal(series.read([90, 3, 4]), file_reader(str(path))[0]["data"][[90, 3, 4]])
        assert series.metadata["tags"]["Microscope Info"]["Voltage"] == 300000


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "nm", "reason"),
    [
        ("dm3_stackbuilder_imagestack.dm3", (3, 2, 16), "u4", 59.9829, ""),
        ("dm4_3D.dm4", (2, 2, 2), "f4", None, "has no unit"),
        ("dm4_3D_int16_64_65_66.dm4", (66, 65, 64), "i2", None, "not square"),
    ],
)
def test_real_dm_stacks(real_data, name, shape, dtype, nm, reason):
    from rsciio.digitalmicrograph import file_reader

    with open_raw(real_data / f"formats/{name}") as series:
        assert (series.shape, series.dtype) == (shape, np.dtype(dtype))
        assert series.angles_deg is None
        assert series.pixel_size.nm == (None if nm is None else pytest.approx(nm, rel=1e-5))
        assert reason in series.pixel_size.doubt
        np.testing.assert_array_equal(series.read(slice(None)), file_reader(str(series.path))[0]["data"])


def test_real_dm_images_and_truncated_stacks_are_refused(real_data, tmp_path):
    with pytest.raises(InputError, match=r"single 2D image \(68 x 68\)"):
        open_raw(real_data / "formats/dm3_STEM_image.dm3")
    content = (real_data / "tilt-series/needle-dm3/HAADF.dm3").read_bytes()
    for missing in (300, len(content) // 2, len(content) - 10):
        path = tmp_path / "a.dm3"
        path.write_bytes(content[:-missing])
        with pytest.raises(InputError, match="truncated"):
            open_raw(path)


def test_the_content_decides_and_not_the_extension(tmp_path, mrc_file, images):
    for name in ("series.tif", "series.dat", "series"):
        path = mrc_file(images, name=name)
        with open_raw(path) as series:
            assert series.format == "MRC"
    (tmp_path / "a.mrc").write_bytes(_ser(STACK))
    with open_raw(tmp_path / "a.mrc") as series:
        assert series.format == "TIA"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mrc", b"", "is empty"),
        ("a.mrc", b"short", "truncated"),
        ("a.xyz", b"something else", "the format of .* is not recognised; supported are .*MRC.*Digital Micrograph"),
        ("a.dm3", b"something else", "Digital Micrograph"),
        ("a.hspy", b"something else", "HDF5"),
        ("a.tif", b"something else", "TIFF"),
        ("a.ser", b"something else that is long enough", "TIA"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_raw(tmp_path / name)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_raw(tmp_path / "none.mrc")
    with pytest.raises(InputError, match="is a folder that holds no images"):
        open_raw(tmp_path)


def test_formats_of_the_shared_folder_that_are_not_supported(real_data):
    for name in ("xradia_test_chip_tomo.txrm", "velox_emd_v11.zip"):
        with pytest.raises(InputError, match="is not recognised"):
            open_raw(real_data / f"formats/{name}")
    with pytest.raises(InputError, match="holds no images"):
        open_raw(real_data / "formats/serialem_tilt_series.mdoc")


def test_reading_one_format_imports_no_other():
    import subprocess
    import sys

    code = (
        "import sys, tomoseg.io.raw, tomoseg.io.angles, tomoseg.io.mrc, tomoseg.io.slices\n"
        "print(sorted({'h5py', 'rsciio', 'tifffile', 'mrcfile', 'PIL', 'dask'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert len({f.module for f in FORMATS}) == len(FORMATS)
