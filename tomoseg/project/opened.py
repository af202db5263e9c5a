"""An open project file: HDF5 through the journal, reopened at every commit, closed with what was not committed."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from tomoseg import schema
from tomoseg.errors import InputError, StageFailed
from tomoseg.project import layout
from tomoseg.project.journal import Extent, JournaledFile, read_journal
from tomoseg.project.lock import Lock
from tomoseg.project.looking import Look, is_same, others
from tomoseg.project.probe import survives
from tomoseg.project.upgrade import upgrade
from tomoseg.project.validate import read_all_metadata, refuse_links

CACHE_BYTES = 64 << 20  # of chunks, per dataset, at most
OPENING_ATTEMPTS = 3  # where a commit takes place while the file is being opened, and nothing prevents that
FINISH_SECONDS = 5.0  # that a writer waits at its end for readers to leave


class OpenedFile:
    """A project file opened for reading, which the holder of its lock can also write to.

    `gate` is held while the file is used, because a commit reopens it. `lock` is the writer's. Use it as a context
    manager, or `close` it.
    """

    def __init__(
        self, path: Path, file: h5py.File, store: JournaledFile | None = None, look: Look | None = None
    ) -> None:
        self.path = path
        self.gate = threading.RLock()
        self.lock: Lock | None = None
        self._file = file
        self._store = store
        self._look = look

    def close(self) -> None:
        """Close the file; what was not committed is forgotten."""
        _close(self._file, self._store, self._look)

    def require_unchanged(self) -> None:
        """Raise `InputError` if another process may have written the file since it was opened for reading.

        Where the file system has locks, it cannot.
        """
        if self._look is not None and self._look.has_changed():
            raise InputError(
                f"{self.path} was written by another process while it was read, on a file system without locks. Start "
                "again when it has ended."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

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
        """Return the file, reopened for writing if it was only open for reading."""
        if self._store is None or self._store.is_view:
            with self.gate, explaining_disk_errors(self.path):
                self.close()
                self._store = JournaledFile.open(self.path)
                self._reopen()
        upgrade(self._file)
        return self._file

    def settle(self, reserved: Sequence[Extent] = ()) -> None:
        """Commit what was written so far: from now on, the file holds it whatever crashes.

        HDF5 is closed for it: only then has it written all it knows, its account of free space included. The content of
        `reserved` space is not part of it.
        """
        with self.gate, explaining_disk_errors(self.path):
            self._file.close()
            try:
                if self.lock is not None:
                    self.lock.require()
                self.store.commit(reserved)
            except (OSError, StageFailed):
                self.roll_back()
                raise
            self._reopen()

    def finish(self, tell: Callable[[str], object], patience: float = 0.0) -> None:
        """End writing: bring into the file what was put off while others looked, or `tell` that they still do."""
        if self._store is None or self._store.is_view or self._store.is_new:
            return
        with self.gate, explaining_disk_errors(self.path):
            with suppress(OSError, RuntimeError):  # as when rolling back: what HDF5 would still write is forgotten
                self._file.close()
            if not self._store.finish(patience):
                who = ", ".join(others(self._store.fd)) or "another program"
                tell(
                    f"warning: {self.path} is still open in {who}, and stays there as it was. The new results are kept "
                    "beside it, where tomoseg sees them; for other programs to see them too, close it there and run "
                    f"`tomoseg run {self.path}`."
                )

    def roll_back(self) -> None:
        """Go back to the last commit."""
        with self.gate:
            # HDF5 may fail over what a broken disk did not keep; all that it does here is forgotten next.
            with suppress(OSError, RuntimeError):
                self._file.close()
            self.store.roll_back()
            if self.store.error is None and not self.is_new:
                self._reopen()

    def check_disk(self) -> None:
        """Raise `StageFailed` if the disk refused a write."""
        if self.store.error is not None:
            with explaining_disk_errors(self.path):
                raise self.store.error

    def _reopen(self) -> None:
        self._file = h5py.File(self._store, "r+", **layout.FORMAT, rdcc_nbytes=CACHE_BYTES)


Opened = tuple[h5py.File, JournaledFile, Look]


def open_to_read(path: Path) -> Opened:
    """Open the last committed state, upgraded in memory where an older version wrote it.

    Raises `InputError` if there is no such file, or it is damaged, or no project; `ProjectLocked` where another program
    has it open for writing.
    """
    require_file(path)
    for attempt in range(OPENING_ATTEMPTS):
        before = path.stat().st_mtime_ns
        try:
            return _open_safely(path)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            if path.stat().st_mtime_ns == before or attempt == OPENING_ATTEMPTS - 1:
                raise InputError(
                    f"{path} cannot be opened as a tomoseg project: {error}. If it is a raw tilt series, give a "
                    f"project name too: `tomoseg run {path} -o PROJECT.h5`."
                ) from error
    raise AssertionError


def _open_safely(path: Path) -> Opened:
    """Open the file and read its metadata, in a child process first: HDF5 may crash on a damaged file."""

    def read() -> Opened:
        opened = _open(path)
        try:
            read_all_metadata(opened[0])
        except BaseException:
            _close(*opened)
            raise
        return opened

    if not survives(read):
        raise InputError(f"{path} is damaged: the HDF5 library crashes on it. Take the file from a backup.")
    return read()


def _open(path: Path) -> Opened:
    """Open the file through its journal; by its path, HDF5 would share what this process has open of it already."""
    while True:
        look = Look(path)
        try:
            store = JournaledFile.look(path, look.fd, read_journal(path, look.fd))
        except BaseException:
            look.close()
            raise
        if is_same(path, look.fd):
            break
        store.close()  # it was compacted, and its journal removed, between opening the one and the other
        look.close()
    try:
        return _upgraded(path, store), store, look
    except BaseException:
        store.close()
        look.close()
        raise


def _upgraded(path: Path, store: JournaledFile) -> h5py.File:
    file = h5py.File(store, "r", rdcc_nbytes=CACHE_BYTES)
    try:
        if _schema_version(path, file) == schema.SCHEMA_VERSION:
            return file
        file.close()
        file = h5py.File(store, "r+", **layout.FORMAT, rdcc_nbytes=CACHE_BYTES)
        upgrade(file)
    except BaseException:
        file.close()
        raise
    return file


def _schema_version(path: Path, file: h5py.File) -> int:
    version: Any = file.attrs.get(schema.SCHEMA_ATTR)
    if version is None:
        raise InputError(
            f"{path} is an HDF5 file but not a tomoseg project; import it: `tomoseg import {path} -o PROJECT.h5`."
        )
    if not isinstance(version, int | np.integer) or version < 1:
        raise InputError(f"{path} is damaged: its schema version is {str(version)[:40]!r}. Take it from a backup.")
    if int(version) > schema.SCHEMA_VERSION:
        raise InputError(f"{path} was written by a newer tomoseg (schema {version}); update tomoseg to open it.")
    refuse_links(file)
    return int(version)


def _close(file: h5py.File, store: JournaledFile | None, look: Look | None) -> None:
    file.close()
    if store is not None:
        store.close()
    if look is not None:
        look.close()


@contextmanager
def explaining_disk_errors(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one paragraph for the user."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StageFailed(
            f"{path} cannot be written: {reason}. Everything committed before is safe; what was being written is lost. "
            f"Free space or repair the disk, then continue with `tomoseg run {path}`."
        ) from error


def require_file(path: Path) -> None:
    """Raise InputError unless there is such a file."""
    if not path.is_file():
        raise InputError(f"There is no project {path}. `tomoseg run RAW -o {path}` makes one from a raw tilt series.")
