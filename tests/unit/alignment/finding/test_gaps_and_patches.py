"""Gaps that are filled from around, and patches that are cut out of images."""

import numpy as np

from tomoseg.alignment.finding.patch import Patch, look_at
from tomoseg.alignment.finding.solve import Solution
from tomoseg.alignment.finding.track import Band
from tomoseg.alignment.images.reduced_series import ReducedSeries, reduce, reduce_with_gaps
from tomoseg.alignment.images.warp import warp_image


def test_without_gaps_it_is_the_mean_of_the_pixels():
    image = np.random.default_rng(0).normal(5, 1, (24, 36)).astype(np.float32)
    np.testing.assert_allclose(reduce_with_gaps(image, 3), reduce(image, 3), rtol=1e-6)


def test_a_gap_is_filled_from_around():
    y, x = np.indices((60, 60))
    image = (x + 2.0 * y).astype(np.float32)
    gappy = image.copy()
    gappy[20:32, 24:36] = np.nan
    filled = reduce_with_gaps(gappy, 2)
    assert np.abs(filled - reduce(image, 2)).max() < 20  # of 180; the slope across the gap alone is 36
    known = np.ones((30, 30), bool)
    known[10:16, 12:18] = False
    np.testing.assert_allclose(filled[known], reduce(image, 2)[known], rtol=1e-6)


def test_nothing_known_gives_something_finite():
    assert np.isfinite(reduce_with_gaps(np.full((8, 8), np.nan, np.float32), 2)).all()


def _moving(shifts):
    """Images of one random scene, moved so that `shifts` bring them into register."""
    rng = np.random.default_rng(4)
    scene = rng.normal(0, 1, (96, 80)).astype(np.float32)
    return np.stack([warp_image(scene, -s, 0.0, 0.0) for s in np.asarray(shifts, float)])


def test_a_patch_is_followed_and_cut_out_at_the_same_place_of_the_scene():
    shifts = np.array([[6, -4], [3, -2], [0, 0], [-2, 3], [-5, 7]])
    images = _moving(shifts)
    reduced = ReducedSeries(images, np.arange(-10.0, 11, 5), np.ones(5, bool), 2, 1)
    view = look_at(reduced, Patch((60, 124), (40, 120), (192, 160)), Band(), 1 / 3)
    assert view.series.images.shape == (5, 32, 40)
    np.testing.assert_array_equal(view.series.images, np.stack([images[2, 30:62, 20:60]] * 5))
    # Rows 30 to 61 of 96: their centre lies at 45.5 - 47.5 from the middle, where no shift is needed.
    np.testing.assert_array_equal(view.centres_px, np.array([-2, 0]) - shifts)


def test_moves_of_a_patch_are_those_of_the_images_once_its_place_is_known():
    shifts = np.array([[6, -4], [3, -2], [0, 0], [-2, 3], [-5, 7]])
    reduced = ReducedSeries(_moving(shifts), np.arange(-10.0, 11, 5), np.ones(5, bool), 1, 1)
    view = look_at(reduced, Patch((30, 62), (20, 60), (96, 80)), Band(), 1 / 3)
    whole = view.back(Solution(0.0, np.zeros((5, 2)), True, 0.0))
    np.testing.assert_allclose(whole.moves_px - whole.moves_px[2], shifts)
    assert not whole.whole


def test_a_patch_at_the_edge_stays_in_the_frame():
    shifts = np.array([[6, -9], [0, 0], [-5, 9]])
    reduced = ReducedSeries(_moving(shifts), np.array([-5.0, 0, 5]), np.ones(3, bool), 1, 1)
    view = look_at(reduced, Patch((0, 40), (50, 80), (96, 80)), Band(), 1 / 3)
    assert view.series.images.shape == (3, 40, 30)
    # It would have left the frame at the top and on the right.
    np.testing.assert_array_equal(view.centres_px[0], view.centres_px[1])
