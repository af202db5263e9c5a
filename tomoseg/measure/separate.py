"""Cutting an object where several particles touch: a watershed of the distance to its outside.

Two parts of an object count as two particles when the neck between them is narrow: with r the distance from a point
to the outside, the largest sphere that passes from one part to the other has at most `neck_ratio` times the radius of
the largest sphere in the smaller part, and is at least one pixel smaller. The first condition has no scale; the
second, an absolute h-maxima criterion, keeps the roughness of digital surfaces (about half a pixel) from counting.
Two equal spheres are cut when their centres are further apart than 2 R sqrt(1 - neck_ratio^2), 1.43 R at 0.7.
A convex body has no neck and is never cut.
"""

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array
from tomoseg.measure.surface import BoolArray

# Bytes per voxel of the box around an object that fills it: mask, distances f8 and how they were found (12), the
# number of each voxel i8 twice, where it is (24), order, and the basins (20).
BYTES_PER_VOXEL = 96


def separate(mask: BoolArray, neck_ratio: float = 0.7) -> NDArray[np.int32]:
    """Label the touching particles in one object.

    Parameters
    ----------
    mask : bool, (z, y, x)
        The object with a free voxel around it on the sides where it ends; a side without one is the border of the
        volume, where the object may go on.
    neck_ratio
        Radius of the neck over the radius of the smaller part, up to which two parts are two particles.

    Returns
    -------
    int32, (z, y, x)
        0 outside, 1..n in the parts, the widest first.
    """
    parts = np.zeros(mask.shape, np.int32)
    if mask.all() or not mask.any():
        parts[mask] = 1
        return parts
    # The outside begins half a pixel before the centre of the nearest voxel outside.
    radius = ndimage.distance_transform_edt(mask)[mask].astype(np.float32) - np.float32(0.5)
    index = np.full(mask.shape, -1, np.int64)
    index[mask] = np.arange(radius.size)
    order = np.argsort(-radius, kind="stable")
    neck = np.minimum(neck_ratio * radius, radius - 1.0).astype(np.float32)
    parts[mask] = _flood(np.pad(index, 1, constant_values=-1), np.argwhere(mask) + 1, order, radius, neck)
    return parts


def _find_root(parent: Array, basin: int) -> int:
    """Return the basin into which `basin` was merged, and shorten the way there."""
    while parent[basin] != basin:
        parent[basin] = parent[parent[basin]]
        basin = parent[basin]
    return basin


_root = numba.njit(nogil=True, cache=True)(_find_root)


def _join_basins(parent: Array, peak_radius: Array, peak_neck: Array, a: int, b: int, saddle: float) -> int:
    """Merge two basins that meet at a saddle of this radius unless the neck is narrow; return the higher one."""
    if peak_radius[a] > peak_radius[b]:
        a, b = b, a
    if a != b and saddle > peak_neck[a]:
        parent[a] = b
    return b


_join = numba.njit(nogil=True, cache=True)(_join_basins)


def _flood_basins(index: Array, where: Array, order: Array, radius: Array, neck: Array) -> Array:
    """Flood from the widest places downwards; where two basins meet, the lower one ends unless the neck is narrow.

    The basins of the h-maxima watershed without its two passes (reconstruction, then flooding).

    Parameters
    ----------
    index : int64, (z, y, x)
        Number of each voxel of the object, -1 outside, with a free border of one voxel.
    where : int64, (n, 3)
        Where each voxel lies in `index`.
    order : int64, (n,)
        The voxels by falling radius.
    radius, neck : float32, (n,)
        Distance to the outside; the saddle down to which a basin that peaks there is no particle of its own.

    Returns
    -------
    int32, (n,)
        The part, 1..m, of each voxel.
    """
    n = len(order)
    basin = np.full(n, -1, np.int32)  # of each voxel
    parent = np.arange(n).astype(np.int32)  # of each basin; its own where it stands
    peak_radius, peak_neck = np.empty(n, np.float32), np.empty(n, np.float32)  # of each basin
    n_basins = 0
    for voxel in order:
        z, y, x = where[voxel]
        highest, nearest, widest = -1, -1, np.float32(-1)
        for other in index[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].flat:
            if other < 0 or basin[other] < 0:
                continue
            root = _root(parent, basin[other])
            highest = root if highest < 0 else _join(parent, peak_radius, peak_neck, root, highest, radius[voxel])
            if radius[other] > widest:
                widest, nearest = radius[other], basin[other]
        if nearest < 0:
            peak_radius[n_basins], peak_neck[n_basins] = radius[voxel], neck[voxel]
            nearest = n_basins
            n_basins += 1
        basin[voxel] = nearest
    return _numbered(parent, basin, n_basins)


def _number_parts(parent: Array, basin: Array, n_basins: int) -> Array:
    """Give numbers to the basins that still stand, in the order they were opened, which is by falling radius."""
    number = np.zeros(n_basins, np.int32)
    n_parts = 0
    for k in range(n_basins):
        if parent[k] == k:
            n_parts += 1
            number[k] = n_parts
    parts = np.empty(len(basin), np.int32)
    for voxel in range(len(basin)):
        parts[voxel] = number[_root(parent, basin[voxel])]
    return parts


_numbered = numba.njit(nogil=True, cache=True)(_number_parts)
_flood = numba.njit(nogil=True, cache=True)(_flood_basins)
