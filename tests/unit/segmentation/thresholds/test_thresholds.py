"""Labels by thresholds, slab by slab, and the removal of small objects."""

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.components import ComponentSizes
from tomoseg.errors import StageFailed
from tomoseg.segmentation.data.histogram import histogram
from tomoseg.segmentation.labelling import SmallObjects
from tomoseg.segmentation.thresholds.label_volume import apply_thresholds, find_thresholds, smoothed_slab

ALL_NEIGHBOURS = np.ones((3, 3, 3))


def cuts_of(n, *sizes):
    """Cut range(n) into slabs of the given sizes, repeated."""
    cuts, start, k = [], 0, 0
    while start < n:
        cuts.append(slice(start, min(start + sizes[k % len(sizes)], n)))
        start, k = cuts[-1].stop, k + 1
    return cuts


@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.7])
def test_smoothing_by_slabs_is_smoothing_the_whole(sigma):
    volume = np.random.default_rng(0).random((23, 9, 11)).astype(np.float32)
    whole = ndimage.gaussian_filter(volume, sigma, mode="nearest") if sigma else volume
    for part in cuts_of(23, 5, 1):
        np.testing.assert_allclose(smoothed_slab(volume, part, sigma), whole[part], rtol=1e-6)


def test_thresholds_count():
    np.testing.assert_array_equal(apply_thresholds(np.array([0.0, 1.0, 1.5, 2.0, 9.0]), [1.0, 1.9]), [0, 0, 1, 2, 2])


@pytest.mark.parametrize("sizes", [(40,), (7,), (1,), (3, 11)])
def test_sizes_over_slabs_are_those_of_the_whole(sizes):
    mask = np.random.default_rng(1).random((40, 30, 31)) < 0.07  # near the percolation threshold: all shapes occur
    labels, n = ndimage.label(mask, ALL_NEIGHBOURS)
    total = np.bincount(labels.ravel())
    total[0] = 0
    parts = cuts_of(40, *sizes)
    for min_size in (1, 4, 12):
        counted = ComponentSizes(min_size)
        for part in parts:
            counted.add(mask[part])
        kept = np.concatenate([counted.large(i, mask[part]) for i, part in enumerate(parts)])
        np.testing.assert_array_equal(kept, total[labels] >= min_size)
        assert counted.removed() == (total[1:] < min_size).sum()
    assert n > 50


def test_an_empty_mask_is_fine():
    counted = ComponentSizes(min_size=2)
    counted.add(np.zeros((3, 4, 5), bool))
    assert not counted.large(0, np.zeros((3, 4, 5), bool)).any()
    assert counted.removed() == 0


def test_small_objects_fall_to_the_class_below():
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[2:14, 2:14, 2:14] = 1
    labels[5:8, 5:8, 5:8] = 2  # 27 voxels: stays a particle
    labels[10, 10, 10] = 2  # a bright speck in the support becomes support
    labels[17, 17, 17] = 2  # a bright speck in vacuum becomes vacuum
    labels[17:19, 2:4, 2] = 1  # a small piece of support becomes vacuum
    labels[4, 10, 4:6] = 0  # a small pore stays
    expected = labels.copy()
    expected[10, 10, 10], expected[17, 17, 17], expected[17:19, 2:4, 2] = 1, 0, 0
    small = SmallObjects(3, 8)
    parts = cuts_of(20, 6)
    for part in parts:
        small.add(labels[part])
    cleaned = np.concatenate([small.clean(i, labels[part]) for i, part in enumerate(parts)])
    np.testing.assert_array_equal(cleaned, expected)
    assert small.removed() == [2, 2]


def test_too_many_classes_are_refused():
    values = histogram([np.array([[[0.0] * 50 + [1.0] * 50]])], 0, 1)
    with pytest.raises(StageFailed, match="do not separate into 6 classes"):
        find_thresholds(values, 6)
