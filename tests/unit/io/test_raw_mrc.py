import bz2
import gzip
import re
import struct
import tempfile

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import get_ext_header_dtype

from tests.unit.io.test_angle_sources import planned
from tomoseg.errors import InputError
from tomoseg.io.plan import Wishes, plan_series
from tomoseg.io.raw import open_raw

ANGLES = np.array([-60.1, -30.5, 0.0, 30.25, 60.0])


def _old_fei(n, pixel_m=3.36e-9, angles=ANGLES, axis=0.0, order="<"):
    """1024 records of 32 reals, as FEI's software wrote before 2013."""
    records = np.zeros((1024, 32), f"{order}f4")
    records[:n, 0], records[:n, 10], records[:n, 11], records[:n, 12] = angles, axis, pixel_m, 115000
    return records.tobytes()


def _fei(kind, n, order="<", size_x=8.5e-11, size_y=8.5e-11, filled=0xFFFFFFFF, axis=85.0, angles=ANGLES, grown=0):
    dtype = get_ext_header_dtype(kind.encode(), order)
    records = np.zeros(n, np.dtype({"names": ["r"], "formats": [dtype], "itemsize": dtype.itemsize + grown}))
    r = records["r"]
    r["Metadata size"], r["Bitmask 1"], r["Alpha tilt"] = dtype.itemsize + grown, filled, angles
    r["Pixel size X"], r["Pixel size Y"], r["Tilt axis angle"], r["HT"] = size_x, size_y, axis, 300000
    return records.tobytes()


def _serialem(tilts, order="<"):
    """Tilt, stage position and magnification for each image: flags 1 + 4 + 8, eight bytes."""
    return b"".join(struct.pack(f"{order}4h", round(100 * t), -400, -214, 1150) for t in tilts)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f2", "f4"])
def test_every_mode_and_byte_order(images, mrc_file, order, stamped, dtype):
    values = np.clip(images, -99, 99).astype(dtype)
    with open_raw(mrc_file(values, order=order, stamped=stamped)) as series:
        assert (series.format, series.shape, series.dtype) == ("MRC", (5, 6, 7), np.dtype(dtype))
        assert series.dtype.isnative
        np.testing.assert_array_equal(series.read(slice(None)), values)


@pytest.mark.parametrize("order", ["<", ">"])
def test_sizes_that_make_sense_in_both_byte_orders(mrc_file, order):
    values = np.arange(3 * 256 * 512, dtype=np.int64).reshape(3, 256, 512).astype(np.int8)
    with open_raw(mrc_file(values, order=order, stamped=False)) as series:
        assert series.shape == (3, 256, 512)
        np.testing.assert_array_equal(series.read(slice(None)), values)


@pytest.mark.parametrize("wanted", [[0], [4, 3, 2, 1, 0], [2, 3, 0, 1, 4, 4], [], [1, 0, 1]])
def test_reads_the_images_asked_for_in_that_order(images, mrc_file, wanted):
    with open_raw(mrc_file(images)) as series:
        got = series.read(wanted)
        np.testing.assert_array_equal(got, images[wanted])
        assert got.flags.c_contiguous
        assert got.flags.writeable
        np.testing.assert_array_equal(series.read(slice(1, 4)), images[1:4])


def test_only_the_images_asked_for_are_read(images, mrc_file):
    with open_raw(mrc_file(images)) as series:
        fetched = []
        fetch = series.fetch
        series.fetch = lambda part: (fetched.append((part.start, part.stop)), fetch(part))[1]
        series.read([4, 3, 1])
        assert fetched == [(3, 5), (1, 2)]


def test_bytes_are_signed_or_unsigned_as_the_writer_meant(images, mrc_file):
    values = images.astype(np.uint8)
    assert values.max() > 127
    for flag, dtype in ((0, np.uint8), (1, np.int8)):
        path = mrc_file(values, extra={152: struct.pack("<2i", 1146047817, flag)})
        with open_raw(path) as series:
            assert series.dtype == dtype
            np.testing.assert_array_equal(series.read(slice(None)), values.view(dtype))
            assert "IMOD" in series.notes[0]
    with open_raw(mrc_file(values)) as series:
        assert series.dtype == np.uint8
    with open_raw(mrc_file(values.view(np.int8))) as series:
        assert series.dtype == np.int8


@pytest.fixture
def smooth():
    """Images whose values change slowly from pixel to pixel, from 20 to 230."""
    y, x = np.mgrid[:48, :48] / 48
    waves = [np.sin(3 * x + i) * np.cos(4 * y - i) for i in range(5)]
    return 125 + 105 * np.array(waves)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, -1), (5, 5), (float("nan"), float("nan"))])
