"""Arrays that are too large for memory and are needed for a while only: temporary files without a name."""

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from typing import IO, Any

import numpy as np

from tomoseg.arrays import ArraySink, MemoryOutputs
from tomoseg.errors import StageFailed
from tomoseg.schema import BY_NAME

HELD_BYTES = 64 << 20  # an array of no more is held in memory


def reserved(file: int, size: int, folder: str) -> bool:
    """Reserve space for a file and return whether there is enough; a disk full later would kill the process."""
    if size > shutil.disk_usage(folder).free:
        return False
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            return error.errno != errno.ENOSPC  # not every file system can reserve
    return True


def scratch_file(size: int, what: str) -> IO[bytes]:
    """Return an open temporary file of `size` bytes, all zero; nothing of it remains however the process ends.

    Raises `StageFailed` where there is no space; `what` says what needs it.
    """
    folder = tempfile.gettempdir()
    file = tempfile.TemporaryFile(prefix="tomoseg-")  # noqa: SIM115  closed by the caller
    if not reserved(file.fileno(), size, folder):
        file.close()
        raise StageFailed(
            f"{what} needs {size / 2**30:.1f} GiB of temporary space in {folder}, and less is free: set TMPDIR to a "
            "folder with more space"
        )
    file.truncate(size)
    return file


class ScratchOutputs(MemoryOutputs):
    """Results that no project keeps: small arrays in memory, large ones in temporary files until `close`."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what
        self._files = ExitStack()

    def create(
        self, name: str, shape: tuple[int, ...], dtype: Any = None, attrs: Mapping[str, Any] | None = None
    ) -> ArraySink:
        """Return an array of `shape` (dtype as in the schema unless given), zero at first."""
        kind = np.dtype(dtype or BY_NAME[name].dtype)
        size = math.prod(shape) * kind.itemsize
        if size <= HELD_BYTES:
            self.arrays[name] = np.zeros(shape, kind)
        else:
            file = self._files.enter_context(scratch_file(size, self._what))
            self.arrays[name] = np.memmap(file, kind, "r+", shape=shape)
        self.set_attrs(name, attrs or {})
        return self.arrays[name]

    def close(self) -> None:
        """Free the space."""
        self.arrays.clear()
        self._files.close()
