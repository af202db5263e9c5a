"""Validation of a project file that somebody else may have changed: links to other files, sizes that are not there."""

import json
import math
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from typing import Any

import h5py
import numpy as np

from tomoseg import plain_json, schema
from tomoseg.errors import InputError
from tomoseg.project.layout import CHUNKS
from tomoseg.project.provenance import Record

DEFLATE_RATIO = 1032  # the most that deflate can compress (zlib technical details)
# The most of a compressed array that is unpacked at a time: a chunk, or a plane, or all of a table. tomoseg compresses
# labels and confidence, in chunks of some 64 KiB.
MOST_UNPACKED = 64 << 20
MOST_PER_PLANE = 256 << 20
# The names at the top of the file that tomoseg uses; other programs may put theirs beside them.
OWN = {path.split("/")[1].encode() for path in (schema.PROVENANCE, schema.SETTINGS, schema.STAGING)}
OWN |= {artifact.path.split("/")[1].encode() for artifact in schema.ARTIFACTS}
GZIP, SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE
PIPELINES: tuple[list[int], ...] = (
    [],
    [SHUFFLE],
    [GZIP],
    [SHUFFLE, GZIP],
)  # each filter once: twice deflated, 3 kB become 3 GB


def validated_node(file: h5py.File, artifact: schema.Artifact) -> Any:
    """Return the dataset or group of an artifact, if it is as tomoseg writes it.

    Raises `InputError` if it has other dimensions, holds no numbers, leads to other files, or claims more data than are
    stored, so that reading it could fill the memory.
    """
    node = file[artifact.path]
    if artifact.is_group:
        if not isinstance(node, h5py.Group):
            raise _unexpected(artifact.path, "it is not a group")
    elif problem := _problem(node, artifact):
        raise _unexpected(artifact.path, problem)
    return node


def refuse_links(file: h5py.File) -> None:
    """Refuse a file in which a link stands on the way to anything of tomoseg's, without following it.

    Even asking HDF5 whether a path exists opens what a link leads to, which may be any file of the user's. Raises
    `InputError` if there is such a link, or an array where a group should be.
    """

    def visit(name: bytes, info: Any) -> bytes | None:
        is_foreign = info.type != h5py.h5l.TYPE_HARD and name.split(b"/", 1)[0] in OWN
        return name if is_foreign else None

    found = file.id.links.visit(visit, info=True)
    if found is not None:
        raise _unexpected(found.decode("utf-8", "replace"), "it is a link, which is not followed for safety")
    for path in (schema.PROVENANCE, schema.HISTORY, schema.STAGING, schema.SETTINGS):
        group = file.get(path, {})
        if path in file and not isinstance(group, h5py.Group):
            raise _unexpected(path, "it is not a group")
        for name, member in group.items():
            if not isinstance(member, h5py.Group):
                raise _unexpected(f"{path}/{name}", "it is not a group")


def _problem(node: Any, artifact: schema.Artifact) -> str:
    """Say what is wrong with an array that a stage finished."""
    return (
        _kind_problem(node, artifact)
        or _packing_problem(node, artifact)
        or _claim_problem(node)
        or _chunk_problem(node)
    )


def _kind_problem(node: Any, artifact: schema.Artifact) -> str:
    if not isinstance(node, h5py.Dataset) or node.is_virtual or node.external:
        return "it is not an array, or its data are in another file"
    if node.shape is None or len(node.shape) != len(artifact.dims):
        return f"its dimensions are not {', '.join(artifact.dims)}"
    if artifact.dtype and node.dtype != np.dtype(artifact.dtype):
        return f"it holds {node.dtype} instead of {artifact.dtype}"
    if node.dtype.hasobject or node.dtype.kind not in "uifbSV":
        return f"it holds {node.dtype}, which are not numbers"
    return ""


def _packing_problem(node: h5py.Dataset, artifact: schema.Artifact) -> str:
    """Say what is wrong with the compression of an array: how much of it is to be unpacked at a time."""
    filters = _filters(node)
    if filters not in PIPELINES:
        return "it is compressed in a way that tomoseg does not use"
    if not filters:
        return ""
    chunk, all_of_it = _n_bytes(node, node.chunks), _n_bytes(node, node.shape)
    if chunk > MOST_UNPACKED:
        return f"it is compressed in pieces of {chunk} bytes"
    if artifact.dims not in CHUNKS and all_of_it > MOST_UNPACKED:
        return f"it is compressed, and has {all_of_it} bytes"
    plane = _n_bytes(node, sorted(node.shape)[1:])
    return f"it is compressed, and a plane of it has {plane} bytes" if plane > MOST_PER_PLANE else ""


def _claim_problem(node: h5py.Dataset) -> str:
    stored = min(node.id.get_storage_size(), node.file.id.get_filesize())
    for shape in (node.shape, node.chunks or ()):
        claimed = _n_bytes(node, shape)
        if shape and claimed > stored * (DEFLATE_RATIO if _filters(node) else 1):
            return f"it claims {claimed} bytes, but {stored} are stored"
    return ""


def _chunk_problem(node: h5py.Dataset) -> str:
    """Say what is wrong with the table of chunks: each is stored as it is, or in fewer bytes where it is packed."""
    size, is_packed = _n_bytes(node, node.chunks or ()), bool(_filters(node))
    odd: list[int] = []

    def look(chunk: Any) -> bool | None:
        if chunk.size > size or (chunk.size != size and not is_packed):
            odd.append(chunk.size)
        return True if odd else None

    if node.chunks and math.prod(node.shape):
        node.id.chunk_iter(look)
    return f"a piece of {size} bytes is stored in {odd[0]}" if odd else ""


class CheckedDataset(h5py.Dataset):  # type: ignore[misc]
    """An array of which every packed chunk is looked at before HDF5 reads it for the first time.

    HDF5 unpacks a chunk as far as it goes, however small a chunk ought to be, and keeps all of it in its cache.
    """

    def __init__(self, identifier: h5py.h5d.DatasetID) -> None:
        super().__init__(identifier)
        self._packed_by = _filters(self)
        self._looked_at: set[tuple[int, ...]] = set()

    def __getitem__(self, key: Any, new_dtype: Any = None) -> Any:
        """Return part of the array. Raises `InputError` if a chunk does not unpack to the bytes of one."""
        if GZIP in self._packed_by:
            ranges = _ranges(key, self.shape)
            numbers = [range(r.start // c, -(-r.stop // c)) for r, c in zip(ranges, self.chunks, strict=True)]
            for number in product(*numbers):
                if number not in self._looked_at:
                    self._look_at(number)
                    self._looked_at.add(number)
        return super().__getitem__(key, new_dtype)

    def _look_at(self, number: tuple[int, ...]) -> None:
        size = _n_bytes(self, self.chunks)
        try:  # no more bytes than `_chunk_problem` lets pass
            mask, stored = self.id.read_direct_chunk(tuple(n * c for n, c in zip(number, self.chunks, strict=True)))
        except (OSError, RuntimeError):  # not stored, and filled; or damaged, which reading it tells
            return
        is_plain = bool(mask >> self._packed_by.index(GZIP) & 1)
        if not (len(stored) == size if is_plain else _unpacks_to(stored, size)):
            raise _unexpected(self.name, f"a piece of it does not unpack to {size} bytes")


def _ranges(key: Any, shape: tuple[int, ...]) -> list[range]:
    """Return a part of each dimension in which all that is selected lies."""
    keys = list(key) if isinstance(key, tuple) else [key]
    given = [k for k in keys if not isinstance(k, str)]  # names of columns
    if any(k is Ellipsis for k in given):
        at = next(i for i, k in enumerate(given) if k is Ellipsis)
        given[at : at + 1] = [slice(None)] * (len(shape) - len(given) + 1)
    given += [slice(None)] * (len(shape) - len(given))
    return [_range(k, n) for k, n in zip(given, shape, strict=False)]


def _range(key: Any, n: int) -> range:
    if isinstance(key, int | np.integer):
        i = int(key) % n if n else 0
        return range(i, min(i + 1, n))
    if isinstance(key, slice) and key.step in (None, 1):
        start, stop, _ = key.indices(n)
        return range(start, max(start, stop))
    return range(n)


def _unpacks_to(packed: bytes, size: int) -> bool:
    """Tell whether a chunk has `size` bytes as long as it can be unpacked; no more than these are unpacked."""
    unpacker = zlib.decompressobj()
    try:
        return len(unpacker.decompress(packed, size + 1)) == size
    except zlib.error:  # HDF5 stops there too, and it is reported as damaged
        return True


def _filters(node: h5py.Dataset) -> list[int]:
    plist = node.id.get_create_plist()
    return [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]


def _n_bytes(node: h5py.Dataset, shape: Any) -> int:
    return math.prod(map(int, shape)) * int(node.dtype.itemsize)


def read_all_metadata(file: h5py.File) -> None:
    """Read all metadata that tomoseg may ever ask for: links, attributes, sizes of arrays.

    All of it is in memory at a time, as it may be in a command. Raises `InputError` if there are more bytes of
    attributes than the file has, so that many of them are one, or if an array of an interrupted run claims more than is
    stored.
    """
    for artifact in schema.ARTIFACTS:
        node = file.get(artifact.path)
        if isinstance(node, h5py.Dataset):
            node.id.get_storage_size()
    for name, staged in file.get(schema.STAGING, {}).items():
        for artifact in schema.ARTIFACTS:
            node = staged.get(artifact.path.lstrip("/"))
            if isinstance(node, h5py.Dataset) and (problem := _staged_problem(node, artifact)):
                raise _unexpected(f"{schema.STAGING}/{name}{artifact.path}", problem)
    left, held = int(file.id.get_filesize()), []
    for path, attrs in _all_attributes(file):
        for name in attrs:
            value = attrs[name]
            left -= _size_of(value)
            if left < 0:
                raise _unexpected(path, "the attributes of the file have more bytes than itself")
            held += [value, _from_json(value)]


def _staged_problem(node: h5py.Dataset, artifact: schema.Artifact) -> str:
    """Say what is wrong with an array of an interrupted run, of which not all is stored yet."""
    return _kind_problem(node, artifact) or _packing_problem(node, artifact)


def _from_json(value: Any) -> Any:
    """Return what a text of JSON holds, None if it is none."""
    with suppress(ValueError, RecursionError):
        return json.loads(value) if isinstance(value, str) and value.startswith(("{", "[")) else None


def _all_attributes(file: h5py.File) -> Iterator[tuple[str, Any]]:
    """Yield path and attributes of everything in the file that tomoseg uses."""
    yield "/", file.attrs
    for path in (*(artifact.path for artifact in schema.ARTIFACTS), schema.SETTINGS):
        if path in file:
            yield path, file[path].attrs
    for path in (schema.PROVENANCE, schema.HISTORY, schema.STAGING):
        for name, member in file.get(path, {}).items():
            yield f"{path}/{name}", member.attrs


def _size_of(value: Any) -> int:
    """Return how many bytes an attribute takes in the file, at least."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return sum(_size_of(v) for v in value.flat)
    return len(value) if isinstance(value, bytes) else int(getattr(value, "nbytes", 0))


def _unexpected(path: str, problem: str) -> InputError:
    return InputError(
        f"{path[:200]!r} in the project file is not what tomoseg writes: {problem}. Another program changed the file, "
        "or it is damaged; run the stage that makes it again, or take the file from a backup."
    )


def read_json(attrs: Any, name: str, kind: type) -> Any:
    """Return an attribute that holds JSON of the given kind. Raises `InputError` if it holds something else."""
    try:
        content = plain_json.load(attrs[name])
        json.dumps(content, ensure_ascii=False).encode()  # lone surrogates, which nothing can write, are refused here
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"The attribute {name} in the project file cannot be read: {error}.") from error
    if not isinstance(content, kind):
        raise InputError(f"The attribute {name} in the project file does not hold what tomoseg writes.")
    return content


def read_record(file: h5py.File, path: str) -> Record | None:
    """Return the provenance stored in a group, or None where there is no such group.

    Raises `InputError` if it is not what tomoseg writes.
    """
    return Record.from_json(read_json(file[path].attrs, "record", dict)) if path in file else None


def read_settings(attrs: Any) -> dict[str, dict[str, Any]]:
    """Return the parameters wanted for each stage. Raises `InputError` if something else is stored there."""
    settings: dict[str, dict[str, Any]] = read_json(attrs, "parameters", dict)
    if not all(isinstance(parameters, dict) for parameters in settings.values()):
        raise _unexpected(schema.SETTINGS, "the parameters of a stage are not a table")
    return settings
