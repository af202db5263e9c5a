"""Distances between surfaces."""

import numpy as np
import pytest
from scipy.spatial.distance import directed_hausdorff

from tomoseg.segment.surfaces import PERCENTILES, hausdorff, surface


def blob(seed, shape=(40, 50)):
    from scipy import ndimage

    rough = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 4)
    return rough > np.quantile(rough, 0.6)


def test_at_100_it_is_scipys_hausdorff_distance():
    for seed in range(4):
        a, b = blob(seed), blob(seed + 10)
        points = [np.argwhere(surface(m)) for m in (a, b)]
        expected = max(directed_hausdorff(points[0], points[1])[0], directed_hausdorff(points[1], points[0])[0])
        assert hausdorff(a, b)[-1] == pytest.approx(expected)


def test_percentiles_of_a_shifted_edge_and_an_outlier():
    a = np.zeros((100, 60), bool)
    a[:, 20:40] = True
    b = a.copy()
    b[:50, 40:43] = True  # a quarter of the surface is 3 px off
    b[80, 52] = True  # and there is one speck
    distance = dict(zip(PERCENTILES, hausdorff(a, b), strict=True))
    assert distance[50] == pytest.approx(0)
    assert distance[70] == pytest.approx(0)
    assert distance[85] == pytest.approx(3)
    assert distance[95] == pytest.approx(3)
    # From the speck to the nearest true surface at x = 39.
    assert distance[100] == pytest.approx(13)


def test_the_image_border_is_no_surface():
    # A half plane cut off by three borders: its surface is its one edge.
    mask = np.zeros((30, 30), bool)
    mask[:, :12] = True
    expected = np.zeros_like(mask)
    expected[:, 11] = True
    np.testing.assert_array_equal(surface(mask), expected)
    assert not surface(np.ones((5, 5), bool)).any()


def test_unannotated_regions_are_no_surface_either():
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    unknown = np.zeros_like(mask)
    unknown[:, 13:] = True
    marked = surface(mask & ~unknown, unknown)
    assert not marked[7:13, 12].any()  # no surface along the unknown region
    assert marked[7:13, 5].all()
    # Whatever a prediction holds where nobody annotated does not count.
    other = mask.copy()
    other[:, 13:] = np.random.default_rng(0).random((20, 7)) > 0.5
    np.testing.assert_array_equal(hausdorff(mask, other, unknown=unknown), 0)


def test_in_three_dimensions():
    a = np.zeros((12, 12, 12), bool)
    a[3:8, 3:8, 3:8] = True
    assert hausdorff(a, np.roll(a, 2, axis=0))[-1] == pytest.approx(2)


def test_a_missing_class_has_no_distance():
    a = np.zeros((6, 6), bool)
    b = a.copy()
    b[2:4, 2:4] = True
    assert np.isnan(hausdorff(a, b)).all()
