"""Cutting an object where several particles touch: a watershed of the distance to its outside.

Two parts of an object count as two particles when the neck between them is narrow: with r the distance from a point
to the outside, the largest sphere that passes from one part to the other has at most `neck_ratio` times the radius of
the largest sphere in the smaller part, and is at least one pixel smaller. The first condition has no scale; the
second, an absolute h-maxima criterion, keeps the roughness of digital surfaces (about half a pixel) from counting.
Two equal spheres are cut when their centres are further apart than 2 R sqrt(1 - neck_ratio^2), 1.43 R at 0.7.
A convex body has no neck and is never cut.
"""

from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.measure.body import Body
from tomoseg.measure.surface import BoolArray

# Bytes per voxel of an object while it is cut: where it lies (8), radius, order, basin, and what the basins are.
BYTES_PER_VOXEL = 24
CHUNK = 1 << 19  # voxels flooded at once, about a second


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
    nz, ny, nx = mask.shape
    parts = np.zeros(mask.shape, np.int32)
    parts[mask] = separate_body(Body.of([mask], (slice(0, nz), slice(0, ny), slice(0, nx))), neck_ratio)
    return parts


def separate_body(
    body: Body, neck_ratio: float = 0.7, checkpoint: Callable[[], None] = lambda: None
) -> NDArray[np.int32]:
    """Return the part (n,), 1..n_parts, of each voxel of an object, the widest first; see `separate`.

    `checkpoint` is called every second or so; it may raise to stop.
    """
    n = len(body.x)
    if n == 0 or n == np.prod(body.shape):
        return np.ones(n, np.int32)
    squared = body.squared_radii(checkpoint)
    order = _by_falling(squared)
    checkpoint()
    # The outside begins half a pixel before the centre of the nearest voxel outside.
    radius = np.sqrt(squared, dtype=np.float32) - np.float32(0.5)
    del squared
    lines, n_y = body.lines(), body.shape[1]
    basin = np.full(n, -1, np.int32)
    basins, n_basins = np.zeros(0, BASIN), 0
    for start in range(0, n, CHUNK):
        checkpoint()
        chunk = order[start : start + CHUNK]
        basins = np.concatenate([basins[:n_basins], np.zeros(len(chunk), BASIN)])
        n_basins = _flood(
            body.starts, body.x, lines, n_y, chunk, radius, np.float32(neck_ratio), basin, basins, n_basins
        )
    _numbered(basins[:n_basins], basin)
    return basin


# A place from which a part grew: the basin it was merged into (itself where it stands), its radius, and the saddle down
# to which it is no particle of its own.
BASIN = np.dtype([("parent", "i4"), ("radius", "f4"), ("neck", "f4")])


def _order_by_falling(values: Array) -> Array:
    """Return the order of whole numbers >= 0 from the largest to the smallest, equal ones as they come."""
    most = values.max()
    first = np.zeros(most + 2, np.int64)
    for value in values:
        first[most - value + 1] += 1
    first = np.cumsum(first)
    order = np.empty(len(values), np.int32)
    for i in range(len(values)):
        slot = most - values[i]
        order[first[slot]] = i
        first[slot] += 1
    return order


_by_falling = numba.njit(nogil=True, cache=True)(_order_by_falling)


def _find_root(basins: Array, basin: int) -> int:
    """Return the basin into which `basin` was merged, and shorten the way there."""
    while basins[basin].parent != basin:
        basins[basin].parent = basins[basins[basin].parent].parent
        basin = basins[basin].parent
    return basin


_root = numba.njit(nogil=True, cache=True)(_find_root)


def _join_basins(basins: Array, a: int, b: int, saddle: float) -> int:
    """Merge two basins that meet at a saddle of this radius unless the neck is narrow; return the higher one."""
    if basins[a].radius > basins[b].radius:
        a, b = b, a
    if a != b and saddle > basins[a].neck:
        basins[a].parent = b
    return b


_join = numba.njit(nogil=True, cache=True)(_join_basins)


def _first_from(x: Array, start: int, stop: int, value: int) -> int:
    """Return the first place in [start, stop) where the rising `x` is at least `value`."""
    while start < stop:
        middle = (start + stop) // 2
        if x[middle] < value:
            start = middle + 1
        else:
            stop = middle
    return start


_bisect = numba.njit(nogil=True, cache=True)(_first_from)


def _flood_basins(
    starts: Array,
    x: Array,
    lines: Array,
    n_y: int,
    order: Array,
    radius: Array,
    neck_ratio: np.float32,
    basin: Array,
    basins: Array,
    n_basins: int,
) -> int:
    """Flood from the widest places downwards; where two basins meet, the lower one ends unless the neck is narrow.

    The basins of the h-maxima watershed without its two passes (reconstruction, then flooding).

    Parameters
    ----------
    starts, x, lines, n_y
        Where the voxels are, see `Body`; `n_y` lines have the same z.
    order : int32
        The next voxels by falling radius.
    radius : float32, (n,)
        Distance to the outside.
    neck_ratio : float32
    basin : int32, (n,)
        Of each voxel, -1 before it is flooded; filled in.
    basins : array of `BASIN`
        Filled in from `n_basins` on; long enough for a new one at every voxel.

    Returns
    -------
    int
        How many basins there are now.
    """
    n_lines = len(starts) - 1
    for voxel in order:
        last, highest, nearest, widest = -1, -1, -1, np.float32(-1)
        y = lines[voxel] % n_y
        for step in (-n_y, 0, n_y):
            for dy in (-1, 0, 1):
                line = lines[voxel] + step + dy
                if not (0 <= line < n_lines and 0 <= y + dy < n_y):
                    continue
                other = _bisect(x, starts[line], starts[line + 1], x[voxel] - 1)
                while other < starts[line + 1] and x[other] <= x[voxel] + 1:
                    if basin[other] >= 0:
                        if basin[other] != last:
                            last = basin[other]
                            root = _root(basins, last)
                            highest = root if highest < 0 else _join(basins, root, highest, radius[voxel])
                        if radius[other] > widest:
                            widest, nearest = radius[other], last
                    other += 1
        if nearest < 0:
            r = radius[voxel]
            basins[n_basins].parent = n_basins
            basins[n_basins].radius = r
            basins[n_basins].neck = min(neck_ratio * r, r - np.float32(1))
            nearest = n_basins
            n_basins += 1
        basin[voxel] = nearest
    return n_basins


def _number_parts(basins: Array, basin: Array) -> None:
    """Give numbers to the basins that still stand, in the order they were opened, which is by falling radius."""
    number = np.zeros(len(basins), np.int32)
    n_parts = 0
    for k in range(len(basins)):
        if basins[k].parent == k:
            n_parts += 1
            number[k] = n_parts
    for voxel in range(len(basin)):
        basin[voxel] = number[_root(basins, basin[voxel])]


_numbered = numba.njit(nogil=True, cache=True)(_number_parts)
_flood = numba.njit(nogil=True, cache=True)(_flood_basins)
