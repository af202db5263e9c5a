"""What the file system of a folder does: the things on which the safety of a project file rests."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

from tomoseg.io.limits import reason_of

MANY_MS = 1000  # of a sync, from which on a run with many small results is slowed


def trials(folder: Path) -> list[tuple[str, bool, str]]:
    """Try locks, syncs, renames and hard links in a folder; return for each its name, whether it works, and details.

    A folder of its own is made for that and removed. Raises `OSError` where nothing can be written.
    """
    place = Path(mkdtemp(prefix=".tomoseg-doctor-", dir=folder))
    try:
        return [_tried(name, trial, place) for name, trial in TRIALS.items()]
    finally:
        for path in place.iterdir():
            path.unlink()
        place.rmdir()


def _tried(name: str, trial: Callable[[Path], str], place: Path) -> tuple[str, bool, str]:
    try:
        return name, True, trial(place)
    except OSError as error:
        return name, False, reason_of(error)


def _locks(place: Path) -> str:
    """Take a lock through one descriptor, and see that another cannot have it."""
    import fcntl

    path = place / "lock"
    with path.open("w") as one, path.open("r+") as other:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            raise OSError("a second lock was given while the first was held: mount it with locks (NFS: nolock is off)")
    return "one holder at a time on this machine; over a network they hold between machines if its server has locks"


def _sync(place: Path) -> str:
    """Write and sync a file and its folder."""
    began = time.perf_counter()
    with (place / "synced").open("wb") as file:
        file.write(bytes(1 << 16))
        file.flush()
        os.fsync(file.fileno())
    fd = os.open(place, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    ms = 1e3 * (time.perf_counter() - began)
    return f"64 KiB in {ms:.0f} ms" + ("; that is slow: a local folder would do better" if ms > MANY_MS else "")


def _rename(place: Path) -> str:
    """Replace a file by another one."""
    old, new = place / "old", place / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    new.replace(old)
    if old.read_bytes() != b"new" or new.exists():
        raise OSError("a file that was replaced still shows its old content")
    return "a file is replaced in one step"


def _link(place: Path) -> str:
    one, other = place / "one", place / "other"
    one.write_bytes(b"1")
    os.link(one, other)
    return "a second name for a file can be made"


TRIALS: dict[str, Callable[[Path], str]] = {
    "locks": _locks,
    "fsync": _sync,
    "rename": _rename,
    "hard links": _link,
}
