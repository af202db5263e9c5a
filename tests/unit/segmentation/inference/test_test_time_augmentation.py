"""Means over symmetric copies."""

import numpy as np
import pytest

from tomoseg.segmentation.inference.test_time_augmentation import augmented

RNG = np.random.default_rng(0)
PATCHES = RNG.random((3, 8, 8), np.float32)
WEIGHTS = RNG.random((8, 8), np.float32)


def equivariant(patches):
    return np.stack([patches, 1 - patches], axis=-1)


def positional(patches):
    """Return what depends on where a pixel is in the patch."""
    return np.stack([patches * WEIGHTS, 1 - patches * WEIGHTS], axis=-1)


@pytest.mark.parametrize("symmetries", ["none", "flips", "dihedral"])
def test_symmetric_copies_change_nothing_for_what_knows_no_direction(symmetries):
    np.testing.assert_allclose(augmented(equivariant, symmetries)(PATCHES), equivariant(PATCHES), rtol=1e-6)


@pytest.mark.parametrize(("symmetries", "n"), [("none", 1), ("flips", 4), ("dihedral", 8)])
def test_augmentation_gives_the_mean_over_the_symmetries(symmetries, n):
    # The position in the patch is what changes with the copy: the mean weight of the places that a pixel comes to.
    turned = [np.rot90(w, k) for w in (WEIGHTS, WEIGHTS.T) for k in range(4)]
    flips = [WEIGHTS, WEIGHTS[::-1], WEIGHTS[:, ::-1], WEIGHTS[::-1, ::-1]]
    mean = np.mean({1: [WEIGHTS], 4: flips, 8: turned}[n], axis=0)
    calls = []

    def predict(patches):
        calls.append(patches.shape)
        return positional(patches)

    result = augmented(predict, symmetries)(PATCHES)
    np.testing.assert_allclose(result[..., 0], PATCHES * mean, rtol=1e-5)
    assert len(calls) == n


def test_patches_that_are_not_square_are_transposed_too():
    patches = RNG.random((2, 4, 6), np.float32)
    shapes = []

    def predict(patches):
        shapes.append(patches.shape)
        return equivariant(patches)

    np.testing.assert_allclose(augmented(predict, "dihedral")(patches), equivariant(patches), rtol=1e-6)
    assert set(shapes) == {(2, 4, 6), (2, 6, 4)}
