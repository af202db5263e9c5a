"""The part of a volume where there is something: beyond it lies vacuum, which a network need not look at.

Reconstructions by MLEM are zero in vacuum, but for streaks and noise. A cell of `CELL_PX`^3 voxels counts as empty
where its mean absolute value is below `EMPTY` of the threshold between vacuum and the dimmest material, some 2.5 % of
that material itself. So only clean vacuum is left out: where noise or streaks fill a volume, all of it is looked at.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.ahead import ahead
from tomoseg.arrays import Array, ArraySource, Box
from tomoseg.runtime import Runtime, slabs
from tomoseg.segmentation.data.histogram import ROWS, Histogram, partition, require_finite

CELL_PX = 4  # a part of `ROWS`
BYTES_PER_VOXEL = 16  # of a slab: itself, the next one, its size without sign, and what means are made of
EMPTY = 0.05
MARGIN_PX = 8  # of vacuum that the network sees around the sample
STEP_PX = 16  # sides are multiples of it: networks are converted for each size of slices
WORTHWHILE = 0.8  # of the volume; a larger part is not worth it


@dataclass(frozen=True)
class Window:
    """A box of a volume (z, y, x), to be read as one of its own."""

    volume: ArraySource
    box: Box

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""
        return tuple(s.stop - s.start for s in self.box)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels."""
        return self.volume.dtype

    @property
    def n_outside(self) -> int:
        """Number of voxels of the volume that are not in the box."""
        return math.prod(self.volume.shape) - math.prod(self.shape)

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        places: list[Any] = list(self.box)
        for axis, (one, side) in enumerate(zip(keys, self.box, strict=False)):
            n = side.stop - side.start
            if isinstance(one, slice):
                first, last, step = one.indices(n)
                places[axis] = slice(side.start + first, side.start + last, step)
            else:
                places[axis] = side.start + range(n)[one]
        return self.volume[tuple(places)]

    def around(self, values: Array, axis: int, part: slice, fill: int) -> tuple[Box, NDArray[np.uint8]]:
        """Return whole planes of the volume that hold `values` of planes `part` of the window, and `fill` beside them.

        `values` are (z, y, x); `part` counts along `axis` within the window. Comes with the place of the planes.
        """
        own, sides = list(self.box), [slice(0, n) for n in self.volume.shape]
        start = self.box[axis].start
        sides[axis] = own[axis] = slice(start + part.start, start + part.stop)
        whole = np.full([s.stop - s.start for s in sides], fill, np.uint8)
        own[axis] = slice(0, part.stop - part.start)
        whole[tuple(own)] = values
        return (sides[0], sides[1], sides[2]), whole

    def beyond(self, axis: int, most: int) -> Iterator[Box]:
        """Yield the places of the planes before and behind the window along `axis`, `most` at a time."""
        n, side = self.volume.shape[axis], self.box[axis]
        for start, stop in ((0, side.start), (side.stop, n)):
            for part in slabs(stop - start, most):
                places = [slice(0, length) for length in self.volume.shape]
                places[axis] = slice(start + part.start, start + part.stop)
                yield places[0], places[1], places[2]


def occupied(volume: ArraySource, values: Histogram, runtime: Runtime) -> Window:
    """Return the part of a volume (z, y, x) where it is not empty, with a margin; all of it where that is most.

    Parameters
    ----------
    volume : (z, y, x)
    values : histogram of its voxels

    Raises
    ------
    StageFailed
        The volume holds NaN or infinity.
    """
    shape = volume.shape
    whole = Window(volume, _box(slice(0, n) for n in shape))
    # Of three classes, too: a support may be far dimmer than the particles on it.
    level = EMPTY * min(float(partition(values, n).thresholds[0]) for n in (2, 3))
    found = [np.zeros(-(-n // CELL_PX), bool) for n in shape]
    # Along y, as volumes are stored for slices across it.
    parts = slabs(shape[1], runtime.slab_size(BYTES_PER_VOXEL * shape[0] * shape[2], shape[1], ROWS))

    def cells(y: slice) -> NDArray[np.bool_]:
        values = np.asarray(volume[:, y], np.float32)
        require_finite(values)
        return np.asarray(_means(np.abs(values)) >= level)

    with closing(ahead(cells, parts)) as all_cells:
        for y, here in zip(runtime.track(parts, "looking for vacuum"), all_cells, strict=True):
            found[0] |= here.any(axis=(1, 2))
            found[1][y.start // CELL_PX : -(-y.stop // CELL_PX)] = here.any(axis=(0, 2))
            found[2] |= here.any(axis=(0, 1))
    if not found[0].any():
        return whole
    box = _box(_grown(np.flatnonzero(at), n) for at, n in zip(found, shape, strict=True))
    part = Window(volume, box)
    return part if math.prod(part.shape) <= WORTHWHILE * math.prod(shape) else whole


def _means(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of each cell (z, y, x); those at the end may be smaller."""
    for axis in range(3):
        starts = np.arange(0, values.shape[axis], CELL_PX)
        lengths = np.diff([*starts, values.shape[axis]]).astype(np.float32)
        shape = [-1 if a == axis else 1 for a in range(3)]
        values = np.asarray(np.add.reduceat(values, starts, axis=axis) / lengths.reshape(shape), np.float32)
    return values


def _grown(cells: NDArray[np.intp], n: int) -> slice:
    """Return the voxels of an axis of `n` around occupied cells: with the margin, and as many as is a multiple."""
    low, high = int(cells[0]) * CELL_PX - MARGIN_PX, (int(cells[-1]) + 1) * CELL_PX + MARGIN_PX
    side = min(n, -(-(high - low) // STEP_PX) * STEP_PX)
    start = min(max(0, (low + high - side) // 2), n - side)
    return slice(start, start + side)


def _box(sides: Iterable[slice]) -> Box:
    z, y, x = sides
    return z, y, x
