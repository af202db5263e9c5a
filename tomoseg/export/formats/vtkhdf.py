"""Format `vtkhdf`: VTK image data in HDF5, compressed in chunks, for volumes larger than memory.

The layout is that of "VTKHDF File Format" (docs.vtk.org), version 1.0, which every reader knows: VTK since 9.1 and
ParaView since 5.10, which up to 5.11 does not tell the format by the name and asks for the reader: "VTKHDF Reader".
HDF5's own filters (shuffle, gzip) need no plugin.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tomoseg.arrays import ArraySource
from tomoseg.chunks import pieces
from tomoseg.export.context import ExportContext, Facts
from tomoseg.export.formats.base import Format
from tomoseg.export.frame import world_origin
from tomoseg.runtime import Track, untracked

CHUNKS = (8, 128, 128)
GZIP_LEVEL = 1  # noise of floats does not shrink more with others, which take several times as long


def write_vtkhdf(
    path: Path,
    data: ArraySource,
    voxel_size: float,
    name: str,
    facts: Facts | None = None,
    *,
    slab_bytes: int = 64 << 20,
    track: Track = untracked,
) -> None:
    """Write a volume as VTK image data in HDF5, upright in ParaView: see `tomoseg.export.frame`.

    Parameters as for `write_vti`; `data` are read in boxes of whole chunks. `facts` are attributes of the group
    `VTKHDF`: readers of this version know no texts as field data.
    """
    import h5py

    nz, ny, nx = (int(n) for n in data.shape)
    dtype = np.dtype(data.dtype).newbyteorder("<")
    chunks = tuple(min(c, n) for c, n in zip(CHUNKS, (nz, ny, nx), strict=True))
    todo = pieces((nz, ny, nx), chunks, dtype.itemsize, slab_bytes)
    with _open_new(path) as sink, h5py.File(sink, "w") as file:
        root = file.create_group("VTKHDF")
        root.attrs["Version"] = np.array([1, 0], np.int64)
        root.attrs.create("Type", b"ImageData", dtype=h5py.string_dtype("ascii", len("ImageData")))
        root.attrs["WholeExtent"] = np.array([0, nx - 1, 0, ny - 1, 0, nz - 1], np.int64)
        root.attrs["Origin"] = np.array(world_origin((nz, ny, nx), voxel_size))
        root.attrs["Spacing"] = np.full(3, float(voxel_size))
        root.attrs["Direction"] = np.eye(3).ravel()
        for key, text in (facts or {}).items():
            root.attrs[key] = text if isinstance(text, str) else list(text)
        points = root.create_group("PointData")
        stored = points.create_dataset(
            name, (nz, ny, nx), dtype, chunks=chunks, shuffle=True, compression="gzip", compression_opts=GZIP_LEVEL
        )
        stored.attrs.create("Attribute", b"Scalars", dtype=h5py.string_dtype("ascii", len("Scalars")))
        for z, y, x in track(todo, f"writing {name}.vtkhdf"):
            read = data[nz - z.stop : nz - z.start, ny - y.stop : ny - y.start, x]
            stored[z, y, x] = read[::-1, ::-1]
            sink.check()


class _Sink(io.RawIOBase):
    """A file that remembers its first write error and silently drops what is written after it.

    HDF5 does not survive an error while it closes a file, as on a full disk: it would end the process.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the first write error, if there was one."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        """Write all of the data, or drop it after an error."""
        left = memoryview(data).cast("B")
        total = len(left)
        while len(left) and self._error is None:
            try:
                left = left[self._file.write(left) :]  # an unbuffered file may take a part
            except OSError as error:
                self._error = error
        return total

    def readinto(self, buffer: Any) -> int:
        """Read back; zeros where data were dropped."""
        view = memoryview(buffer).cast("B")
        n = self._file.readinto(view)  # type: ignore[attr-defined]
        view[n:] = bytes(len(view) - n)
        return len(view)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0


@contextmanager
def _open_new(path: Path) -> Iterator[_Sink]:
    """Open a file that HDF5 may write to; the first write error is raised after HDF5 has closed it."""
    with path.open("w+b", buffering=0) as file:
        sink = _Sink(file)
        yield sink
        sink.check()


def _write(context: ExportContext) -> None:
    for name, data in context.arrays.items():
        with context.writing(f"{name}.vtkhdf") as path:
            write_vtkhdf(path, data, context.voxel_size, name, context.facts, **context.writing_options)


FORMAT = Format(
    name="vtkhdf",
    description="the same compressed, for VTK 9.1 and ParaView 5.10 or later",
    files=lambda context: {f"{name}.vtkhdf": size for name, size in context.compressed_bytes.items()},
    write=_write,
)
