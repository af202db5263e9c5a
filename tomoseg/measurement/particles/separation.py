"""Cutting an object where several particles touch: a watershed of the distance to its outside, or of its intensity.

By distance: two parts of an object count as two particles when the neck between them is narrow: with r the distance
from a point to the outside, the largest sphere that passes from one part to the other has at most `neck_ratio` times
the radius of the largest sphere in the smaller part, and is at least one pixel smaller. The first condition has no
scale; the second, an absolute h-maxima criterion, keeps the roughness of digital surfaces (about half a pixel) from
counting. Two equal spheres are cut when their centres are further apart than 2 R sqrt(1 - neck_ratio^2), 1.43 R at
0.7. A convex body has no neck and is never cut.

By intensity: two parts are two particles when the way from one to the other leads through a saddle that is dim. With
heights of the smoothed intensity above the surroundings of the object, the saddle is at most `saddle_ratio` times as
high as the lower of the two peaks, and lower than that peak by (1 - saddle_ratio) / 2 of the object's median height at
least, so that noise at its dim edge does not count.
"""

from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array, ArraySource, BoolArray, Box
from tomoseg.measurement.common.sparse_object import SparseObject
from tomoseg.measurement.common.surface import Float32Array

# Bytes per voxel of an object while it is cut: where it lies (8), radius, order, basin, and what the basins are.
BYTES_PER_VOXEL = 24
CHUNK = 1 << 19  # voxels flooded at once, about a second
# The intensity is smoothed by a Gaussian of this width, px, that is cut off at the reach.
SMOOTHING_PX, REACH_PX = 1.0, 4
LEVELS = 1 << 16  # of height that are told apart


def separate_by_distance(
    sparse: SparseObject, neck_ratio: float = 0.7, checkpoint: Callable[[], None] = lambda: None
) -> NDArray[np.int32]:
    """Return the part (n,), 1..n_parts, of each voxel of an object, the widest first; see the top of this module.

    The object is in a box with a free voxel around it except at the border of the volume, where it may go on.
    `checkpoint` is called every second or so; it may raise to stop.
    """
    n = len(sparse.x)
    if n == 0 or n == np.prod(sparse.shape):
        return np.ones(n, np.int32)
    squared = sparse.squared_radii(checkpoint)
    order = _by_falling(squared)
    checkpoint()
    # The outside begins half a pixel before the centre of the nearest voxel outside.
    radius = np.sqrt(squared, dtype=np.float32) - np.float32(0.5)
    del squared
    return _parts(sparse, radius, order, neck_ratio, 1.0, checkpoint)


def separate_by_intensity(
    sparse: SparseObject,
    volume: ArraySource,
    outside: Callable[[Box], BoolArray],
    saddle_ratio: float = 0.8,
    checkpoint: Callable[[], None] = lambda: None,
) -> NDArray[np.int32]:
    """Return the part (n,), 1..n_parts, of each voxel of an object, the brightest first; see the top of this module.

    The object is in a box with `REACH_PX` around it except at the border of the volume (z, y, x) of intensities.
    `outside` returns which voxels of a box of it are not of the class counted. `checkpoint` as above.
    """
    if len(sparse.x) == 0:
        return np.ones(0, np.int32)
    height = _heights(sparse, volume, outside, checkpoint)
    highest = float(height.max())
    if highest <= 0:
        return np.ones(len(height), np.int32)
    order = _by_falling((height * ((LEVELS - 1) / highest)).astype(np.int32))
    least_drop = (1 - saddle_ratio) / 2 * float(np.median(height))
    return _parts(sparse, height, order, saddle_ratio, least_drop, checkpoint)


def _heights(
    sparse: SparseObject, volume: ArraySource, outside: Callable[[Box], BoolArray], checkpoint: Callable[[], None]
) -> Float32Array:
    """Return the smoothed intensity of each voxel (n,) above that of the surroundings; 0 where it is below.

    The surroundings are the voxels not of the class counted that share a face with the object: the mean of their
    intensities as they are. Plane by plane, so that sums do not depend on how much is read at once.
    """
    whole, n = np.ones(len(sparse.x), np.int32), sparse.shape[0]
    taps = np.exp(-(np.arange(-REACH_PX, REACH_PX + 1) ** 2) / (2 * SMOOTHING_PX**2))
    taps = (taps / taps.sum()).astype(np.float32)
    planes: dict[int, Array] = {}  # smoothed within the plane
    found, total, n_around = [], 0.0, 0
    for z in range(n):
        checkpoint()
        near = [min(max(k, 0), n - 1) for k in range(z - REACH_PX, z + REACH_PX + 1)]
        for k in set(near) - planes.keys():
            planes[k] = _smooth_plane(np.asarray(volume[_planes_of(sparse.box, k, k + 1)][0], np.float32), taps)
        planes = {k: planes[k] for k in sorted(set(near))}
        first = max(z - 1, 0)
        mask = sparse.mask(
            (slice(first, min(z + 2, n)), slice(0, sparse.shape[1]), slice(0, sparse.shape[2])), whole, 1
        )
        smooth = sum(tap * planes[k] for tap, k in zip(taps, near, strict=True))
        found.append(np.asarray(smooth)[mask[z - first]])
        here = _planes_of(sparse.box, z, z + 1)
        shell = ndimage.binary_dilation(mask)[z - first] & outside(here)[0]
        total += float(volume[here][0][shell].sum(dtype=np.float64))
        n_around += int(np.count_nonzero(shell))
    height = np.concatenate(found)
    return np.maximum(height - np.float32(total / n_around if n_around else 0.0), np.float32(0))


