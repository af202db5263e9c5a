"""Markers in space and where a tilt series shows them, by the contract's formula, written out here anew."""

from dataclasses import dataclass

import numpy as np
import pytest


@dataclass(frozen=True)
class Scene:
    observed_px: np.ndarray  # (n_marker, n_tilt, 2) (y, x) from the centre of the raw image
    angles_deg: np.ndarray
    axis_angle_deg: float
    moves_px: np.ndarray  # (n_tilt, 2) after rotation
    markers_px: np.ndarray  # (n_marker, 3) (Y, X, Z)

    @property
    def shifts_px(self):
        """(dy, dx) in the raw frame."""
        return unrotated(self.moves_px, self.axis_angle_deg)

    def error(self, axis_angle_deg, moves_px):
        """Rms of the difference of moves, less a translation of the sample; moves of the same axis."""
        shifts = unrotated(np.asarray(moves_px), axis_angle_deg) - self.shifts_px
        phi = np.deg2rad(self.axis_angle_deg)
        along = np.sin(phi) * shifts[:, 1] + np.cos(phi) * shifts[:, 0]
        across = np.cos(phi) * shifts[:, 1] - np.sin(phi) * shifts[:, 0]
        t = np.deg2rad(self.angles_deg)
        terms = np.stack([np.cos(t), np.sin(t)], axis=1)
        across = across - terms @ np.linalg.lstsq(terms, across, rcond=None)[0]
        return float(np.sqrt((np.square(across).mean() + np.square(along - along.mean()).mean()) / 2))


def unrotated(vectors, angle_deg):
    """Return vectors of the rotated frame in the raw one: the inverse of x' = cos x - sin y, y' = sin x + cos y."""
    phi = np.deg2rad(angle_deg)
    y, x = np.asarray(vectors).T
    return np.stack([np.cos(phi) * y - np.sin(phi) * x, np.sin(phi) * y + np.cos(phi) * x], axis=1)


def make_scene(
    n=60, angle=12.0, angles_deg=None, width=200.0, depth=20.0, noise=0.0, jitter=5.0, seed=0, missing=0.1, wrong=0.0
):
    """Markers in a slab wider than the frame, as a stage that jitters shows them; some are missed, some wrong."""
    rng = np.random.default_rng(seed)
    angles = np.arange(-60, 61, 3.0) if angles_deg is None else np.asarray(angles_deg, float)
    markers = rng.uniform(-0.5, 0.5, (n, 3)) * [width, 2.5 * width, depth]
    moves = rng.normal(0, jitter, (len(angles), 2))
    t = np.deg2rad(angles)
    turned = np.stack(
        [
            np.broadcast_to(markers[:, :1], (n, len(t))),
            markers[:, 1:2] * np.cos(t) + markers[:, 2:] * np.sin(t),
        ],
        axis=-1,
    )
    raw = np.stack([unrotated(turned[:, i] - moves[i], angle) for i in range(len(t))], axis=1)
    raw += rng.normal(0, noise, raw.shape) if noise else 0
    raw[(np.abs(raw) > width / 2).any(axis=2) | (rng.random(raw.shape[:2]) < missing)] = np.nan
    is_wrong = rng.random(raw.shape[:2]) < wrong
    raw[is_wrong] += rng.normal(0, 6, (is_wrong.sum(), 2))
    return Scene(raw, angles, angle, moves, markers)


@pytest.fixture(scope="session")
def scene():
    return make_scene
