"""One pass over the volume and one over the labels: all slices the page turns through, and where each class is.

A slice per position read by itself would read every block of a stored volume dozens of times. Here slabs along y, in
which volumes are stored, are read once each; images wider than the page shows are averaged as they come.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, ArraySource

SLICES = 64  # of each direction, at most
SIDE = 400  # px of a slice, at most
SLAB_BYTES = 48 << 20
MOST_CELLS = 20_000_000  # in which the fractions of the classes are counted
# (constant axis, rows, columns) of the three pictures, as names of the axes of the array
PLANES = {"xy": (0, "y", "x"), "zy": (2, "y", "z"), "xz": (1, "z", "x")}


@dataclass(frozen=True)
class Slices:
    """Slices through an array (z, y, x): `images[plane]` (n, rows, columns) at `positions[plane]` (n,).

    A pixel is `factor`^2 voxels.
    """

    images: dict[str, Array]
    positions: dict[str, NDArray[np.int64]]
    factor: int


def chosen(n: int, most: int = SLICES) -> NDArray[np.int64]:
    """Return the positions, evenly from the first to the last, at which an axis of length `n` is cut."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def slices(source: ArraySource, side: int = SIDE, *, average: bool = True) -> Slices:
    """Cut an array (z, y, x) into slices of all three directions.

    Parameters
    ----------
    source
        Read once, in slabs along y.
    side
        Longest side of an image, px, about.
    average
        Average the voxels of a pixel, in float32; else take the middle one, as labels need it.
    """
    shape = (int(source.shape[0]), int(source.shape[1]), int(source.shape[2]))
    factor = -(-max(shape) // side)
    nz, ny, nx = (-(-n // factor) for n in shape)
    at = {plane: chosen(shape[axis]) for plane, (axis, _, _) in PLANES.items()}
    dtype = np.float32 if average else source.dtype
    images = {
        "xy": np.empty((len(at["xy"]), ny, nx), dtype),
        "zy": np.empty((len(at["zy"]), ny, nz), dtype),
        "xz": np.empty((len(at["xz"]), nz, nx), dtype),
    }
    for start, slab in slabs(source, factor):
        rows = slice(start // factor, start // factor + -(-slab.shape[1] // factor))
        images["xy"][:, rows] = _reduced(slab[at["xy"]], factor, average)
        images["zy"][:, rows] = _reduced(np.moveaxis(slab[:, :, at["zy"]], 2, 0).swapaxes(1, 2), factor, average)
        here = np.flatnonzero((at["xz"] >= start) & (at["xz"] < start + slab.shape[1]))
        images["xz"][here] = _reduced(slab[:, at["xz"][here] - start].swapaxes(0, 1), factor, average)
    return Slices(images, at, factor)


def slabs(source: ArraySource, multiple: int) -> Iterator[tuple[int, Array]]:
    """Yield (first y, slab) along y; slabs are as long as memory allows and begin at multiples of `multiple`."""
    nz, ny, nx = source.shape
    lines = max(1, SLAB_BYTES // (nz * nx * source.dtype.itemsize) // multiple) * multiple
    for start in range(0, ny, lines):
        yield start, np.asarray(source[:, start : start + lines])


def _reduced(images: Array, factor: int, average: bool) -> Array:
    """Reduce images (n, rows, columns) by a whole factor; pixels at the far ends may lack voxels."""
    if factor == 1:
        return images
    if not average:
        rows, columns = (np.minimum(np.arange(0, n, factor) + factor // 2, n - 1) for n in images.shape[1:])
        return images[:, rows[:, None], columns]
    starts = [np.arange(0, n, factor) for n in images.shape[1:]]
    sums = np.add.reduceat(np.add.reduceat(images.astype(np.float32), starts[0], axis=1), starts[1], axis=2)
    lengths = [np.diff(np.append(s, n)) for s, n in zip(starts, images.shape[1:], strict=True)]
    return np.asarray(sums / np.float32(lengths[0][:, None] * lengths[1]), np.float32)


@dataclass(frozen=True)
class Fractions:
    """How much of each cell of `factor`^3 voxels is of each class: `of[i]` (z, y, x) u1 in 1/`full` of class i + 1.

    Voxels that cells at the far ends lack count as empty.
    """

    of: NDArray[np.uint8]
    factor: int

    @property
    def full(self) -> int:
        """Value of a cell that is full."""
        return min(255, self.factor**3)


def fractions(labels: ArraySource, n_classes: int, most_cells: int = MOST_CELLS) -> Fractions:
    """Count the classes but the background in cells; labels (z, y, x) are read once, in slabs along y."""
    shape = labels.shape
    factor = 1
    while np.prod([-(-n // factor) for n in shape]) > most_cells:
        factor += 1
    cells = [-(-n // factor) for n in shape]
    found = np.zeros((n_classes - 1, *cells), np.uint8)
    for start, slab in slabs(labels, factor):
        part = found[:, :, start // factor : start // factor + -(-slab.shape[1] // factor)]
        _count_all(slab, factor, part)
    return Fractions(found, factor)


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
