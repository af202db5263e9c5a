"""One writer at a time: a lock file beside the project, held by the kernel and shown to be held by a heartbeat.

The kernel keeps a lock on the open lock file (flock) as long as its process lives, whatever its number or name space.
On one machine that is the whole truth. Over a network it may be that of one machine only; therefore the lock file tells
who holds it, and a counter in it rises while that process works. A lock file of whose process nothing certain can be
known from here is refused; with `break_lock` it is taken if its counter stands still.

Taking is one step: the kernel gives the lock to one of those who want it, who then looks at what the file says. Where
the file system has no such locks, the one succeeds a dead holder who can make the file that is named after it.

A second lock is on the project file itself, which may have other names (hard links, mounts) with other lock files.
"""

import errno
import fcntl
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

from tomoseg.errors import InputError, ProjectLocked, StageFailed, shown
from tomoseg.project import disk, looking, names
from tomoseg.runtime import on_abrupt_exit

BEAT_SECONDS = 10.0
WATCH_SECONDS = 35.0  # three beats, and a slow network
FIRST_BEAT = 10**12  # so that the file keeps its length
ATTEMPTS = 1000  # each fails only where another process got further
# File systems that one machine has to itself, as Linux calls them.
LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "tmpfs", "overlay", "vfat", "exfat"}
WRITER_BYTE = 1 << 62  # of the project file, far past its end: locked by the one who may write it

Verdict = Literal["gone", "alive", "unknown"]
Tell = Callable[[str], object]


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as the lock file tells. Older versions wrote the first four facts only."""

    host: str
    pid: int
    process_start: str
    since: str
    boot_id: str = ""
    pid_namespace: str = ""
    nonce: str = ""
    device: int = 0  # of the project file, 0 before there is one
    inode: int = 0
    beat: int = 0

    @classmethod
    def me(cls, project: Path) -> "Holder":
        """Return this process as the holder of a project's lock."""
        status = project.stat() if project.exists() else None
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            process_start=_process_start(os.getpid()),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            boot_id=_boot_id(),
            pid_namespace=_pid_namespace(),
            nonce=uuid4().hex,
            device=status.st_dev if status else 0,
            inode=status.st_ino if status else 0,
            beat=FIRST_BEAT,
        )

    @classmethod
    def told(cls, content: bytes) -> "Holder | None":
        """Return what a lock file says, None where it is empty: its process ended just before it wrote.

        Raises `ValueError` if that is not what tomoseg writes.
        """
        if not content.strip(b"\0"):
            return None
        try:
            known = json.loads(content)
            holder = cls(**{"process_start": ""} | {f.name: known[f.name] for f in fields(cls) if f.name in known})
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from error
        if not all(isinstance(getattr(holder, f.name), f.type) for f in fields(cls)):  # type: ignore[arg-type]
            raise ValueError("a value is of another type")
        if not re.fullmatch("[0-9a-f]*", holder.nonce):  # files are named after it
            raise ValueError("its number is none")
        return holder

    def encoded(self) -> bytes:
        """Return the lock file's content."""
        return json.dumps(asdict(self)).encode()


def holder_of(project: Path) -> Holder | None:
    """Return who holds the lock of a project by what its lock file says; None where there is none, or it says nothing.

    Nothing is tried: the process may have ended.
    """
    return _read(names.lock_path(names.resolved(project)))


