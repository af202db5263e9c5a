"""Tilt series of ellipsoids, whose raw images are known in closed form: no projector and no resampling takes part."""

from dataclasses import dataclass

import numpy as np
import pytest


@dataclass(frozen=True)
class EllipsoidSeries:
    raw: np.ndarray  # (n_tilt, y, x), background 0
    angles_deg: np.ndarray
    shifts_px: np.ndarray  # (dy, dx) to add to raw coordinates
    axis_angle_deg: float
    axis_offset_px: float

    @property
    def moves_px(self):
        """(dy', dx') after rotation, offset included, written out anew from the contract."""
        phi = np.deg2rad(self.axis_angle_deg)
        dy, dx = self.shifts_px.T
        across = np.cos(phi) * dx - np.sin(phi) * dy - self.axis_offset_px
        return np.stack([np.sin(phi) * dx + np.cos(phi) * dy, across], axis=1)


def chord(semi_axes, rotation, centre, s, y, t):
    """Length of the ray at (s, y) through an ellipsoid at tilt t: s = x cos t + z sin t (x, y, z order)."""
    a = rotation.T @ np.diag(1 / np.asarray(semi_axes) ** 2) @ rotation
    d = np.array([-np.sin(t), 0.0, np.cos(t)])
    p = np.stack([s * np.cos(t), y, s * np.sin(t)], axis=-1) - centre
    b, c = p @ a @ d, np.einsum("...i,ij,...j", p, a, p) - 1
    dad = d @ a @ d
    return 2 * np.sqrt(np.maximum(b**2 - dad * c, 0)) / dad


def make_series(
    shape=(64, 64), angles_deg=None, phi=0.0, offset=0.0, jitter=2.0, seed=0, noise=0.0, spread=0.2, bodies=None
):
    """Twelve ellipsoids within `spread` of the frame around the axis, seen by a stage that jitters.

    Or `bodies`: (semi-axes, rotation, centre, density), (x, y, z) with y along the axis, in parts of the frame.
    """
    rng = np.random.default_rng(seed)
    angles = np.arange(-60, 61, 5.0) if angles_deg is None else np.asarray(angles_deg, float)
    size = min(shape)
    bodies = bodies or [
        (
            rng.uniform(0.04, 0.14, 3),
            np.linalg.qr(rng.standard_normal((3, 3)))[0],
            np.clip(rng.normal(0, spread / 1.5, 3), -spread, spread),
            rng.uniform(0.5, 2),
        )
        for _ in range(12)
    ]
    bodies = [(size * np.asarray(semi), r, size * np.asarray(centre), rho) for semi, r, centre, rho in bodies]
    shifts = rng.normal(0, jitter, (len(angles), 2))
    phi_rad = np.deg2rad(phi)
    raw = np.zeros((len(angles), *shape))
    fine = 2  # samples per pixel side, averaged like a detector pixel
    step = (np.arange(fine) - (fine - 1) / 2) / fine
    for i, t in enumerate(np.deg2rad(angles)):
        for ey in step:
            for ex in step:
                y = np.arange(shape[0])[:, None] - (shape[0] - 1) / 2 + ey + shifts[i, 0]
                x = np.arange(shape[1]) - (shape[1] - 1) / 2 + ex + shifts[i, 1]
                s = np.cos(phi_rad) * x - np.sin(phi_rad) * y - offset
                along = np.sin(phi_rad) * x + np.cos(phi_rad) * y
                raw[i] += sum(rho * chord(a, r, c, s, along, t) for a, r, c, rho in bodies) / fine**2
    raw += noise * raw.max() * rng.standard_normal(raw.shape)
    return EllipsoidSeries(raw.astype(np.float32), angles, shifts, phi, offset)


def unknowable_removed(moves, truth, angles_deg):
    """Difference of moves less what no tilt series tells: a translation of the sample."""
    d = np.array(moves, float) - truth
    d[:, 0] -= d[:, 0].mean()
    t = np.deg2rad(angles_deg)
    terms = np.stack([np.cos(t), np.sin(t)], axis=1)
    d[:, 1] -= terms @ np.linalg.lstsq(terms, d[:, 1], rcond=None)[0]
    return d


@pytest.fixture(scope="session")
def ellipsoids():
    return make_series


@pytest.fixture(scope="session")
def less_translation():
    return unknowable_removed
