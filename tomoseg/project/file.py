"""The project file: opening, reading artifacts, and transactions that replace one stage's results at once."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from tomoseg import schema
from tomoseg.arrays import ArraySink, Input
from tomoseg.errors import InputError, StageFailed
from tomoseg.project.lock import writing
from tomoseg.project.provenance import Record

# Chunk lengths by dimension. Aligned images are written tilt by tilt and read slab by slab along y; volumes are
# written in slabs of y and looked at in orthoslices of all three directions.
CHUNKS: dict[tuple[str, ...], tuple[int, int, int]] = {
    ("tilt", "y", "x"): (8, 64, 1 << 30),
    ("z", "y", "x"): (64, 16, 64),
}
CACHE_BYTES = 64 << 20  # of chunks, per dataset
# Own lock instead of HDF5's. The 1.8 format, since older ones hold no attribute over 64 KiB (a long series' metadata),
# and newer ones mark a file that is being written so that nobody can read it, also after the writer was killed.
LAYOUT: dict[str, Any] = {"locking": False, "libver": ("v108", "v110")}
GZIP_ARTIFACTS = {"labels", "confidence"}  # compress well, and gzip needs no plugin to be read


class Project:
    """An open project file. Use `Project.read`, `Project.write` or `Project.create`."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file

    @classmethod
    @contextmanager
    def read(cls, path: Path) -> Iterator[Self]:
        """Open for reading; never blocks a writer and is never blocked by one."""
        with _open(path, "r") as file:
            yield cls(path, file)

    @classmethod
    @contextmanager
    def write(cls, path: Path, tell: Callable[[str], object] = str) -> Iterator[Self]:
        """Open an existing project for writing, alone. Raises `ProjectLocked` where another process writes it.

        The file itself is opened for writing only when something is written, so that looking changes no byte.
        """
        _must_exist(path)
        with writing(path, tell), _open(path, "r") as file:
            project = cls(path, file)
            try:
                yield project
            finally:
                project._file.close()

    @classmethod
    @contextmanager
    def create(cls, path: Path) -> Iterator[Self]:
        """Make a new project. The file appears under its name when its first stage is committed, or not at all."""
        if path.exists():
            raise InputError(f"{path} already exists; `tomoseg run {path}` continues it, or choose another -o.")
        if not path.parent.is_dir():
            raise InputError(f"The folder {path.parent} does not exist; create it, or choose another -o.")
        with writing(path):
            unborn = path.with_name(path.name + ".new")
            try:
                # Free space is tracked across openings, so that re-running a stage reuses what it frees.
                with h5py.File(unborn, "w", **LAYOUT, fs_strategy="fsm", fs_persist=True, fs_threshold=4096) as f:
                    f.attrs[schema.SCHEMA_ATTR] = schema.SCHEMA_VERSION
                    yield cls(path, f)
            finally:
                unborn.unlink(missing_ok=True)

    # --- reading ---

    def has(self, artifact: schema.Artifact) -> bool:
        """Tell whether the artifact is there."""
        return artifact.path in self._file

    def artifact(self, artifact: schema.Artifact) -> Input:
        """Return a handle on an artifact; its data are read as they are sliced."""
        return _H5Input(self._file[artifact.path])

    def artifacts(self) -> dict[str, Input]:
        """Return handles on everything the project holds, by artifact name."""
        return {a.name: self.artifact(a) for a in schema.ARTIFACTS if self.has(a)}

    def record(self, stage: str) -> Record | None:
        """Return the provenance of a stage's present result."""
        path = f"{schema.PROVENANCE}/{stage}"
        return Record(**json.loads(self._file[path].attrs["record"])) if path in self._file else None

    def past_record(self, run_id: str) -> Record | None:
        """Return the provenance of any run that ever ended well."""
        path = f"{schema.HISTORY}/{run_id}"
        return Record(**json.loads(self._file[path].attrs["record"])) if path in self._file else None

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """The parameters wanted for each stage, as last asked for: {stage: {parameter: value}}."""
        if schema.SETTINGS not in self._file:
            return {}
        content: dict[str, dict[str, Any]] = json.loads(self._file[schema.SETTINGS].attrs["parameters"])
        return content

    # --- writing ---

    def _for_writing(self) -> h5py.File:
        if self._file.mode == "r":
            self._file.close()
            self._file = h5py.File(self.path, "r+", **LAYOUT, rdcc_nbytes=CACHE_BYTES)
            self._file.pop(schema.STAGING, None)  # left by a process that was killed
        return self._file

    def store_settings(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember the parameters wanted for each stage."""
        if self.settings != settings:
            self._for_writing().require_group(schema.SETTINGS).attrs["parameters"] = json.dumps(settings)

    @contextmanager
    def transaction(self, stage: str) -> Iterator["Transaction"]:
        """Collect a stage's outputs aside; `commit` puts all of them in place of the old ones, an exception none.

        Handles on artifacts must be asked for inside it: beginning to write opens the file anew.
        """
        file = self._for_writing()
        transaction = Transaction(file.create_group(f"{schema.STAGING}/{stage}"), stage)
        try:
            yield transaction
            if transaction.record is None:
                raise StageFailed(f"The stage {stage} ended without committing its result.")
            self._replace(transaction)
        finally:
            file.pop(schema.STAGING, None)
            file.flush()

    def _replace(self, transaction: "Transaction") -> None:
        file, record = self._file, transaction.record
        file.flush()
        for name in list(transaction.group):
            file.pop(name, None)
            file.move(f"{transaction.group.name}/{name}", name)
        for path in (f"{schema.PROVENANCE}/{transaction.stage}", f"{schema.HISTORY}/{record.run_id}"):
            file.pop(path, None)
            group = file.create_group(path)
            for key, value in asdict(record).items():
                group.attrs[key] = value if isinstance(value, (str, int, float)) else json.dumps(value)
            group.attrs["record"] = json.dumps(asdict(record))
        file.flush()
        self._publish()

    def _publish(self) -> None:
        """Make sure the file is on disk under its own name."""
        unborn = self.path.with_name(self.path.name + ".new")
        on_disk = unborn if unborn.exists() else self.path
        with on_disk.open("rb") as f:
            os.fsync(f.fileno())
        if on_disk is unborn:
            unborn.rename(self.path)


class Transaction:
    """`Outputs` of a running stage, kept under the project's staging group until the commit."""

    def __init__(self, group: h5py.Group, stage: str) -> None:
        self.group = group
        self.stage = stage
        self.record: Any = None

    def create(
        self, name: str, shape: tuple[int, ...], dtype: Any = None, attrs: Mapping[str, Any] | None = None
    ) -> ArraySink:
        """Reserve an array to be filled slab by slab."""
        artifact = _by_name(name)
        dataset = self.group.create_dataset(
            artifact.path.lstrip("/"),
            shape,
            dtype or artifact.dtype,
            chunks=_chunks(artifact, shape),
            compression="gzip" if name in GZIP_ARTIFACTS else None,
            compression_opts=1 if name in GZIP_ARTIFACTS else None,
        )
        _describe(dataset, artifact)
        dataset.attrs.update(attrs or {})
        return dataset  # type: ignore[no-any-return]

    def put(self, name: str, value: Any, attrs: Mapping[str, Any] | None = None) -> None:
        """Store a small array or table at once; text columns become UTF-8 strings of fixed length."""
        artifact = _by_name(name)
        dataset = self.group.create_dataset(artifact.path.lstrip("/"), data=_storable(np.asarray(value)))
        _describe(dataset, artifact)
        dataset.attrs.update(attrs or {})

    def set_attrs(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Add attributes to an artifact or attribute group."""
        artifact = _by_name(name)
        path = artifact.path.lstrip("/")
        target = self.group.require_group(path) if artifact.is_group else self.group[path]
        target.attrs.update(attrs)

    def commit(self, record: Record) -> None:
        """Declare the outputs complete."""
        self.record = record


class _H5Input:
    """An artifact in the file, as `tomoseg.arrays.Input`."""

    def __init__(self, node: Any) -> None:
        self._node = node

    @property
    def shape(self) -> tuple[int, ...]:
        return getattr(self._node, "shape", (0,))

    @property
    def dtype(self) -> np.dtype[Any]:
        return getattr(self._node, "dtype", np.dtype(float))

    @property
    def attrs(self) -> Mapping[str, Any]:
        return {key: _plain(value) for key, value in self._node.attrs.items()}

    def __getitem__(self, key: Any) -> Any:
        return self._node[key]


@contextmanager
def _open(path: Path, mode: str) -> Iterator[h5py.File]:
    _must_exist(path)
    try:
        file = h5py.File(path, mode, **LAYOUT, rdcc_nbytes=CACHE_BYTES)
    except OSError as error:
        raise InputError(
            f"{path} cannot be opened as a tomoseg project: {error}. If it is a raw tilt series, give a project "
            f"name too: `tomoseg run {path} -o PROJECT.h5`."
        ) from error
    with file:
        version = file.attrs.get(schema.SCHEMA_ATTR)
        if version is None:
            raise InputError(
                f"{path} is an HDF5 file but not a tomoseg project; import it: `tomoseg import {path} -o`."
            )
        if int(version) > schema.SCHEMA_VERSION:
            raise InputError(f"{path} was written by a newer tomoseg (schema {version}); update tomoseg to open it.")
        yield file


def is_project(path: Path) -> bool:
    """Tell whether `path` is a tomoseg project file."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r", locking=False) as file:
            return schema.SCHEMA_ATTR in file.attrs
    except OSError:
        return False


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"There is no project {path}. `tomoseg run RAW -o {path}` makes one from a raw tilt series.")


def _by_name(name: str) -> schema.Artifact:
    return next(a for a in schema.ARTIFACTS if a.name == name)


def _chunks(artifact: schema.Artifact, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    lengths = (1, 1 << 30, 1 << 30) if artifact.name == "tilt_series" else CHUNKS.get(artifact.dims)
    return None if lengths is None else tuple(max(1, min(c, n)) for c, n in zip(lengths, shape, strict=True))


def _describe(dataset: h5py.Dataset, artifact: schema.Artifact) -> None:
    dataset.attrs["meaning"] = artifact.meaning
    if artifact.unit:
        dataset.attrs["unit"] = artifact.unit
    dataset.attrs["dims"] = list(artifact.dims)


def _storable(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
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


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
        return [_plain(v) for v in value.tolist()]
    return value
