"""Distances between surfaces: values by hand, and those of another package where it is installed."""

import numpy as np
import pytest
from scipy.spatial.distance import directed_hausdorff

from tomoseg.segmentation.evaluation.surface_distances import PERCENTILES, hausdorff, surface


def blob(seed, shape=(40, 50)):
    from scipy import ndimage

    rough = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 4)
    return rough > np.quantile(rough, 0.6)


def test_at_100_it_is_scipys_hausdorff_distance():
    for seed in range(4):
        a, b = blob(seed), blob(seed + 10)
        points = [np.argwhere(surface(m) > 0) for m in (a, b)]
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
    # A half plane cut off by three borders: its surface is its one edge, between the columns 11 and 12.
    mask = np.zeros((30, 30), bool)
    mask[:, :12] = True
    expected = np.zeros((29, 29))
    expected[:, 11] = 1
    np.testing.assert_array_equal(surface(mask), expected)
    assert not surface(np.ones((5, 5), bool)).any()
    wider = np.zeros((30, 30), bool)
    wider[:, :15] = True
    np.testing.assert_array_equal(hausdorff(mask, wider), 3)


def test_unannotated_regions_are_no_surface_either():
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    unknown = np.zeros_like(mask)
    unknown[:, 13:] = True
    marked = surface(mask & ~unknown, unknown) > 0
    assert not marked[:, 12:].any()  # no surface along the unknown region
    assert marked[4:15, 4].all()
    assert marked[4, 4:12].all()
    # Whatever a prediction holds where nobody annotated does not count.
    other = mask.copy()
    other[:, 13:] = np.random.default_rng(0).random((20, 7)) > 0.5
    np.testing.assert_array_equal(hausdorff(mask, other, unknown=unknown), 0)


def boxes(shape, *spans):
    """Return masks of one box each, given its (start, stop) along each axis."""
    masks = []
    for box in spans:
        mask = np.zeros(shape, bool)
        mask[tuple(slice(*span) for span in box)] = True
        masks.append(mask)
    return masks


