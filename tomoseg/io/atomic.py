"""Atomic writing: a reader sees the old file or the complete new one, never half of it."""

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tomoseg.errors import InputError
from tomoseg.runtime import on_abrupt_exit


@contextmanager
def atomic_path(path: Path | str, suffix: str = ".part") -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; on leaving without an error it takes the name `path`.

    Its own name ends in `suffix`, for libraries that go by the extension. The temporary file is in the same folder,
    because a rename is atomic only within one file system. The data are on the disk (fsync) before the name is given.
    After an error, or an interruption, the temporary file is removed and `path` is as it was before.

    Raises
    ------
    InputError
        The folder does not exist or cannot be written to.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=suffix, dir=path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; name a folder that exists and is writable") from error
    os.close(handle)
    temporary = Path(name)
    unregister = on_abrupt_exit(lambda: temporary.unlink(missing_ok=True))
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        _fsync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        unregister()
    if os.name == "posix":
        _fsync(path.parent)  # the new name itself is only safe once its folder is on the disk


def remove_unfinished(path: Path) -> None:
    """Remove the temporary files of `path` that killed processes left; no other process may be writing it."""
    once = f".{glob.escape(path.name)}.????????.part"
    for pattern in (once, f".{once}.????????.part"):  # a writer that is given a temporary path may use another itself
        for part in path.parent.glob(pattern):
            part.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
