"""Atomic writing of files and folders: a reader sees the old one or the complete new one, never half of it."""

import glob
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tomoseg.errors import InputError
from tomoseg.runtime import on_abrupt_exit


@contextmanager
def atomic_path(path: Path | str, suffix: str = ".part") -> Iterator[Path]:
    """Yield a temporary path to write to; it is renamed to `path` on leaving without an error.

    The temporary name ends in `suffix`, for libraries that choose the format by the name. The temporary file is in the
    same folder, because a rename is atomic only within one file system. Only its owner may read it until it is
    complete; then it has the permissions of any new file there. The data are synced to disk before the rename. After an
    error, or an interruption, the temporary file is removed and `path` is unchanged. Raises `InputError` if the folder
    does not exist or is not writable.
    """
    path = Path(path)
    with _told(path):
        mode = _usual_mode(path, lambda probe: os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)))
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=suffix, dir=path.parent)
    os.close(handle)
    with _renamed(Path(name), path, mode) as temporary:
        yield temporary


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary empty folder to write to; it is renamed to `path` as `atomic_path` does with a file.

    A folder cannot be renamed over another, so an older folder or file of that name is moved aside first: a process
    killed in between leaves no folder of that name, never half of one.
    """
    with _told(path):
        mode = _usual_mode(path, Path.mkdir)
        made = _temporary_folder(path)
    with _renamed(made, path, mode) as temporary:
        yield temporary


def remove_unfinished(path: Path) -> None:
    """Remove temporary files and folders of `path` that killed processes left; no other process may be writing it."""
    once = f".{glob.escape(path.name)}.????????.part"
    for pattern in (once, f".{once}.????????.part"):  # a writer that is given a temporary path may use another itself
        for part in path.parent.glob(pattern):
            _remove(part)


def fsync(path: Path) -> None:
    """Sync a file to disk; a folder too, whose names it holds, where the operating system can."""
    if os.name != "posix" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _renamed(temporary: Path, path: Path, mode: int) -> Iterator[Path]:
    unregister = on_abrupt_exit(lambda: _remove(temporary))
    try:
        yield temporary
        temporary.chmod(mode)  # temporary files and folders are readable for their owner only
        for folder, _, names in os.walk(temporary, topdown=False):
            for name in names:
                fsync(Path(folder) / name)
            fsync(Path(folder))
        if temporary.is_dir():
            _replace_folder(temporary, path)
        else:
            fsync(temporary)
            temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise
    finally:
        unregister()
    fsync(path.parent)  # the new name itself is only safe once its folder is on the disk


def _replace_folder(temporary: Path, path: Path) -> None:
    if not os.path.lexists(path):  # a link is replaced, too, and what it leads to is left alone
        temporary.rename(path)
        return
    aside = _temporary_folder(path)
    path.rename(aside / path.name)
    try:
        temporary.rename(path)
    except OSError:
        (aside / path.name).rename(path)
        raise
    finally:
        _remove(aside)


def _temporary_folder(path: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; name a folder that exists and is writable") from error


def _usual_mode(path: Path, make: Callable[[Path], object]) -> int:
    """Return the permissions of a new file or folder beside `path`: by the umask, or by the folder's own default.

    One is made to see: the umask could only be read by setting it, for all threads, and an access control list of the
    folder takes its place.
    """
    probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    make(probe)
    mode = probe.lstat().st_mode
    (os.rmdir if stat.S_ISDIR(mode) else os.unlink)(probe)
    return stat.S_IMODE(mode)
