"""Bundle adjustment against markers, moves and an axis that are known."""

import numpy as np
import pytest

from tomoseg.alignment.markers.bundle import adjust, fit_markers, search_direction


def beginning(made, off_deg=2.0, off_px=1.5, seed=5):
    """Return a direction and moves that are somewhat wrong."""
    rng = np.random.default_rng(seed)
    return made.axis_angle_deg + off_deg, made.moves_px + rng.normal(0, off_px, made.moves_px.shape)


@pytest.mark.parametrize("angle", [-80.0, 0.0, 12.0, 90.0])
def test_exact_observations_give_the_exact_axis_and_moves(scene, angle):
    made = scene(angle=angle)
    found = adjust(made.observed_px, made.angles_deg, *beginning(made), steps=40)
    assert found.axis_angle_deg == pytest.approx(angle, abs=1e-3)
    assert made.error(found.axis_angle_deg, found.moves_px) < 1e-3
    assert np.nanquantile(np.abs(found.residuals_px), 0.98) < 0.02


def test_wrong_observations_lose_their_say(scene):
    made = scene(noise=0.3, wrong=0.1, seed=3)
    found = adjust(made.observed_px, made.angles_deg, *beginning(made), steps=30)
    assert found.axis_angle_deg == pytest.approx(12, abs=0.2)
    assert made.error(found.axis_angle_deg, found.moves_px) < 0.12  # 0.3 px by 25 markers in a usual image: 0.06
    assert found.scatter_px == pytest.approx(0.3, rel=0.25)
    sizes = np.hypot(*np.moveaxis(found.residuals_px, -1, 0))
    assert not found.trusted[sizes > 3].any()


def test_the_direction_is_found_in_the_whole_half_circle(scene):
    for angle in (-65.0, 34.0, 88.0):
        made = scene(angle=angle, noise=0.2, jitter=0.5)
        found = search_direction(made.observed_px, made.angles_deg, made.shifts_px)
        assert (found.axis_angle_deg - angle + 90) % 180 - 90 == pytest.approx(0, abs=0.1)


def test_a_given_direction_stays(scene):
    made = scene()
    found = adjust(made.observed_px, made.angles_deg, 9.0, made.moves_px, turning=False)
    assert found.axis_angle_deg == 9.0
    assert found.scatter_px > 0.2  # and does not fit


def test_residuals_of_given_moves(scene):
    made = scene(missing=0.0)
    phi = np.deg2rad(made.axis_angle_deg)
    y, x = np.moveaxis(made.observed_px, -1, 0)
    turned = np.stack([np.sin(phi) * x + np.cos(phi) * y, np.cos(phi) * x - np.sin(phi) * y], axis=-1)
    right = fit_markers(turned + made.moves_px, made.angles_deg)
    often = np.isfinite(right[..., 0]).sum(axis=1) > 5
    assert np.nanmax(np.abs(right[often])) < 1e-6
    off = made.moves_px.copy()
    off[20] += (1.0, 0.0)
    moved = fit_markers(turned + off, made.angles_deg)[often]
    assert np.nanmean(moved[:, 20, 0]) > 0.9
    assert np.nanmean(np.abs(moved[:, :20, 0])) < 0.1
