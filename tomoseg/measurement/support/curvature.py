"""Direction and curvature of a labelled surface, from the smoothed mask.

For a field F that falls outwards (Goldman, Computer Aided Geometric Design 22, 2005), with gradient g and Hessian S,

    n = -g / |g|,    H = (g S g - |g|^2 trace S) / (2 |g|^3),    K = g adj(S) g / |g|^4:

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

from tomoseg.arrays import Array, BoolArray
from tomoseg.measurement.common.surface import Float32Array, FloatArray

SIGMA_PX = 2.5
REACH_PX = 8  # of the kernel
# Beside an edge, the flattest place that far away tells which facet the surface belongs to: see `facet_normals`.
STEP_PX, WAYS, FARTHEST_PX = 4.0, 8, 6.0
LEAST_CURVEDNESS_PER_PX, FLATTER = 0.05, 0.5
HALO_PX = REACH_PX + 2 + int(FARTHEST_PX)  # to be read around the points; derivatives take 1 and interpolation 1
LEAST_WEIGHT = 0.05


def smoothed(mask: BoolArray, known: BoolArray | None = None) -> Float32Array:
    """Smooth a mask (z, y, x) where it is `known` (everywhere by default); beyond its ends it goes on as there."""
    if known is None or known.all():
        return _gauss(mask)
    weight = _gauss(known)
    return np.asarray(_gauss(mask & known) / np.maximum(weight, LEAST_WEIGHT), np.float32)


def _gauss(mask: BoolArray) -> Float32Array:
    return np.asarray(
        ndimage.gaussian_filter(mask.astype(np.float32), SIGMA_PX, radius=REACH_PX, mode="nearest"), np.float32
    )


@dataclass(frozen=True)
class SurfaceShape:
    """Shape of a surface at n points: outward `normals` (n, 3) in (z, y, x), `mean` and `gaussian` curvature (n,).

    Curvatures are in 1/px and 1/px^2.
    """

    normals: Float32Array
    mean: Float32Array
    gaussian: Float32Array


def shape_at(field: Float32Array, points: Array) -> SurfaceShape:
    """Return the shape of the level surfaces of a field (z, y, x) through points (n, 3) in its voxels.

    Central differences at the eight voxels around each point, interpolated linearly. NaN where the field is flat.

    Normals keep edges sharp. Smoothing rounds the edges between facets, and a round edge faces planes that are not
    there: of a digital octahedron 49 px along its edges, 32% of the area turns more than 10 degrees from {111}. So a
    point where the surface is strongly curved takes the normal of the flattest place 3 px away in 8 directions (the
    idea of the filter of Kuwahara et al., 1976, on a surface), if the curvedness there, sqrt(k1^2 + k2^2) =
    sqrt(4 H^2 - 2 K), is less than half of its own: so beside an edge, but nowhere on a ball. Places are found by
    going along the tangent plane and back to the point's own level by two steps of Newton's method.
    """
    if min(field.shape) < 3:
        raise ValueError(f"a field of {field.shape} has no second derivatives")
    found = _facet_normals(np.ascontiguousarray(field, dtype=np.float32), np.asarray(points, np.float64))
    normals, mean, gaussian = (np.asarray(values, np.float32) for values in found)
    normals[~np.isfinite(mean)] = np.nan
    return SurfaceShape(normals, mean, gaussian)


# Kinds of surface by the principal curvatures k1 >= k2; flat: both below this part of 1 / SIGMA_PX.
SURFACE_KINDS = ("flat", "ridge", "valley", "peak", "pit", "saddle")
FLAT = 0.2


def surface_kinds(mean: Array, gaussian: Array) -> NDArray[np.uint8]:
    """Return the index in `SURFACE_KINDS` (n,) of points by their mean and Gaussian curvature, 1/px and 1/px^2.

    Bent about one axis only: ridge (convex, an edge) or valley; about both: peak (a corner), pit or saddle.
    """
    spread = np.sqrt(np.maximum(mean**2 - gaussian, 0))
    limit = FLAT / SIGMA_PX
    high, low = mean + spread, mean - spread
    out = np.full(len(mean), SURFACE_KINDS.index("flat"), np.uint8)
    out[high > limit] = SURFACE_KINDS.index("ridge")
    out[low < -limit] = SURFACE_KINDS.index("valley")
    out[(high > limit) & (low > limit)] = SURFACE_KINDS.index("peak")
    out[(high < -limit) & (low < -limit)] = SURFACE_KINDS.index("pit")
    out[(high > limit) & (low < -limit)] = SURFACE_KINDS.index("saddle")
    return out


@numba.njit(nogil=True, cache=True)
def _curvatures(field: Float32Array, at: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    n = len(at)
    normals, mean, gaussian = np.zeros((n, 3)), np.full(n, np.nan), np.full(n, np.nan)
    for i in range(n):
        _, gz, gy, gx, mean[i], gaussian[i] = _derive(field, at[i, 0], at[i, 1], at[i, 2])
        g = np.sqrt(gz * gz + gy * gy + gx * gx)
        if g > 0:
            normals[i, 0], normals[i, 1], normals[i, 2] = -gz / g, -gy / g, -gx / g
    return normals, mean, gaussian


@numba.njit(nogil=True, cache=True)
def _facet_normals(field: Float32Array, at: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    normals, mean, gaussian = _curvatures(field, at)
    out = normals.copy()
    for i in range(len(at)):
        curvedness = np.sqrt(max(4 * mean[i] ** 2 - 2 * gaussian[i], 0.0))
        if not curvedness > LEAST_CURVEDNESS_PER_PX:
            continue
        level = _derive(field, at[i, 0], at[i, 1], at[i, 2])[0]
        nz, ny, nx = normals[i]
        # Two tangents u and v: across the axis that the normal is farthest from, and across both.
        if abs(nz) <= min(abs(ny), abs(nx)):
            uz, uy, ux = 0.0, -nx, ny
        elif abs(ny) <= abs(nx):
            uz, uy, ux = -nx, 0.0, nz
        else:
            uz, uy, ux = -ny, nz, 0.0
        length = np.sqrt(uz * uz + uy * uy + ux * ux)
        uz, uy, ux = uz / length, uy / length, ux / length
        vz, vy, vx = ny * ux - nx * uy, nx * uz - nz * ux, nz * uy - ny * uz
        flattest = FLATTER * curvedness
        for way in range(WAYS):
            a, b = STEP_PX * np.cos(2 * np.pi * way / WAYS), STEP_PX * np.sin(2 * np.pi * way / WAYS)
            z, y, x = a * uz + b * vz, a * uy + b * vy, a * ux + b * vx
            for _ in range(2):
                f, gz, gy, gx = _slope(field, at[i, 0] + z, at[i, 1] + y, at[i, 2] + x)
                back = (level - f) / max(gz * gz + gy * gy + gx * gx, 1e-4)
                z, y, x = z + back * gz, y + back * gy, x + back * gx
                if z * z + y * y + x * x > FARTHEST_PX**2:
                    break
            if z * z + y * y + x * x > FARTHEST_PX**2:
                continue
            _, gz, gy, gx, h, k = _derive(field, at[i, 0] + z, at[i, 1] + y, at[i, 2] + x)
            there = np.sqrt(max(4 * h * h - 2 * k, 0.0))
            if there < flattest:
                flattest, g = there, np.sqrt(gz * gz + gy * gy + gx * gx)
                out[i, 0], out[i, 1], out[i, 2] = -gz / g, -gy / g, -gx / g
    return out, mean, gaussian


@numba.njit(nogil=True, cache=True)
def _derive(
    field: Float32Array, at_z: float, at_y: float, at_x: float
) -> tuple[float, float, float, float, float, float]:
    """Return value, gradient, mean and Gaussian curvature at a point; gradient 0 and NaN where the field is flat."""
    at_z = min(max(at_z, 1.0), field.shape[0] - 2.0)
    at_y = min(max(at_y, 1.0), field.shape[1] - 2.0)
    at_x = min(max(at_x, 1.0), field.shape[2] - 2.0)
    z0, y0, x0 = int(at_z), int(at_y), int(at_x)
    fz, fy, fx = at_z - z0, at_y - y0, at_x - x0
    value = gz = gy = gx = szz = syy = sxx = szy = szx = syx = 0.0
    for corner in range(8):
        dz, dy, dx = corner >> 2, (corner >> 1) & 1, corner & 1
        w = (fz if dz else 1 - fz) * (fy if dy else 1 - fy) * (fx if dx else 1 - fx)
        if w == 0:
            continue
        z, y, x = z0 + dz, y0 + dy, x0 + dx
        f = 2 * field[z, y, x]
        value += w * field[z, y, x]
        gz += w * (field[z + 1, y, x] - field[z - 1, y, x]) / 2
        gy += w * (field[z, y + 1, x] - field[z, y - 1, x]) / 2
        gx += w * (field[z, y, x + 1] - field[z, y, x - 1]) / 2
        szz += w * (field[z + 1, y, x] + field[z - 1, y, x] - f)
        syy += w * (field[z, y + 1, x] + field[z, y - 1, x] - f)
        sxx += w * (field[z, y, x + 1] + field[z, y, x - 1] - f)
        szy += w * (
            _across(field[z + 1, y + 1, x], field[z - 1, y - 1, x], field[z + 1, y - 1, x], field[z - 1, y + 1, x])
        )
        szx += w * (
            _across(field[z + 1, y, x + 1], field[z - 1, y, x - 1], field[z + 1, y, x - 1], field[z - 1, y, x + 1])
        )
        syx += w * (
            _across(field[z, y + 1, x + 1], field[z, y - 1, x - 1], field[z, y + 1, x - 1], field[z, y - 1, x + 1])
        )
    g2 = gz * gz + gy * gy + gx * gx
    if g2 < 1e-12:
        return value, 0.0, 0.0, 0.0, np.nan, np.nan
    gsg = gz * gz * szz + gy * gy * syy + gx * gx * sxx + 2 * (gz * gy * szy + gz * gx * szx + gy * gx * syx)
    mean = (gsg - g2 * (szz + syy + sxx)) / (2 * g2 * np.sqrt(g2))
    adjoint = gz * gz * (syy * sxx - syx * syx) + gy * gy * (szz * sxx - szx * szx)
    adjoint += gx * gx * (szz * syy - szy * szy)
    adjoint += 2 * gz * gy * (szx * syx - szy * sxx) + 2 * gz * gx * (szy * syx - szx * syy)
    adjoint += 2 * gy * gx * (szy * szx - syx * szz)
    return value, gz, gy, gx, mean, adjoint / (g2 * g2)


@numba.njit(nogil=True, cache=True)
def _slope(field: Float32Array, at_z: float, at_y: float, at_x: float) -> tuple[float, float, float, float]:
    """Return value and gradient of the linear interpolation at a point."""
    at_z = min(max(at_z, 0.0), field.shape[0] - 1.001)
    at_y = min(max(at_y, 0.0), field.shape[1] - 1.001)
    at_x = min(max(at_x, 0.0), field.shape[2] - 1.001)
    z, y, x = int(at_z), int(at_y), int(at_x)
    fz, fy, fx = at_z - z, at_y - y, at_x - x
    c000, c001, c010, c011 = field[z, y, x], field[z, y, x + 1], field[z, y + 1, x], field[z, y + 1, x + 1]
    z += 1
    c100, c101, c110, c111 = field[z, y, x], field[z, y, x + 1], field[z, y + 1, x], field[z, y + 1, x + 1]
    c00, c01 = c000 + fx * (c001 - c000), c010 + fx * (c011 - c010)
    c10, c11 = c100 + fx * (c101 - c100), c110 + fx * (c111 - c110)
    low, high = c00 + fy * (c01 - c00), c10 + fy * (c11 - c10)
    slope_y = (1 - fz) * (c01 - c00) + fz * (c11 - c10)
    x_low = (1 - fy) * (c001 - c000) + fy * (c011 - c010)
    x_high = (1 - fy) * (c101 - c100) + fy * (c111 - c110)
    return low + fz * (high - low), high - low, slope_y, x_low + fz * (x_high - x_low)


@numba.njit(nogil=True, cache=True)
def _across(same: float, other: float, up: float, down: float) -> float:
    return (same + other - up - down) / 4
