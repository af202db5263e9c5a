"""What else happens to a project on a machine: other names, other processes, odd neighbours, closed descriptors.

Each function tries something many times with a small project of its own, and returns how often, and every loss.
"""

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.crash.recorder import interposed, without_waiting
from tomoseg import schema
from tomoseg.errors import InputError, ProjectLocked, StageFailed
from tomoseg.project import Project, Record, compact, opened
from tomoseg.project.names import journal_path, lock_path, unborn_path

SHAPE = (12, 64, 512)  # 1.5 MB, so that its space is reserved
APART = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
KILLED = -signal.SIGKILL
NEVER = 10**9


@dataclass
class Tally:
    """What happened: how often what was tried, and losses."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class Wrong(Exception):
    """Something that must hold does not."""


# --- a small project, all of whose results are the number of the run that made them


def write(path: Path, number: int) -> None:
    """Make the project, or replace its results."""
    begun = Record("align", f"{number:032d}", "f", 1, {}, {}, {}, "2026-01-01T00:00:00.000+00:00")
    opener = Project.write(path) if path.exists() else Project.create(path)
    # Without waiting for the disk: nothing here depends on what a power failure would leave.
    with interposed(without_waiting), opener as project, project.transaction(begun, restart=True) as outputs:
        sink = outputs.create("aligned", SHAPE)
        for i in range(0, SHAPE[0], 3):
            sink[i : i + 3] = number
            outputs.checkpoint({"i": i})
        outputs.put("shifts_px", np.full((SHAPE[0], 2), float(number)))
        outputs.commit(begun)


def number_of(file: h5py.File, rng: random.Random) -> int:
    """Return the number of the results in an open file, read in any order. Raises `Wrong` if there are several."""
    ways: list[Callable[[], set[int]]] = [
        lambda: {int(v) for v in np.unique(file[schema.ALIGNED.path][:])},
        lambda: {int(v) for v in np.unique(file[schema.SHIFTS.path][:])},
        lambda: {int(file[f"{schema.PROVENANCE}/align"].attrs["run_id"])},
        lambda: {int(json.loads(file[f"{schema.PROVENANCE}/align"].attrs["record"])["run_id"])},
    ]
    found: set[int] = set()
    for way in rng.sample(ways, len(ways)):
        found |= way()
        time.sleep(rng.random() * 0.01)
    if len(found) != 1:
        raise Wrong(f"a reader saw results of several runs: {found}")
    return found.pop()


def seen(path: Path, rng: random.Random) -> int:
    """Return the number of the results, as tomoseg sees them."""
    with Project.read(path) as project:
        return number_of(project.file, rng)


@contextmanager
def forked(work: Callable[[], object]) -> Iterator[int]:
    """Do something in a process of its own meanwhile; it ends with exit code 0, or 3 where it was refused."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        with suppress(ProjectLocked, InputError, StageFailed):
            code = 3
            work()
            code = 0
        os._exit(code)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def ended(child: int) -> int:
    """Wait for a process; return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Dying:
    """Kills this process at its n-th operation on a project file; if it is to be `whole`, when no journal is there."""

    def __init__(self, n: int, *, whole: bool = False) -> None:
        self._left, self._whole, self._has_journal = n, whole, False

    def __call__(self, name: str, real: Callable[..., Any], *arguments: Any) -> Any:
        self._left -= 1
        if self._left <= 0 and not (self._whole and self._has_journal):
            os.kill(os.getpid(), signal.SIGKILL)
        self._has_journal = (self._has_journal and name != "remove") or name == "rename"
        return real(*arguments)


def _dying_writer(path: Path, number: int, operations: int, *, whole: bool = False) -> None:
    with interposed(Dying(operations, whole=whole)):
        write(path, number)


# --- several names


def names(folder: Path, tries: int, seed: int) -> Tally:
    """Kill a writer by one name at any operation, while another writes or looks by another; recover by either."""
    tally, rng = Tally(), random.Random(f"names {seed}")
    for i in range(tries):
        kind = rng.choice(["hard link", "link", "folder link"])
        with _emptied(folder):
            _told(tally, f"names {seed}, try {i}, {kind}", lambda k=kind: _names(folder, k, rng, tally))
    return tally


def _names(folder: Path, kind: str, rng: random.Random, tally: Tally) -> None:
    project = folder / "one" / "p.h5"
    project.parent.mkdir()
    both = [project, _other_name(project, kind, folder)] if kind != "hard link" else [project]
    write(project, 1)
    write(project, 2)
    if kind == "hard link":
        both.append(_other_name(project, kind, folder))
    for number in range(3, 6):
        rng.shuffle(both)
        before = seen(both[0], rng)
        looking = Project.read(both[1]) if rng.random() < 0.3 else None
        with forked(lambda n=number: _dying_writer(both[0], n, rng.randrange(1, 130))) as child:
            if rng.random() < 0.5:
                with suppress(ProjectLocked), Project.write(both[1]):
                    tally.counts["names: both wanted to write"] += 1
            code = ended(child)
        tally.counts["names: writers killed by one name"] += code == KILLED
        if looking is not None:
            if number_of(looking.file, rng) != before:
                raise Wrong("a reader by another name saw another state than it had opened")
            looking.close()
        after = {seen(path, rng) for path in both}
        if not after <= {before, number} or len(after) != 1:
            raise Wrong(f"killed by one name ({code}): {after} are seen, {before} or {number} could be")
        with Project.write(rng.choice(both)):
            pass
        if {seen(path, rng) for path in both} != after:
            raise Wrong("recovery changed what is seen")
        with h5py.File(rng.choice(both), "r") as plain:
            number_of(plain, rng)
    if kind in ("link", "folder link"):
        compact(both[1], lambda: None, str, break_lock=False)
    # What a killed writer left beside one hard link, and was not needed by the other, stays there until it is used.
    ends = ("", ".lock", ".journal", ".journal.foreign")
    known = {f"{path.name}{end}" for path in both for end in ends} | {f".{p.name}.journal.tomoseg" for p in both}
    left = {p.name for p in folder.rglob("*") if p.is_file()} - (known if kind == "hard link" else {"p.h5", "other.h5"})
    if left:
        raise Wrong(f"left over: {left}")


def _other_name(project: Path, kind: str, folder: Path) -> Path:
    if kind == "folder link":
        (folder / "two").symlink_to(project.parent)
        return folder / "two" / project.name
    other = folder / "other" / "other.h5"
    other.parent.mkdir()
    if kind == "hard link":
        other.hardlink_to(project)
    else:
        other.symlink_to(project)
    return other


# --- readers


def readers(folder: Path, seconds: int, seed: int) -> Tally:
    """Replace results again and again, the writer being killed at times, while three others look all the time."""
    tally, rng = Tally(), random.Random(f"readers {seed}")
    with _emptied(folder):
        project = folder / "p.h5"
        write(project, 0)
        give_up = time.monotonic() + seconds
        looking = {kind: _looker(project, kind, give_up, seed) for kind in ("tomoseg", "tomoseg again", "h5py")}
        number = 0
        while time.monotonic() < give_up:
            number += 1
            operations = rng.randrange(1, 130) if rng.random() < 0.2 else NEVER
            with forked(lambda n=number, o=operations: _dying_writer(project, n, o, whole=True)) as child:
                code = ended(child)
            tally.counts["readers: results replaced"] += code == 0
            tally.counts["readers: writers killed"] += code == KILLED
            if code not in (0, KILLED):
                tally.problems.append(f"readers {seed}: the writer ended with {code}")
                break
        for kind, process in looking.items():
            said, _ = process.communicate()
            looks, refused, problem = json.loads(said)
            tally.counts[f"readers: looks with {kind.split()[0]}"] += looks
            tally.counts[f"readers: looks with {kind.split()[0]} that were refused"] += refused
            tally.problems += [f"readers {seed}: {kind}: {problem}"] if problem else []
    return tally


def _looker(project: Path, kind: str, give_up: float, seed: int) -> "subprocess.Popen[str]":
    what = f"{str(project)!r}, {kind!r}, {give_up}, {seed}"
    code = f"from tests.crash.adversaries import look_for_ever; look_for_ever({what})"
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True)


def look_for_ever(path: str, kind: str, give_up: float, seed: int) -> None:
    """Open a project, read it, wait, read it again; print how often, how often refused, and what was wrong."""
    rng, looks, refused, problem = random.Random(f"{kind} {seed}"), 0, 0, ""
    while time.monotonic() < give_up and not problem:
        try:
            with h5py.File(path, "r") if kind == "h5py" else Project.read(Path(path)) as project:
                file = project if kind == "h5py" else project.file
                first = number_of(file, rng)
                time.sleep(rng.random() ** 4)
                if number_of(file, rng) != first:
                    raise Wrong("what is seen changed while the file was open")
            looks += 1
        except BlockingIOError:  # h5py alone, while a commit is being brought into the file
            refused += 1
        except Exception as error:
            problem = repr(error)
    print(json.dumps([looks, refused, problem]))


# --- processes that cannot see each other


def namespaces(folder: Path, tries: int, seed: int) -> Tally:
    """Hold the lock in one PID namespace and want it in another; the holder is then killed, or ends."""
    tally, rng = Tally(), random.Random(f"namespaces {seed}")
    if subprocess.run([*APART, "true"], check=False, capture_output=True).returncode != 0:
        tally.counts["namespaces: not tried, making them is not permitted"] += 1
        return tally
    for i in range(tries):
        with _emptied(folder):
            _told(tally, f"namespaces {seed}, try {i}", lambda: _namespaces(folder / "p.h5", rng, tally))
    return tally


def _namespaces(project: Path, rng: random.Random, tally: Tally) -> None:
    write(project, 1)
    hold = "import sys; from pathlib import Path; from tomoseg.project.lock import writing\n"
    hold += "with writing(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    apart = rng.random() < 0.5
    command = [*(APART if apart else ()), sys.executable, "-c", hold, str(project)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        if holder.stdout.readline() != "held\n":
            raise Wrong("the lock cannot be taken")
        wanting = [*(() if apart else APART), sys.executable, "-c", hold, str(project)]
        wants = subprocess.run(wanting, input="", capture_output=True, text=True, check=False)
        if wants.returncode == 0 or "ProjectLocked" not in wants.stderr:
            raise Wrong(f"two held the lock at once, in two namespaces: {wants}")
        tally.counts["namespaces: refused while the holder lived"] += 1
        if rng.random() < 0.5:
            subprocess.run(["pkill", "-9", "-f", str(project)], check=False)
        holder.stdin.close()
        holder.wait()
    wants = subprocess.run(wanting, input="", capture_output=True, text=True, check=False)
    if wants.returncode != 0:
        raise Wrong(f"the lock of a dead process was not had: {wants.stderr[-300:]}")
    tally.counts["namespaces: taken after it had died"] += 1


# --- odd neighbours


def neighbours(folder: Path, tries: int, seed: int) -> Tally:
    """Put something odd where tomoseg keeps its files beside a project: it is refused or put aside, never changed."""
    tally, rng = Tally(), random.Random(f"neighbours {seed}")
    for i in range(tries):
        with _emptied(folder):
            _told(tally, f"neighbours {seed}, try {i}", lambda: _neighbour(folder, rng, tally))
    return tally


def _neighbour(folder: Path, rng: random.Random, tally: Tally) -> None:
    project, target = folder / "p.h5", folder / "precious"
    is_new = rng.random() < 0.2
    if not is_new:
        write(project, 1)
    if rng.random() < 0.5:
        target.write_bytes(rng.randbytes(rng.randrange(100)))
    where = rng.choice([lock_path, journal_path, unborn_path, lambda p: unborn_path(journal_path(p))])(project)
    kind = rng.choice(["file", "pipe", "device", "link", "hard link", "folder"])
    content = _put(where, kind, target, rng)
    before, kept = where.lstat(), _bytes(target)
    begun = time.monotonic()
    for way in rng.sample(range(3), 3):
        with suppress(InputError, ProjectLocked):
            if way == 0 and not is_new:
                seen(project, rng)
            elif way == 1:
                write(project, 2)
            elif not is_new:
                compact(project, lambda: None, str, break_lock=rng.random() < 0.5)
    if time.monotonic() - begun > 20:
        raise Wrong(f"{where.name} as a {kind}: it took {time.monotonic() - begun:.0f} s")
    if _bytes(target) != kept:
        raise Wrong(f"{where.name} as a {kind}: what it leads to was changed")
    if kind != "file" and kind != "hard link":
        now = where.lstat()
        if (now.st_ino, now.st_mode) != (before.st_ino, before.st_mode):
            raise Wrong(f"{where.name} as a {kind} was replaced")
    elif where in (lock_path(project), journal_path(project)) and content not in map(_bytes, folder.iterdir()):
        raise Wrong(f"{where.name}, a file of the user's, is gone")
    if not is_new:
        if kind == "folder":
            where.rmdir()
        else:
            where.unlink(missing_ok=True)
        seen(project, rng)
    tally.counts[f"neighbours: {kind}"] += 1


def _put(path: Path, kind: str, target: Path, rng: random.Random) -> bytes:
    content = b"of the user's " + rng.randbytes(50)
    if kind == "file":
        path.write_bytes(content)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device" and os.geteuid() == 0:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, rng.choice([3, 5, 8])))  # null, zero, random
    elif kind == "hard link":
        target.write_bytes(content)
        path.hardlink_to(target)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)
    return content


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


# --- standard streams that are closed


def descriptors(raw: Path, folder: Path, tries: int, seed: int) -> Tally:
    """Run the real command with some of stdin, stdout and stderr closed, and stop, hang up or kill it."""
    tally, rng = Tally(), random.Random(f"descriptors {seed}")
    for i in range(tries):
        with _emptied(folder):
            _told(tally, f"descriptors {seed}, try {i}", lambda: _descriptors(raw, folder / "p.h5", rng, tally))
    return tally


def _descriptors(raw: Path, project: Path, rng: random.Random, tally: Tally) -> None:
    options = ("--progress", "plain", "--workers", "1", "--until", "reconstruct", "--force")
    first = subprocess.run(_tomoseg("run", raw, "-o", project, *options), check=False, capture_output=True, text=True)
    if first.returncode != 0:
        raise Wrong(f"exit {first.returncode} undisturbed: {first.stderr[-300:]}")
    closed = [f for f in ("<&-", ">&-", "2>&-") if rng.random() < 0.7]
    command = ["sh", "-c", f'exec "$@" {" ".join(closed)}', "sh", *_tomoseg("run", project, *options)]
    signum = rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL, None])
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(rng.uniform(0.5, 6) if signum else 120)
    if signum is not None and process.poll() is None:
        process.send_signal(signum)
    code = process.wait(60)
    expected = {0, 130, *([-signum] if signum else [])}  # while Python is being loaded, a signal ends it itself
    if code not in expected:
        raise Wrong(f"exit {code} with {closed} and {signum}")
    after = subprocess.run(_tomoseg("status", project, "--json"), check=False, capture_output=True, text=True)
    if after.returncode != 0:
        raise Wrong(f"after {closed} and {signum}: {after.stderr[-300:]}")
    again = subprocess.run(_tomoseg("run", project, *options), check=False, capture_output=True, text=True)
    if again.returncode != 0:
        raise Wrong(f"after {closed} and {signum}, again: {again.stderr[-300:]}")
    with h5py.File(project, "r") as plain:
        if not np.isfinite(plain[schema.VOLUME.path][:]).all():
            raise Wrong("the volume is damaged")
    tally.counts[f"descriptors: {len(closed)} closed, {signum.name if signum else 'no signal'}"] += 1


def _tomoseg(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "tomoseg", *map(str, arguments)]


# --- how tries are made


def _told(tally: Tally, what: str, attempt: Callable[[], object]) -> None:
    opened.FINISH_SECONDS = 0.0
    try:
        attempt()
    except Exception as error:
        tally.problems.append(f"{what}: {error!r}")


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
