"""Small tilt series whose every pixel is known, for tests of conditioning."""

import numpy as np
import pytest


def make_grains(n=15, size=80, step_deg=4.0, *, n_grains=25, width_px=1.3, blob=20.0, seed=0):
    """Bright grains, Gaussians of a width, in a wide soft blob: they turn about the vertical axis and drift.

    Returns images (n, y, x) f8 with background 0 and grains of about 100 to 300, and the angles in degrees.
    """
    rng = np.random.default_rng(seed)
    angles = (np.arange(n) - (n - 1) / 2) * step_deg
    places = rng.uniform(-0.3, 0.3, (n_grains, 3)) * size
    bright = rng.uniform(100, 300, n_grains)
    drift = np.cumsum(rng.normal(0, 1.5, (n, 2)), axis=0)
    y, x = np.indices((size, size)) - (size - 1) / 2
    images = []
    for t, (dy, dx) in zip(np.deg2rad(angles), drift, strict=True):
        image = 150 * np.exp(-((y - dy) ** 2 + (x - dx) ** 2) / (2 * blob**2))
        for (py, px, pz), height in zip(places, bright, strict=True):
            here = px * np.cos(t) + pz * np.sin(t) + dx
            image += height * np.exp(-((y - py - dy) ** 2 + (x - here) ** 2) / (2 * width_px**2))
        images.append(image)
    return np.array(images), angles


@pytest.fixture(scope="session")
def grains():
    return make_grains