class Lock:
    """The write lock of a project. `fd` is the open lock file, None where the file system has no locks."""

    def __init__(self, path: Path, fd: int | None, holder: Holder) -> None:
        self._path = path
        self._fd = fd
        self._holder = holder
        self._writer_fd: int | None = None
        self._released = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def show_life(self) -> None:
        """Let the heartbeat go, until the release."""
        self._heartbeat.start()

    def claim(self, project: Path, fd: int | None = None) -> None:
        """Lock the project file too, open as `fd` or to be opened, against writers that know it by another name.

        Raises `ProjectLocked` where there is one; `InputError` where there could be, and the file system has no locks.
        """
        try:
            fd = os.dup(fd) if fd is not None else disk.open_file(project, os.O_RDWR)
        except PermissionError:
            return  # it cannot be written anyway
        got = _lock_writer_byte(fd) if _is_local(project) else None
        if got:
            self._writer_fd = fd
            return
        os.close(fd)
        if got is False:
            raise ProjectLocked(
                f"Another process is writing {project} under another of its names (a hard link, or a mount). Wait for "
                "it to end."
            )
        names.refuse_several(project, "and nobody can see here whether it is being written under another of them")

    def require(self) -> None:
        """Raise `StageFailed` if the lock was taken away from this process."""
        if not self._is_ours():
            raise StageFailed(
                f"{self._path} was removed, or taken by another process, while this one was writing the project. "
                "Nothing was written since its last commit. See who else writes it, then start again."
            )

    def remove_file(self) -> None:
        """Remove the lock file, if it is still this process's."""
        if self._is_ours():
            self._path.unlink(missing_ok=True)

    def release(self) -> None:
        """Give the lock up: first the file goes, then the kernel's lock on it."""
        self._released.set()
        if self._heartbeat.is_alive():
            self._heartbeat.join()
        self.remove_file()
        for fd in (self._writer_fd, self._fd):
            if fd is not None:
                os.close(fd)

    def _is_ours(self) -> bool:
        if self._fd is not None:
            return _is_at(self._fd, self._path)
        holder = _read(self._path)
        return holder is not None and holder.nonce == self._holder.nonce

    def _beat(self) -> None:
        holder = self._holder
        while not self._released.wait(BEAT_SECONDS):
            holder = replace(holder, beat=holder.beat + 1)
            with suppress(OSError, InputError):  # the work goes on without it; a lock that is gone is seen at a commit
                if not self._is_ours():
                    return
                fd = self._fd if self._fd is not None else names.open_beside(self._path, os.O_RDWR)
                if fd is None:
                    return
                try:
                    os.pwrite(fd, holder.encoded(), 0)
                    os.fsync(fd)  # for other machines to see it
                finally:
                    if fd != self._fd:
                        os.close(fd)


@contextmanager
def writing(project: Path, tell: Tell = str, *, break_lock: bool = False) -> Iterator[Lock]:
    """Hold the project's write lock; `tell` is told when the lock of a dead process is taken over.

    Raises `ProjectLocked` naming the holder, also where nothing certain can be known of it from here, unless
    `break_lock` is set and its heartbeat stands still; a process that is seen to live keeps its lock in any case.
    Raises `InputError` where no lock file can be made, or something else has its name.
    """
    lock = take(project, tell, break_lock=break_lock)
    unregister = on_abrupt_exit(lock.remove_file)
    try:
        if project.exists():
            lock.claim(project)
        lock.show_life()
        yield lock
    finally:
        lock.release()
        unregister()


# --- taking a lock


def take(project: Path, tell: Tell, *, break_lock: bool) -> Lock:
    """Take a project's lock; raises as `writing` does. It is held until it is released, or the process ends."""
    by = _take_from_kernel if _has_locks(project.parent) else _take_by_name
    return by(project, _Judge(project, tell, break_lock=break_lock))


def _take_from_kernel(project: Path, judge: "_Judge") -> Lock:
    path = names.lock_path(project)
    for _ in range(ATTEMPTS):
        fd, is_new = _opened(path)
        if fd is None:
            continue
        try:
            is_taken = _taken(fd, path, judge, is_new=is_new)
        except BaseException:
            os.close(fd)
            raise
        if is_taken:
            return Lock(path, fd, judge.me)
        os.close(fd)
    raise judge.busy()


def _taken(fd: int, path: Path, judge: "_Judge", *, is_new: bool) -> bool:
    """Take the kernel's lock on an open lock file; return False where the name is another file's by now."""
    if not _flock(fd):
        with suppress(ValueError):  # it may be being written
            raise judge.locked(Holder.told(_content(fd)), "alive")
        raise judge.busy()
    if not _is_at(fd, path):
        return False
    if not is_new:
        judge.require_gone(judge.told(_content(fd)), kernel=True)
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
        _unlink_of_another_user(path)  # whoever waits for that file sees that the name is gone
        return False
    content = judge.me.encoded()
    os.pwrite(fd, content, 0)
    os.ftruncate(fd, len(content))
    if not _is_local(path):
        os.fsync(fd)
    return True


