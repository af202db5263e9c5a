"""Refusing what a project file from a stranger may hold: sizes that are not there, links that lead elsewhere."""

import json
from pathlib import PurePosixPath
from typing import Any

import h5py
import numpy as np

from tomoseg import schema
from tomoseg.errors import InputError

DEFLATE_RATIO = 1032  # the most that deflate can compress (zlib technical details)
GZIP, SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE


def sound_node(file: h5py.File, artifact: schema.Artifact) -> Any:
    """Return the dataset or group of an artifact, if it is what tomoseg writes.

    Raises
    ------
    InputError
        It is a link out of the file, has other dimensions, holds no numbers, or claims more data than are stored: then
        reading it would fill the memory with nothing.
    """
    if _leads_elsewhere(file, artifact.path):
        raise _unsound(artifact, "it is a link")
    node = file[artifact.path]
    if artifact.is_group:
        if not isinstance(node, h5py.Group):
            raise _unsound(artifact, "it is no group")
    elif problem := _problem(node, artifact):
        raise _unsound(artifact, problem)
    return node


def _leads_elsewhere(file: h5py.File, path: str) -> bool:
    parts = [*reversed(PurePosixPath(path).parents), path][1:]
    return not all(isinstance(file.get(str(part), getlink=True), h5py.HardLink) for part in parts)


def _problem(node: Any, artifact: schema.Artifact) -> str:
    if not isinstance(node, h5py.Dataset) or node.is_virtual or node.external:
        return "it is no array, or its data are in another file"
    if node.shape is None or len(node.shape) != len(artifact.dims):
        return f"it has not the dimensions {', '.join(artifact.dims)}"
    if artifact.dtype and node.dtype != np.dtype(artifact.dtype):
        return f"it holds {node.dtype} instead of {artifact.dtype}"
    return _storage_problem(node)


def _storage_problem(node: h5py.Dataset) -> str:
    if node.dtype.hasobject or node.dtype.kind not in "uifbSV":
        return f"it holds {node.dtype}"
    plist = node.id.get_create_plist()
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if not filters <= {GZIP, SHUFFLE}:
        return "it is compressed in a way that tomoseg does not use"
    stored = node.id.get_storage_size()
    for shape in (node.shape, node.chunks or ()):
        claimed = int(np.prod(shape, dtype=object)) * node.dtype.itemsize
        if shape and claimed > stored * (DEFLATE_RATIO if filters else 1):
            return f"it claims {claimed} bytes and has {stored}"
    return ""


def read_everything_small(file: h5py.File) -> None:
    """Read all metadata that tomoseg may ever ask for: links, attributes, and what arrays say of themselves."""
    for artifact in schema.ARTIFACTS:
        if artifact.path in file and not _leads_elsewhere(file, artifact.path):
            node = file[artifact.path]
            dict(node.attrs)
            if isinstance(node, h5py.Dataset):
                node.id.get_storage_size()
    for group in (schema.PROVENANCE, schema.HISTORY, schema.STAGING):
        for member in file.get(group, {}).values():
            dict(member.attrs)
    dict(file.get(schema.SETTINGS, file).attrs)


def _unsound(artifact: schema.Artifact, problem: str) -> InputError:
    return InputError(
        f"{artifact.path} in the project file is not what tomoseg writes: {problem}. The file was changed by something "
        "else, or is damaged; run the stage that makes it again, or take the file from a backup."
    )


def read_json(attrs: Any, name: str, kind: type) -> Any:
    """Return an attribute that holds JSON of the given kind.

    Raises
    ------
    InputError
        It holds something else.
    """
    try:
        content = json.loads(attrs[name])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"The attribute {name} in the project file cannot be read: {error}.") from error
    if not isinstance(content, kind):
        raise InputError(f"The attribute {name} in the project file does not hold what tomoseg writes.")
    return content
