"""The chain of neighbours: large steps, blank tilts, and what the stretch across the axis is for."""

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.alignment.finding.track import Band, stretch, track_neighbours
from tomoseg.alignment.images.reduced_series import ReducedSeries


def _reduced(images, angles, usable=None):
    usable = np.ones(len(images), bool) if usable is None else usable
    return ReducedSeries(np.asarray(images, np.float32), angles, usable, 1, 2)


def _film(angles, shifts, size=96, seed=0):
    """A flat textured film that fills the frame, axis vertical, sampled in closed form at the shifted places."""
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((400, 400)), 3, mode="wrap")
    c = np.arange(size) - (size - 1) / 2
    out = []
    for t, (dy, dx) in zip(np.deg2rad(angles), shifts, strict=True):
        y, x = np.meshgrid(c + dy, (c + dx) / np.cos(t), indexing="ij")
        out.append(ndimage.map_coordinates(texture, [y + 200, x + 200], order=3) / np.cos(t))
    return np.array(out)


def test_steps_of_a_third_of_the_frame_are_found(ellipsoids):
    series = ellipsoids(angles_deg=np.arange(-10, 11, 2.0), jitter=0.0, spread=0.12)
    slide = np.array([(0, 0), (5, -6), (-9, 3), (8, 8), (-7, -9), (0, 0), (12, -8), (-8, 6), (3, 3), (-11, 9), (2, -1)])
    moved = np.stack([np.roll(image, d, (0, 1)) for image, d in zip(series.raw, slide, strict=True)])
    shifts, scores = track_neighbours(_reduced(moved, series.angles_deg), None, Band(), 64 / 3)
    # Thick samples change between tilts of 2 degrees: a few tenths of a pixel per step of the chain.
    np.testing.assert_allclose(shifts, -slide, atol=1.0)
    assert np.nanmin(scores) > 0.8


def test_a_film_that_fills_the_frame_is_followed_with_the_stretch():
    angles = np.arange(-60, 61, 4.0)
    shifts = np.random.default_rng(5).normal(0, 3, (len(angles), 2))
    shifts -= shifts[len(angles) // 2]
    reduced = _reduced(_film(angles, shifts), angles)
    found, scores = track_neighbours(reduced, 0.0, Band(), 30)
    _, plain_scores = track_neighbours(reduced, None, Band(), 30)
    assert np.median(scores) > np.median(plain_scores)
    # Across the axis the stretch is about the frame's centre, which moves with the drift: up to 10 px times a stretch
    # of 1.15 per step, part of it a translation of the sample; along the axis nothing of the kind.
    np.testing.assert_allclose(found[:, 0], shifts[:, 0], atol=0.35)
    t = np.deg2rad(angles)
    terms = np.stack([np.cos(t), np.sin(t)], axis=1)
    rest = found[:, 1] - shifts[:, 1]
    rest -= terms @ np.linalg.lstsq(terms, rest, rcond=None)[0]
    assert np.sqrt(np.mean(rest**2)) < 0.5


def test_a_cone_that_leaves_the_frame_does_not_hold_on_to_its_border():
    rng = np.random.default_rng(7)
    shifts = rng.normal(0, 6, (25, 2)) * (1, 0.6)
    shifts[12] = 0
    y, x = np.indices((96, 96)) - 47.5
    images = []
    for dy, dx in shifts:
        along, across = x + dx + 30, y + dy - 0.2 * (x + dx)
        thickness = 2 * np.sqrt(np.maximum((8 + 0.22 * along) ** 2 - across**2, 0)) * (along > 0)
        images.append(rng.poisson(20 * thickness + 1))
    found, scores = track_neighbours(_reduced(images, np.arange(-60, 61, 5.0)), None, Band(), 32)
    np.testing.assert_allclose(found, shifts, atol=0.8)
    assert np.nanmin(scores) > 0.9


def test_blank_tilts_neither_stop_nor_drag_the_chain(ellipsoids, less_translation):
    series = ellipsoids(jitter=2.0)
    usable = np.ones(len(series.raw), bool)
    usable[[3, 12, 20]] = False  # 12 is the lowest tilt
    images = np.where(usable[:, None, None], series.raw, 0)
    shifts, scores = track_neighbours(_reduced(images, series.angles_deg, usable), None, Band(), 20)
    assert np.isnan(scores[~usable]).all()
    np.testing.assert_allclose(shifts[3], (shifts[2] + shifts[4]) / 2)
    d = less_translation(shifts[usable], series.shifts_px[usable], series.angles_deg[usable])
    # Thick ellipsoids over 120 degrees: errors of the chain add up. A step dragged by a blank image would be 20 px.
    assert np.abs(d).max() < 3


@pytest.mark.parametrize(("a", "b", "ratio"), [(0, 60, 1.0), (58, 60, 0.9435), (60, 58, 1.0598), (-84, -86, 1.0)])
def test_stretch_is_the_ratio_of_cosines_within_reason(a, b, ratio):
    expected = 0.7 if (a, b) == (0, 60) else ratio
    assert stretch(a, b) == pytest.approx(expected, abs=1e-3)


def test_nothing_usable_gives_zero():
    shifts, scores = track_neighbours(
        _reduced(np.zeros((3, 16, 16)), np.arange(3.0), np.zeros(3, bool)), None, Band(), 5
    )
    assert (shifts == 0).all()
    assert np.isnan(scores).all()
