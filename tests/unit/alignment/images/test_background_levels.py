"""Black levels: unbiased in vacuum, consistent over the tilts, and harmless where there is nothing to subtract."""

import numpy as np
import pytest

from tomoseg.alignment.images.background import combine_levels, fit_vacuum

ANGLES = np.arange(-60, 61, 10.0)


def _images(level=0.0, noise=5.0, n=13, part=0.3, seed=0, shape=(96, 96)):
    """Discs of about 1000 counts that cover `part` of the frame, on vacuum."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape) - (np.array(shape)[:, None, None] - 1) / 2
    radius2 = part * shape[0] * shape[1] / np.pi
    disc = 1000 * np.sqrt(np.maximum(1 - (x**2 + y**2) / radius2, 0))
    levels = np.broadcast_to(level, n)
    return np.stack([disc + b + noise * rng.standard_normal(shape) for b in levels])


def _levels(images, angles=ANGLES):
    return combine_levels([fit_vacuum(i) for i in images], angles)


@pytest.mark.parametrize("level", [300.0, -31900.0, 1e6])
@pytest.mark.parametrize("part", [0.1, 0.6])
def test_the_vacuum_ends_at_zero(level, part):
    found = _levels(_images(level, part=part))
    # Noise 5 over 40 % of 9216 pixels: 0.08 counts; choosing the darkest tiles must not bias it by more than that.
    np.testing.assert_allclose(found.levels, level, atol=0.4)
    assert found.certain


def test_counted_electrons_have_no_bias():
    rng = np.random.default_rng(1)
    clean = _images(0.0, noise=0.0) / 20
    found = _levels(rng.poisson(clean + 0.6).astype(float))
    # Mean 0.6 though most pixels hold 0 or 1; standard error 0.01.
    np.testing.assert_allclose(found.levels, 0.6, atol=0.05)


def test_levels_that_drift_are_followed():
    drifting = np.linspace(500, 900, 13)
    np.testing.assert_allclose(_levels(_images(drifting)).levels, drifting, atol=0.5)


@pytest.mark.parametrize("noise", [0.0, 5.0])
def test_a_background_already_subtracted_is_left_alone(noise):
    found = _levels(_images(0.0, noise=noise))
    assert (found.levels == 0).all()
    assert "already" in found.how


def _textured(low, high, seed=0):
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((13, 96, 96)), (0, 4, 4))
    return low + (high - low) * (smooth - smooth.min()) / np.ptp(smooth)


def test_a_sample_that_fills_every_frame_is_not_harmed():
    images = _textured(800, 4000)
    found = _levels(images)
    assert not found.certain or found.levels.max() < images.min()
    assert (images - found.levels[:, None, None]).min() >= 0


def test_a_flat_film_is_not_vacuum():
    rng = np.random.default_rng(2)
    film = 1000 / np.cos(np.deg2rad(ANGLES))
    for black in (0.0, -30000.0):
        images = _images(film + black, noise=20) + rng.normal(0, 1, (13, 1, 1))
        found = _levels(images)
        assert not found.certain
        assert np.ptp(found.levels) == 0
        # The film's own 1000 counts stay; the black level below it is found by extrapolation, to a few per cent.
        np.testing.assert_allclose(found.levels, black, atol=60)


def test_tilts_without_vacuum_take_the_level_beside_them():
    images = _images(200.0)
    images[5] += 400  # the sample covers all of this one
    images[9] = _textured(600, 2000)[0]
    found = _levels(images)
    np.testing.assert_allclose(found.levels, 200, atol=1)
    assert "2 tilts" in found.how


@pytest.mark.parametrize("image", [np.zeros((40, 40)), np.full((40, 40), -31900.0)])
def test_a_constant_image_shows_no_signal(image):
    fit = fit_vacuum(image)
    assert fit.level == image[0, 0]
    assert fit.signal == 0
