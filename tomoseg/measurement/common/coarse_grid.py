"""Coarse grid: labels read in cells of k^3 voxels, for what needs the whole volume at once."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import ArraySource
from tomoseg.runtime import Runtime, slabs

MOST_CELLS = 64_000_000  # more take minutes, whatever the memory
BYTES_PER_CELL = 40  # while distances are spread and pores labelled
BYTES_PER_KIND = 2  # of a cell anywhere in the volume


def cell_side(shape: Sequence[int], n_bytes: float, most: int = MOST_CELLS, body: Sequence[int] | None = None) -> int:
    """Return the smallest side of cells, px, that cuts `body` into at most `most` cells which fit in `n_bytes`.

    `body` is the box of what is looked at, by default all of the volume of `shape`, whose cells need little elsewhere.
    """
    body = shape if body is None else body
    k = 1
    while True:
        inside, everywhere = (math.prod(-(-n // k) for n in sides) for sides in (body, shape))
        if inside <= most and (inside * BYTES_PER_CELL + everywhere * BYTES_PER_KIND <= n_bytes or inside == 1):
            return k
        k += 1


def box_of(labels: ArraySource, kind_of_class: NDArray[np.uint8], kind: int, runtime: Runtime) -> list[slice]:
    """Return the box (z, y, x) around the voxels of a kind; empty slices where there are none."""
    nz, ny, nx = labels.shape
    found = [np.zeros(n, np.bool_) for n in (nz, ny, nx)]
    for part in slabs(nz, runtime.slab_size(2 * ny * nx, nz)):
        runtime.check()
        _mark(labels[part], kind_of_class, kind, found[0][part], found[1], found[2])
    places = [np.flatnonzero(one) for one in found]
    return [slice(int(p[0]), int(p[-1]) + 1) if len(p) else slice(0, 0) for p in places]


def coarse_grid(
    labels: ArraySource,
    kind_of_class: NDArray[np.uint8],
    side: int,
    slab_bytes: float,
    checkpoint: Callable[[], None] = lambda: None,
    workers: int = 1,
) -> NDArray[np.uint8]:
    """Return the commonest kind, 0 to 2, (z, y, x) of the voxels of each cell of `side`^3; of equal ones the first.

    Labels are read slab by slab, some `slab_bytes` at a time; `kind_of_class` gives the kind of each class. Cells at
    the end of the volume may have fewer voxels. The centre of cell c is at voxel c * side + (side - 1) / 2.
    """
    nz, ny, nx = labels.shape
    kinds = np.empty([-(-n // side) for n in labels.shape], np.uint8)
    planes = max(1, int(slab_bytes / (side * ny * nx)))
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for z in slabs(len(kinds), planes):
            checkpoint()
            here = labels[z.start * side : min(z.stop * side, nz)]
            parts = [slice(p[0], p[-1] + 1) for p in np.array_split(np.arange(z.stop - z.start), workers) if len(p)]
            own = (here[p.start * side : p.stop * side] for p in parts)
            list(
                pool.map(
                    _commonest, own, [kind_of_class] * len(parts), [side] * len(parts), [kinds[z][p] for p in parts]
                )
            )
    return kinds


def _mark_kind(labels, kind_of_class, kind, at_z, at_y, at_x):  # type: ignore[no-untyped-def]
    """Mark the places along each axis where labels (z, y, x) of a kind are."""
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            some = False
            for x in range(labels.shape[2]):
                if kind_of_class[labels[z, y, x]] == kind:
                    some = True
                    at_x[x] = True
            if some:
                at_z[z] = True
                at_y[y] = True


def _commonest_kind(labels, kind_of_class, side, kinds):  # type: ignore[no-untyped-def]
    """Fill `kinds` (z, y, x) with the commonest kind of each cell of labels (z, y, x)."""
    counts = np.empty((kinds.shape[2], 3), np.int32)
    for cz in range(kinds.shape[0]):
        for cy in range(kinds.shape[1]):
            counts[:] = 0
            for z in range(cz * side, min(labels.shape[0], (cz + 1) * side)):
                for y in range(cy * side, min(labels.shape[1], (cy + 1) * side)):
                    for cx in range(kinds.shape[2]):
                        for x in range(cx * side, min(labels.shape[2], (cx + 1) * side)):
                            counts[cx, kind_of_class[labels[z, y, x]]] += 1
            for cx in range(kinds.shape[2]):
                best = 0
                for kind in range(1, 3):
                    if counts[cx, kind] > counts[cx, best]:
                        best = kind
                kinds[cz, cy, cx] = best


_mark = numba.njit(nogil=True, cache=True)(_mark_kind)
_commonest = numba.njit(nogil=True, cache=True)(_commonest_kind)
