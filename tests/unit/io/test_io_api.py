"""`read_series`: the same bits as the import stage stores, and the same sentences."""

import doctest
import json
import math
import warnings

import numpy as np
import pytest

from tomoseg.arrays import MemoryOutputs
from tomoseg.errors import InputError, TomosegWarning
from tomoseg.io import api
from tomoseg.io.api import read_series
from tomoseg.io.mrc import write_angles, write_mrc
from tomoseg.runtime import Runtime
from tomoseg.stages.import_ import STAGE, ImportParameters

RNG = np.random.default_rng(3)
STACK = RNG.integers(-30000, 30000, (6, 5, 7)).astype(np.int16)
ANGLES = np.array([10.0, 0.0, -10.0, 10.0, 50.5, -40.0])


@pytest.fixture
def raw(tmp_path):
    """Return a stack with its angles in a file of the same name."""
    write_mrc(tmp_path / "a.mrc", STACK, 0.5, kind="stack")
    write_angles(tmp_path / "a.rawtlt", ANGLES)
    return tmp_path / "a.mrc"


def _imported(**params):
    outputs, runtime = MemoryOutputs(), Runtime()
    STAGE.run(params=ImportParameters(**params), runtime=runtime, outputs=outputs)
    return outputs.arrays, outputs.attrs["tilt_series_info"], runtime


def _same(series, arrays, info, runtime):
    assert series.images.dtype == arrays["tilt_series"].dtype
    np.testing.assert_array_equal(series.images, arrays["tilt_series"])
    np.testing.assert_array_equal(series.angles_deg, arrays["angles_deg"])
    for name in ("pixel_size_nm", "pixel_size_source", "angles_source", "tilt_axis"):
        np.testing.assert_equal(getattr(series, name), info[name])
    assert series.metadata == json.loads(info["metadata"])
    assert (series.notes, series.warnings) == (runtime.notes, runtime.warnings)


def test_it_gives_what_the_stage_stores(raw):
    series = read_series(raw)
    _same(series, *_imported(raw=raw))
    assert (series.images.shape, series.images.dtype) == (STACK.shape, np.int16)
    assert (series.angles_deg.shape, series.angles_deg.dtype) == ((6,), np.float64)
    np.testing.assert_array_equal(series.images, STACK[[5, 2, 1, 0, 3, 4]])  # exposures at 10 degrees in their order
    assert series.path == raw
    assert series.pixel_size_nm == 0.5


def test_options_are_those_of_the_stage(raw, tmp_path):
    write_angles(tmp_path / "other.tlt", ANGLES[::-1])
    options = {"angles": tmp_path / "other.tlt", "pixel_size": 2.0, "tilt_axis": "x"}
    with pytest.warns(TomosegWarning) as warned:
        series = read_series(str(raw), **options)
    texts = [str(warning.message) for warning in warned]
    assert any("the given pixel size of 2 nm is used; the MRC header has 0.5 nm" in text for text in texts)
    assert any("other.tlt is used, as given" in text for text in texts)
    _same(series, *_imported(raw=raw, **options))
    assert series.tilt_axis == "x"


def test_slabs_of_any_size_give_the_same(raw):
    np.testing.assert_array_equal(read_series(raw, max_memory="64M").images, read_series(raw).images)


def test_what_is_unknown_is_said_and_marked(tmp_path):
    write_mrc(tmp_path / "a.mrc", STACK, None, kind="stack")
    write_angles(tmp_path / "a.tlt", ANGLES)
    with pytest.warns(TomosegWarning, match="the pixel size is unknown") as caught:
        series = read_series(tmp_path / "a.mrc")
    assert caught[0].filename == __file__  # where it was called, not inside tomoseg
    assert [str(warning.message) for warning in caught] == series.warnings
    assert math.isnan(series.pixel_size_nm)
    assert (series.pixel_size_source, series.tilt_axis) == ("unknown", "unknown")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixel_size": -1}, r"import\.pixel_size: must be from 1e-06 to 1e\+09 nm, got -1"),
        ({"tilt_axis": "z"}, r"import\.tilt_axis: .*'auto', 'x' or 'y', got 'z'"),
        ({"angles": "none.tlt"}, "the angle file none.tlt does not exist"),
        ({"max_memory": "1M"}, "give 64M to 1024T"),
    ],
)
def test_wrong_options_are_told_as_the_command_tells_them(raw, options, message):
    with pytest.raises(InputError, match=message):
        read_series(raw, **options)


def test_all_problems_are_named_at_once(tmp_path):
    (tmp_path / "bad.tlt").write_text("x")
    with pytest.raises(InputError, match=r"2 problems:(.|\n)*bad\.tlt, line 1(.|\n)*none\.mrc does not exist"):
        read_series(tmp_path / "none.mrc", angles=tmp_path / "bad.tlt")


def test_images_that_do_not_fit_in_memory_are_one_clear_error(raw, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(MemoryOutputs, "create", full)
    with pytest.raises(InputError, match=r"do not fit in memory\. `tomoseg import .*a\.mrc -o PROJECT\.h5` copies"):
        read_series(raw)


def test_the_example_of_the_documentation_runs():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert doctest.testmod(api).failed == 0
    assert "Examples" in read_series.__doc__


@pytest.mark.parametrize(
    ("name", "shape"),
    [("needle/HAADF.mrc", (77, 256, 256)), ("needle-dm3/HAADF.dm3", (91, 64, 64))],
)
def test_real_series(real_data, name, shape):
    raw = real_data / f"tilt-series/{name}"
    series = read_series(raw)
    assert series.images.shape == shape
    _same(series, *_imported(raw=raw))


def _with_gaps(path, *gaps):
    import tifffile

    stack = STACK.astype(np.float32)
    for where, value in gaps:
        stack[where] = value
    tifffile.imwrite(path / "gaps.tif", stack, photometric="minisblack")
    write_angles(path / "gaps.rawtlt", ANGLES)
    return path / "gaps.tif", stack


def test_a_few_pixels_without_a_number_are_kept_and_told(tmp_path):
    file, stack = _with_gaps(tmp_path, ((2, 1, 1), np.nan), ((4, 0, slice(3)), -np.inf))
    series = read_series(file, pixel_size=1.0)
    np.testing.assert_array_equal(series.images, stack[np.argsort(ANGLES, kind="stable")])
    assert any("4 pixels in 2 of 6 images are NaN or infinite" in note for note in series.notes)
    assert not series.warnings


def test_an_image_that_is_mostly_without_numbers_is_named(tmp_path):
    file, _ = _with_gaps(tmp_path, ((4, slice(4)), np.nan))
    with pytest.warns(TomosegWarning, match=r"1 of 6 images are mostly NaN .*\(image 5 at 50\.5 degrees\)"):
        read_series(file, pixel_size=1.0)


def test_a_series_that_is_mostly_without_numbers_is_refused(tmp_path):
    file, _ = _with_gaps(tmp_path, (slice(1, 6), np.nan))
    with pytest.raises(InputError, match="83 % of the pixels are NaN or infinite"):
        read_series(file, pixel_size=1.0)


def test_an_image_larger_than_the_memory_allowed_is_told(tmp_path):
    images = np.ones((2, 4200, 4200), np.float32)
    np.save(tmp_path / "a.npy", images)
    write_angles(tmp_path / "a.rawtlt", np.array([-10.0, 10.0]))
    with pytest.warns(TomosegWarning) as told:
        series = read_series(tmp_path / "a.npy", max_memory="64M")
    assert series.images.shape == images.shape
    said = [str(one.message) for one in told]
    assert "one image takes about 151 MB of memory, and 64 MB are allowed" in said
