"""Shape of a particle: its second moments, the axes of the ellipsoid that has the same ones, and its sphericity."""

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomoseg.arrays import Array, BoolArray
from tomoseg.measurement.common.surface import FloatArray

# Products of coordinates in the order zz, yy, xx, zy, zx, yx.
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def moments(mask: BoolArray, origin: ArrayLike = (0, 0, 0)) -> NDArray[np.int64]:
    """Return the moments (9,) of a mask (z, y, x): sums of its voxels' z, y, x, and of their products `PAIRS`, in px.

    `origin` are the coordinates of the mask's first voxel. Sums of whole numbers: those of parts add up exactly.
    """
    out = np.zeros(9, np.int64)
    _moments(np.ascontiguousarray(mask), np.asarray(origin, dtype=np.int64), out)
    return out


def covariance(sums: NDArray[np.int64], n_voxels: int) -> FloatArray:
    """Return the covariance (3, 3) in (z, y, x), px^2, of the points of a particle, given its `moments`.

    A voxel is a cube rather than a point: it adds 1/12 px^2, the variance of a uniform distribution of width 1, along
    each axis.
    """
    mean = sums[:3] / n_voxels
    out = np.zeros((3, 3))
    for (a, b), total in zip(PAIRS, sums[3:], strict=True):
        out[a, b] = out[b, a] = total / n_voxels - mean[a] * mean[b]
    return out + np.eye(3) / 12


def principal_axes(covariances: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the ellipsoid that has the same second moments as each particle.

    The variance of a solid ellipsoid of semi-axis a along that axis is a^2 / 5 (moment of inertia of a homogeneous
    ellipsoid, Landau & Lifshitz, Mechanics, section 32): the full length is 2 sqrt(5 variance).

    Returns, for covariances (n, 3, 3) in (z, y, x), px^2, the full lengths (n, 3) of the major, the middle and the
    minor axis, px, and unit vectors (n, 3), (z, y, x), along the major axis; of both directions the one with z > 0 (or
    else y, or x).
    """
    if len(covariances) == 0:
        return np.zeros((0, 3)), np.zeros((0, 3))
    variances, vectors = np.linalg.eigh(covariances)  # ascending
    lengths = 2 * np.sqrt(5 * np.maximum(variances[:, ::-1], 0))
    major = vectors[:, :, 2]
    first = np.argmax(np.abs(major) > 1e-12, axis=1)
    sign = np.sign(np.take_along_axis(major, first[:, None], axis=1))
    return lengths, major * sign


def sphericity(volume: ArrayLike, area: ArrayLike) -> FloatArray:
    """Return the area of the sphere of the same volume over the area, pi^(1/3) (6 V)^(2/3) / A; NaN without an area.

    1 for a sphere, 0.806 for a cube (H. Wadell, J. Geol. 43, 1935, 250-280).
    """
    volume, area = np.asarray(volume, dtype=np.float64), np.asarray(area, dtype=np.float64)
    known = np.where(area > 0, area, np.nan)
    return np.asarray(np.cbrt(np.pi) * np.cbrt(6 * volume) ** 2 / known, dtype=np.float64)


@numba.njit(nogil=True, cache=True)
def _moments(mask: Array, origin: Array, out: Array) -> None:
    for k in range(mask.shape[0]):
        z = origin[0] + k
        for j in range(mask.shape[1]):
            y = origin[1] + j
            n, total, squares = 0, 0, 0
            for i in range(mask.shape[2]):
                if mask[k, j, i]:
                    x = origin[2] + i
                    n += 1
                    total += x
                    squares += x * x
            out[0] += n * z
            out[1] += n * y
            out[2] += total
            out[3] += n * z * z
            out[4] += n * y * y
            out[5] += squares
            out[6] += n * z * y
            out[7] += total * z
            out[8] += total * y
