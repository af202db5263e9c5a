"""The levels of background and foreground in slices, under noise, beside vacuum and with a few bright particles."""

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.segmentation.data.intensity_scaling import foreground_levels, levels_of_labels, scaling_of_labelled


def slices(noise=0.0, particle=0.0, side=96, n=4, seed=0):
    """Return slices (side, side, 3) of a ball of level 1 in vacuum of 0, with one small particle."""
    y, x = np.indices((side, side)) - 48
    image = (np.hypot(y, x) < 24).astype(np.float32)
    image[np.hypot(y - 10, x) < 3] += particle
    rng = np.random.default_rng(seed)
    return [image[..., None] + rng.normal(0, noise, (side, side, 3)).astype(np.float32) for _ in range(n)]


@pytest.mark.parametrize("noise", [0.02, 0.3, 0.7])
def test_the_support_is_found_under_noise(noise):
    zero, one = foreground_levels(slices(noise))
    assert zero == pytest.approx(0, abs=0.06)
    assert one == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("particle", [1.0, 4.0, 9.0])
def test_a_few_bright_particles_are_not_all_of_the_foreground(particle):
    assert foreground_levels(slices(0.05, particle))[1] == pytest.approx(1, abs=0.1)


def test_more_vacuum_changes_nothing():
    few, more = foreground_levels(slices(0.2)), foreground_levels(slices(0.2, side=288))
    assert more == pytest.approx(few, abs=0.05)


def test_levels_follow_a_change_of_unit():
    levels = foreground_levels(slices(0.1, 3.0))
    changed = foreground_levels([40 * image - 1000 for image in slices(0.1, 3.0)])
    assert changed == pytest.approx([40 * level - 1000 for level in levels], rel=1e-3, abs=0.5)


def test_one_channel_is_enough():
    assert foreground_levels([image[..., 1] for image in slices(0.3)])[1] == pytest.approx(1, abs=0.1)


def test_a_single_level_is_refused():
    flat = [np.full((32, 32), 7.0, np.float32)]
    assert foreground_levels(flat) == (7.0, 7.0)
    with pytest.raises(InputError, match="no two distinct levels"):
        scaling_of_labelled(flat, [np.zeros((32, 32), np.uint8)])


def labels_of(images):
    return [np.searchsorted([0.5, 2.5], image[..., 1]).astype(np.uint8) for image in images]


def test_labels_tell_the_levels():
    """Where most of what is bright is particles, a histogram would not."""
    images = slices(0.05)
    for image in images:
        image[30:60, 30:60] += 5.0
    assert levels_of_labels(images, labels_of(images)) == pytest.approx((0, 1), abs=0.05)
    scaling = scaling_of_labelled(images, labels_of(images))
    assert scaling.kind == "labelled"
    assert (scaling.trained.zero, scaling.trained.one) == pytest.approx((0, 1), abs=0.05)
    assert scaling.trained(np.float32([[1e6, -1e6]])) == pytest.approx(
        np.array([[scaling.trained.high, scaling.trained.low]])
    )


def test_labels_of_one_class_leave_the_foreground():
    images = slices(0.05)
    nothing = [np.zeros(image.shape[:2], np.uint8) for image in images]
    assert levels_of_labels(images, nothing) is None
    scaling = scaling_of_labelled(images, nothing)
    assert (scaling.trained.zero, scaling.trained.one) == foreground_levels(images)
