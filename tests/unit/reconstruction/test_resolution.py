"""Fourier shell correlation against theory: signal and noise of known spectra."""

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.resolution import (
    Resolution,
    crossing_px,
    crowther_px,
    halves,
    sample_width_px,
)
from tomoseg.reconstruction.shells import SHELL_DTYPE, shell_correlation

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
    assert crossing_px(found, "correlation") == pytest.approx(1 / frequency, rel=0.05)


def test_noise_in_the_missing_wedge_does_not_count():
    rng = np.random.default_rng(2)
    signal = rng.normal(0, 1, SHAPE).astype(np.float32)
    fz, fx = np.fft.fftfreq(48)[:, None, None], np.fft.rfftfreq(48)[None, None]
    unseen = np.abs(fz) > np.tan(np.deg2rad(75)) * np.abs(fx)  # well within the wedge: the window spreads it
    noise = np.fft.irfftn(np.fft.rfftn(rng.normal(0, 3, SHAPE)) * unseen, SHAPE, (0, 1, 2)).astype(np.float32)
    # In the first shells the wedge is narrower than what the window spreads.
    assert shell_correlation(signal, signal + noise, WEDGE)["correlation"][2:].min() > 0.96
    assert shell_correlation(signal, signal + noise, EVERYWHERE)["correlation"][2:].max() < 0.85


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


def curve(correlation, coefficients=None):
    shells = np.zeros(len(correlation), SHELL_DTYPE)
    shells["frequency_per_px"] = np.linspace(0.1, 0.4, len(correlation))
    shells["correlation"] = correlation
    shells["correlation_x"] = shells["correlation_y"] = correlation
    shells["coefficients"] = 1 if coefficients is None else coefficients
    return shells


@pytest.mark.parametrize(
    ("correlation", "expected"),
    [
        ([1.0, 0.9, 0.8, 0.7], 2.0),
        ([0.1, 0.1, 0.1, 0.0], np.nan),
        ([1.0, 0.5, 2 / 7, 0.0], 1 / 0.35),
        # A dip before the curve rises again, as of equal spheres, is no crossing ...
        ([1.0, 0.1, 0.8, 0.7], 2.0),
        ([1.0, 0.0, 2 / 7, 2 / 7], 2.0),
        # ... and a single shell that sticks out in noise is none, either.
        ([1.0, 0.0, 0.2, 0.0], 1 / (0.1 + 0.1 * (6 / 7) / 0.9)),
    ],
)
def test_where_the_threshold_is_crossed(correlation, expected):
    assert crossing_px(curve(correlation), "correlation") == pytest.approx(expected, rel=1e-3, nan_ok=True)


def test_directions_that_are_missing_have_no_crossing():
    shells = curve([1.0, 0.5, 0.0, 0.0])
    shells["correlation_y"] = np.nan
    assert np.isnan(crossing_px(shells, "correlation_y"))


def test_a_uniform_rod_cut_by_the_frame_gives_no_spikes():
    """The spectrum of a rod along the tilt axis is strong in one plane; a slab of few slices spreads it over shells."""
    rng = np.random.default_rng(4)
    z, x = np.meshgrid(*[np.arange(64) - 31.5] * 2, indexing="ij")
    rod = np.repeat((100.0 * (np.hypot(z, x) < 20))[:, None], 32, axis=1)
    a, b = (ndimage.gaussian_filter(rod, 1.5, axes=(0, 2)) + rng.normal(0, 1, rod.shape) for _ in range(2))
    found = shell_correlation(a.astype(np.float32), b.astype(np.float32), EVERYWHERE)
    noise = found[found["frequency_per_px"] > 0.35]
    assert np.abs(noise["correlation"]).max() < 0.1
    assert np.nanmax(np.abs(noise["correlation_y"])) < 0.25


def test_each_direction_has_its_own_resolution():
    """Noise that grows along y: finer details survive across the tilt axis than along it."""
    rng = np.random.default_rng(6)
    shape = (64, 64, 64)
    fy = np.fft.fftfreq(64)[None, :, None]
    signal = rng.normal(0, 1, shape)

    def seen():
        noise = np.fft.rfftn(rng.normal(0, 1, shape)) * (1 + 200 * fy**4)
        return (signal + np.fft.irfftn(noise, shape, (0, 1, 2))).astype(np.float32)

    found = Resolution(shell_correlation(seen(), seen(), EVERYWHERE), 1.5, 3.0, 64)
    assert found.x_px == 2
    assert found.y_px > 2.2
    assert found.z_px == 3
    assert "along x 1.00 nm" in found.described(0.5)
    assert "along z 1.50 nm, as the missing wedge elongates by 1.50" in found.described(0.5)


def test_words_for_a_curve_that_never_falls_and_one_that_never_rises():
    fine = Resolution(curve([1.0, 0.9, 0.8, 0.7]), 1.2, 2.5, 40)
    assert (
        "at least as fine as the voxels show, 2.00 px: the Fourier shell correlation of even and odd tilts never "
        in (fine.described(np.nan))
    )
    assert "(Crowther)" in fine.described(np.nan)
    nothing = Resolution(curve([0.1, 0.0, 0.0, 0.0]), 1.2, 2.5, 40)
    assert nothing.described(np.nan).startswith("no resolution found")


def test_crowther_limit_of_a_disc():
    """d = pi D / N for N tilts over 180 degrees; D is found from the images."""
    x = np.arange(100) - 49.5
    sample = np.tile(2 * np.sqrt(np.clip(30**2 - x**2, 0, None)), (60, 5, 1)).astype(np.float32)
    width = sample_width_px(sample)
    assert width == pytest.approx(60, rel=0.02)
    geometry = ParallelGeometry(np.arange(60) * 3.0 - 90, 100, 100, 100)
    assert crowther_px(geometry, width) == pytest.approx(np.pi * 60 / 60, rel=0.02)
    assert np.isnan(sample_width_px(np.zeros_like(sample)))


def test_halves_take_every_other_tilt_in_order_of_angle():
    geometry = ParallelGeometry(np.array([10.0, -10, 0, 20, -20]), 8, 8, 8)
    even, odd = halves(geometry.angles_deg)
    assert sorted(geometry.angles_deg[even]) == [-20, 0, 20]
    assert sorted(geometry.angles_deg[odd]) == [-10, 10]
    assert np.all(np.diff(even) > 0)  # in the order of the images


def test_empty_volumes_have_no_resolution():
    zeros = np.zeros(SHAPE, np.float32)
    found = shell_correlation(zeros, zeros, EVERYWHERE)
    assert np.isfinite(found["correlation"]).all()
    assert np.isnan(crossing_px(found, "correlation"))
