"""Reduced images keep the centre, and come into the aligned frame as the full images do."""

import numpy as np
import pytest

from tomoseg.alignment.extent import reduction_factor
from tomoseg.alignment.images.reduced_series import ReducedSeries, reduce
from tomoseg.alignment.images.warp import warp_image


@pytest.mark.parametrize("n", [12, 13, 14, 15, 65])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_the_centre_stays_the_centre(n, factor):
    ramp = np.arange(n) - (n - 1) / 2
    small = reduce(np.broadcast_to(ramp, (n, n)), factor)
    assert abs(small.mean()) < 1e-5
    np.testing.assert_allclose(np.diff(small[0]), factor, atol=1e-5)
    np.testing.assert_allclose(np.diff(reduce(np.broadcast_to(ramp[:, None], (n, n)), factor)[:, 0]), factor, atol=1e-5)


def test_the_longer_side_decides_the_factor():
    assert reduction_factor((5, 300, 513), 256) == 3
    assert reduction_factor((5, 300, 512), 256) == 2
    assert reduction_factor((5, 30, 51), 256) == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_copies_are_warped_like_raw_images(workers):
    rng = np.random.default_rng(0)
    from scipy import ndimage

    images = ndimage.gaussian_filter(rng.random((5, 30, 42)), (0, 2, 2)).astype(np.float32)
    reduced = ReducedSeries(images, np.arange(5.0), np.ones(5, bool), 1, workers)
    shifts = rng.normal(0, 2, (5, 2))
    phi, offset = 64.0, 1.7
    c, s = np.cos(np.deg2rad(phi)), np.sin(np.deg2rad(phi))
    moves = np.stack([s * shifts[:, 1] + c * shifts[:, 0], c * shifts[:, 1] - s * shifts[:, 0] - offset], axis=1)
    aligned, seen = reduced.warped(moves, phi)
    assert aligned.shape == (5, 42, 30)
    for i in range(5):
        once = warp_image(images[i], shifts[i], phi, offset)
        core = ndimage.binary_erosion(once != 0, iterations=5)
        # The spline's ends are treated differently at the border, which is felt over a few pixels only.
        np.testing.assert_allclose(aligned[i][core], once[core], atol=2e-3)
        assert np.mean(seen[i][once != 0]) == 1