@pytest.mark.parametrize("order", ["<", ">"])
def test_signs_are_seen_in_the_pixels_where_the_header_says_nothing(smooth, mrc_file, low, high, order):
    statistics = {76: struct.pack(f"{order}3f", low, high, -2)}
    for dtype, stored, values in (
        ("u1", "i1", smooth.astype(np.uint8)),
        ("i1", "i1", (smooth - 125).astype(np.int8)),
        ("u2", "i2", (250 * smooth).astype(np.uint16)),
        ("i2", "i2", (250 * (smooth - 125)).astype(np.int16)),
        ("i2", "u2", (250 * (smooth - 125)).astype(np.int16)),
    ):
        path = mrc_file(values.view(stored), order=order, extra=statistics)
        with open_raw(path) as series:
            assert series.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(series.read(slice(None)), values)
            assert bool(series.warnings) == (dtype not in (stored, "u1"))


def test_a_flag_or_header_that_the_pixels_contradict_is_told(smooth, mrc_file):
    values = smooth.astype(np.uint8)
    signed = {152: struct.pack("<2i", 1146047817, 1), 76: struct.pack("<3f", 0, -1, -2)}
    with open_raw(mrc_file(values, extra=signed)) as series:
        assert series.dtype == np.uint8
        assert "read as unsigned bytes" in series.warnings[0]


def test_noise_over_the_whole_range_keeps_the_standard_sign(mrc_file):
    values = np.random.default_rng(5).integers(-128, 128, (5, 32, 32)).astype(np.int8)
    with open_raw(mrc_file(values, extra={76: bytes(12)})) as series:
        assert series.dtype == np.int8


@pytest.mark.parametrize("width", [6, 7])
def test_four_bits_per_pixel(mrc_file, width):
    values = np.random.default_rng(2).integers(0, 16, (4, 5, width)).astype(np.uint8)
    padded = np.zeros((4, 5, 8 if width == 7 else 6), np.uint8)
    padded[..., :width] = values
    packed = padded[..., ::2] | padded[..., 1::2] << 4
    with open_raw(mrc_file(packed, mode=101, nx=width)) as series:
        assert (series.shape, series.dtype, series.warnings) == ((4, 5, width), np.uint8, [])
        np.testing.assert_array_equal(series.read([2, 0]), values[[2, 0]])
    path = mrc_file(packed, mode=101, nx=width, nz=5)
    with pytest.raises(InputError, match="truncated"):
        open_raw(path)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.open), (".bz2", bz2.open)])
def test_a_compressed_file_is_read_and_leaves_nothing(images, mrc_file, tmp_path, monkeypatch, suffix, pack):
    plain = mrc_file(images)
    packed = plain.with_name(f"series.mrc{suffix}")
    with pack(packed, "wb") as file:
        file.write(plain.read_bytes())
    plain.unlink()
    _mdoc(tmp_path / "series.mrc.mdoc", ANGLES)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with planned(packed) as plan:
        np.testing.assert_array_equal(plan.raw.read([3, 1]), images[[3, 1]])
        assert plan.raw.path == packed
        assert plan.angles_source == "series.mrc.mdoc"
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(InputError, match=re.escape(str(packed))):
        open_raw(packed)
    assert list(scratch.iterdir()) == []


def test_what_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tomoseg.io.raw_files.FREE_BYTES", 1 << 20)
    path = tmp_path / "a.mrc.gz"
    with gzip.open(path, "wb") as file:
        file.write(bytes(40 << 20))
    with pytest.raises(InputError, match="unpacks to more than"):
        open_raw(path)


def test_pixel_size_of_the_cell(images, mrc_file):
    with open_raw(mrc_file(images, cell_angstrom=(7 * 3.36, 6 * 3.36, 5 * 3.36))) as series:
        # the header has single precision, of which 7 digits are kept
        assert series.pixel_size.nm == pytest.approx(0.336, rel=1e-6)
        assert series.pixel_size.source == "MRC header"
        assert series.angles_deg is None
        assert series.tilt_axis is None


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ((0.0, 0.0, 0.0), "is not a size"),
        ((7.0, 6.0, 5.0), "placeholder"),  # 1 Å per pixel
        ((-7.0, 6.0, 5.0), "is not a size"),
        ((float("nan"), 6.0, 5.0), "is not a size"),
        ((70.0, 6.0, 5.0), "not square"),
    ],
)
def test_placeholders_in_the_cell_are_unknown(images, mrc_file, cell, reason):
    with open_raw(mrc_file(images, cell_angstrom=cell)) as series:
        assert series.pixel_size.nm is None
        assert series.pixel_size.source == "unknown"
        assert reason in series.pixel_size.doubt


