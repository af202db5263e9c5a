"""Edges between classes that are not neighbours in intensity."""

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.segmentation.thresholds.label_volume import apply_thresholds, labelled_slab
from tomoseg.segmentation.thresholds.rims import resolve_rims

LEVELS = [0.0, 1.0, 4.5]
THRESHOLDS = [0.5, 2.75]
BLUR_PX = 0.9  # a resolution of about 2 px


def blurred(density):
    return ndimage.gaussian_filter(density.astype(np.float32), BLUR_PX)


def ball(shape, centre, radius):
    return sum((i - c) ** 2 for i, c in zip(np.indices(shape), centre, strict=True)) <= radius**2


@pytest.fixture
def bright_ball_half_sunk_in_a_slab():
    shape = (48, 40, 40)
    density = np.zeros(shape)
    density[:20] = 1
    density[ball(shape, (20.3, 19.6, 20.1), 9)] = 4.5
    return density


def test_no_rim_is_left_around_a_bright_ball_and_its_size_is_right(bright_ball_half_sunk_in_a_slab):
    density = bright_ball_half_sunk_in_a_slab
    truth = np.array([0, 1, 4.5]).searchsorted(density)
    values = blurred(density)
    plain = apply_thresholds(values, THRESHOLDS)
    resolved = resolve_rims(plain, values, THRESHOLDS, LEVELS)
    above = np.s_[24:]  # well above the slab: vacuum and the ball's cap
    assert np.count_nonzero(plain[above] == 1) > 300
    assert np.count_nonzero(resolved[above] == 1) == 0
    size, before, after = (np.count_nonzero(labels == 2) for labels in (truth, plain, resolved))
    # Half height lies sigma^2 / R = 0.09 px inside a ball of 9 px: 3 % of its volume.
    assert before < 0.95 * size
    assert after == pytest.approx(size, rel=0.035)
    # The slab away from the ball is untouched, to the voxel.
    away = np.s_[:, :5]
    np.testing.assert_array_equal(resolved[away], truth[away])


def test_a_coat_that_can_be_resolved_stays():
    shape = (40, 40, 40)
    density = np.where(ball(shape, (20, 20, 20), 14), 1.0, 0.0)
    density[ball(shape, (20, 20, 20), 8)] = 4.5
    values = blurred(density)
    labels = resolve_rims(apply_thresholds(values, THRESHOLDS), values, THRESHOLDS, LEVELS)
    assert (labels[20, 20, [30, 31, 32]] == 1).all()
    coat = np.count_nonzero(density == 1)
    assert np.count_nonzero(labels == 1) == pytest.approx(coat, rel=0.05)


@pytest.mark.parametrize("size", [1, 4, 7])
def test_slab_by_slab_is_the_whole(bright_ball_half_sunk_in_a_slab, size):
    rng = np.random.default_rng(3)
    volume = blurred(bright_ball_half_sunk_in_a_slab) + rng.normal(0, 0.1, (48, 40, 40)).astype(np.float32)
    whole = labelled_slab(volume, slice(0, 48), 0.5, THRESHOLDS, LEVELS)
    parts = [labelled_slab(volume, slice(i, min(i + size, 48)), 0.5, THRESHOLDS, LEVELS) for i in range(0, 48, size)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    without = labelled_slab(volume, slice(0, 48), 0.5, THRESHOLDS, None)
    assert np.count_nonzero(whole != without) > 100


def test_two_classes_and_flat_labels_are_left_as_they_are():
    values = blurred(ball((20, 20, 20), (10, 10, 10), 5))
    two = apply_thresholds(values, [0.5])
    np.testing.assert_array_equal(labelled_slab(values, slice(0, 20), 0, [0.5], [0.0, 1.0]), two)
    flat = np.ones((6, 6, 6), np.uint8)
    assert resolve_rims(flat, np.ones((6, 6, 6), np.float32), THRESHOLDS, LEVELS) is flat
