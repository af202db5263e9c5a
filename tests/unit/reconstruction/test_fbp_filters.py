from typing import get_args

import numpy as np
import pytest

from tomoseg.reconstruction.filters import filtered, ramp, tilt_weights, window
from tomoseg.reconstruction.parameters import Filter


def test_even_tilts_each_stand_for_one_step():
    np.testing.assert_allclose(np.rad2deg(tilt_weights(np.arange(0.0, 180, 3))), 3)


def test_a_missing_wedge_is_not_handed_to_the_last_tilts():
    weights = np.rad2deg(tilt_weights(np.arange(-70.0, 71, 2)))
    np.testing.assert_allclose(weights, 2)
    assert weights.sum() == pytest.approx(142)


def test_uneven_tilts_share_the_half_circle():
    # Gaps 10, 20, 20, 10, ... : each tilt gets half of the gap on either side.
    angles = np.array([-90.0, -80, -60, -40, -30, -10, 10, 30, 50, 70])
    weights = np.rad2deg(tilt_weights(angles))
    np.testing.assert_allclose(weights, [15, 15, 20, 15, 15, 20, 20, 20, 20, 20])


def test_repeated_directions_share_one_weight_whatever_the_order():
    angles = np.array([0.0, 90.0, -90.0, 45.0, -45.0, 45.0])
    np.testing.assert_allclose(np.rad2deg(tilt_weights(angles)), [45, 22.5, 22.5, 22.5, 45, 22.5])


@pytest.mark.parametrize("angles", [[10.0], [10.0, 10.0], [0.0, 90.0]])
def test_weights_of_hardly_any_tilts_are_finite(angles):
    weights = tilt_weights(np.array(angles))
    assert np.isfinite(weights).all()
    assert weights.sum() <= np.pi + 1e-12


@pytest.mark.parametrize("name", get_args(Filter))
def test_windows_are_one_at_the_mean_and_never_rise(name):
    values = window(name, np.linspace(0, 0.5, 50))
    assert values[0] == pytest.approx(1)
    assert np.all(np.diff(values) <= 1e-12)


def test_the_ramp_is_the_frequency_and_windows_only_lower_it():
    frequency = np.fft.rfftfreq(512)
    # Band-limited in space: the ramp differs from |f| only near f = 0, by the truncated tail 2/(pi^2 n).
    np.testing.assert_allclose(ramp(512), frequency, atol=1.01 * 2 / (np.pi**2 * 512))
    for name in get_args(Filter):
        assert np.all(ramp(512, name) <= ramp(512) + 1e-12)


def test_filtering_is_the_convolution_it_stands_for():
    projections = np.random.default_rng(0).random((3, 2, 25), dtype=np.float32)
    angles = np.array([0.0, 60.0, 120.0])
    distance = np.subtract.outer(np.arange(25), np.arange(25))
    kernel = np.where(distance % 2 == 0, 0.0, -1 / (np.pi * np.where(distance == 0, 1, distance)) ** 2)
    kernel[distance == 0] = 0.25
    expected = np.deg2rad(60) * projections @ kernel  # float64; the transform is float32
    np.testing.assert_allclose(filtered(projections, angles), expected, atol=1e-6)
