import mrcfile
import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.io import mrc
from tomoseg.io.angles import read_angles
from tomoseg.io.mrc import write_angles, write_mrc
from tomoseg.io.raw import open_raw

RNG = np.random.default_rng(2)


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f2", "f4"])
@pytest.mark.parametrize("kind", ["stack", "volume"])
def test_values_and_pixel_size_are_read_by_another_program(tmp_path, dtype, kind):
    values = RNG.integers(0, 9, (4, 5, 6)).astype(dtype)  # small: mrcfile checks float16 in float16
    write_mrc(tmp_path / "a.mrc", values, 0.336, kind=kind)
    assert mrcfile.validate(tmp_path / "a.mrc")
    with mrcfile.open(tmp_path / "a.mrc") as other:
        assert other.data.dtype == values.dtype
        np.testing.assert_array_equal(other.data, values)
        # single precision in the header
        np.testing.assert_allclose([other.voxel_size[k].item() for k in "xyz"], 3.36, rtol=1e-6)
        assert other.is_image_stack() == (kind == "stack")


def test_header_statistics_are_those_of_all_boxes(tmp_path, monkeypatch):
    monkeypatch.setattr(mrc, "PIECE_BYTES", 4 * 30 * 2)  # two images at a time
    values = RNG.normal(30000, 2, (7, 5, 6)).astype(np.float32)
    write_mrc(tmp_path / "a.mrc", values, None)
    with mrcfile.open(tmp_path / "a.mrc") as other:
        exact = values.astype(np.float64)
        assert other.header.dmin == values.min()
        assert other.header.dmax == values.max()
        # single precision in the header: 1 in 10^7 of the value
        assert other.header.dmean.item() == pytest.approx(exact.mean(), rel=2e-7)
        assert other.header.rms.item() == pytest.approx(exact.std(), rel=1e-6)
        np.testing.assert_array_equal(other.data, values)


def test_values_that_are_no_numbers_are_written_and_left_out_of_the_statistics(tmp_path):
    values = np.array([[[1, 2], [3, np.nan]], [[np.inf, -np.inf], [np.nan, np.nan]]], np.float32)
    write_mrc(tmp_path / "a.mrc", values, 1.0)
    with mrcfile.open(tmp_path / "a.mrc") as other:
        np.testing.assert_array_equal(other.data, values)
        assert [other.header[k].item() for k in ("dmin", "dmax", "dmean")] == [1, 3, 2]
    write_mrc(tmp_path / "a.mrc", np.full((2, 3, 4), np.nan, np.float32), 1.0)
    with mrcfile.open(tmp_path / "a.mrc") as other:
        assert other.header.dmax < other.header.dmin  # not determined
        assert other.header.rms < 0


def test_data_are_read_in_boxes_of_planes(tmp_path, monkeypatch):
    monkeypatch.setattr(mrc, "PIECE_BYTES", 4 * 30 * 3)
    seen = []

    class Source:
        shape, dtype = (8, 5, 6), np.dtype("f4")

        def __getitem__(self, key):
            z, y, x = key
            assert (y, x) == (slice(0, 5), slice(0, 6))
            seen.append((z.start, z.stop))
            return np.full((z.stop - z.start, 5, 6), z.start, np.float32)

    write_mrc(tmp_path / "a.mrc", Source(), 1.0)
    assert seen == [(0, 3), (3, 6), (6, 8)]


@pytest.mark.parametrize(("largest", "mode"), [(2, 0), (127, 0), (128, 1), (255, 1)])
def test_labels_take_the_narrowest_mode_that_holds_them(tmp_path, largest, mode):
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[-1, -1, -1] = largest
    write_mrc(tmp_path / "a.mrc", labels, 1.0)
    with mrcfile.open(tmp_path / "a.mrc") as other:
        assert other.header.mode == mode
        np.testing.assert_array_equal(other.data, labels)


@pytest.mark.parametrize("unknown", [None, float("nan")])
def test_unknown_pixel_size_is_zero_in_the_file_and_unknown_when_read(tmp_path, unknown):
    write_mrc(tmp_path / "a.mrc", np.zeros((2, 3, 4), np.int16), unknown, kind="stack")
    with open_raw(tmp_path / "a.mrc") as series:
        assert series.pixel_size.nm is None
        assert series.pixel_size.source == "unknown"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((3, 4), np.float32), "3D"),
        (np.zeros((0, 4, 4), np.float32), "3D"),
        (np.zeros((2, 3, 4), np.complex64), "complex64"),
        (np.full((2, 3, 4), 70000, np.int32), "70000"),
    ],
)
def test_what_mrc_cannot_hold_is_refused(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        write_mrc(tmp_path / "a.mrc", data, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.mrc"
    write_mrc(path, np.ones((2, 3, 4), np.int16), 1.0)
    before = path.read_bytes()

    def stopped(pieces, _what):
        yield pieces[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_mrc(path, np.zeros((2, 3, 4), np.int16), 1.0, track=stopped)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.mrc"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        write_mrc(tmp_path / "nowhere" / "a.mrc", np.zeros((2, 3, 4), np.int16), 1.0)


def test_angles_read_back_exactly(tmp_path):
    angles = np.sort(RNG.uniform(-68, 68, 30))
    write_angles(tmp_path / "a.rawtlt", angles)
    np.testing.assert_array_equal(read_angles(tmp_path / "a.rawtlt"), angles)


def test_angles_that_are_no_numbers_are_refused(tmp_path):
    with pytest.raises(InputError, match="NaN"):
        write_angles(tmp_path / "a.rawtlt", [0.0, float("nan")])
    assert list(tmp_path.iterdir()) == []
