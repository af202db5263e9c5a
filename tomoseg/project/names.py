"""The names of a project: which file is meant, whatever it is called, and what lies beside it."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from tomoseg.errors import InputError, shown
from tomoseg.project import disk

JOURNAL_ATTRIBUTE = "user.tomoseg.journal"  # of a file with several names: where its journal is, while there is one
MOST_BYTES = 1 << 30  # of a journal: its writer keeps less in memory
NO_ATTRIBUTES = (errno.ENOTSUP, errno.EPERM, errno.ENOSYS)
KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def resolved(path: Path) -> Path:
    """Return the one name of a project by which all is done: links on the way to it are followed, here and only here.

    A path without links is returned as it was typed.
    """
    real = Path(os.path.realpath(path))
    return path if real == path.absolute() else real


def lock_path(project: Path) -> Path:
    """Return the lock file of a project."""
    return project.with_name(project.name + ".lock")


def journal_path(project: Path) -> Path:
    """Return the journal of a project."""
    return project.with_name(project.name + ".journal")


def unborn_path(path: Path) -> Path:
    """Return the name under which a file is written before it is complete; a user's own file hardly has such a one."""
    return path.with_name(f".{path.name}.tomoseg")


def is_there(path: Path) -> bool:
    """Tell whether a file lies beside a project. Raises `InputError` if something else has its name."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        what = next((name for is_kind, name in KINDS if is_kind(mode)), "a device")
        raise InputError(
            f"{path} is {what}, where tomoseg keeps a file of its own beside the project. Move it elsewhere, then "
            "start again."
        )
    return True


def open_beside(path: Path, flags: int = os.O_RDONLY) -> int | None:
    """Open a file beside a project and return its descriptor, or None where there is none; a link is not followed.

    Raises `InputError` if something else than a file has its name.
    """
    if not is_there(path):
        return None
    try:
        fd = disk.open_file(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)  # it was exchanged just now
    return open_beside(path, flags)


def read_beside(path: Path) -> bytes | None:
    """Return the content of a file beside a project, or None where there is none.

    Raises `InputError` if it is larger than any that tomoseg writes.
    """
    fd = open_beside(path)
    if fd is None:
        return None
    with os.fdopen(fd, "rb") as file:
        n_bytes = os.fstat(fd).st_size
        if n_bytes > MOST_BYTES:
            raise InputError(f"{path} has {n_bytes / 1e9:.3g} GB, more than tomoseg writes. Move it elsewhere.")
        return file.read()


# --- files with several names


def count(path: Path) -> int:
    """Return how many names a file has: hard links, and one more where it is mounted under a name of its own."""
    return path.stat().st_nlink + _is_mounted(path)


def mounted_at(line: bytes) -> str:
    """Return the place in a line of /proc/self/mountinfo (proc_pid_mountinfo(5): field 5, with octal escapes)."""
    return os.fsdecode(line.split()[4].decode("unicode_escape").encode("latin-1"))


def _is_mounted(path: Path) -> bool:
    """Tell whether a file is mounted by itself, as containers do."""
    with suppress(OSError):
        here = os.path.realpath(path)
        return any(mounted_at(line) == here for line in Path("/proc/self/mountinfo").read_bytes().splitlines())
    return False


def require_attributes(project: Path) -> None:
    """Raise `InputError` where the file system cannot keep with a file of several names where its journal is."""
    if _noted(project) is None:
        note_journal(project)
        forget_journal(project)


def note_journal(project: Path) -> None:
    """Keep with a file that has several names where its journal is, for whoever opens it by another one.

    It is noted before the journal takes its name, and forgotten after it gave it up. Raises `InputError` where the file
    system cannot.
    """
    if count(project) == 1:
        return
    try:
        os.setxattr(project, JOURNAL_ATTRIBUTE, os.fsencode(journal_of(project).absolute()))
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno not in NO_ATTRIBUTES:
            raise
        raise InputError(
            _several(project, "and this file system cannot recover it from a crash under each of them")
        ) from error


def is_noted(project: Path) -> bool:
    """Tell whether a note of `note_journal` is kept with a file."""
    return _noted(project) is not None


def forget_journal(project: Path) -> None:
    """Undo `note_journal`."""
    if is_noted(project):
        os.removexattr(project, JOURNAL_ATTRIBUTE)


def journal_of(project: Path) -> Path:
    """Return where the journal of a project is, if it has one: beside the name by which it was last written.

    Raises `InputError` where that cannot be seen from here.
    """
    own, noted = journal_path(project), _noted(project)
    if noted is None or noted == own.absolute() or is_there(own):
        return own
    if is_there(noted) or is_there(unborn_path(noted)):  # or it was not completed, and holds nothing that counts
        return noted
    raise InputError(
        f"{project} was being written under another of its names, and what was written last is in {shown(noted, 300)}, "
        "which is not there. Open the project by that name, on the machine or in the container where it was written. "
        "If that is lost, take the project from a backup, or make do with what is in it: "
        f"setfattr -x {JOURNAL_ATTRIBUTE} {project}"
    )


def _noted(project: Path) -> Path | None:
    try:
        return Path(os.fsdecode(os.getxattr(project, JOURNAL_ATTRIBUTE)))
    except (OSError, AttributeError):  # there is none, or the file system has none
        return None


def refuse_several(project: Path, why: str) -> None:
    """Raise `InputError` if a file has several names; `why` says what is wrong with that."""
    if count(project) > 1:
        raise InputError(_several(project, why))


def _several(project: Path, why: str) -> str:
    return (
        f"{project} has {count(project)} names (hard links or mounts), {why}. Make it a file of its own first: "
        f"cp {project} {project}.copy && mv {project}.copy {project}"
    )