@pytest.mark.parametrize("order", ["<", ">"])
def test_old_fei_header_without_stamp(images, mrc_file, order):
    path = mrc_file(
        images,
        order=order,
        stamped=False,
        cell_angstrom=(7.0, 6.0, 5.0),
        extended=_old_fei(5, order=order),
        labels=["    Fei Company (c) Copyright 2003"],
        extra={128: struct.pack(f"{order}2h", 0, 32)},
    )
    with open_raw(path) as series:
        np.testing.assert_array_equal(series.read(slice(None)), images)
        np.testing.assert_array_equal(series.angles_deg, ANGLES)
        assert series.angles_source == "FEI extended header"
        assert series.pixel_size.nm == pytest.approx(3.36, rel=1e-9)
        assert series.pixel_size.source == "FEI extended header"
        assert series.tilt_axis is None  # 0 is not filled in
        assert series.metadata["first_image"]["magnification"] == 115000


def test_a_number_that_is_none_in_an_old_fei_header_is_passed_over(images, mrc_file):
    extended = bytearray(_old_fei(5))
    extended[40:44] = (0x7F800001).to_bytes(4, "little")  # a signalling NaN: casting it sets a flag of the processor
    with open_raw(mrc_file(images, extended=bytes(extended), labels=["Fei Company"])) as series:
        assert series.shape == images.shape


def test_old_fei_header_that_is_not_filled_in(images, mrc_file):
    label = ["Fei Company (c) Copyright 2003"]
    with open_raw(mrc_file(images, extended=_old_fei(5, 0.0, 0.0), labels=label)) as series:
        assert series.angles_deg is None
        assert series.pixel_size.nm is None
    with open_raw(mrc_file(images, extended=_old_fei(5, angles=999.0), labels=label)) as series:
        assert series.angles_deg is None
        assert "-180 and 180" in series.warnings[0]
    with open_raw(mrc_file(images, extended=_old_fei(5, axis=88.0), labels=label)) as series:
        assert series.tilt_axis == "x"
    with open_raw(mrc_file(images, extended=bytes(128), labels=label)) as series:
        assert "incomplete" in series.warnings[0]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "grown"), [("FEI1", 0), ("FEI2", 0), ("FEI2", 24)])
def test_fei_extended_headers(images, mrc_file, kind, grown, order):
    extended = _fei(kind, 5, order, grown=grown)
    path = mrc_file(images, order=order, exttyp=kind.encode(), extended=extended, cell_angstrom=(7.0, 6.0, 5.0))
    with open_raw(path) as series:
        np.testing.assert_array_equal(series.read(slice(None)), images)
        np.testing.assert_array_equal(series.angles_deg, ANGLES)
        assert series.angles_source == f"{kind} extended header"
        assert series.pixel_size.nm == pytest.approx(0.085, rel=1e-6)
        assert series.tilt_axis == "x"
        assert series.metadata["first_image"]["HT"] == 300000


def test_fei_fields_that_are_not_filled_in_are_not_used(images, mrc_file):
    filled = 0xFFFFFFFF & ~(1 << 7 | 1 << 12 | 1 << 14)  # alpha tilt, tilt axis angle, pixel size X
    path = mrc_file(images, exttyp=b"FEI1", extended=_fei("FEI1", 5, filled=filled), cell_angstrom=(14.0, 12.0, 10.0))
    with open_raw(path) as series:
        assert series.angles_deg is None
        assert series.tilt_axis is None
        assert series.pixel_size.nm == pytest.approx(0.2)
        assert series.pixel_size.source == "MRC header"
    short = mrc_file(images, exttyp=b"FEI1", extended=_fei("FEI1", 5)[:-768])
    with open_raw(short) as series:
        assert series.angles_deg is None
        assert "incomplete" in series.warnings[0]


def test_fei_header_written_by_mrcfile(images, tmp_path):
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as other:
        other.set_data(images)
        other.set_image_stack()
        records = np.frombuffer(_fei("FEI2", 5), get_ext_header_dtype(b"FEI2", "<"))
        other.set_extended_header(records)
        other.header.exttyp = b"FEI2"
    with open_raw(path) as series:
        np.testing.assert_array_equal(series.read(slice(None)), images)
        np.testing.assert_array_equal(series.angles_deg, ANGLES)


