"""Coarse grid: labels read in cells of k^3 voxels, for what needs the whole volume at once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class CoarseGrid:
    """A labelled volume in cells of `side`^3 voxels.

    `kinds` (z, y, x) u1 holds the commonest kind, 0 to 2, of the voxels of each cell; cells at the end of the volume
    may have fewer voxels. The centre of cell c is at voxel c * side + (side - 1) / 2.
    """

    kinds: NDArray[np.uint8]
    side: int

    @classmethod
    def read(
        cls,
        labels: ArraySource,
        kind_of_class: NDArray[np.uint8],
        side: int,
        slab_bytes: float,
        checkpoint: Callable[[], None] = lambda: None,
    ) -> "CoarseGrid":
        """Read labels slab by slab, some `slab_bytes` at a time; `kind_of_class` gives the kind of each class."""
        nz, ny, nx = labels.shape
        shape = tuple(-(-n // side) for n in labels.shape)
        kinds = np.empty(shape, np.uint8)
        planes = max(1, int(slab_bytes / (8 * side * ny * nx)))
        for z in slabs(shape[0], planes):
            checkpoint()
            here = kind_of_class[labels[z.start * side : min(z.stop * side, nz)]]
            kinds[z] = here if side == 1 else _commonest(here, side, len(kind_of_class))
        return cls(kinds, side)


def _commonest(kinds: Array, side: int, n_kinds: int) -> Array:
    most, best = None, None
    for kind in range(min(3, n_kinds)):
        count = (kinds == kind).astype(np.uint16)
        for axis in range(3):
            count = np.add.reduceat(count, np.arange(0, count.shape[axis], side), axis=axis, dtype=np.uint16)
        if most is None or best is None:
            most, best = count, np.zeros(count.shape, np.uint8)
        else:
            larger = count > most
            best[larger] = kind
            most = np.maximum(most, count)
    assert best is not None
    return best
