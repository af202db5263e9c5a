"""Every operation that changes a project file or its journal on the disk, one function each.

Nothing else in this room changes those files, so that a test can stop, fail or reorder any single operation. That is
why it syncs by itself and not through `tomoseg.io.atomic`: every sync of a project is recorded and can be made to fail.
"""

import errno
import fcntl
import os
from pathlib import Path

STANDARD = 3  # descriptors below are stdin, stdout and stderr, which anything may write to


def open_file(path: Path, flags: int, mode: int = 0o666) -> int:
    """Open a file; return a descriptor that is none of the standard ones, even where those are closed."""
    fd = os.open(path, flags | os.O_CLOEXEC, mode)
    if fd >= STANDARD:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, STANDARD)
    finally:
        os.close(fd)


def create(path: Path, like: Path | None = None) -> int:
    """Make an empty file where there is none; return its descriptor.

    It has the permissions of `like`, as far as the user may give them, or else those of the user's mask.
    """
    fd = open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666 if like is None else 0o600)
    if like is not None:
        there = like.stat()
        try:
            os.fchown(fd, -1, there.st_gid)
            os.fchmod(fd, there.st_mode & 0o777)
        except PermissionError:  # of a group that the user is not in: kept from all others
            os.fchmod(fd, there.st_mode & 0o700)
    return fd


def write(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def allocate(fd: int, size: int) -> None:
    """Lengthen a file to `size` bytes that really exist, so that a full disk is known now and not in the middle."""
    held = os.fstat(fd).st_size
    if size <= held:
        return
    try:
        os.posix_fallocate(fd, held, size - held)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(fd, size)  # a file system that cannot promise blocks


def truncate(fd: int, size: int) -> None:
    """Cut a file to `size` bytes."""
    os.ftruncate(fd, size)


def sync(fd: int) -> None:
    """Return when all that was written to the file is on the disk."""
    os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # file systems that keep names by other means
            raise
    finally:
        os.close(fd)


def rename(source: Path, target: Path) -> None:
    """Give a file another name, replacing what had it."""
    source.replace(target)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    path.unlink(missing_ok=True)