@pytest.mark.parametrize("exttyp", [b"SERI", b"\0\0\0\0"])
@pytest.mark.parametrize(
    ("axis_angle", "axis"), [("-90.0", "x"), ("85.3", "x"), ("-3", "y"), ("178.5", "y"), ("45", None)]
)
def test_serialem_extended_header(images, mrc_file, exttyp, axis_angle, axis):
    path = mrc_file(
        images,
        exttyp=exttyp,
        extended=_serialem(ANGLES),
        labels=["SerialEM: Titan", f"    Tilt axis angle = {axis_angle}, binning = 2"],
        extra={128: struct.pack("<2h", 8, 1 + 4 + 8)},
    )
    with open_raw(path) as series:
        np.testing.assert_allclose(series.angles_deg, ANGLES, atol=1e-12)  # hundredths of a degree, exact here
        assert series.angles_source == "SerialEM extended header"
        assert series.tilt_axis == axis


def test_serialem_header_without_tilts_or_with_other_sizes_is_left(images, mrc_file):
    for counts in ((6, 4 + 8), (4, 1 + 4), (8, 13)):
        extended = _serialem(ANGLES)[: 32 if counts == (8, 13) else None]
        path = mrc_file(images, exttyp=b"SERI", extended=extended, extra={128: struct.pack("<2h", *counts)})
        with open_raw(path) as series:
            assert series.angles_deg is None


def _mdoc(path, angles, **entries):
    lines = [f"{key} = {value}" for key, value in entries.items()]
    lines += ["", "[T = SerialEM: Titan]", "[T =     Tilt axis angle = 2.5, binning = 1]"]
    for i, angle in enumerate(angles):
        lines += ["", f"[ZValue = {i}]", f"TiltAngle = {angle}", "ExposureTime = 1"]
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("name", ["series.mrc.mdoc", "series.mdoc"])
def test_a_companion_mdoc_is_used(images, mrc_file, name):
    path = mrc_file(images)
    _mdoc(path.with_name(name), ANGLES, PixelSpacing=7.88)
    with planned(path) as plan:
        np.testing.assert_array_equal(plan.angles_deg, ANGLES)
        assert plan.angles_source == name
        assert plan.pixel_size_nm == pytest.approx(0.788)
        assert name in plan.pixel_size_source
        assert plan.tilt_axis == "y"
        assert plan.raw.metadata["mdoc"]["first_image"]["ExposureTime"] == "1"


def test_the_mdoc_is_finer_than_the_extended_header_and_a_contradiction_is_said(images, mrc_file):
    def path():
        return mrc_file(images, exttyp=b"SERI", extended=_serialem(ANGLES), extra={128: struct.pack("<2h", 8, 13)})

    _mdoc(path().with_suffix(".mdoc"), ANGLES + 0.004)
    with planned(path()) as plan:
        np.testing.assert_allclose(plan.angles_deg, ANGLES + 0.004, atol=1e-12)
        assert not [text for text in plan.warnings if "angles" in text]
    _mdoc(path().with_suffix(".mdoc"), ANGLES + 1)
    with planned(path()) as plan:
        assert any("differ by up to 1 deg" in text for text in plan.warnings)


def test_an_mdoc_of_another_series_is_not_used(images, mrc_file):
    path = mrc_file(images)
    _mdoc(path.with_suffix(".mdoc"), [*ANGLES, 70, 75], PixelSpacing=7.88)
    plan, problems = plan_series(path, Wishes())
    assert plan is None
    assert "describes 7 images, the stack has 5" in problems[0]
    assert "there is no .mdoc" not in problems[0]


@pytest.mark.parametrize("spacing", ["0", "1", "1.0", "x", "-2"])
def test_a_placeholder_in_the_mdoc_is_unknown(images, mrc_file, spacing):
    path = mrc_file(images)
    _mdoc(path.with_suffix(".mdoc"), ANGLES, PixelSpacing=spacing)
    with planned(path) as plan:
        assert np.isnan(plan.pixel_size_nm)


