"""An ordered log of every operation that `tomoseg.project.disk` performs, and operations that fail.

`interposed(handler)` sends each operation through `handler(name, real, *arguments)`; of several, the one that was
interposed last is asked first.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

from tests.crash.operations import Create, Op, Remove, Rename, Resize, Sync, SyncFolder, Write
from tests.crash.replay import Disk
from tomoseg.project import disk

OPERATIONS = ("create", "write", "allocate", "truncate", "sync", "sync_folder", "rename", "remove")
GROWING = ("create", "write", "allocate")  # what a full disk refuses


# --- handlers


class Handler(Protocol):
    """Performs, or does not perform, the operation `real(*arguments)` of tomoseg.project.disk called `name`."""

    def __call__(self, name: str, real: Callable[..., Any], *arguments: Any) -> Any: ...


@contextmanager
def interposed(handler: Handler) -> Iterator[None]:
    """Have `handler` asked for every operation."""

    def through(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: handler(name, real, *arguments)

    with ExitStack() as stack:
        for name in OPERATIONS:
            stack.enter_context(mock.patch.object(disk, name, through(name, getattr(disk, name))))
        yield


@dataclass
class Log:
    """The state of the disk when recording began, and what was done since.

    `marks` are (number of operations before it, what is to be known there), in order.
    """

    start: Disk
    ops: list[Op] = field(default_factory=list)
    marks: list[tuple[int, Any]] = field(default_factory=list)

    def disk(self, n: int | None = None) -> Disk:
        """Return the state of the disk after the first `n` operations, or all."""
        disk = deepcopy(self.start)
        for op in self.ops[:n]:
            disk.apply(op)
        return disk


class Recorder:
    """Performs every operation on the files of a folder, and keeps a log of it.

    `start` is the state of the disk after what an earlier process did; else all files of the folder are certain.
    """

    def __init__(self, folder: Path, start: Disk | None = None) -> None:
        files = sorted(path for path in folder.iterdir() if path.is_file())
        self.log = Log(Disk({path.name: path.read_bytes() for path in files}) if start is None else deepcopy(start))
        self._numbers = {path.stat().st_ino: self.log.start.names[path.name] for path in files}
        self._next = self.log.start.n_files

    def mark(self, what: Any) -> None:
        """Note what is to be known of the moment between two operations."""
        self.log.marks.append((len(self.log.ops), what))

    def __call__(self, name: str, real: Callable[..., Any], *arguments: Any) -> Any:
        if name == "create":
            return self._create(real, *arguments)
        if name == "sync":
            return self._sync(real, *arguments)
        if name == "write":
            return self._write(real, *arguments)
        is_nothing = name == "remove" and not arguments[0].exists()
        real(*arguments)
        if not is_nothing:
            self.log.ops.append(self._described(name, *arguments))
        return None

    def _create(self, real: Callable[..., int], path: Path, *like: Path) -> int:
        fd = real(path, *like)
        self._numbers[os.fstat(fd).st_ino] = self._next  # the i-node may have been another file's before
        self.log.ops.append(Create(self._next, path.name))
        self._next += 1
        return fd

    def _sync(self, real: Callable[[int], None], fd: int) -> None:
        try:
            real(fd)
        except OSError:
            self.log.ops.append(Sync(self._number(fd), failed=True))
            raise
        self.log.ops.append(Sync(self._number(fd)))

    def _write(self, real: Callable[..., None], fd: int, data: Any, offset: int) -> None:
        data = bytes(data)
        try:
            real(fd, data, offset)
        except OSError:
            there = os.pread(fd, len(data), offset)
            self.log.ops.append(Write(self._number(fd), offset, _common(data, there)))
            raise
        self.log.ops.append(Write(self._number(fd), offset, data))

    def _described(self, name: str, *arguments: Any) -> Op:
        if name == "allocate":
            return Resize(self._number(arguments[0]), os.fstat(arguments[0]).st_size)
        if name == "truncate":
            return Resize(self._number(arguments[0]), arguments[1])
        if name == "sync_folder":
            return SyncFolder()
        if name == "rename":
            return Rename(arguments[0].name, arguments[1].name)
        return Remove(arguments[0].name)

    def _number(self, fd: int) -> int:
        return self._numbers[os.fstat(fd).st_ino]


def _common(a: bytes, b: bytes) -> bytes:
    """Return the beginning that both have in common."""
    differing = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return a[: next(differing, min(len(a), len(b)))]


@dataclass
class Faults:
    """Makes operation number `at` (counted from 0) fail with an error of the operating system.

    `lasting`: the disk stays full, and whatever would take more of it fails from then on (with any other error than
    ENOSPC and EDQUOT: everything does). `partly`: a write that fails has written its first half.
    """

    at: int
    error: int = errno.ENOSPC
    lasting: bool = False
    partly: bool = False
    count: int = 0
    failed: str = ""  # the operation that failed first

    def __call__(self, name: str, real: Callable[..., Any], *arguments: Any) -> Any:
        number, self.count = self.count, self.count + 1
        if number == self.at or (self.lasting and number > self.at and self._refuses(name)):
            self.failed = self.failed or name
            if name == "write" and self.partly:
                fd, data, offset = arguments
                real(fd, memoryview(data).cast("B")[: memoryview(data).nbytes // 2], offset)
            raise OSError(self.error, self.reason)
        return real(*arguments)

    @property
    def reason(self) -> str:
        """What the operating system says."""
        return os.strerror(self.error)

    def _refuses(self, name: str) -> bool:
        return name in GROWING or self.error not in (errno.ENOSPC, errno.EDQUOT)


def without_waiting(name: str, real: Callable[..., Any], *arguments: Any) -> Any:
    """Leave out the waiting for the disk, where nothing but its slowness is lost."""
    return None if name in ("sync", "sync_folder") else real(*arguments)
