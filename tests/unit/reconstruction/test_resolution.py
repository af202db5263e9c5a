"""Fourier shell correlation against theory: signal and noise of known spectra."""

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.resolution import SHELL_DTYPE, halves, resolution_px, shell_correlation

SHAPE = (48, 24, 48)
EVERYWHERE = ParallelGeometry(np.linspace(-90, 90, 31), 48, 48, 48)
WEDGE = ParallelGeometry(np.linspace(-60, 60, 25), 48, 48, 48)


def test_white_signal_in_white_noise():
    """The expectation of the correlation is S / (S + N) in every shell."""
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 1, SHAPE)
    a, b = ((signal + rng.normal(0, 1.5, SHAPE)).astype(np.float32) for _ in range(2))
    found = shell_correlation(a, b, EVERYWHERE)
    expected = 1 / (1 + 1.5**2)
    # Of n coefficients, half are independent; the window correlates neighbours, which costs another factor of 2.
    error = 2 / np.sqrt(found["coefficients"] / 4)
    assert np.all(np.abs(found["correlation"] - expected) < 3 * error)
    assert found["correlation"][5:].mean() == pytest.approx(expected, abs=0.02)


def test_the_resolution_of_a_blurred_signal_is_where_it_drowns():
    rng = np.random.default_rng(1)
    sigma, noise = 1.2, 0.1
    signal = ndimage.gaussian_filter(rng.normal(0, 1, SHAPE), sigma, mode="wrap")
    a, b = ((signal + rng.normal(0, noise, SHAPE)).astype(np.float32) for _ in range(2))
    found = shell_correlation(a, b, EVERYWHERE)
    # |H(f)|^2 = exp(-(2 pi f sigma)^2); the correlation is 1/7 where |H|^2 / noise^2 = 1/6.
    frequency = np.sqrt(-np.log(noise**2 / 6)) / (2 * np.pi * sigma)
    assert resolution_px(found) == pytest.approx(1 / frequency, rel=0.05)


def test_noise_in_the_missing_wedge_does_not_count():
    rng = np.random.default_rng(2)
    signal = rng.normal(0, 1, SHAPE).astype(np.float32)
    fz, fx = np.fft.fftfreq(48)[:, None, None], np.fft.rfftfreq(48)[None, None]
    unseen = np.abs(fz) > np.tan(np.deg2rad(75)) * np.abs(fx)  # well within the wedge: the window spreads it
    noise = np.fft.irfftn(np.fft.rfftn(rng.normal(0, 3, SHAPE)) * unseen, SHAPE, (0, 1, 2)).astype(np.float32)
    assert shell_correlation(signal, signal + noise, WEDGE)["correlation"].mean() > 0.97
    assert shell_correlation(signal, signal + noise, EVERYWHERE)["correlation"].mean() < 0.8


def test_a_turned_wedge_is_that_of_the_tilts():
    """Tilts from 0 to 90 degrees see frequencies whose x and z have the same sign."""
    rng = np.random.default_rng(3)
    signal = rng.normal(0, 1, SHAPE).astype(np.float32)
    fz, fx = np.fft.fftfreq(48)[:, None, None], np.fft.rfftfreq(48)[None, None]
    angle = np.rad2deg(np.arctan2(fz, fx))
    noise = np.fft.irfftn(np.fft.rfftn(rng.normal(0, 3, SHAPE)) * ((angle < -25) & (angle > -65)), SHAPE, (0, 1, 2))
    seen = ParallelGeometry(np.linspace(0, 90, 19), 48, 48, 48)
    mirrored = ParallelGeometry(np.linspace(-90, 0, 19), 48, 48, 48)
    noisy = (signal + noise).astype(np.float32)
    assert shell_correlation(signal, noisy, seen)["correlation"].mean() > 0.95
    assert shell_correlation(signal, noisy, mirrored)["correlation"].mean() < 0.7


@pytest.mark.parametrize(
    ("correlation", "expected"),
    [([1.0, 0.9, 0.8], 2.0), ([0.1, 0.1, 0.1], np.nan), ([1.0, 2 / 7, 0.0], 1 / 0.35), ([1.0, 0.0, 1.0], 1 / 0.2714)],
)
def test_where_the_threshold_is_crossed(correlation, expected):
    shells = np.array(list(zip([0.1, 0.3, 0.4], correlation, [1, 1, 1], strict=True)), SHELL_DTYPE)
    assert resolution_px(shells) == pytest.approx(expected, rel=1e-3, nan_ok=True)


def test_halves_take_every_other_tilt_in_order_of_angle():
    geometry = ParallelGeometry(np.array([10.0, -10, 0, 20, -20]), 8, 8, 8)
    even, odd = halves(geometry)
    assert sorted(geometry.angles_deg[even]) == [-20, 0, 20]
    assert sorted(geometry.angles_deg[odd]) == [-10, 10]
    assert np.all(np.diff(even) > 0)  # in the order of the images


def test_empty_volumes_have_no_resolution():
    zeros = np.zeros(SHAPE, np.float32)
    found = shell_correlation(zeros, zeros, EVERYWHERE)
    assert np.isfinite(found["correlation"]).all()
    assert np.isnan(resolution_px(found))
