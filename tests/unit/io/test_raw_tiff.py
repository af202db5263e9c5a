import numpy as np
import pytest
import tifffile
from PIL import Image

from tomoseg.errors import InputError
from tomoseg.io.raw import open_raw
from tomoseg.io.readers.tiff import read as read_tiff

STACK = np.random.default_rng(3).integers(0, 65535, (6, 30, 40)).astype(np.uint16)


def _lzw(path, stack):
    pages = [Image.fromarray(image) for image in stack]
    pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_lzw")


def _appended(path, stack):
    with tifffile.TiffWriter(path) as writer:
        for image in stack:
            writer.write(image, contiguous=False)


WRITERS = {
    "plain": lambda path, stack: tifffile.imwrite(path, stack),
    "big-endian": lambda path, stack: tifffile.imwrite(path, stack, byteorder=">"),
    "bigtiff": lambda path, stack: tifffile.imwrite(path, stack, bigtiff=True),
    "deflate": lambda path, stack: tifffile.imwrite(path, stack, compression="zlib", predictor=True),
    "tiles": lambda path, stack: tifffile.imwrite(path, stack, tile=(16, 16)),
    "imagej": lambda path, stack: tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "ZYX"}),
    "ome": lambda path, stack: tifffile.imwrite(path, stack, ome=True, metadata={"axes": "ZYX"}),
    "lzw": _lzw,
    "appended": _appended,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_way_to_write_a_stack(tmp_path, kind):
    path = tmp_path / "stack.tif"
    WRITERS[kind](path, STACK)
    with open_raw(path) as series:
        assert (series.format, series.shape, series.dtype) == ("TIFF", STACK.shape, np.uint16)
        np.testing.assert_array_equal(series.read(slice(None)), STACK)
        np.testing.assert_array_equal(series.read([4, 3, 0, 5]), STACK[[4, 3, 0, 5]])
        assert series.pixel_size.nm is None
        assert series.warnings == []


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
def test_types_are_kept(tmp_path, dtype):
    stack = (STACK // 300).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stack, compression="zlib")
    with open_raw(tmp_path / "a.tif") as series:
        assert series.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(series.read(slice(None)), stack)


def test_pages_are_read_one_by_one(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", STACK, compression="zlib")
    read = []
    asarray = tifffile.TiffPage.asarray
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda page, *a, **k: (read.append(page.index), asarray(page))[1])
    frame = tifffile.TiffFrame.asarray
    monkeypatch.setattr(tifffile.TiffFrame, "asarray", lambda page, *a, **k: (read.append(page.index), frame(page))[1])
    with read_tiff(tmp_path / "a.tif") as series:
        assert read == []
        series.read([2, 3])
    assert sorted(set(read)) == [2, 3]


@pytest.mark.parametrize(
    ("unit", "resolution", "nm"),
    [("nm", (2, 2), 0.5), ("micron", (50, 50), 20.0), ("\\u00B5m", (50, 50), 20.0), ("\\u00C5", (2, 2), 0.05),
     ("", (2, 2), None), ("pixel", (1, 1), None), ("nm", (2, 3), None)],
)  # fmt: skip
def test_imagej_scale(tmp_path, unit, resolution, nm):
    metadata = {"axes": "ZYX", **({"unit": unit} if unit else {})}
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata=metadata, resolution=resolution)
    with open_raw(tmp_path / "a.tif") as series:
        assert series.pixel_size.nm == (None if nm is None else pytest.approx(nm))
        assert series.pixel_size.source == ("unknown" if nm is None else "ImageJ scale")
        assert (series.pixel_size.sides_nm is not None) == (resolution == (2, 3))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(("kind", "axes"), [("imagej", "ZCYX"), ("ome", "CZYX"), ("ome", "ZCYX"), ("ome", "TCYX")])
def test_two_channels_are_two_signals(tmp_path, kind, axes, compression):
    other = STACK[:5] + 1
    data = np.stack([STACK[:5], other], axis=axes.index("C"))
    names = {"Channel": {"Name": ["BF", "HAADF"]}} if kind == "ome" else {}
    options = {"imagej": True} if kind == "imagej" else {"ome": True}
    tifffile.imwrite(
        tmp_path / "a.tif",
        data,
        metadata={"axes": axes, **names},
        photometric="minisblack",
        compression=compression,
        **options,
    )
    with open_raw(tmp_path / "a.tif") as series:
        assert [signal.shape for signal in series.signals] == [(5, 30, 40)] * 2
        default = STACK[:5] if kind == "imagej" else other
        np.testing.assert_array_equal(series.read(slice(None)), default)
        assert "2 signals" in series.notes[0]
    for wanted, values in (("1", STACK[:5]), ("2", other), ("channel 2" if kind == "imagej" else "haadf", other)):
        with open_raw(tmp_path / "a.tif", wanted) as series:
            np.testing.assert_array_equal(series.read([3, 1]), values[[3, 1]])
    with pytest.raises(InputError, match="no signal 'EDX'"):
        open_raw(tmp_path / "a.tif", "EDX")


