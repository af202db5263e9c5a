"""Refusing what a project file from a stranger may hold: sizes that are not there, links that lead elsewhere."""

import json
from typing import Any

import h5py
import numpy as np

from tomoseg import schema
from tomoseg.errors import InputError

DEFLATE_RATIO = 1032  # the most that deflate can compress (zlib technical details)
# The names at the top of the file that tomoseg uses; other programs may put theirs beside them.
OWN = {path.split("/")[1].encode() for path in (schema.PROVENANCE, schema.SETTINGS, schema.STAGING)}
OWN |= {artifact.path.split("/")[1].encode() for artifact in schema.ARTIFACTS}
GZIP, SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE


def sound_node(file: h5py.File, artifact: schema.Artifact) -> Any:
    """Return the dataset or group of an artifact, if it is what tomoseg writes.

    Raises
    ------
    InputError
        It has other dimensions, holds no numbers, leads to other files, or claims more data than are stored: then
        reading it would fill the memory with nothing.
    """
    node = file[artifact.path]
    if artifact.is_group:
        if not isinstance(node, h5py.Group):
            raise _strange(artifact.path, "it is no group")
    elif problem := _problem(node, artifact):
        raise _strange(artifact.path, problem)
    return node


def check_ways(file: h5py.File) -> None:
    """Check how one gets from the top of the file to what is tomoseg's, without following links to find out.

    To ask HDF5 whether something is there opens what a link leads to, which may be any file of the user's.

    Raises
    ------
    InputError
        There is a link, or an array where a group should be.
    """

    def visit(name: bytes, info: Any) -> bytes | None:
        leads_elsewhere = info.type != h5py.h5l.TYPE_HARD and name.split(b"/", 1)[0] in OWN
        return name if leads_elsewhere else None

    found = file.id.links.visit(visit, info=True)
    if found is not None:
        raise _strange(found.decode("utf-8", "replace"), "it is a link, which is not followed for safety")
    for path in (schema.PROVENANCE, schema.HISTORY, schema.STAGING, schema.SETTINGS):
        group = file.get(path, {})
        if path in file and not isinstance(group, h5py.Group):
            raise _strange(path, "it is no group")
        for name, member in group.items():
            if not isinstance(member, h5py.Group):
                raise _strange(f"{path}/{name}", "it is no group")


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
    stored = min(node.id.get_storage_size(), node.file.id.get_filesize())
    for shape in (node.shape, node.chunks or ()):
        claimed = int(np.prod(shape, dtype=object)) * node.dtype.itemsize
        if shape and claimed > stored * (DEFLATE_RATIO if filters else 1):
            return f"it claims {claimed} bytes and has {stored}"
    return ""


def read_everything_small(file: h5py.File) -> None:
    """Read all metadata that tomoseg may ever ask for: links, attributes, and what arrays say of themselves."""
    for artifact in schema.ARTIFACTS:
        if artifact.path in file:
            node = file[artifact.path]
            dict(node.attrs)
            if isinstance(node, h5py.Dataset):
                node.id.get_storage_size()
    for group in (schema.PROVENANCE, schema.HISTORY, schema.STAGING):
        for member in file.get(group, {}).values():
            dict(member.attrs)
    dict(file.get(schema.SETTINGS, file).attrs)


def _strange(path: str, problem: str) -> InputError:
    return InputError(
        f"{path[:200]!r} in the project file is not what tomoseg writes: {problem}. The file was changed by something "
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
        json.dumps(content, ensure_ascii=False).encode()  # lone surrogates, which nothing can write, are refused here
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"The attribute {name} in the project file cannot be read: {error}.") from error
    if not isinstance(content, kind):
        raise InputError(f"The attribute {name} in the project file does not hold what tomoseg writes.")
    return content


def read_settings(attrs: Any) -> dict[str, dict[str, Any]]:
    """Return the parameters wanted for each stage, as they are stored.

    Raises
    ------
    InputError
        Something else is.
    """
    settings: dict[str, dict[str, Any]] = read_json(attrs, "parameters", dict)
    if not all(isinstance(parameters, dict) for parameters in settings.values()):
        raise _strange(schema.SETTINGS, "the parameters of a stage are none")
    return settings
