"""The layout of arrays in the file: format, chunks, compression, reserved space, text."""

import math
from typing import Any

import h5py
import numpy as np

from tomoseg import schema
from tomoseg.project.journal import Extent

# Metadata of HDF5 1.10 (2016) are checksummed, hold attributes over 64 KiB, and give back the space of a deleted array.
# Its mark of a file open for writing, which would lock readers out, never reaches the disk: only closed files do.
FORMAT: dict[str, Any] = {"libver": ("v110", "v110")}
# Free space is tracked across openings, so that re-running a stage reuses what it frees.
NEW_FILE: dict[str, Any] = {"fs_strategy": "fsm", "fs_persist": True, "fs_threshold": 1}
# Chunk lengths by dimension. Aligned images are written tilt by tilt and read slab by slab along y; volumes are
# written in slabs of y and looked at in orthoslices of all three directions.
CHUNKS: dict[tuple[str, ...], tuple[int, ...]] = {
    ("tilt", "y", "x"): (8, 64, 1 << 30),
    ("tilt", "signal", "y", "x"): (8, 1, 64, 1 << 30),
    ("z", "y", "x"): (64, 16, 64),
    ("signal", "z", "y", "x"): (1, 64, 16, 64),
}
GZIP_ARTIFACTS = {"labels", "confidence"}  # compress well, and gzip needs no plugin to be read
BULK_BYTES = 1 << 20  # arrays from here on have their space reserved, to be written in place


def create_array(group: h5py.Group, artifact: schema.Artifact, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    """Create an array to be filled slab by slab.

    A large one that is not compressed gets its space at once, which is then written without any change of metadata.
    The first dimension may grow, by its description only: HDF5 1.14 loses the space of a reserved array of fixed size
    when it is deleted.
    """
    chunks = _chunks(artifact, shape)
    options: dict[str, Any] = {"chunks": chunks}
    if artifact.name in GZIP_ARTIFACTS:
        options |= {"compression": "gzip", "compression_opts": 1, "shuffle": False}
    elif chunks is not None and int(np.prod(shape)) * np.dtype(dtype).itemsize >= BULK_BYTES:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        options |= {"dcpl": plist, "fill_time": "never", "maxshape": (None, *shape[1:])}
    return group.create_dataset(artifact.path.lstrip("/"), shape, dtype, **options)


def reserve_like(group: h5py.Group, name: str, dataset: h5py.Dataset, rows: int) -> None:
    """Reserve space in the same pieces as an array has, for `rows` of it."""
    group.create_dataset(
        name,
        (rows, *dataset.shape[1:]),
        dataset.dtype,
        chunks=dataset.chunks,
        dcpl=dataset.id.get_create_plist(),
        maxshape=dataset.maxshape,
    )


def is_reserved(dataset: h5py.Dataset) -> bool:
    """Tell whether all the space of an array was reserved when it was created."""
    plist = dataset.id.get_create_plist()
    return bool(dataset.chunks and plist.get_alloc_time() == h5py.h5d.ALLOC_TIME_EARLY and not plist.get_nfilters())


def extents(dataset: h5py.Dataset) -> list[Extent]:
    """Return where in the file the reserved space of an array is; neighbouring chunks are joined."""
    found: list[Extent] = []
    dataset.id.chunk_iter(lambda chunk: found.append((chunk.byte_offset, chunk.byte_offset + chunk.size)))
    joined: list[Extent] = []
    for start, stop in sorted(found):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


def describe(dataset: h5py.Dataset, artifact: schema.Artifact) -> None:
    """Store meaning, unit and dimensions with an array."""
    dataset.attrs["meaning"] = artifact.meaning
    if artifact.unit:
        dataset.attrs["unit"] = artifact.unit
    dataset.attrs["dims"] = list(artifact.dims)


def storable(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Turn NumPy's UTF-32 text, which HDF5 does not know, into fixed-length UTF-8."""

    def text(dtype: np.dtype[Any]) -> Any:
        return h5py.string_dtype("utf-8", dtype.itemsize) if dtype.kind == "U" else dtype

    if value.dtype.names is None:
        return np.char.encode(value, "utf-8") if value.dtype.kind == "U" else value
    dtype = np.dtype([(name, text(value.dtype[name])) for name in value.dtype.names])
    table = np.empty(value.shape, dtype)
    for name in value.dtype.names:
        column = value[name]
        table[name] = np.char.encode(column, "utf-8") if column.dtype.kind == "U" else column
    return table


def plain(value: Any) -> Any:
    """Return an attribute's value as a plain Python value or NumPy array."""
    if isinstance(value, str):  # as h5py reads what is not UTF-8: with lone surrogates, which nothing can write
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
        return [plain(v) for v in value.tolist()]
    return value


def _chunks(artifact: schema.Artifact, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    lengths = (1, 1 << 30, 1 << 30) if artifact.name == "tilt_series" else CHUNKS.get(artifact.dims)
    if lengths is None:
        return None
    chunks = [max(1, min(c, n)) for c, n in zip(lengths, shape, strict=True)]
    # Whole chunks are stored: equal ones waste less than a last one that is nearly empty. Slabs are cut along y.
    for axis in (0, len(shape) - 1):
        chunks[axis] = max(1, math.ceil(shape[axis] / max(1, round(shape[axis] / chunks[axis]))))
    return tuple(chunks)
