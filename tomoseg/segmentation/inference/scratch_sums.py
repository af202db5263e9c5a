"""Sums of probabilities that are too large for memory, in a temporary file."""

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import StageFailed
from tomoseg.runtime import Runtime, slabs

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
        folder = tempfile.gettempdir()
        runtime.progress.message(
            f"summing the probabilities of all planes needs {size / 2**20:.0f} MiB of temporary space in {folder}; if "
            "interrupted, it starts again"
        )
        self._file = tempfile.TemporaryFile(prefix="tomoseg-")  # noqa: SIM115  closed by `close`
        if not _reserved(self._file.fileno(), size, folder):
            self.close()
            raise StageFailed(
                f"segment.plane is all, which needs {size / 2**30:.1f} GiB of temporary space in {folder}, and less is "
                "free: set TMPDIR to a folder with more space, or choose one plane"
            )
        self._file.truncate(size)

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


def _reserved(file: int, size: int, folder: str) -> bool:
    """Reserve space for a file and return whether there is enough; a disk full later would kill the process."""
    if size > shutil.disk_usage(folder).free:
        return False
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            return error.errno != errno.ENOSPC  # not every file system can reserve
    return True
