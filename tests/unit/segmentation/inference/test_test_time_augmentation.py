"""Means over symmetric views."""

import numpy as np
import pytest

from tomoseg.segmentation.inference.test_time_augmentation import averaged_over

RNG = np.random.default_rng(0)
PATCHES = RNG.random((3, 8, 8), np.float32)
WEIGHTS = RNG.random((8, 8), np.float32)


def equivariant(patches):
    return np.stack([patches, 1 - patches], axis=-1)


def positional(patches):
    """Return what depends on where a pixel is in the patch."""
    return np.stack([patches * WEIGHTS, 1 - patches * WEIGHTS], axis=-1)


@pytest.mark.parametrize("views", ["none", "flips", "dihedral"])
def test_views_change_nothing_for_what_knows_no_direction(views):
    np.testing.assert_allclose(averaged_over(views, equivariant)(PATCHES), equivariant(PATCHES), rtol=1e-6)


@pytest.mark.parametrize(("views", "n"), [("none", 1), ("flips", 4), ("dihedral", 8)])
def test_views_give_the_mean_over_the_symmetries(views, n):
    # The position in the patch is what changes with the view: the mean weight of the places that a pixel comes to.
    turned = [np.rot90(w, k) for w in (WEIGHTS, WEIGHTS.T) for k in range(4)]
    flips = [WEIGHTS, WEIGHTS[::-1], WEIGHTS[:, ::-1], WEIGHTS[::-1, ::-1]]
    mean = np.mean({1: [WEIGHTS], 4: flips, 8: turned}[n], axis=0)
    calls = []

    def predict(patches):
        calls.append(patches.shape)
        return positional(patches)

    result = averaged_over(views, predict)(PATCHES)
    np.testing.assert_allclose(result[..., 0], PATCHES * mean, rtol=1e-5)
    assert len(calls) == n


def test_patches_that_are_not_square_are_transposed_too():
    patches = RNG.random((2, 4, 6), np.float32)
    shapes = []

    def predict(patches):
        shapes.append(patches.shape)
        return equivariant(patches)

    np.testing.assert_allclose(averaged_over("dihedral", predict)(patches), equivariant(patches), rtol=1e-6)
    assert set(shapes) == {(2, 4, 6), (2, 6, 4)}