def test_ome_scale(tmp_path):
    sizes = {"PhysicalSizeX": 7.5, "PhysicalSizeXUnit": "Å", "PhysicalSizeY": 0.75, "PhysicalSizeYUnit": "nm"}
    tifffile.imwrite(tmp_path / "a.tif", STACK, ome=True, metadata={"axes": "ZYX", **sizes})
    with open_raw(tmp_path / "a.tif") as series:
        assert series.pixel_size.nm == pytest.approx(0.75)
        assert series.pixel_size.source == "OME description"


def test_dots_per_inch_are_no_pixel_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, resolution=(72, 72), resolutionunit="INCH")
    with open_raw(tmp_path / "a.tif") as series:
        assert series.pixel_size.nm is None


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: tifffile.imwrite(p, STACK[0]), r"single 2D image \(30 x 40\)"),
        (lambda p: tifffile.imwrite(p, np.zeros((3, 8, 8, 3), np.uint8), photometric="rgb"), "colour"),
        (lambda p: tifffile.imwrite(p, np.zeros((8, 8, 3), np.uint8), photometric="rgb"), "colour"),
        (lambda p: tifffile.imwrite(p, STACK.astype(np.complex64)), "complex"),
        (
            lambda p: tifffile.imwrite(
                p, STACK.reshape(2, 3, 30, 40), metadata={"axes": "TZYX"}, photometric="minisblack"
            ),
            "4 dimensions",
        ),
        (lambda p: p.write_bytes(b"II*\0" + bytes(20)), "holds no image"),
    ],
)
def test_what_is_no_tilt_series_is_refused(tmp_path, write, message):
    write(tmp_path / "a.tif")
    with pytest.raises(InputError, match=message):
        open_raw(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_stack_cut_in_half_is_refused(tmp_path, kind):
    path = tmp_path / "stack.tif"
    WRITERS[kind](path, STACK)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="truncated"):
        open_raw(path)


@pytest.mark.parametrize("kind", ["deflate", "appended"])
def test_a_stack_cut_by_a_few_bytes_is_refused(tmp_path, kind):
    path = tmp_path / "stack.tif"
    WRITERS[kind](path, STACK)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="truncated"):
        open_raw(path)


def test_a_damaged_page_is_said_when_it_is_read(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[3].dataoffsets[0], tiff.pages[3].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    with open_raw(path) as series:
        series.read([0, 1, 2])
        with pytest.raises(InputError, match=r"images 4 to 4 of .*a\.tif cannot be read"):
            series.read([3])


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "nm"),
    [
        ("tilt-series/dust-particle/idp_haadf_16x256x256_u16.tif", (16, 256, 256), "u2", 13.08),
        ("formats/tiff_imagej_stack_scaled.tif", (2, 68, 68), "f4", 168.6747),
        ("formats/tiff_dm_stack.tif", (2, 68, 68), "f4", None),
    ],
)
def test_real_stacks(real_data, name, shape, dtype, nm):
    with open_raw(real_data / name) as series:
        assert (series.shape, series.dtype) == (shape, np.dtype(dtype))
        # as many digits as the files' descriptions give
        assert series.pixel_size.nm == (None if nm is None else pytest.approx(nm, rel=2e-4))
        assert series.angles_deg is None
        with tifffile.TiffFile(real_data / name) as tiff:
            np.testing.assert_array_equal(series.read(slice(None)), tiff.asarray())


def test_the_digital_micrograph_tiff_has_pixels_that_are_not_square(real_data):
    with open_raw(real_data / "formats/tiff_dm_stack.tif") as series:
        assert "1687 nm high, 168.7 nm wide" in series.pixel_size.doubt


def test_real_single_images_are_refused(real_data, tmp_path):
    import zipfile

    with zipfile.ZipFile(real_data / "formats/tiff_fei_helios.zip") as archive:
        archive.extractall(tmp_path)
    for path in tmp_path.glob("*.tif"):
        with pytest.raises(InputError, match="single 2D image"):
            open_raw(path)
