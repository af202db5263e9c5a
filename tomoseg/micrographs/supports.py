"""Supports of simulated micrographs: their thickness in px, drawn at random."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy import ndimage

from tomoseg.arrays import FloatArray

Support = Literal["film", "clouds", "plates", "grains", "crumpled", "holey", "rods", "aggregates"]
Shape = tuple[int, int]


def support_thickness(kind: Support, shape: Shape, scale: float, rng: np.random.Generator) -> FloatArray:
    """Return the thickness (y, x) of a support in px, whose structures are `scale` times as large as the plain ones.

    Examples
    --------
    >>> support_thickness("film", (64, 48), 1.0, np.random.default_rng(0)).shape
    (64, 48)
    """
    if scale == 1:
        return SUPPORT_MAKERS[kind](shape, rng)
    plain = SUPPORT_MAKERS[kind]((int(shape[0] / scale) + 2, int(shape[1] / scale) + 2), rng)
    y, x = (np.arange(n) / scale for n in shape)
    fine = ndimage.map_coordinates(plain, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest")
    return np.asarray(scale * fine)


def smooth_noise(shape: Shape, width: float, rng: np.random.Generator) -> FloatArray:
    """Return noise (y, x) of mean 0 and standard deviation 1 whose structures are some `width` px wide."""
    step = max(1, int(width / 4))
    coarse = [n // step + 8 for n in shape]
    noise = ndimage.gaussian_filter(rng.standard_normal(coarse), width / step / 2, mode="wrap")
    fine = ndimage.zoom(noise, step, order=1)[: shape[0], : shape[1]] if step > 1 else noise[: shape[0], : shape[1]]
    return np.asarray((fine - fine.mean()) / max(float(fine.std()), 1e-12))


def _film(shape: Shape, rng: np.random.Generator) -> FloatArray:
    return np.asarray(40 * (1 + 0.05 * smooth_noise(shape, 200, rng)))


def _clouds(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Smooth thickness on several scales, with vacuum where it falls below nothing."""
    height = sum(w * smooth_noise(shape, width, rng) for width, w in ((240, 1.0), (110, 0.5), (50, 0.18)))
    return np.asarray(60 * np.log1p(np.exp(2.5 * (np.asarray(height) + rng.uniform(0, 0.8)))) / 2.5)


def _plates(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Overlapping polygons of even thickness with sharp edges."""
    out = np.zeros(shape)
    y, x = np.indices(shape)
    for _ in range(rng.integers(5, 14)):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        radius = rng.uniform(60, 220)
        outside = np.full(shape, -np.inf)
        for angle in rng.uniform(0, 2 * np.pi) + np.arange(6) * np.pi / 3 + rng.normal(0, 0.15, 6):
            reach = radius * rng.uniform(0.5, 1)
            np.maximum(outside, (y - cy) * np.sin(angle) + (x - cx) * np.cos(angle) - reach, out=outside)
        out += rng.uniform(12, 40) * np.clip(0.5 - outside, 0, 1)
    return out


def _grains(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Overlapping spheres of the support's own material, such as silica."""
    out = np.zeros(shape)
    y, x = np.indices(shape)
    cy, cx = (rng.uniform(0.2, 0.8) * n for n in shape)
    for _ in range(rng.integers(12, 40)):
        radius = rng.uniform(70, 130)
        r2 = (y - cy) ** 2 + (x - cx) ** 2
        np.add(out, 0.7 * np.sqrt(np.maximum(radius**2 - r2, 0)), out=out)
        cy = np.clip(cy + rng.normal(0, 120), 0, shape[0])
        cx = np.clip(cx + rng.normal(0, 120), 0, shape[1])
    return out


def _crumpled(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Return a carbon film with creases: ridges where smooth noise passes through nothing."""
    ridges = [np.exp(-np.abs(smooth_noise(shape, w, rng)) / 0.12) for w in (160, 90)]
    return np.asarray(30 + 25 * ridges[0] + 12 * ridges[1] + 5 * smooth_noise(shape, 150, rng))


def _holey(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Return a film with round holes, whose rims are thicker."""
    out = _film(shape, rng)
    y, x = np.indices(shape)
    for _ in range(rng.integers(1, 4)):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        outside = np.hypot(y - cy, x - cx) - rng.uniform(60, 140)
        out = out * np.clip(outside / 1.5 + 0.5, 0, 1) + 12 * np.exp(-((outside - 6) ** 2) / 50) * (outside > 0)
    return out


def _rods(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Overlapping rods and ribbons, such as alumina or titania nanorods."""
    out = np.zeros(shape)
    y, x = np.indices(shape)
    for _ in range(rng.integers(10, 35)):
        cy, cx, angle = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(0, np.pi)
        along = (y - cy) * np.sin(angle) + (x - cx) * np.cos(angle)
        across = (x - cx) * np.sin(angle) - (y - cy) * np.cos(angle)
        half, reach = rng.uniform(14, 40), rng.uniform(60, 260)
        end = np.maximum(np.abs(along) - reach, 0)
        np.add(out, np.sqrt(np.maximum(half**2 - across**2 - end**2, 0)), out=out)
    return out


def _aggregates(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Branched aggregates with structure on all scales, such as carbon black."""
    roughness = rng.uniform(0.4, 0.75)
    widths = 260 / 1.9 ** np.arange(5)
    height = sum(roughness**k * smooth_noise(shape, float(w), rng) for k, w in enumerate(widths))
    height = np.asarray(height) + rng.uniform(-0.6, 0.8)
    return np.asarray(60 * np.log1p(np.exp(2.5 * height)) / 2.5)


SUPPORT_MAKERS: dict[Support, Callable[[Shape, np.random.Generator], FloatArray]] = {
    "film": _film,
    "clouds": _clouds,
    "plates": _plates,
    "grains": _grains,
    "crumpled": _crumpled,
    "holey": _holey,
    "rods": _rods,
    "aggregates": _aggregates,
}
