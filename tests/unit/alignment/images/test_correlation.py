"""Subpixel registration against images displaced in closed form."""

import numpy as np
import pytest

from tomoseg.alignment.images.correlation import band_pass, padded_shape, register, register_lines, taper

SPOTS = np.random.default_rng(3).uniform(-18, 18, (25, 2))


def _scene(shape, dy=0.0, dx=0.0):
    """Blobs, displaced by (dy, dx)."""
    y = np.arange(shape[0])[:, None] - (shape[0] - 1) / 2
    x = np.arange(shape[1]) - (shape[1] - 1) / 2
    return sum(np.exp(-((y - sy - dy) ** 2 + (x - sx - dx) ** 2) / 8) for sy, sx in SPOTS)


def _response(shape, padding=2.0):
    return band_pass(padded_shape(shape, padding), 3 / max(shape), 0.25)


@pytest.mark.parametrize("moved", [(0.0, 0.0), (0.25, -0.4), (-7.3, 11.6), (-21.0, 0.49)])
def test_the_shift_brings_the_moved_image_back(moved):
    shape = (90, 101)
    shift, score = register(_scene(shape), _scene(shape, *moved), _response(shape))
    # Sampled Gaussians of sigma 2 px are band-limited to 1e-8: what is left is Newton's stop.
    np.testing.assert_allclose(shift, [-moved[0], -moved[1]], atol=0.005)
    assert score > 0.999


def test_a_window_common_to_both_does_not_pull_much():
    shape = (90, 90)
    window = taper(shape, 0.3)
    shift, _ = register(_scene(shape) * window, _scene(shape, 0.3, -0.6) * window, _response(shape, 1.0))
    np.testing.assert_allclose(shift, [-0.3, 0.6], atol=0.03)  # the window's slope is 1 / 13 px


def test_noise_costs_little():
    rng = np.random.default_rng(0)
    shape = (90, 90)
    noisy = [i + 0.3 * rng.standard_normal(shape) for i in (_scene(shape), _scene(shape, 5.5, -3.25))]
    shift, score = register(*noisy, _response(shape))
    # 25 spots of height 1 and sigma 2 at a noise of 0.3: Cramer-Rao 0.3 / sqrt(25 pi / 2) = 0.05 px; both are noisy.
    np.testing.assert_allclose(shift, [-5.5, 3.25], atol=0.2)
    assert 0.3 < score < 0.99


def test_the_search_can_be_limited():
    shape = (64, 64)
    shift, _ = register(_scene(shape), _scene(shape, 20.0, 0.0), _response(shape), max_shift=5.0)
    assert np.abs(shift).max() <= 6


def test_lines_are_registered_too():
    line = _scene((90, 90)).sum(axis=1)
    moved = _scene((90, 90), 4.6, 0.0).sum(axis=1)
    shift, score = register(line, moved, _response((90,)))
    np.testing.assert_allclose(shift, [-4.6], atol=0.01)
    assert score > 0.99


@pytest.mark.parametrize("empty", [np.zeros((32, 32)), np.full((32, 32), 7.0)])
def test_an_empty_image_has_no_shift(empty):
    padded = padded_shape((32, 32), 1.0)  # unpadded: a constant is removed with the mean
    shift, score = register(_scene((32, 32)), empty, band_pass(padded, 0.1, 0.25))
    assert np.abs(score) < 1e-3
    assert np.isfinite(shift).all()


def test_the_window_is_flat_where_it_is_not_tapered():
    window = taper((100, 80), 0.2)
    assert window[12:-12, 10:-10].min() == 1
    assert window[0].max() < 0.02
    np.testing.assert_allclose(window, window[::-1, ::-1])


@pytest.mark.parametrize("max_shift", [None, 3.0])
def test_many_lines_are_registered_as_one_is(max_shift):
    rng = np.random.default_rng(0)
    line = np.cumsum(rng.normal(size=120)) * np.hanning(120)
    lines = np.stack([np.interp(np.arange(120) - s, np.arange(120), line) for s in rng.uniform(-6, 6, 12)])
    lines += rng.normal(0, 0.2, lines.shape)
    lines[3] = 0
    response = band_pass(padded_shape((120,)), 0.01, 0.2)
    shifts, scores = register_lines(line, lines, response, max_shift)
    for found, score, one in zip(shifts, scores, lines, strict=True):
        expected, its_score = register(line, one, response, max_shift)
        assert found == pytest.approx(expected[0], abs=1e-6)
        assert score == pytest.approx(its_score, abs=1e-6)
