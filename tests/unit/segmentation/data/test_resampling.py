"""Slices at the pixel size of a network."""

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.segmentation.data.intensity_scaling import Scale
from tomoseg.segmentation.data.resampling import linear_weights, resized
from tomoseg.segmentation.inference.slice_prediction import SlicePredictor


@pytest.mark.parametrize(("n", "m"), [(10, 20), (20, 10), (17, 23), (23, 5), (1, 4), (4, 1), (7, 7)])
def test_constants_stay_and_straight_lines_too_away_from_the_edges(n, m):
    weights = linear_weights(n, m)
    assert weights.shape == (m, n)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    # Pixel centres of the result, in pixels of the input: the field of view stays as it is.
    centres = (np.arange(m) + 0.5) * n / m - 0.5
    margin = max(n / m, 1)
    inside = (centres >= margin) & (centres <= n - 1 - margin)
    # Triangles wider than a pixel are sampled at whole pixels, which shifts them by some hundredths.
    np.testing.assert_allclose((weights @ np.arange(n))[inside], centres[inside], atol=1e-5 if m >= n else 0.03)


def test_fine_patterns_are_smoothed_away_when_shrinking():
    stripes = np.tile([0.0, 1.0], 32)[None].repeat(64, 0)
    small = resized(stripes, (16, 16))
    np.testing.assert_allclose(small, 0.5, atol=0.04)  # sampling every fourth pixel would give 0 or 1


def test_equal_sizes_change_nothing():
    image = np.random.default_rng(0).random((3, 9, 12), np.float32)
    np.testing.assert_array_equal(resized(image, (9, 12)), image)


def disc(radius):
    size = 2 * int(np.ceil(radius)) + 1
    y, x = np.indices((size, size)) - size // 2
    return np.hypot(y, x) <= radius


def by_size(patches):
    """Stand for a network that knows discs of 16 to 26 px across and nothing else."""
    kept, larger = (ndimage.grey_opening(patches, footprint=disc(radius)[None]) for radius in (8, 13))
    p = np.clip(kept - larger, 0, 1)
    return np.stack([1 - p, p], axis=-1)


@pytest.mark.parametrize("zoom", [0.5, 1.7, 2.0])
def test_a_disc_is_found_at_its_size_at_any_pixel_size(zoom):
    # A disc of 20 px across at the network's pixel size, with an edge one of its pixels wide, off the middle.
    radius, size = 10 / zoom, round(96 / zoom)
    y, x = np.indices((size, size)) - np.array([0.45, 0.55])[:, None, None] * size
    image = np.clip((radius - np.hypot(y, x)) * zoom + 0.5, 0, 1).astype(np.float32)

    def found(of_zoom):
        labels, confidence = SlicePredictor(by_size, Scale(0, 1, 0, 1), 2, 96, 32, zoom=of_zoom).classify(image[None])
        assert labels.shape == confidence.shape == image[None].shape
        return labels[0] == 1

    # The disc itself, to a rim of a pixel of the coarser of the two grids: the opening rounds it off a little.
    rim = max(1, 1 / zoom)
    inside, outside = np.hypot(y, x) < radius - rim, np.hypot(y, x) > radius + rim
    assert found(zoom)[inside].all()
    assert not found(zoom)[outside].any()
    assert found(zoom).sum() == pytest.approx(np.pi * radius**2, rel=0.1)
    assert not found(1.0).any()  # without resampling it is not seen at all
