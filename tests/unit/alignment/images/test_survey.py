"""The one reading of a series: which images are usable, their background, their reduced size."""

import numpy as np
import pytest

from tomoseg.alignment.extent import reduction_of
from tomoseg.alignment.images.survey import fill_missing, survey_series, usable_tilts
from tomoseg.errors import StageFailed
from tomoseg.runtime import Runtime


def test_dark_images_are_not_usable():
    signals = np.array([100.0, 120.0, 3.0, 0.0, 90.0, -2.0])
    finite = np.array([True, True, True, True, False, True])
    assert usable_tilts(signals, finite).tolist() == [True, True, False, False, False, False]
    assert not usable_tilts(np.zeros(3), np.ones(3, bool)).any()


def series(n=7, level=100.0):
    rng = np.random.default_rng(0)
    raw = np.full((n, 40, 48), level, np.float32)
    raw[:, 12:28, 15:33] += rng.uniform(500, 1000, (n, 16, 18)).astype(np.float32)
    return raw + rng.normal(0, 2, raw.shape).astype(np.float32)


@pytest.mark.parametrize(("background", "level"), [("auto", 100), ("none", 0), (90.0, 90)])
def test_the_background_is_found_left_or_given(background, level):
    backgrounds, reduced = survey_series(series(), np.arange(7.0), background, Runtime(workers=1))
    np.testing.assert_allclose(backgrounds.levels, level, atol=0.5)
    assert reduced.usable.all()
    assert reduced.factor == 1
    # One scale for all, on which the brightest pixels are about 1.
    assert np.quantile(reduced.images, 0.999) == pytest.approx(1, abs=0.01)
    vacuum = reduced.images[:, :8].mean() * 1000
    assert vacuum == pytest.approx((100 - level) / 1.0, abs=15)


def test_an_empty_image_is_not_usable_and_has_the_level_between_its_neighbours():
    raw = series()
    raw[3] = 0
    backgrounds, reduced = survey_series(raw, np.arange(7.0), "auto", Runtime(workers=1))
    assert np.flatnonzero(~reduced.usable).tolist() == [3]
    assert backgrounds.levels[3] == pytest.approx(backgrounds.levels[[2, 4]].mean())
    assert (reduced.images[3] == 0).all()


def test_a_series_of_empty_images_is_refused():
    with pytest.raises(StageFailed, match="every image of the tilt series is empty"):
        survey_series(np.zeros((3, 16, 16)), np.arange(3.0), "auto", Runtime(workers=1))


@pytest.mark.parametrize(
    ("shape", "factor"), [((70, 256, 256), 1), ((70, 1024, 700), 4), ((180, 257, 256), 2), ((4000, 256, 256), 4)]
)
def test_many_tilts_are_reduced_further(shape, factor):
    assert reduction_of(shape) == factor


def test_missing_pixels_become_background():
    image = np.array([[1.0, np.nan], [np.inf, 4.0]], np.float32)
    assert fill_missing(image, 2.5).tolist() == [[1.0, 2.5], [2.5, 4.0]]
