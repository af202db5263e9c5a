"""Blending of overlapping patches gives a weighted mean at every pixel, edges included."""

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.segmentation.inference.blending import Tiling, patch_starts, predict_stack, spline_window

SIZES = [(64, 64), (65, 64), (100, 131), (129, 200), (20, 90), (7, 5), (63, 64), (1, 200)]


def predict_blended(predict_batch, image, patch, overlap=2, batch=4):
    """Predict one image (h, w)."""
    return predict_stack(predict_batch, np.asarray(image)[None], (patch, patch), overlap, batch=batch)[0]


def identity(patches):
    """Predict two classes: the input itself and its negative."""
    return np.stack([patches, -patches], axis=-1)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("overlap", [1, 2, 3])
def test_the_identity_gives_the_image_back(shape, overlap):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    out = predict_blended(identity, image, 64, overlap)
    assert out.shape == (2, *shape)
    np.testing.assert_allclose(out[0], image, atol=2e-6)  # float32 sums of at most 9 patches
    np.testing.assert_allclose(out[1], -image, atol=2e-6)


@pytest.mark.parametrize("shape", SIZES)
def test_a_constant_stays_constant(shape):
    out = predict_blended(lambda p: np.full((*p.shape, 3), 0.25), np.zeros(shape), 64)
    np.testing.assert_allclose(out, 0.25, rtol=1e-6)


def test_seams_are_smooth():
    # A predictor whose answer depends on the place in the patch only: without blending its edges jump by 1.
    ramp = np.linspace(0, 1, 64, dtype=np.float32)

    def positional(patches):
        return np.broadcast_to(ramp[:, None], patches.shape)[..., None]

    blended = predict_blended(positional, np.zeros((256, 64)), 64, 2)[0, :, 0]
    cut = predict_blended(positional, np.zeros((256, 64)), 64, 1)[0, :, 0]
    assert np.abs(np.diff(cut)).max() > 0.9
    assert np.abs(np.diff(blended)).max() < 0.1


def test_patches_cover_every_axis_without_gaps_and_end_at_its_end():
    for size in range(64, 300):
        for overlap in (1, 2, 4):
            starts = patch_starts(size, 64, overlap)
            assert starts[0] == 0
            assert starts[-1] == size - 64
            assert max(np.diff(starts), default=0) <= 64 // overlap
            assert len(starts) <= 2 + (size - 64) * overlap // 64  # no more than needed


def test_the_window_is_a_squared_spline():
    window = spline_window((64, 64))
    assert window.min() > 0
    assert window.max() <= 1
    np.testing.assert_allclose(window, window.T)
    np.testing.assert_allclose(window, window[::-1])
    line = window[32] / window[32].max()
    assert line[16] == pytest.approx(0.5, abs=0.04)  # half height a quarter in, on the half pixel
    # Shifted copies at overlap 2 add up to 1: 2 t^2 + 1 - 2 t^2.
    profile = np.sqrt(np.diag(window))
    np.testing.assert_allclose(profile[:32] + profile[32:], 1, atol=1e-6)


def test_a_stack_is_its_images():
    stack = np.random.default_rng(1).normal(size=(3, 70, 90)).astype(np.float32)
    calls = []

    def predict(patches):
        calls.append(patches.shape)
        return identity(patches)

    out = predict_stack(predict, stack, (64, 64), 2, batch=5)
    for one, image in zip(out, stack, strict=True):
        np.testing.assert_allclose(one, predict_blended(identity, image, 64), atol=1e-6)
    # Each image is four patches; batches are of one size, so that a graph is compiled once.
    assert calls == 3 * [(4, 64, 64)]
    calls.clear()
    predict_stack(predict, stack, (64, 64), 2, batch=3)
    assert calls == 6 * [(2, 64, 64)]


def test_small_images_are_padded_by_mirroring():
    seen = []

    def predict(patches):
        seen.append(patches[0].copy())
        return patches[..., None]

    image = np.arange(12.0).reshape(3, 4)
    predict_blended(predict, image, 8, batch=1)
    np.testing.assert_array_equal(seen[0], np.pad(image, ((2, 3), (2, 2)), mode="symmetric"))
    assert Tiling.of((3, 4), (8, 8), 2).padding == ((2, 3), (2, 2))


def test_impossible_tilings_are_refused():
    with pytest.raises(InputError, match="cannot be cut into patches"):
        predict_blended(identity, np.zeros((0, 4)), 8)


@pytest.mark.parametrize("shape", [(40, 70), (33, 15), (16, 24), (5, 61)])
def test_patches_need_not_be_square(shape):
    image = np.random.default_rng(0).random(shape, np.float32)
    shapes = set()

    def predict(patches):
        shapes.add(patches.shape[1:])
        return identity(patches)

    out = predict_stack(predict, image[None], (16, 24), 2)
    np.testing.assert_allclose(out, predict_blended(identity, image, 16)[None], atol=1e-6)
    assert shapes == {(16, 24)}


def test_channels_go_along_with_their_pixels():
    images = np.random.default_rng(0).random((2, 21, 30, 3), np.float32)
    out = predict_stack(lambda patches: patches, images, (16, 16), 2)
    np.testing.assert_allclose(out, np.moveaxis(images, -1, 1), atol=1e-6)