def _opened(path: Path) -> tuple[int | None, bool]:
    """Open the lock file or make it; return its descriptor, None where it came or went just then, and if it is new."""
    with _explained(path):
        for flags in (os.O_RDWR, os.O_RDONLY):  # another user's can be locked and replaced, but not written
            with suppress(PermissionError):
                fd = names.open_beside(path, flags)
                if fd is not None:
                    return fd, False
        with suppress(FileExistsError):
            return _create(path), True
    return None, False


def _take_by_name(project: Path, judge: "_Judge") -> Lock:
    """Take a lock where there are none of the kernel's: making a name is one step everywhere."""
    path = names.lock_path(project)
    for _ in range(ATTEMPTS):
        if _made(path, judge.me):
            return Lock(path, None, judge.me)
        content = names.read_beside(path)
        if content is None:
            continue
        judge.require_gone(judge.told(content), kernel=False)
        return _succeeded(path, content, judge)
    raise judge.busy()


def _made(path: Path, me: Holder) -> bool:
    """Make a lock file, complete from the start; return whether there was none."""
    aside = names.unborn_path(path.with_name(f"{path.name}.{me.nonce}"))
    with _explained(path):
        _write_new(aside, me)
        try:
            os.link(aside, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            with suppress(FileExistsError):
                _write_new(path, me)
                return True
            return False
        finally:
            aside.unlink()
    return True


def _succeeded(path: Path, content: bytes, judge: "_Judge") -> Lock:
    """Put a new lock file in place of one with `content`, whose holder is dead: only one process ever does.

    It makes the file that is named after the dead holder. Who makes it later than that finds another lock file.
    """
    dead = judge.told(content)
    claim = path.with_name(f"{path.name}.{(dead.nonce or dead.pid) if dead else 'empty'}.succeeded")
    with _explained(path):
        try:
            os.close(_create(claim))
        except FileExistsError:
            raise judge.locked(dead, "unknown", f"; another takes over, or failed to: see {claim}") from None
        try:
            if names.read_beside(path) != content:
                raise judge.busy()
            aside = names.unborn_path(path.with_name(f"{path.name}.{judge.me.nonce}"))
            _write_new(aside, judge.me)
            aside.replace(path)
        finally:
            claim.unlink()
    return Lock(path, None, judge.me)


def _write_new(path: Path, holder: Holder) -> None:
    fd = _create(path)
    try:
        os.pwrite(fd, holder.encoded(), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


class _Judge:
    """Whether the holder that a lock file names still works, as far as it can be known from here."""

    def __init__(self, project: Path, tell: Tell, *, break_lock: bool) -> None:
        self.me = Holder.me(project)
        self._project = project
        self._path = names.lock_path(project)
        self._tell = tell
        self._break_lock = break_lock

    def told(self, content: bytes) -> Holder | None:
        """Return what the lock file says. Raises `InputError` if it is none."""
        try:
            return Holder.told(content)
        except ValueError as error:
            raise InputError(
                f"{self._path} is not a lock of tomoseg's, but has the name of one. Move it elsewhere, then start "
                "again; if it may be one that was damaged, first see that nobody is writing the project."
            ) from error

    def require_gone(self, holder: Holder | None, *, kernel: bool) -> None:
        """Raise `ProjectLocked` unless the holder is dead; `kernel`: the kernel says that nobody holds the lock."""
        verdict = self.verdict(holder, kernel=kernel)
        if verdict == "unknown" and self._break_lock and self._stands_still(holder):
            verdict = "gone"
        if verdict != "gone":
            raise self.locked(holder, verdict)
        if holder is not None:
            self._tell(f"took over the lock that process {holder.pid} on {shown(holder.host)} left behind")

    def verdict(self, holder: Holder | None, *, kernel: bool) -> Verdict:
        """Return whether a holder works still."""
        is_sure = kernel and _is_local(self._path)
        if holder is None:
            return "gone" if is_sure else "unknown"
        is_this_host = holder.host == self.me.host
        if not holder.nonce:  # of an older version, of which the kernel knows nothing
            return ("alive" if _runs(holder) else "gone") if is_this_host else "unknown"
        is_this_system = holder.boot_id == self.me.boot_id and (is_this_host or bool(self.me.boot_id))
        if is_this_system and (is_sure or holder.pid_namespace == self.me.pid_namespace):
            return "alive" if not kernel and _runs(holder) else "gone"
        # This machine has been started again since; or it is another one that is only called the same.
        return "gone" if is_sure and is_this_host and not is_this_system else "unknown"

    def _stands_still(self, holder: Holder | None) -> bool:
        """Watch a lock file for some beats; return whether nothing happens to it."""
        if holder is not None and not holder.beat:
            return True  # of an older version: it never beats
        self._tell(f"watching {self._path.name} for {WATCH_SECONDS:.0f} s, whether its process still works")
        before, give_up = names.read_beside(self._path), time.monotonic() + WATCH_SECONDS
        while time.monotonic() < give_up:
            time.sleep(min(1.0, WATCH_SECONDS / 10))
            if names.read_beside(self._path) != before:  # opened anew, for network file systems to look again
                return False
        return True

    def locked(self, holder: Holder | None, verdict: Verdict, hint: str = "") -> ProjectLocked:
        """Return the error that says who holds the lock, and what to do."""
        if verdict == "unknown" and not hint:
            hint = (
                "; its heartbeat goes on"
                if self._break_lock
                else "; whether it still does cannot be seen from here: if you know that it has ended, add --break-lock"
            )
        if holder is None:
            return ProjectLocked(f"Another process has just begun to write {self._project}. Wait for it to end{hint}.")
        return ProjectLocked(
            f"Process {holder.pid} on {shown(holder.host)} has been writing {self._project} since "
            f"{shown(holder.since)}. Wait for it to end{hint}."
        )

    def busy(self) -> ProjectLocked:
        """Return the error where other processes were quicker."""
        return ProjectLocked(f"Other processes are about to write {self._project}. Try again when they have ended.")


# --- what the system knows


def _runs(holder: Holder) -> bool:
    """Tell whether the process runs on this system; its number may have been given to a new one since."""
    try:
        os.kill(holder.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it runs, as another user's
    return _process_start(holder.pid) == holder.process_start


def _process_start(pid: int) -> str:
    """Return when a process started, in clock ticks since boot, or '' where it cannot be known."""
    with suppress(OSError, IndexError):
        # proc_pid_stat(5): field 22, counted after the command name, which may hold spaces and ends with ')'
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _pid_namespace() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _is_local(path: Path) -> bool:
    """Tell whether a file is on a disk of this machine's own (proc_pid_mountinfo(5)); False where that is not known."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return False
    here, found, kind = Path(os.path.realpath(path)), -1, ""
    for line in lines:
        before, _, after = line.partition(b" - ")
        where = Path(names.mounted_at(before))
        if here.is_relative_to(where) and len(where.parts) >= found:  # of several mounts there the last one counts
            found, kind = len(where.parts), after.split()[0].decode()
    return kind in LOCAL


def _has_locks(folder: Path) -> bool:
    """Tell whether the file system knows locks."""
    try:
        fd = disk.open_file(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return True  # a folder that cannot be listed; opening the lock file says what is wrong
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in looking.NO_LOCKS
    finally:
        os.close(fd)
    return True


def _flock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in looking.HELD:
            return False
        raise
    return True


def _lock_writer_byte(fd: int) -> bool | None:
    """Lock one byte of an open file (fcntl(2): open file description locks); return None where there are no such."""
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, WRITER_BYTE, 1, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
    except OSError as error:
        if error.errno in looking.HELD:
            return False
        if error.errno in looking.NO_LOCKS:
            return None
        raise
    except AttributeError:  # not Linux
        return None
    return True


def _is_at(fd: int, path: Path) -> bool:
    """Tell whether an open file still has its name."""
    try:
        there = path.lstat()
    except OSError:
        return False
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _create(path: Path) -> int:
    return disk.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)


def _content(fd: int) -> bytes:
    return os.pread(fd, 1 << 16, 0)


def _read(path: Path) -> Holder | None:
    with suppress(ValueError, OSError, InputError):
        return Holder.told(names.read_beside(path) or b"")
    return None


def _unlink_of_another_user(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except PermissionError as error:
        raise InputError(f"{path} is another user's, whose process has ended, and you may not remove it.") from error


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise
        raise InputError(
            f"{path.parent} cannot be written to ({error.strerror}), but the project needs a lock file there."
        ) from error
