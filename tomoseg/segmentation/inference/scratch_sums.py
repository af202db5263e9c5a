"""Sums of probabilities that are too large for memory, in a temporary file."""

import math
import tempfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.runtime import Runtime, slabs
from tomoseg.scratch import scratch_file

BLOCK_BYTES = 64 << 20  # in memory at a time


class ScratchSums:
    """A (classes, z, y, x) array of 16-bit integers in a temporary file, zero at first, mapped a block at a time.

    The file has no name, so nothing of it remains however the process ends.
    """

    def __init__(self, n: int, shape: tuple[int, ...], runtime: Runtime) -> None:
        self._plane = (n, *shape[1:])
        self._plane_bytes = 2 * math.prod(self._plane)
        self._nz = shape[0]
        size = shape[0] * self._plane_bytes
        runtime.progress.message(
            f"summing the probabilities of all planes needs {size / 2**20:.0f} MiB of temporary space in "
            f"{tempfile.gettempdir()}; if interrupted, it starts again"
        )
        self._file = scratch_file(size, "segment.plane is all, which")

    def add(self, box: tuple[slice, ...], values: NDArray[np.uint16]) -> None:
        """Add `values` (classes, z, y, x) to the part of the volume `box`."""
        for where, planes in self._blocks(box[0]):
            planes[:, :, box[1], box[2]] += np.moveaxis(values[:, where], 0, 1)

    def __getitem__(self, box: tuple[slice, ...]) -> NDArray[np.uint16]:
        parts = [np.moveaxis(np.array(planes[:, :, box[1], box[2]]), 0, 1) for _, planes in self._blocks(box[0])]
        return np.concatenate(parts, axis=1)

    def _blocks(self, rows: slice) -> Iterator[tuple[slice, Array]]:
        """Yield blocks of planes `rows`, counted from the first of them, and a map of each, (n, classes, y, x)."""
        start, stop, _ = rows.indices(self._nz)
        for part in slabs(stop - start, max(1, BLOCK_BYTES // self._plane_bytes)):
            offset, n = (start + part.start) * self._plane_bytes, part.stop - part.start
            yield part, np.memmap(self._file, np.uint16, "r+", offset, (n, *self._plane))

    def close(self) -> None:
        """Free the space."""
        self._file.close()
