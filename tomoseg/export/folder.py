"""Writing a folder of files so that under its name a reader finds the old one or the complete new one."""

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tomoseg.errors import InputError
from tomoseg.runtime import on_abrupt_exit


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary empty folder beside `path` to write to; on leaving without an error it takes the name `path`.

    An older folder or file of that name is moved aside first, since a folder cannot be renamed over another: a process
    killed in between leaves none of that name, never half of one. The data are on the disk (fsync) before the name is
    given. After an error, or an interruption, the temporary folder is removed and `path` is as it was before.

    Raises
    ------
    InputError
        The folder that holds `path` does not exist or cannot be written to.
    """
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; name a folder that exists and is writable") from error
    unregister = on_abrupt_exit(lambda: shutil.rmtree(temporary, ignore_errors=True))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        for where, _, names in os.walk(temporary, topdown=False):
            for name in names:
                _fsync(Path(where) / name)
            _fsync_folder(Path(where))
        _replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        unregister()
    _fsync_folder(path.parent)


def remove_unfinished_folders(path: Path) -> None:
    """Remove what killed processes left of `path`; only where no other process may be writing it."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.????????.part"):
        _remove(part)


def _replace(temporary: Path, path: Path) -> None:
    if not path.exists():
        temporary.rename(path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    path.rename(aside / path.name)
    try:
        temporary.rename(path)
    except OSError:
        (aside / path.name).rename(path)
        raise
    finally:
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _fsync_folder(folder: Path) -> None:
    if os.name == "posix":
        _fsync(folder)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
