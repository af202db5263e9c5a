"""Coarse grid: labels read in cells of k^3 voxels, for what needs the whole volume at once."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, ArraySource
from tomoseg.runtime import slabs

MOST_CELLS = 64_000_000  # more take minutes, whatever the memory
BYTES_PER_CELL = 40  # while distances are spread and pores labelled


def cell_side(shape: Sequence[int], n_bytes: float, most: int = MOST_CELLS) -> int:
    """Return the smallest side of cells, px, that cuts `shape` into at most `most` cells which fit in `n_bytes`."""
    limit = max(1, min(most, int(n_bytes / BYTES_PER_CELL)))
    k = 1
    while math.prod(-(-n // k) for n in shape) > limit:
        k += 1
    return k


def coarse_grid(
    labels: ArraySource,
    kind_of_class: NDArray[np.uint8],
    side: int,
    slab_bytes: float,
    checkpoint: Callable[[], None] = lambda: None,
) -> NDArray[np.uint8]:
    """Return the commonest kind, 0 to 2, (z, y, x) of the voxels of each cell of `side`^3 voxels.

    Labels are read slab by slab, some `slab_bytes` at a time; `kind_of_class` gives the kind of each class. Cells at
    the end of the volume may have fewer voxels. The centre of cell c is at voxel c * side + (side - 1) / 2.
    """
    nz, ny, nx = labels.shape
    kinds = np.empty([-(-n // side) for n in labels.shape], np.uint8)
    planes = max(1, int(slab_bytes / (8 * side * ny * nx)))
    for z in slabs(len(kinds), planes):
        checkpoint()
        here = kind_of_class[labels[z.start * side : min(z.stop * side, nz)]]
        kinds[z] = here if side == 1 else _commonest(here, side)
    return kinds


def _commonest(kinds: Array, side: int) -> Array:
    counts = []
    for kind in range(3):
        count = (kinds == kind).astype(np.uint16)
        for axis in range(3):
            count = np.add.reduceat(count, np.arange(0, count.shape[axis], side), axis=axis, dtype=np.uint16)
        counts.append(count)
    return np.asarray(np.argmax(counts, axis=0), np.uint8)  # of equal ones the first
