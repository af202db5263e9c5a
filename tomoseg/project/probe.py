"""A first reading of a file's metadata in a child process, because HDF5 may crash, loop or take all memory.

HDF5 verifies checksums of most of its metadata but not of its heap of strings, so that damage there goes unnoticed, and
many references may lead to one string.
"""

import json
import os
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from tomoseg.errors import InputError, ProjectLocked

CPU_SECONDS = 5
WALL_SECONDS = 120.0  # a slow disk may take its time
MEMORY_BYTES = 128 << 20  # the metadata of ten thousand runs
TOO_LARGE = "reading it takes far more memory than its size suggests"
PASSED_ON: dict[str, type[Exception]] = {error.__name__: error for error in (InputError, ProjectLocked)}
_LONGEST = 2000  # characters of an error that are passed on: a pipe must hold them


def survives(read: Callable[[], object]) -> bool:
    """Tell whether `read` ends rather than crash or run for ever, and takes no more memory than metadata do.

    Always true where processes cannot be forked. Raises what `read` raises, if that is an `InputError` or a
    `ProjectLocked`; `OSError` if it raises anything else, so that nothing that failed is done again without limits.
    """
    if not hasattr(os, "fork"):
        return True
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        # The child uses HDF5 alone, which no other thread does while a project is being opened.
        warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _read_and_leave(read, sender)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        status = _status(child)
        said = pipe.read() if status == 0 else b""
    if said:
        kind, message = json.loads(said)
        raise PASSED_ON.get(kind, OSError)(message)
    return status == 0


def _read_and_leave(read: Callable[[], object], sender: int) -> None:
    """In the child: read with limits, tell what was raised, and leave without any of the parent's clean-up."""
    code = 1
    try:
        _let_go_of_what_is_open(sender)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the parent reports a crash
        _set_limits()
        answer = _error_of(read)
        if answer is not None:
            os.write(sender, json.dumps([answer[0], answer[1][:_LONGEST]]).encode())
        code = 0
    finally:
        os._exit(code)


def _let_go_of_what_is_open(sender: int) -> None:
    """Close all files but `sender` and the standard ones: the locks on them must end with the parent."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.closerange(3, sender)
    os.closerange(sender + 1, most)


def _error_of(read: Callable[[], object]) -> tuple[str, str] | None:
    """Return what is raised: the name of an error that is passed on or 'failed', and the message."""
    try:
        read()
    except tuple(PASSED_ON.values()) as error:
        return type(error).__name__, str(error)
    except MemoryError:
        return "failed", TOO_LARGE
    except Exception as error:
        # HDF5 tells of memory in words only.
        return "failed", TOO_LARGE if "alloc" in str(error).lower() else str(error)
    return None


def _set_limits() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime) + CPU_SECONDS}
    statm = Path("/proc/self/statm")
    if statm.exists():  # Linux; elsewhere the address space in use is not told, or not limited
        limits[resource.RLIMIT_AS] = int(statm.read_text().split()[0]) * resource.getpagesize() + MEMORY_BYTES
    for which, value in limits.items():
        _, hard = resource.getrlimit(which)
        possible = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (possible, possible))


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
