"""Direction and curvature of a labelled surface, from the smoothed mask.

For a field F that falls outwards (Goldman, Computer Aided Geometric Design 22, 2005), with gradient g and Hessian B,

    n = -g / |g|,    H = (g' B g - |g|^2 trace B) / (2 |g|^3),    K = g' adj(B) g / |g|^4:

outward normal, mean and Gaussian curvature of the level surface through a point. H is positive where the surface is
convex: 1/r on a ball, 1/(2r) on a cylinder of radius r.

F is the mask smoothed by a Gaussian of `SIGMA_PX`. Its level surfaces near a ball are balls about the same centre, so
that H at the place where the surface really is needs no correction for what smoothing moves; an edge is rounded to a
radius of about that width. Voxels of particles say nothing about the support: they have no weight (normalised
convolution; Knutsson & Westin, CVPR 1993), so that the support goes on beneath a particle as it is around it.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array
from tomoseg.measure.surface import BoolArray, Float32Array

SIGMA_PX = 2.5
REACH_PX = 8  # of the kernel
HALO_PX = REACH_PX + 2  # to be read around the points; the derivatives take 1 and the interpolation 1
LEAST_WEIGHT = 0.05


def smoothed(mask: BoolArray, known: BoolArray | None = None) -> Float32Array:
    """Smooth a mask (z, y, x) where it is `known` (all by default); beyond its ends it goes on as there."""
    if known is None or known.all():
        return _gauss(mask)
    weight = _gauss(known)
    return np.asarray(_gauss(mask & known) / np.maximum(weight, LEAST_WEIGHT), np.float32)


def _gauss(mask: BoolArray) -> Float32Array:
    return np.asarray(
        ndimage.gaussian_filter(mask.astype(np.float32), SIGMA_PX, radius=REACH_PX, mode="nearest"), np.float32
    )


@dataclass(frozen=True)
class Shape:
    """Of points on a surface: outward `normals` (n, 3) in (z, y, x), mean and Gaussian curvature (n,), 1/px, 1/px^2."""

    normals: Float32Array
    mean: Float32Array
    gaussian: Float32Array


def shape_at(field: Float32Array, points: Array) -> Shape:
    """Return the shape of the level surfaces of a field (z, y, x) through points (n, 3) in its voxels.

    Central differences at the eight voxels around each point, interpolated linearly. NaN where the field is flat.
    """
    out = np.zeros((len(points), 5), np.float32)
    _evaluate(field, np.ascontiguousarray(points, np.float32), out)
    return Shape(out[:, :3], out[:, 3], out[:, 4])


def _evaluate_points(field: Array, points: Array, out: Array) -> None:
    nz, ny, nx = field.shape
    d = np.empty(9)
    for p in range(len(points)):
        z0 = min(max(int(np.floor(points[p, 0])), 1), nz - 3)
        y0 = min(max(int(np.floor(points[p, 1])), 1), ny - 3)
        x0 = min(max(int(np.floor(points[p, 2])), 1), nx - 3)
        d[:] = 0
        for corner in range(8):
            z, y, x = z0 + (corner >> 2), y0 + (corner >> 1 & 1), x0 + (corner & 1)
            w = max(0.0, 1 - abs(points[p, 0] - z)) * max(0.0, 1 - abs(points[p, 1] - y))
            w *= max(0.0, 1 - abs(points[p, 2] - x))
            if w == 0:
                continue
            f = field[z, y, x]
            d[0] += w * (field[z + 1, y, x] - field[z - 1, y, x]) / 2
            d[1] += w * (field[z, y + 1, x] - field[z, y - 1, x]) / 2
            d[2] += w * (field[z, y, x + 1] - field[z, y, x - 1]) / 2
            d[3] += w * (field[z + 1, y, x] - 2 * f + field[z - 1, y, x])
            d[4] += w * (field[z, y + 1, x] - 2 * f + field[z, y - 1, x])
            d[5] += w * (field[z, y, x + 1] - 2 * f + field[z, y, x - 1])
            d[6] += w * _mixed(
                field[z + 1, y + 1, x], field[z + 1, y - 1, x], field[z - 1, y + 1, x], field[z - 1, y - 1, x]
            )
            d[7] += w * _mixed(
                field[z + 1, y, x + 1], field[z + 1, y, x - 1], field[z - 1, y, x + 1], field[z - 1, y, x - 1]
            )
            d[8] += w * _mixed(
                field[z, y + 1, x + 1], field[z, y + 1, x - 1], field[z, y - 1, x + 1], field[z, y - 1, x - 1]
            )
        g2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
        if g2 < 1e-8:
            out[p] = np.nan
            continue
        g = np.sqrt(g2)
        gz, gy, gx, a, b, c, ab, ac, bc = d / g  # Hessian over |g|
        gbg = gz * gz * a + gy * gy * b + gx * gx * c + 2 * (gz * gy * ab + gz * gx * ac + gy * gx * bc)
        adj = gz * gz * (b * c - bc * bc) + gy * gy * (a * c - ac * ac) + gx * gx * (a * b - ab * ab)
        adj += 2 * (gz * gy * (ac * bc - ab * c) + gz * gx * (ab * bc - ac * b) + gy * gx * (ab * ac - a * bc))
        out[p, 0], out[p, 1], out[p, 2] = -gz, -gy, -gx
        out[p, 3] = (gbg - (a + b + c)) / 2
        out[p, 4] = adj


def _mixed_difference(pp: float, pm: float, mp: float, mm: float) -> float:
    return (pp - pm - mp + mm) / 4


_mixed = numba.njit(nogil=True, cache=True)(_mixed_difference)
_evaluate = numba.njit(nogil=True, cache=True)(_evaluate_points)

# Kinds of places by their principal curvatures k1 >= k2; flat: both below this part of 1 / SIGMA_PX.
PLACES = ("flat", "ridge", "valley", "peak", "pit", "saddle")
FLAT = 0.2


def place_kinds(mean: Array, gaussian: Array) -> NDArray[np.uint8]:
    """Return the index in `PLACES` (n,) of points of a mean and a Gaussian curvature, 1/px and 1/px^2.

    Bent about one axis only: ridge (convex, an edge) or valley; about both: peak (a corner), pit or saddle.
    """
    spread = np.sqrt(np.maximum(mean**2 - gaussian, 0))
    limit = FLAT / SIGMA_PX
    high, low = mean + spread, mean - spread
    out = np.full(len(mean), PLACES.index("flat"), np.uint8)
    out[high > limit] = PLACES.index("ridge")
    out[low < -limit] = PLACES.index("valley")
    out[(high > limit) & (low > limit)] = PLACES.index("peak")
    out[(high < -limit) & (low < -limit)] = PLACES.index("pit")
    out[(high > limit) & (low < -limit)] = PLACES.index("saddle")
    return out