def _planes_of(box: Box, start: int, stop: int) -> Box:
    return slice(box[0].start + start, box[0].start + stop), box[1], box[2]


def _smooth_plane(plane: Array, taps: Float32Array) -> Array:
    for axis in (0, 1):
        plane = ndimage.correlate1d(plane, taps, axis=axis, mode="nearest")
    return plane


def _parts(
    sparse: SparseObject,
    height: Float32Array,
    order: NDArray[np.int32],
    ratio: float,
    least_drop: float,
    checkpoint: Callable[[], None],
) -> NDArray[np.int32]:
    """Flood an object from the highest voxels down; return the part (n,) of each, the highest first."""
    n = len(height)
    lines, n_y = sparse.lines(), sparse.shape[1]
    basin = np.full(n, -1, np.int32)
    basins, n_basins = np.zeros(0, BASIN), 0
    for start in range(0, n, CHUNK):
        checkpoint()
        chunk = order[start : start + CHUNK]
        basins = np.concatenate([basins[:n_basins], np.zeros(len(chunk), BASIN)])
        limits = np.float32(ratio), np.float32(least_drop)
        n_basins = _flood(sparse.starts, sparse.x, lines, n_y, chunk, height, *limits, basin, basins, n_basins)
    _numbered(basins[:n_basins], basin)
    return basin


# A place from which a part grew: the basin it was merged into (itself where it stands), its height (the radius of the
# largest sphere, or the intensity), and the saddle down to which it is no particle of its own.
BASIN = np.dtype([("parent", "i4"), ("height", "f4"), ("saddle", "f4")])


@numba.njit(nogil=True, cache=True)
def _by_falling(values: Array) -> Array:
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


@numba.njit(nogil=True, cache=True)
def _root(basins: Array, basin: int) -> int:
    """Return the basin into which `basin` was merged, and shorten the way there."""
    while basins[basin].parent != basin:
        basins[basin].parent = basins[basins[basin].parent].parent
        basin = basins[basin].parent
    return basin


@numba.njit(nogil=True, cache=True)
def _join(basins: Array, a: int, b: int, saddle: float) -> int:
    """Merge two basins that meet at a saddle of this height unless it is low enough; return the higher one."""
    if basins[a].height > basins[b].height:
        a, b = b, a
    if a != b and saddle > basins[a].saddle:
        basins[a].parent = b
    return b


@numba.njit(nogil=True, cache=True)
def _bisect(x: Array, start: int, stop: int, value: int) -> int:
    """Return the first place in [start, stop) where the rising `x` is at least `value`."""
    while start < stop:
        middle = (start + stop) // 2
        if x[middle] < value:
            start = middle + 1
        else:
            stop = middle
    return start


@numba.njit(nogil=True, cache=True)
def _flood(
    starts: Array,
    x: Array,
    lines: Array,
    n_y: int,
    order: Array,
    height: Array,
    ratio: np.float32,
    least_drop: np.float32,
    basin: Array,
    basins: Array,
    n_basins: int,
) -> int:
    """Flood from the highest places downwards; where two basins meet, the lower one ends unless the saddle is low.

    The basins of the h-maxima watershed without its two passes (reconstruction, then flooding).

    For `starts`, `x` and `lines` see `SparseObject`; `n_y` lines have the same z. `order` are the next voxels by
    falling `height`. A basin of height h stands where the saddle is at ratio * h or lower, and lower by `least_drop` or
    more. `basin` (n,) of each voxel, -1 before it is flooded, is filled in, and so are `basins` from `n_basins` on,
    long enough for a new one at every voxel. Returns how many basins there are now.
    """
    n_lines = len(starts) - 1
    for voxel in order:
        last, top, nearest, highest = -1, -1, -1, np.float32(-1)
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
                            top = root if top < 0 else _join(basins, root, top, height[voxel])
                        if height[other] > highest:
                            highest, nearest = height[other], last
                    other += 1
        if nearest < 0:
            h = height[voxel]
            basins[n_basins].parent = n_basins
            basins[n_basins].height = h
            basins[n_basins].saddle = min(ratio * h, h - least_drop)
            nearest = n_basins
            n_basins += 1
        basin[voxel] = nearest
    return n_basins


@numba.njit(nogil=True, cache=True)
def _numbered(basins: Array, basin: Array) -> None:
    """Assign numbers to the basins that still stand, in the order they were opened, which is by falling height."""
    number = np.zeros(len(basins), np.int32)
    n_parts = 0
    for k in range(len(basins)):
        if basins[k].parent == k:
            n_parts += 1
            number[k] = n_parts
    for voxel in range(len(basin)):
        basin[voxel] = number[_root(basins, basin[voxel])]
