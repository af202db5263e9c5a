"""Rotations, magnifications and tilt errors of single images, by markers whose places are known."""

import numpy as np
import pytest

from tomoseg.alignment.markers.bundle import adjust
from tomoseg.alignment.markers.corrections import correct_tracks
from tomoseg.alignment.markers.tracks import Tracks

RECORDED = np.arange(-60, 61, 3.0)
ALL = ("rotation", "magnification", "tilt-angle")


def distorted(scene, rotation=0.0, magnification=0.0, tilt=0.0, seed=1, **options):
    """Return tracks in images that are turned, magnified and tilted at random, and what undoes it, (n_tilt, 3)."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, (len(RECORDED), 3)) * [rotation, magnification, tilt]
    values -= values.mean(axis=0)
    values[:, 2] -= np.polyval(np.polyfit(RECORDED, values[:, 2], 1), RECORDED)
    made = scene(angles_deg=RECORDED + values[:, 2], seed=seed, **options)
    a = np.deg2rad(values[:, 0])
    # p_s = m R(a) p with x' = cos x - sin y, y' = sin x + cos y; so p = R(-a) p_s / m
    y, x = np.moveaxis(made.observed_px, -1, 0)
    places = np.stack([np.cos(a) * y - np.sin(a) * x, np.sin(a) * y + np.cos(a) * x], axis=-1)
    places /= 1 + values[:, 1:2]
    bundle = adjust(places, RECORDED, made.axis_angle_deg + 0.5, made.moves_px + rng.normal(0, 1, (len(a), 2)))
    return made, Tracks(places, np.ones(len(a), bool), bundle), values


@pytest.mark.parametrize("angle", [12.0, -70.0])
def test_exact_places_give_the_exact_corrections(scene, angle):
    made, tracks, values = distorted(scene, 0.5, 0.005, 0.4, angle=angle, n=80)
    found = correct_tracks(tracks, RECORDED, ALL)
    assert found.corrections.rotation_deg == pytest.approx(values[:, 0], abs=0.02)
    assert found.corrections.magnification - 1 == pytest.approx(values[:, 1], abs=2e-4)
    assert found.corrections.tilt_error_deg == pytest.approx(values[:, 2], abs=0.05)
    assert found.gain > 0.8
    bundle = found.tracks.bundle
    assert made.error(bundle.axis_angle_deg, bundle.moves_px) < 0.03
    assert made.error(tracks.bundle.axis_angle_deg, tracks.bundle.moves_px) > 0.05


def test_noise_and_wrong_places_do_not_make_corrections(scene):
    _, tracks, _ = distorted(scene, noise=0.3, wrong=0.1)
    assert correct_tracks(tracks, RECORDED, ALL) is None


def test_what_is_asked_for_is_all_that_is_found(scene):
    _, tracks, values = distorted(scene, 0.4, noise=0.2, n=80)
    found = correct_tracks(tracks, RECORDED, ("rotation",))
    assert not found.corrections.tilt_error_deg.any()
    assert (found.corrections.magnification == 1).all()
    error = found.corrections.rotation_deg - values[:, 0]
    assert np.sqrt(np.mean(error**2)) < 0.1  # 0.2 px by some 30 markers 60 px from the centre: 0.04 degrees
    assert correct_tracks(tracks, RECORDED, ()) is None


def test_few_markers_tell_nothing(scene):
    _, tracks, _ = distorted(scene, 0.5, n=12)
    assert correct_tracks(tracks, RECORDED, ALL) is None
