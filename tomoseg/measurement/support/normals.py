"""Which way a surface faces: the density of its area over the sphere of its outward normals.

The density is smoothed by a von Mises-Fisher kernel of `KERNEL_DEG` (Mardia & Jupp, Directional Statistics, 2000).
Directions are (z, y, x) unit vectors.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.measurement.common.surface import FloatArray
from tomoseg.runtime import slabs

KERNEL_DEG = 5.0
N_DIRECTIONS = 16384  # 1.6 degrees apart
ISOTROPIC_PER_SR = 1 / (4 * np.pi)  # density of normals without any order
AT_ONCE = 1 << 16  # normals that are looked up at once: 50 bytes each
POINTS_AT_ONCE = 1 << 8  # of the sphere that are smoothed at once: each has some 500 others near, of 50 bytes


def sphere_points(n: int = N_DIRECTIONS) -> FloatArray:
    """Return directions (n, 3) spread evenly over the sphere (Fibonacci lattice)."""
    i = np.arange(n) + 0.5
    height, turn = 1 - 2 * i / n, np.pi * (1 + 5**0.5) * i
    radius = np.sqrt(1 - height**2)
    return np.stack([height, radius * np.sin(turn), radius * np.cos(turn)], axis=1)


@dataclass(frozen=True)
class NormalDensity:
    """Area of a surface over the sphere of its normals.

    `points` (n, 3); `areas` (n,) px^2 of the normals next to each; `density` (n,) 1/sr, smoothed, of the whole area.
    """

    points: FloatArray
    areas: FloatArray
    density: FloatArray

    @classmethod
    def of(cls, normals: Array, areas: Array) -> "NormalDensity":
        """Spread the surface elements of these normals (n, 3) and areas (n,) px^2 over the sphere."""
        from scipy.spatial import cKDTree

        points = sphere_points()
        tree, binned = cKDTree(points), np.zeros(len(points))
        for part in slabs(len(normals), AT_ONCE):
            np.add.at(binned, tree.query(normals[part])[1], areas[part])
        return cls(points, binned, smoothed_over_sphere(points, binned))

    def at(self, directions: FloatArray) -> FloatArray:
        """Return the density, 1/sr, at directions (..., 3)."""
        from scipy.spatial import cKDTree

        _, nearest = cKDTree(self.points).query(directions.reshape(-1, 3))
        return np.asarray(self.density[nearest].reshape(directions.shape[:-1]))

    def projected(self, size: int = 129) -> NDArray[np.float32]:
        """Return the map (2, size, size), 1/sr, in Lambert's equal-area projection, towards -z and +z; NaN outside.

        A direction at an angle t from the pole lies 2 sin(t / 2) from the centre; the rim, sqrt(2), is the equator.
        """
        axis = (np.arange(size) - (size - 1) / 2) / ((size - 1) / 2) * np.sqrt(2)
        y, x = axis[:, None], axis[None, :]
        square = x**2 + y**2
        inside = square <= 2
        scale = np.sqrt(np.maximum(1 - square / 4, 0))
        out = np.full((2, size, size), np.nan, np.float32)
        for k, sign in enumerate((-1, 1)):
            directions = np.stack(np.broadcast_arrays(sign * (1 - square / 2), y * scale, x * scale), axis=-1)
            out[k][inside] = self.at(directions[inside])
        return out


def smoothed_over_sphere(points: FloatArray, areas: FloatArray) -> FloatArray:
    """Return the density of areas at points (n,), 1/sr: convolved with the kernel and divided by the whole area."""
    from scipy.spatial import cKDTree

    sigma = np.radians(KERNEL_DEG)
    full = np.flatnonzero(areas > 0)
    if not len(full):
        return np.zeros(len(points))
    tree, weights, total = cKDTree(points[full]), areas[full], np.zeros(len(points))
    for part in slabs(len(points), POINTS_AT_ONCE):
        near = cKDTree(points[part])
        pairs = tree.sparse_distance_matrix(near, 2 * np.sin(2 * sigma), output_type="coo_matrix")  # 4 sigma
        # exp(kappa (cos t - 1)), and chord^2 = 2 - 2 cos t
        kernel = np.exp(-(pairs.data**2) / (2 * sigma**2))
        total[part] = np.bincount(pairs.col, kernel * weights[pairs.row], minlength=near.n)
    norm = 2 * np.pi * sigma**2 * (1 - np.exp(-2 / sigma**2))
    return np.asarray(total / norm / areas.sum())


def nearest_direction(normals: Array, directions: FloatArray, tolerance_deg: float) -> NDArray[np.int32]:
    """Return the index (n,) of the direction nearest to each normal (n, 3); -1 where none is within the tolerance."""
    from scipy.spatial import cKDTree

    if not len(directions):
        return np.full(len(normals), -1, np.int32)
    tree, out = cKDTree(directions), np.empty(len(normals), np.int32)
    for part in slabs(len(normals), AT_ONCE):
        chord, nearest = tree.query(normals[part])
        out[part] = np.where(chord <= 2 * np.sin(np.radians(tolerance_deg) / 2), nearest, -1)
    return out
