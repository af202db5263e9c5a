"""Particles in single images: found at their size, with their centres to a fraction of a pixel."""

import numpy as np
import pytest

from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.markers.spots import WIDTHS_PX, find_spots, tops

SHAPE = (120, 140)


def discs(places, radii, heights, noise=0.0, seed=0):
    """Return an image of discs with soft edges, places from its centre."""
    y, x = np.indices(SHAPE) - (np.array(SHAPE)[:, None, None] - 1) / 2
    image = np.zeros(SHAPE)
    for (py, px), radius, height in zip(places, radii, heights, strict=True):
        image += height * np.clip(0.5 + radius - np.hypot(y - py, x - px), 0, 1)
    return image + noise * np.random.default_rng(seed).standard_normal(SHAPE)


def found_in(*images, seen=None):
    stack = np.array(images, np.float32)
    known = None if seen is None else np.array([seen] * len(stack))
    series = ReducedSeries(stack, np.arange(len(stack), dtype=float), np.ones(len(stack), bool), 1, 2, seen=known)
    return find_spots(series).spots


def test_centres_and_sizes():
    rng = np.random.default_rng(1)
    grid = np.stack(np.meshgrid([-40, 0, 40], [-50, -15, 20, 50], indexing="ij"), axis=-1).reshape(-1, 2)
    places = grid + rng.uniform(-0.5, 0.5, grid.shape)
    radii = np.tile([2.0, 3.0, 4.5, 6.0], 3)
    (spots,) = found_in(discs(places, radii, np.ones(12), noise=0.05))
    assert len(spots) == 12
    nearest = np.argmin(np.linalg.norm(places[:, None] - spots.places_px, axis=2), axis=1)
    assert np.abs(spots.places_px[nearest] - places).max() < 0.15
    width = WIDTHS_PX[spots.sizes[nearest]]
    assert (np.diff([np.median(width[radii == r]) for r in (2.0, 4.5, 6.0)]) > 0).all()


def test_noise_has_hardly_any_spots_and_an_image_left_out_none():
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((2, *SHAPE)).astype(np.float32)
    series = ReducedSeries(noise, np.array([0.0, 1.0]), np.array([True, False]), 1, 1)
    spots = find_spots(series).spots
    assert len(spots[0]) <= 2
    assert len(spots[1]) == 0


def test_borders_without_data_have_no_spots():
    image = discs([(-30, -30), (30, 30)], [3, 3], [1, 1], noise=0.02)
    seen = np.ones(SHAPE, bool)
    seen[:45] = False
    image[:45] = image[45:].mean()
    (spots,) = found_in(image, seen=seen)
    assert len(spots) == 1
    np.testing.assert_allclose(spots.places_px[0], (30, 30), atol=0.1)


def test_the_top_of_a_paraboloid_is_found_exactly():
    y, x = np.indices((3, 3)) - 1.0
    at = np.array([0.3, -0.4])
    paraboloid = 5 - 2 * (y - at[0]) ** 2 - (x - at[1]) ** 2 - 0.5 * (y - at[0]) * (x - at[1])
    np.testing.assert_allclose(tops(paraboloid[None])[0], at, atol=1e-12)
    assert tops(-paraboloid[None])[0] == pytest.approx([0, 0])  # a pit has no top
