"""One writer at a time: a lock file beside the project, which works where HDF5's own locking does not (NFS, Lustre)."""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tomoseg.errors import InputError, ProjectLocked
from tomoseg.runtime import on_abrupt_exit


def lock_path(project: Path) -> Path:
    """Return the lock file of a project."""
    return project.with_name(project.name + ".lock")


@contextmanager
def writing(project: Path, tell: Callable[[str], object] = str, *, break_lock: bool = False) -> Iterator[None]:
    """Hold the project's write lock; `tell` is told when the lock of a dead process is taken over.

    Raises `ProjectLocked` naming the holder, also where it is on another host, whose processes cannot be seen, unless
    `break_lock` is set; a living process on this host keeps its lock in any case.
    """
    path = lock_path(project)
    while not _create(path):
        holder = _read(path)
        is_elsewhere = holder.get("host") != socket.gethostname()
        if not (_is_dead(holder) or (break_lock and is_elsewhere)):
            hint = "; if that process or host is gone, add --break-lock" if is_elsewhere else ""
            raise ProjectLocked(
                f"Process {holder.get('pid')} on {holder.get('host')} has been writing {project} since "
                f"{holder.get('since')}. Wait for it to end{hint}."
            )
        tell(f"took over the lock that process {holder.get('pid')} on {holder.get('host')} left behind")
        _remove(path, holder)
    unregister = on_abrupt_exit(lambda: path.unlink(missing_ok=True))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        unregister()


def _create(path: Path) -> bool:
    me = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_start": _process_start(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    # The content must be there the moment the name is: write aside, then link, which fails if the name exists.
    aside = path.with_name(f"{path.name}.{me['host']}.{me['pid']}")
    try:
        aside.write_text(json.dumps(me))
    except OSError as error:
        raise InputError(
            f"{path.parent} cannot be written to ({error.strerror}), but the project needs a lock file there."
        ) from error
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        try:
            with path.open("x") as f:
                json.dump(me, f)
        except FileExistsError:
            return False
    finally:
        aside.unlink()
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:  # released since: the next try to create it decides
        return {"host": socket.gethostname(), "pid": -1}
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _is_dead(holder: dict[str, Any]) -> bool:
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    if pid < 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # alive, of another user
    # The number may have been given to a new process since: it then started at another time.
    return _process_start(pid) != holder.get("process_start")


def _process_start(pid: int) -> str:
    """Return when a process started, in clock ticks since boot, or '' where it cannot be known."""
    with contextlib.suppress(OSError, IndexError):
        # proc_pid_stat(5): field 22, counted after the command name, which may hold spaces and ends with ')'
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def _remove(path: Path, holder: dict[str, Any]) -> None:
    """Remove the lock only if it is still that holder's: rename aside first, so that two takers cannot both win."""
    aside = path.with_name(f"{path.name}.dead.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if _read(aside) != holder and holder.get("pid") != -1:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()