def disc(radius, center, shape=(60, 60)):
    y, x = np.indices(shape)
    return (y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2


# Elements are counted by hand: a straight side of n px has n - 1 of length 1, an end of two sides is one of sqrt(1/2).
SHIFTED = boxes((40, 40), ((10, 20), (10, 20)), ((10, 20), (12, 22)))
NESTED = boxes((50, 50), ((20, 30), (20, 30)), ((16, 34), (16, 34)))
CUT_OFF = boxes((30, 40), ((0, 10), (10, 20)), ((0, 10), (12, 22)))
PIXELS = boxes((20, 40), ((10, 11), (10, 11)), ((10, 11), (30, 31)))


@pytest.mark.parametrize(
    ("masks", "spacing", "expected"),
    [
        # Of 38.83, 17.41 are 0 px away (44.8 %), 4 are 1 px (to 55.2 %) and 17.41 are 2 px away.
        (SHIFTED, None, {40: 0, 50: 1, 55: 1, 60: 2, 100: 2}),
        # Rows 5 apart, columns 0.5: of 109.05, 13.02 are 0 away (11.9 %), 1 is 0.5 (to 12.9 %), the rest 1.
        (SHIFTED, (5.0, 0.5), {11: 0, 12: 0.5, 13: 1, 50: 1, 100: 1}),
        # From the outer square: 44 of 70.83 are 4 px away (62.1 %), then 8 each at the hypotenuses of 4 and 1, 2, 3.
        (NESTED, None, {50: 4, 60: 4, 70: np.hypot(4, 1), 80: np.hypot(4, 2), 95: 5, 100: np.hypot(4, 4)}),
        # Cut off by the upper border, so without a side: of 28.41, 8.71 are 0 px away (30.6 %), 2 are 1 px (37.7 %).
        (CUT_OFF, None, {30: 0, 35: 1, 40: 2, 50: 2, 100: 2}),
        # The near half of one pixel's corners is 19 px from the other pixel's, the far half 20.
        (PIXELS, None, {45: 19, 55: 20, 100: 20}),
        ((disc(12, (30, 25)), disc(12, (30, 31))), None, {100: 6}),
        (boxes((20, 20, 20), *(((a, b),) * 3 for a, b in ((8, 12), (6, 14)))), None, {0: 2, 100: np.sqrt(12)}),
        (boxes((9, 9, 9), ((0, 4), (0, 9), (0, 9)), ((0, 6), (0, 9), (0, 9))), (3.0, 1.0, 1.0), {0: 6, 50: 6, 100: 6}),
    ],
)
def test_values_worked_out_by_hand(masks, spacing, expected):
    got = hausdorff(*masks, list(expected), spacing=spacing)
    np.testing.assert_allclose(got, list(expected.values()), atol=1e-12)
    np.testing.assert_allclose(hausdorff(*masks[::-1], list(expected), spacing=spacing), got)


def test_concentric_discs_are_as_far_apart_as_their_radii_differ():
    distances = hausdorff(disc(8, (30, 30)), disc(13, (30, 30)))
    np.testing.assert_allclose(distances, 5, atol=0.75)  # pixels


def test_lengths_and_areas():
    (pixel,) = boxes((5, 5), ((2, 3), (2, 3)))
    assert surface(pixel).sum() == pytest.approx(2 * np.sqrt(2))
    assert surface(pixel, spacing=(3.0, 4.0)).sum() == pytest.approx(4 * 2.5)
    assert surface(SHIFTED[0]).sum() == pytest.approx(36 + 2 * np.sqrt(2))
    (voxel,) = boxes((5, 5, 5), ((2, 3),) * 3)
    assert surface(voxel).sum() == pytest.approx(np.sqrt(3))  # an octahedron of edge sqrt(1/2)
    # A plane with 2 x 3 cells; a full and an empty corner, opposite each other, are the same from either side.
    (half,) = boxes((3, 4, 5), ((0, 1), (0, 4), (0, 5)))
    assert surface(half, spacing=(7.0, 2.0, 3.0)).sum() == pytest.approx(12 * 6)
    mask = np.random.default_rng(0).random((9, 9, 9)) > 0.5
    np.testing.assert_allclose(surface(mask), surface(~mask))


PACKAGE_ARGUMENTS = [
    ((50, 60), (1.0, 1.0)),
    ((50, 60), (0.5, 1.7)),
    ((20, 22, 24), (1.0, 1.0, 1.0)),
    ((20, 22, 24), (2.0, 1.0, 0.3)),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # it uses old names of SciPy
@pytest.mark.parametrize(("shape", "spacing"), PACKAGE_ARGUMENTS)
def test_it_agrees_with_the_package_surface_distance(shape, spacing):
    """Objects away from the border: both definitions are one."""
    package = pytest.importorskip("surface_distance")
    for seed in range(10):
        a, b = (np.pad(blob(s, [n - 4 for n in shape]), 2) for s in (seed, seed + 100))
        distances = package.compute_surface_distances(a, b, spacing)
        expected = [package.compute_robust_hausdorff(distances, q) for q in PERCENTILES]
        np.testing.assert_allclose(hausdorff(a, b, spacing=spacing), expected, atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_package_counts_the_border_as_surface():
    """The one difference: of two half planes 3 px apart it says that most of their surfaces are the same."""
    package = pytest.importorskip("surface_distance")
    a, b = boxes((30, 30), ((0, 30), (0, 12)), ((0, 30), (0, 15)))
    distances = package.compute_surface_distances(a, b, (1.0, 1.0))
    assert package.compute_robust_hausdorff(distances, 50) == 0
    assert hausdorff(a, b, [50])[0] == 3


def test_in_three_dimensions():
    a = np.zeros((12, 12, 12), bool)
    a[3:8, 3:8, 3:8] = True
    assert hausdorff(a, np.roll(a, 2, axis=0))[-1] == pytest.approx(2)


def test_a_missing_class_has_no_distance():
    a = np.zeros((6, 6), bool)
    b = a.copy()
    b[2:4, 2:4] = True
    assert np.isnan(hausdorff(a, b)).all()
