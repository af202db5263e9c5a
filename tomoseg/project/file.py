"""The project file: opening it to read or to write, artifacts, provenance, settings."""

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from tomoseg import schema
from tomoseg.arrays import Input
from tomoseg.errors import InputError, StageFailed
from tomoseg.project import layout
from tomoseg.project.journal import JournaledFile, read_journal, recover, unborn_path
from tomoseg.project.lock import writing
from tomoseg.project.probe import survives
from tomoseg.project.provenance import Record
from tomoseg.project.transaction import Transaction
from tomoseg.project.upgrade import upgrade
from tomoseg.project.validate import check_ways, read_everything_small, read_json, read_settings, sound_node
from tomoseg.runtime import on_abrupt_exit

CACHE_BYTES = 64 << 20  # of chunks, per dataset, at most
CACHE_SLOTS = 8191  # many more than chunks fit, and a prime: chunks that fall into one slot drive each other out
LOOK_AGAIN = 3  # times, where a commit took place while the file was being opened


@dataclass(frozen=True)
class Partial:
    """What an interrupted run of a stage left, to be continued by a run with the same `key`."""

    key: str
    run_id: str
    state: dict[str, Any]


class Project:
    """An open project file. Use `Project.read`, `Project.write` or `Project.create`."""

    def __init__(self, path: Path, file: h5py.File, store: JournaledFile | None = None) -> None:
        self.path = path
        self.gate = threading.RLock()  # held while the file is used, since a commit opens it anew
        self._file = file
        self._store = store

    @classmethod
    @contextmanager
    def read(cls, path: Path) -> Iterator[Self]:
        """Open for reading; never blocks a writer and is never blocked by one."""
        file, store = _open_to_read(path)
        try:
            yield cls(path, file, store)
        finally:
            _close(file, store)

    @classmethod
    @contextmanager
    def write(cls, path: Path, tell: Callable[[str], object] = str, *, break_lock: bool = False) -> Iterator[Self]:
        """Open an existing project for writing, alone. Raises `ProjectLocked` where another process writes it.

        A commit that a crash had cut short is completed or discarded first, which `tell` hears of. Else the file is
        opened for writing only when something is written, so that looking changes no byte.
        """
        _must_exist(path)
        with writing(path, tell, break_lock=break_lock):
            with _told(path):
                if done := recover(path):
                    tell(f"{path.name}: {done}")
            project = cls(path, *_open_to_read(path))
            try:
                yield project
            finally:
                project.close()

    @classmethod
    @contextmanager
    def create(cls, path: Path, *, break_lock: bool = False) -> Iterator[Self]:
        """Make a new project. The file appears under its name when its first stage is committed, or not at all."""
        if path.exists():
            raise InputError(f"{path} already exists; `tomoseg run {path}` continues it, or choose another -o.")
        if not path.parent.is_dir():
            raise InputError(f"The folder {path.parent} does not exist; create it, or choose another -o.")
        with writing(path, break_lock=break_lock):
            with _told(path):
                store = JournaledFile.create(path)
            unregister = on_abrupt_exit(lambda: unborn_path(path).unlink(missing_ok=True))
            file = h5py.File(store, "w", **layout.FORMAT, **layout.NEW_FILE, rdcc_nbytes=CACHE_BYTES)
            file.attrs[schema.SCHEMA_ATTR] = schema.SCHEMA_VERSION
            project = cls(path, file, store)
            try:
                yield project
            finally:
                project.close()
                unborn_path(path).unlink(missing_ok=True)
                unregister()

    def close(self) -> None:
        """Close the file; what was not committed is forgotten."""
        _close(self._file, self._store)

    # --- reading ---

    def has(self, artifact: schema.Artifact) -> bool:
        """Tell whether the artifact is there."""
        return artifact.path in self._file

    def artifact(self, artifact: schema.Artifact, cache_bytes: int = CACHE_BYTES) -> Input:
        """Return a handle on an artifact; its data are read as they are sliced, through a cache no larger than that."""
        return _Stored(self, artifact, min(cache_bytes, CACHE_BYTES))

    def artifacts(self) -> dict[str, Input]:
        """Return handles on everything the project holds, by artifact name."""
        return {a.name: self.artifact(a) for a in schema.ARTIFACTS if self.has(a)}

    def record(self, stage: str) -> Record | None:
        """Return the provenance of a stage's present result."""
        return self._record(f"{schema.PROVENANCE}/{stage}")

    def past_record(self, run_id: str) -> Record | None:
        """Return the provenance of any run that ever began."""
        return self._record(f"{schema.HISTORY}/{run_id}")

    def history(self) -> list[Record]:
        """Return the provenance of every run that ever began, in the order they began."""
        records = (self.past_record(run_id) for run_id in self._file.get(schema.HISTORY, ()))
        return sorted((r for r in records if r is not None), key=lambda r: r.started)

    def partial(self, stage: str) -> Partial | None:
        """Return what an interrupted run of a stage left, if it can be continued."""
        path = f"{schema.STAGING}/{stage}"
        if path not in self._file or "state" not in self._file[path].attrs:
            return None
        attrs = self._file[path].attrs
        return Partial(str(attrs.get("key")), str(attrs.get("run_id")), read_json(attrs, "state", dict))

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """The parameters wanted for each stage, as last asked for: {stage: {parameter: value}}."""
        if schema.SETTINGS not in self._file:
            return {}
        return read_settings(self._file[schema.SETTINGS].attrs)

    def _record(self, path: str) -> Record | None:
        if path not in self._file:
            return None
        return Record.from_json(read_json(self._file[path].attrs, "record", dict))

    # --- writing ---

    def store_settings(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember the parameters wanted for each stage; on the disk at the next commit."""
        if self.settings != settings:
            self.for_writing().require_group(schema.SETTINGS).attrs["parameters"] = json.dumps(settings)

    @contextmanager
    def transaction(self, begun: Record, *, restart: bool = False) -> Iterator[Transaction]:
        """Collect a stage's outputs aside; `commit` puts all of them in place of the old ones, an exception none.

        A partial result of the same key is continued, unless `restart`. Interrupted after a checkpoint, the stage
        leaves one.
        """
        transaction = Transaction(self, begun, restart=restart)
        try:
            yield transaction
            if not transaction.is_committed:
                raise StageFailed(f"The stage {begun.stage} ended without committing its result.")
        except BaseException as error:
            refused = self.store.error
            transaction.end(error)
            if refused is not None and not isinstance(error, StageFailed):
                # What HDF5 made of the disk's refusal helps nobody.
                with _told(self.path):
                    raise refused from error
            raise

    @property
    def file(self) -> h5py.File:
        """The open file; another one after a commit."""
        return self._file

    @property
    def free_bytes(self) -> int:
        """Space in the file that nothing uses, as HDF5 accounts for it."""
        return int(self._file.id.get_freespace())

    @property
    def is_new(self) -> bool:
        """True before the first commit of a new project."""
        return self._store is not None and self._store.is_new

    @property
    def store(self) -> JournaledFile:
        """The bytes of the file, once something is to be written."""
        if self._store is None:
            raise RuntimeError("the project is not open for writing")
        return self._store

    def for_writing(self) -> h5py.File:
        """Return the file, opened for writing if it was not yet."""
        if self._store is None or self._store.is_view:
            with self.gate, _told(self.path):
                self.close()
                self._store = JournaledFile.open(self.path)
                self._reopen()
        upgrade(self._file)
        return self._file

    def settle(self) -> None:
        """Make all that was written the state that any crash leaves.

        HDF5 is closed for it: only then it has written all it knows, its account of free space included.
        """
        with self.gate, _told(self.path):
            self._file.close()
            try:
                self.store.commit()
            except OSError:
                self.roll_back()
                raise
            self._reopen()

    def roll_back(self) -> None:
        """Go back to the last commit."""
        with self.gate:
            # HDF5 may stumble over what a failed disk did not keep; all that it does here is forgotten next.
            with suppress(OSError, RuntimeError):
                self._file.close()
            self.store.roll_back()
            if self.store.error is None and not self.is_new:
                self._reopen()

    def check_disk(self) -> None:
        """Raise `StageFailed` if the disk refused a write."""
        if self.store.error is not None:
            with _told(self.path):
                raise self.store.error

    def _reopen(self) -> None:
        self._file = h5py.File(self._store, "r+", **layout.FORMAT, rdcc_nbytes=CACHE_BYTES)


class _Stored:
    """An artifact in the file, as `tomoseg.arrays.Input`. It outlives commits, after which the file is another."""

    def __init__(self, project: Project, artifact: schema.Artifact, cache_bytes: int) -> None:
        self._project, self._path, self._cache_bytes = project, artifact.path, cache_bytes
        node = sound_node(project.file, artifact)
        self.shape: tuple[int, ...] = getattr(node, "shape", (0,))
        self.dtype: np.dtype[Any] = getattr(node, "dtype", np.dtype(float))
        self._opened: tuple[h5py.File | None, Any] = (None, None)

    @property
    def attrs(self) -> Mapping[str, Any]:
        with self._project.gate:
            return {key: layout.plain(value) for key, value in self._node().attrs.items()}

    def __getitem__(self, key: Any) -> Any:
        with self._project.gate:
            try:
                return self._node()[key]
            except (OSError, RuntimeError) as error:
                raise InputError(
                    f"{self._path} in {self._project.path} is damaged: {error}. Run the stage that makes it again, or "
                    "take the file from a backup."
                ) from error

    def _node(self) -> Any:
        if self._opened[0] is not self._project.file:
            self._opened = (self._project.file, _opened(self._project.file, self._path, self._cache_bytes))
        return self._opened[1]


def _opened(file: h5py.File, path: str, cache_bytes: int) -> Any:
    """Open a group, or an array with a cache of its own."""
    if file.get(path, getclass=True) is not h5py.Dataset:
        return file[path]
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(CACHE_SLOTS, cache_bytes, 0.75)  # 0.75: HDF5's default order of leaving the cache
    return h5py.Dataset(h5py.h5d.open(file.id, path.encode(), access))


def is_project(path: Path) -> bool:
    """Tell whether `path` is a tomoseg project file."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with Project.read(path):
            return True
    except InputError:
        return False


def _open_to_read(path: Path) -> tuple[h5py.File, JournaledFile | None]:
    """Open the last committed state, upgraded in memory where it was written by an older version."""
    _must_exist(path)
    for attempt in range(LOOK_AGAIN):
        before = path.stat().st_mtime_ns
        try:
            return _look(path)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            if path.stat().st_mtime_ns == before or attempt == LOOK_AGAIN - 1:
                raise InputError(
                    f"{path} cannot be opened as a tomoseg project: {error}. If it is a raw tilt series, give a "
                    f"project name too: `tomoseg run {path} -o PROJECT.h5`."
                ) from error
    raise AssertionError


def _look(path: Path) -> tuple[h5py.File, JournaledFile | None]:
    def read() -> tuple[h5py.File, JournaledFile | None]:
        opened = _look_at_once(path)
        try:
            read_everything_small(opened[0])
        except BaseException:
            _close(*opened)
            raise
        return opened

    if not survives(read):
        raise InputError(f"{path} is damaged: HDF5 cannot cope with it. Take the file from a backup.")
    return read()


def _look_at_once(path: Path) -> tuple[h5py.File, JournaledFile | None]:
    journal = read_journal(path)
    if journal is None:
        file = h5py.File(path, "r", locking=False, rdcc_nbytes=CACHE_BYTES)
        try:
            version = _schema_version(path, file)
        except BaseException:
            file.close()
            raise
        if version == schema.SCHEMA_VERSION:
            return file, None
        file.close()
    store = JournaledFile.look(path, journal)
    file = h5py.File(store, "r+", **layout.FORMAT, rdcc_nbytes=CACHE_BYTES)
    try:
        _schema_version(path, file)
        upgrade(file)
    except BaseException:
        _close(file, store)
        raise
    return file, store


def _schema_version(path: Path, file: h5py.File) -> int:
    version = file.attrs.get(schema.SCHEMA_ATTR)
    if version is None:
        raise InputError(f"{path} is an HDF5 file but not a tomoseg project; import it: `tomoseg import {path} -o`.")
    if not isinstance(version, int | np.integer) or version < 1:
        raise InputError(f"{path} is damaged: its version is {str(version)[:40]!r}. Take the file from a backup.")
    if int(version) > schema.SCHEMA_VERSION:
        raise InputError(f"{path} was written by a newer tomoseg (schema {version}); update tomoseg to open it.")
    check_ways(file)
    return int(version)


def _close(file: h5py.File, store: JournaledFile | None) -> None:
    file.close()
    if store is not None:
        store.close()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn an error of the disk into a paragraph."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StageFailed(
            f"{path} cannot be written: {reason}. All that it held before is kept; what was being written is not. Free "
            f"space or mend the disk, then `tomoseg run {path}` continues."
        ) from error


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"There is no project {path}. `tomoseg run RAW -o {path}` makes one from a raw tilt series.")