@pytest.mark.parametrize("missing", [1, 3, 100, 5 * 6 * 7 * 2, 5 * 6 * 7 * 2 + 900])
def test_a_truncated_file_is_refused_before_anything_is_mapped(images, mrc_file, missing):
    path = mrc_file(images)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(InputError, match="truncated"):
        open_raw(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nz": 6}, r"6 images \(1528 bytes\), but the file has 1444 bytes and 5 complete"),
        ({"nx": 900_000, "ny": 900_000, "nz": 900_000}, "truncated"),  # far more than any memory
        ({"nsymbt": 2_000_000_000}, "truncated"),
        ({"nx": 0}, "no usable MRC header"),
        ({"ny": -5}, "no usable MRC header"),
        ({"nz": 2**31 - 1}, "no usable MRC header"),
        ({"mode": 77}, "no usable MRC header"),
        ({"nsymbt": -1}, "no usable MRC header"),
        ({"mode": 16}, "RGB"),
        ({"mode": 4}, "complex"),
        ({"mode": 3}, "complex"),
    ],
)
def test_a_header_that_lies_is_refused(images, mrc_file, fields, message):
    with pytest.raises(InputError, match=message):
        open_raw(mrc_file(images, **fields))


def test_a_file_longer_than_its_header_says_is_read_with_a_warning(images, mrc_file):
    with open_raw(mrc_file(images, nz=3)) as series:
        assert series.shape == (3, 6, 7)
        np.testing.assert_array_equal(series.read(slice(None)), images[:3])
        assert "2 more images than the 3 in its header" in series.warnings[0]


def test_a_single_image_is_no_series(images, mrc_file):
    with pytest.raises(InputError, match=r"single 2D image \(6 x 7\)"):
        open_raw(mrc_file(images[:1]))


def test_the_real_needle(real_data):
    with open_raw(real_data / "tilt-series/needle/HAADF.mrc") as series:
        assert (series.shape, series.dtype) == ((77, 256, 256), np.int16)
        np.testing.assert_array_equal(series.angles_deg, np.arange(-76, 77, 2))
        assert series.pixel_size.nm == pytest.approx(3.36, rel=1e-6)
        assert series.pixel_size.source == "FEI extended header"
        assert series.tilt_axis is None
        assert series.warnings == []
        # the header's own minimum, maximum and mean, over images read in pieces
        pieces = [series.read(slice(i, i + 20)) for i in range(0, 77, 20)]
        assert min(p.min() for p in pieces) == -31908 == series.metadata["minimum"]
        assert max(p.max() for p in pieces) == 32325 == series.metadata["maximum"]
        mean = sum(p.sum(dtype=np.int64) for p in pieces) / (77 * 256 * 256)
        assert mean == pytest.approx(series.metadata["mean"], rel=1e-6)  # single precision in the header


def test_the_real_serialem_frames(real_data):
    path = real_data / "tilt-series/serialem/test_000.mrc"
    plan, problems = plan_series(path, Wishes())
    assert plan is None
    assert "all 2 images" in problems[0]
    assert "-0.000488 degrees according to test_000.mrc.mdoc" in problems[0]
    with open_raw(path) as series:
        assert (series.shape, series.dtype) == ((2, 1024, 1024), np.int16)
        frames = series.read([0, 1])
        # MinMaxMean of the mdoc
        assert (frames[0].min(), frames[0].max()) == (2310, 10435)
        assert (frames[1].min(), frames[1].max()) == (2316, 9665)
        assert frames[1].mean() == pytest.approx(4068.35, abs=0.01)


@pytest.mark.parametrize("kind", ["FEI1", "FEI2"])
def test_the_real_single_fei_images_are_refused_clearly(real_data, kind):
    with pytest.raises(InputError, match="single 2D image"):
        open_raw(real_data / f"formats/mrc_{kind}_exthdr_64x64.mrc")


@pytest.mark.parametrize(
    ("kind", "pixel_nm", "tilt"), [("FEI1", 0.08537755, 0.00427435), ("FEI2", 0.06665513, -0.01185616)]
)
def test_real_fei_headers_repeated_to_a_stack(real_data, tmp_path, kind, pixel_nm, tilt):
    content = bytearray((real_data / f"formats/mrc_{kind}_exthdr_64x64.mrc").read_bytes())
    (n_extended,) = struct.unpack_from("<i", content, 92)
    record, image = content[1024 : 1024 + n_extended], content[1024 + n_extended :]
    struct.pack_into("<i", content, 8, 3)
    struct.pack_into("<i", content, 92, 3 * n_extended)
    path = tmp_path / "stack.mrc"
    path.write_bytes(content[:1024] + record * 3 + image * 3)
    with open_raw(path) as series:
        assert series.shape == (3, 64, 64)
        assert series.pixel_size.nm == pytest.approx(pixel_nm, rel=1e-6)
        np.testing.assert_allclose(series.angles_deg, tilt, rtol=1e-5)
        assert series.tilt_axis is None  # its bit says that it is not filled in
        assert series.metadata["first_image"]["HT"] == 300000
