"""Borders without data, and vacuum of one value that is none."""

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.alignment.images.conditioning import ConditionedSeries, condition
from tomoseg.alignment.images.padding import data_of, find_padding
from tomoseg.runtime import Runtime


def noisy(shape=(70, 90), level=100.0, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    blob = 200 * np.exp(-((y - 30) ** 2 + (x - 50) ** 2) / 150)
    return rng.poisson(level + blob).astype(np.float32)


@pytest.mark.parametrize("fill", [0.0, "mean", 250.0])
def test_what_was_filled_in_beside_a_moved_image_is_found(fill):
    image = noisy()
    value = np.float32(image.mean() if fill == "mean" else fill)
    image[:6] = image[:, -9:] = value
    limits = find_padding(image)
    assert limits is not None
    expected = np.zeros(image.shape, bool)
    expected[7:, :-10] = True  # one pixel less than there is: edges may be mixtures
    assert (data_of(limits, 90) ^ expected).sum() <= 2  # a count may have the fill's value by chance


@pytest.mark.parametrize("turn", [3.0, 20.0])
def test_the_corners_of_a_rotated_image_are_found(turn):
    image = ndimage.rotate(noisy(), turn, reshape=False, order=1, cval=0)
    limits = find_padding(image)
    assert limits is not None
    outside = ndimage.rotate(np.ones((70, 90)), turn, reshape=False, order=1, cval=0) < 0.999
    found = ~data_of(limits, 90)
    assert (outside & ~found).sum() <= 0.02 * outside.sum()
    assert (found & ~ndimage.binary_dilation(outside, iterations=2)).sum() == 0


def test_an_image_without_border_and_one_line_of_border():
    image = noisy()
    assert find_padding(image) is None
    image[0] = 0
    limits = find_padding(image)
    assert limits is not None
    assert not data_of(limits, 90)[0].any()
    assert data_of(limits, 90)[2:].all()


def test_counts_that_are_equal_by_chance_are_no_border():
    rng = np.random.default_rng(0)
    for _ in range(20):
        image = noisy() // 50  # few different values in the vacuum
        image[0, :9] = image[:9, 0] = image[0, 0]
        image[:, 0] = np.where(rng.random(70) < 0.5, image[0, 0], image[:, 0])
        assert find_padding(image) is None


def blob_in_vacuum(noise, shape):
    y, x = np.indices((80, 80)) - 39.5
    thickness = {
        "ball": np.sqrt(np.maximum(37**2 - y**2 - x**2, 0)),
        "needle": np.sqrt(np.maximum(30**2 - (y + 0.05 * x) ** 2, 0)),
        "block": 30.0 * ((abs(y) < 30) & (abs(x) < 35)),
    }[shape]
    image = 10 * thickness
    if noise:
        image = np.maximum(np.random.default_rng(0).poisson(image + 30) - 60.0, 0)
    return image.astype(np.float32)


@pytest.mark.parametrize(("noise", "shape"), [(True, "ball"), (False, "ball"), (True, "needle"), (False, "block")])
def test_vacuum_of_one_value_is_no_border(noise, shape):
    # Clipped at 0, or computed without noise; the sample fills most of the frame.
    assert find_padding(blob_in_vacuum(noise, shape)) is None


def test_a_border_in_few_of_the_images_with_even_corners_is_chance():
    series = np.stack([blob_in_vacuum(noise=True, shape="ball")] * 5)
    series[2] = noisy((80, 80))
    series[2, :9] = 0
    done = condition(series, np.arange(5.0), runtime=Runtime(workers=1))
    assert not done.has_borders


def test_borders_are_unknown_in_the_conditioned_series_and_told():
    series = np.stack([noisy(seed=i) for i in range(6)])
    for i in range(1, 6):
        series[i, : 2 + i] = 0
    done = condition(series, np.arange(6.0) * 5, runtime=Runtime(workers=1))
    assert [limits is not None for limits in done.limits] == [False] + [True] * 5
    assert "5 of 6 images have a border" in done.notes[-1]
    read = ConditionedSeries(series, done)[3:5]
    assert np.isnan(read[0, :5]).all()
    assert np.array_equal(read[0, 6:], series[3, 6:])
