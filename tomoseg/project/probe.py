"""A first reading of a file's metadata in a child process, because HDF5 may crash or loop on a damaged file.

HDF5 verifies checksums of most of its metadata but not of its heap of strings, so that damage there goes unnoticed.
"""

import os
import resource
import time
import warnings
from collections.abc import Callable
from contextlib import suppress

CPU_SECONDS = 5
WALL_SECONDS = 120.0  # a slow disk may take its time


def survives(read: Callable[[], object]) -> bool:
    """Tell whether `read` ends, be it with an exception, rather than crash or run for ever.

    Always true where processes cannot be forked.
    """
    if not hasattr(os, "fork"):
        return True
    with warnings.catch_warnings():
        # The child uses HDF5 alone, which no other thread does while a project is being opened.
        warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _read_and_leave(read)
    return _status(child) == 0


def _read_and_leave(read: Callable[[], object]) -> None:
    """In the child: read with limits, and leave without any of the parent's clean-up."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the parent reports a crash
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        with suppress(Exception):  # the parent meets it too, and reports it
            read()
    finally:
        os._exit(0)


def _status(child: int) -> int:
    """Wait for the child; return how it ended."""
    give_up, pause = time.monotonic() + WALL_SECONDS, 0.0005
    while time.monotonic() < give_up:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    os.kill(child, 9)
    return os.waitpid(child, 0)[1]
