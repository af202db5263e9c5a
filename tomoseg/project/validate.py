"""Validation of a project file that somebody else may have changed: links to other files, sizes that are not there."""

import json
from typing import Any

import h5py
import numpy as np

from tomoseg import plain_json, schema
from tomoseg.errors import InputError
from tomoseg.project.provenance import Record

DEFLATE_RATIO = 1032  # the most that deflate can compress (zlib technical details)
# The names at the top of the file that tomoseg uses; other programs may put theirs beside them.
OWN = {path.split("/")[1].encode() for path in (schema.PROVENANCE, schema.SETTINGS, schema.STAGING)}
OWN |= {artifact.path.split("/")[1].encode() for artifact in schema.ARTIFACTS}
GZIP, SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE


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
    if not isinstance(node, h5py.Dataset) or node.is_virtual or node.external:
        return "it is not an array, or its data are in another file"
    if node.shape is None or len(node.shape) != len(artifact.dims):
        return f"its dimensions are not {', '.join(artifact.dims)}"
    if artifact.dtype and node.dtype != np.dtype(artifact.dtype):
        return f"it holds {node.dtype} instead of {artifact.dtype}"
    return _storage_problem(node)


def _storage_problem(node: h5py.Dataset) -> str:
    if node.dtype.hasobject or node.dtype.kind not in "uifbSV":
        return f"it holds {node.dtype}, which are not numbers"
    plist = node.id.get_create_plist()
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if not filters <= {GZIP, SHUFFLE}:
        return "it is compressed in a way that tomoseg does not use"
    stored = min(node.id.get_storage_size(), node.file.id.get_filesize())
    for shape in (node.shape, node.chunks or ()):
        claimed = int(np.prod(shape, dtype=object)) * node.dtype.itemsize
        if shape and claimed > stored * (DEFLATE_RATIO if filters else 1):
            return f"it claims {claimed} bytes, but {stored} are stored"
    return ""


def read_all_metadata(file: h5py.File) -> None:
    """Read all metadata that tomoseg may ever ask for: links, attributes, sizes of arrays."""
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
