"""Atomic writing of folders: under its name a reader finds the old folder or the complete new one."""

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tomoseg.errors import InputError
from tomoseg.io.atomic import fsync, fsync_folder
from tomoseg.runtime import on_abrupt_exit


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary empty folder to write to; it is renamed to `path` on leaving without an error.

    A folder cannot be renamed over another, so an older folder or file of that name is moved aside first: a process
    killed in between leaves no folder of that name, never half of one. The data are synced to disk before the rename.
    After an error, or an interruption, the temporary folder is removed and `path` is unchanged.

    Raises
    ------
    InputError
        The folder that holds `path` does not exist or is not writable.
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
                fsync(Path(where) / name)
            fsync_folder(Path(where))
        _replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        unregister()
    fsync_folder(path.parent)


def remove_unfinished_folders(path: Path) -> None:
    """Remove temporary folders of `path` that killed processes left behind; no other process may be writing it."""
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
