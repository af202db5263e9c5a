"""Regular files, told from devices, pipes and what else a name may lead to, without waiting for any of them."""

import os
import stat
from io import BufferedReader
from pathlib import Path

from tomoseg.errors import InputError


def status_of(path: Path) -> os.stat_result | None:
    """Return the status of a regular file, without opening it; None if there is none, or it may not be seen."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # a name that no file can have
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def open_regular(path: Path, *, follow: bool = True) -> BufferedReader:
    """Open a regular file to read; without `follow`, one whose name is not a link.

    Raises `InputError` if it is something else: a device or a pipe may wait for ever. Raises `OSError` if there is no
    such file, or it may not be read.
    """
    if not stat.S_ISREG((path.stat() if follow else path.lstat()).st_mode):  # a device may act on being opened
        raise InputError(f"{path} is not a regular file, but a folder, a link, a device or a pipe")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"{path} is not a regular file, but a folder, a link, a device or a pipe")
    return file
