"""Who looks at a project file: a lock of the kernel's on it, shared by readers, that keeps its bytes as they are.

It is the one that HDF5 takes as well (flock), so that other programs which open the file are seen, and see one state
of it as long as they have it open. The holder of the project's write lock shares it too, which keeps other programs
from writing; it changes what a reader may be looking at only while it has the file to itself.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tomoseg.errors import InputError, ProjectLocked
from tomoseg.project import disk

PATIENCE = 10.0  # seconds: a commit that is being brought into the file takes a fraction of one
PAUSE = 0.01
HELD = (errno.EAGAIN, errno.EACCES)
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)  # file systems without them


class Look:
    """A reader's share of a project file; nobody changes what can be seen through `fd` while it is open.

    `is_certain` is false where the file system has no locks: then `has_changed` tells of anything that was written.
    """

    def __init__(self, path: Path) -> None:
        while True:
            self.fd = _opened(path)
            try:
                self.is_certain = share(self.fd, path)
                if is_same(path, self.fd):
                    break
            except BaseException:
                self.close()
                raise
            self.close()  # it was replaced before the lock was had
        self._seen = _written(self.fd)

    def has_changed(self) -> bool:
        """Tell whether the file may have been written since it was opened."""
        return not self.is_certain and _written(self.fd) != self._seen

    def close(self) -> None:
        """Look no more."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def share(fd: int, path: Path, patience: float | None = None) -> bool:
    """Take a share of an open file; return whether the file system has such locks.

    Raises `ProjectLocked` where another program keeps the file to itself for longer than a commit takes.
    """
    give_up = time.monotonic() + (PATIENCE if patience is None else patience)
    while (got := _lock(fd, fcntl.LOCK_SH)) is False:
        if time.monotonic() > give_up:
            raise ProjectLocked(
                f"Another program has {path} open for writing; tomoseg waited {PATIENCE:.0f} s. Close it there, then "
                "start again."
            )
        time.sleep(PAUSE)
    return got is not None


@contextmanager
def alone(fd: int, path: Path, patience: float = 0.0) -> Iterator[bool]:
    """Yield whether nobody else looks at an open file, of which a share is held; nobody can begin to meanwhile.

    Others may be waited for, `patience` seconds. Where the file system has no locks it is taken to be so: readers
    notice.
    """
    give_up = time.monotonic() + patience
    try:
        while (got := _lock(fd, fcntl.LOCK_EX)) is False and time.monotonic() < give_up:
            time.sleep(PAUSE)
        yield got is not False
    finally:
        share(fd, path)  # an attempt that fails may cost the share that was had (flock(2))


def others(fd: int) -> list[str]:
    """Return the processes that look at an open file, as far as the system tells (proc(5): locks)."""
    status = os.fstat(fd)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return []
    pids = {int(words[4]) for words in held if words[1] == "FLOCK" and words[5] == device}
    return [f"{pid} ({_command(pid)})" for pid in sorted(pids - {os.getpid()}) if pid > 0]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "of another user"


def _opened(path: Path) -> int:
    try:
        return disk.open_file(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}.") from error


def _lock(fd: int, kind: int) -> bool | None:
    """Take a lock without waiting; return whether it was got, None where there are no locks."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return False
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def is_same(path: Path, fd: int) -> bool:
    """Tell whether an open file is the one that a path leads to, or was until it was removed."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return True  # removed while we look: what was opened can still be read
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _written(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_mtime_ns, status.st_size
