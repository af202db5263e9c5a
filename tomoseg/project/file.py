"""The project file: opening it to read or to write, its artifacts, provenance and settings."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from tomoseg import schema
from tomoseg.arrays import Input
from tomoseg.errors import InputError, ProjectLocked, StageFailed
from tomoseg.project import layout, names, opened
from tomoseg.project.journal import JournaledFile, make_way, recover
from tomoseg.project.lock import writing
from tomoseg.project.opened import CACHE_BYTES, OpenedFile, explaining_disk_errors, open_to_read, require_file
from tomoseg.project.provenance import Record
from tomoseg.project.transaction import Partial, Transaction, read_partial
from tomoseg.project.validate import CheckedDataset, read_record, read_settings, validated_node
from tomoseg.runtime import on_abrupt_exit

SIGNATURE = b"\x89HDF\r\n\x1a\n"
CACHE_SLOTS = 8191  # many more than chunks fit, and a prime: chunks that fall into one slot drive each other out


class Project(OpenedFile):
    """An open project file. Use `Project.read`, `Project.write` or `Project.create`."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open for reading, until it is closed: `with Project.read(path) as project`, or call `close`.

        It never blocks a writer and is never blocked by one. What is read is the state at the opening, whatever is
        written meanwhile. Raises `InputError` if there is no such file, or it is damaged, or no project;
        `ProjectLocked` where a program other than tomoseg has it open for writing.
        """
        path = names.resolved(path)
        return cls(path, *open_to_read(path))

    @classmethod
    @contextmanager
    def write(cls, path: Path, tell: Callable[[str], object] = str, *, break_lock: bool = False) -> Iterator[Self]:
        """Open an existing project for writing, alone. Raises `ProjectLocked` where another process writes it.

        A commit that a crash had cut short is completed or discarded first; `tell` is told so. The file is reopened
        for writing only when something is written, so that looking changes no byte.
        """
        path = names.resolved(path)
        require_file(path)
        with writing(path, tell, break_lock=break_lock) as lock:
            with explaining_disk_errors(path):
                if (n := names.count(path)) > 1:
                    names.require_attributes(path)
                    tell(f"{path} has {n} names (hard links or mounts): what is written is seen under all of them")
                if done := recover(path):
                    tell(f"{path.name}: {done}")
            with cls.read(path) as project:
                project.lock = lock
                with _finished(project, tell):
                    yield project

    @classmethod
    @contextmanager
    def create(cls, path: Path, tell: Callable[[str], object] = str, *, break_lock: bool = False) -> Iterator[Self]:
        """Make a new project. The file appears under its name when its first stage is committed, or not at all."""
        path = names.resolved(path)
        if path.exists():
            raise InputError(f"{path} already exists; `tomoseg run {path}` continues it, or choose another -o.")
        if not path.parent.is_dir():
            raise InputError(f"The folder {path.parent} does not exist; create it, or choose another -o.")
        with writing(path, tell, break_lock=break_lock) as lock:
            if path.exists():  # since we looked
                raise ProjectLocked(f"{path} was just made by another process. Start again to continue it.")
            with explaining_disk_errors(path):
                if done := make_way(path):
                    tell(done)
                store = JournaledFile.create(path)
            new = names.unborn_path(path)
            unregister = on_abrupt_exit(lambda: new.unlink(missing_ok=True))
            try:
                lock.claim(new, store.fd)
                file = h5py.File(store, "w", **layout.FORMAT, **layout.NEW_FILE, rdcc_nbytes=CACHE_BYTES)
                file.attrs[schema.SCHEMA_ATTR] = schema.SCHEMA_VERSION
                with cls(path, file, store) as project:
                    project.lock = lock
                    with _finished(project, tell):
                        yield project
            finally:
                new.unlink(missing_ok=True)
                unregister()

    # --- reading ---

    def has(self, artifact: schema.Artifact) -> bool:
        """Tell whether the project holds the artifact."""
        return artifact.path in self._file

    def artifact(self, artifact: schema.Artifact, cache_bytes: int = CACHE_BYTES) -> Input:
        """Return a handle on an artifact, read as it is sliced, through a cache of at most `cache_bytes`."""
        return _Stored(self, artifact, min(cache_bytes, CACHE_BYTES))

    def artifacts(self) -> dict[str, Input]:
        """Return handles on everything the project holds, by artifact name."""
        return {a.name: self.artifact(a) for a in schema.ARTIFACTS if self.has(a)}

    def record(self, stage: str) -> Record | None:
        """Return the provenance of a stage's present result."""
        self.require_unchanged()
        return read_record(self._file, f"{schema.PROVENANCE}/{stage}")

    def past_record(self, run_id: str) -> Record | None:
        """Return the provenance of any run that ever began."""
        return read_record(self._file, f"{schema.HISTORY}/{run_id}")

    def history(self) -> list[Record]:
        """Return the provenance of every run that ever began, in the order they began."""
        records = (self.past_record(run_id) for run_id in self._file.get(schema.HISTORY, ()))
        return sorted((r for r in records if r is not None), key=lambda r: (r.sequence, r.started))

    def partial(self, stage: str) -> Partial | None:
        """Return what an interrupted run of a stage left, if it can be continued."""
        return read_partial(self._file, stage)

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """The parameters last asked for, of each stage: {stage: {parameter: value}}."""
        if schema.SETTINGS not in self._file:
            return {}
        return read_settings(self._file[schema.SETTINGS].attrs)

    # --- writing ---

    def store_settings(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Store the parameters asked for, of each stage; on the disk at the next commit."""
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
                with explaining_disk_errors(self.path):
                    raise refused from error
            raise


@contextmanager
def _finished(project: Project, tell: Callable[[str], object]) -> Iterator[None]:
    """Finish writing at the end, without waiting for readers after an error or an interruption."""
    try:
        yield
    except BaseException:
        project.finish(tell)
        raise
    project.finish(tell, opened.FINISH_SECONDS)


class _Stored:
    """An artifact in the file, as `tomoseg.arrays.Input`. It outlives commits, after which the file is another."""

    def __init__(self, project: Project, artifact: schema.Artifact, cache_bytes: int) -> None:
        self._project, self._path, self._cache_bytes = project, artifact.path, cache_bytes
        node = validated_node(project.file, artifact)
        self.shape: tuple[int, ...] = getattr(node, "shape", (0,))
        self.dtype: np.dtype[Any] = getattr(node, "dtype", np.dtype(float))
        self.chunks: tuple[int, ...] | None = getattr(node, "chunks", None)
        self._opened: tuple[h5py.File | None, Any] = (None, None)

    @property
    def attrs(self) -> Mapping[str, Any]:
        with self._project.gate:
            attrs = {key: layout.plain(value) for key, value in self._node().attrs.items()}
            self._project.require_unchanged()
            return attrs

    def __getitem__(self, key: Any) -> Any:
        with self._project.gate:
            try:
                values = self._node()[key]
                self._project.require_unchanged()
                return values
            except (OSError, RuntimeError) as error:
                raise InputError(
                    f"{self._path} in {self._project.path} is damaged: {error}. Run the stage that makes it again, or "
                    "take the file from a backup."
                ) from error

    def _node(self) -> Any:
        if not self._project.file:
            raise InputError(f"{self._project.path} is closed; open it again to read {self._path}.")
        if self._opened[0] is not self._project.file:
            self._opened = (self._project.file, _with_cache(self._project.file, self._path, self._cache_bytes))
        return self._opened[1]


def _with_cache(file: h5py.File, path: str, cache_bytes: int) -> Any:
    """Open a group, or an array with a chunk cache of its own."""
    if file.get(path, getclass=True) is not h5py.Dataset:
        return file[path]
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(CACHE_SLOTS, cache_bytes, 0.75)  # 0.75: HDF5's default order of leaving the cache
    return CheckedDataset(h5py.h5d.open(file.id, path.encode(), access))


PROJECT_ENDINGS = (".h5", ".hdf5")  # of the names of projects that are made


def is_project(path: Path) -> bool:
    """Tell whether `path` is a tomoseg project file."""
    if not path.is_file() or not _is_hdf5(path):
        return False
    try:
        with Project.read(path):
            return True
    except InputError:
        return False


def _is_hdf5(path: Path) -> bool:
    """Tell whether a file begins as HDF5 does; HDF5 itself would say no while a commit is brought into the file."""
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE
