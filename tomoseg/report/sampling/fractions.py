"""How much of each part of the volume belongs to each class, counted in one pass over the labels."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array, ArraySource
from tomoseg.components import component_sizes, looked_up
from tomoseg.report.sampling.slices import SLAB_BYTES, slabs

MOST_CELLS = 20_000_000  # of the coarse grid in which fractions are counted
MOST_BYTES = 160_000_000  # of all classes together
SMALLEST_PORE = 8  # cells: what is smaller is a speck


@dataclass(frozen=True)
class Fractions:
    """The share of each class in each cell of `factor`^3 voxels: `of[i]` (z, y, x) u1, in 1/`full`, of class i + 1.

    Where cells at the far ends lack voxels, the missing ones count as background.
    """

    of: NDArray[np.uint8]
    factor: int

    @property
    def full(self) -> int:
        """The value of a cell that lies entirely in a class."""
        return min(255, self.factor**3)


def fractions(
    labels: ArraySource, n_classes: int, most_cells: int = MOST_CELLS, *, slab_bytes: int = SLAB_BYTES
) -> Fractions:
    """Count all classes but the background, cell by cell; labels (z, y, x) are read once, in slabs along y."""
    shape = labels.shape
    most_cells = min(most_cells, MOST_BYTES // max(1, n_classes - 1))
    factor = 1
    while np.prod([-(-n // factor) for n in shape]) > most_cells:
        factor += 1
    cells = [-(-n // factor) for n in shape]
    found = np.zeros((n_classes - 1, *cells), np.uint8)
    for start, slab in slabs(labels, factor, slab_bytes):
        part = found[:, :, start // factor : start // factor + -(-slab.shape[1] // factor)]
        _count_all(slab, factor, part)
    return Fractions(found, factor)


def with_closed_pores(found: Fractions) -> Fractions:
    """Add closed pores as a further class, if there are any: cells of background that others shut off from the border.

    As in exports, cells of one pore share faces. On cells of several voxels, pores narrower than these are not seen.
    """
    import cc3d

    filled = np.minimum(found.of.sum(axis=0, dtype=np.uint16), found.full).astype(np.uint8)
    numbers, n = cc3d.connected_components(filled < (found.full + 1) // 2, connectivity=6, return_N=True)
    if not n:
        return found
    closed = np.ones(n + 1, bool)
    closed[0] = False
    for axis in range(3):
        for end in (0, -1):
            closed[np.unique(numbers.take(end, axis))] = False
    closed &= component_sizes(numbers, n) >= SMALLEST_PORE
    if not closed.any():
        return found
    inside = looked_up(closed, numbers)
    if found.factor > 1:  # cells at the wall of a pore are partly of it
        inside = ndimage.binary_dilation(inside, np.ones((3, 3, 3), bool)) & (inside | (numbers == 0))
    pores = np.where(inside, found.full - filled, 0).astype(np.uint8)
    return Fractions(np.concatenate([found.of, pores[None]]), found.factor)


def block_means(values: Array, k: int, mode: Literal["constant", "edge"] = "constant") -> NDArray[np.float32]:
    """Average over cubes of side k; cells missing at the far ends count as empty, or repeat the last ("edge")."""
    padded = np.pad(values, [(0, -n % k) for n in values.shape], mode=mode)
    z, y, x = (n // k for n in padded.shape)
    return np.asarray(padded.reshape(z, k, y, k, x, k).mean(axis=(1, 3, 5), dtype=np.float32))


def _count_all(slab: Array, factor: int, found: NDArray[np.uint8]) -> None:
    layers = found.shape[1]
    workers = os.cpu_count() or 1
    bounds = np.linspace(0, layers, workers + 1).round().astype(int)

    def band(first: int, last: int) -> None:
        _count(np.ascontiguousarray(slab[first * factor : last * factor]), factor, found[:, first:last])

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(band, bounds[:-1], bounds[1:]))


def _count_cells(slab: NDArray[np.uint8], factor: int, found: NDArray[np.uint8]) -> None:
    """Fill `found` (classes, z, y, x) from a slab of labels that begins at a cell."""
    nz, ny, nx = slab.shape
    n, _, rows, columns = found.shape
    volume, full = factor**3, min(255, factor**3)
    counts = np.zeros((n, rows, columns), np.int64)
    for layer in range(found.shape[1]):
        counts[:] = 0
        for z in range(layer * factor, min(nz, (layer + 1) * factor)):
            for y in range(ny):
                for x in range(nx):
                    label = slab[z, y, x]
                    if 0 < label <= n:
                        counts[label - 1, y // factor, x // factor] += 1
        for c in range(n):
            for j in range(rows):
                for i in range(columns):
                    found[c, layer, j, i] = (counts[c, j, i] * full + volume // 2) // volume


_count = numba.njit(nogil=True, cache=True)(_count_cells)
