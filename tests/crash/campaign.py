"""Every operation of a whole experiment as a point to crash at: `python -m tests.crash.campaign --points all`.

At each: process killed, write torn, power lost in several random ways; all of them are recovered from, and one is
continued to the end. For a sample of points the operation fails, or a second crash comes while the first is being
recovered from. Besides: a stage that raises; the real command killed, told to stop, and on a full disk; and all that
others do to a project on the same machine (`tests.crash.adversaries`, `tests.crash.contention`).

Works in several processes of low priority. Prints a table and every loss, with the task that finds it again, and exits
1 if there is any.
"""

import argparse
import errno
import multiprocessing
import os
import pickle
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash import adversaries, contention, full_disk, kills
from tests.crash.check import Checker, History, Lost, after, record
from tests.crash.faults import Raising, disk_fault, stage_fault
from tests.crash.recorder import Faults, interposed, without_waiting
from tests.crash.replay import crashes
from tests.crash.scenario import COMMANDS, small_steps, write_series

ERRORS = (errno.ENOSPC, errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
RAISED: tuple[Callable[[], BaseException], ...] = (
    lambda: ValueError("a stage went wrong"),
    lambda: MemoryError(),
    lambda: KeyboardInterrupt(),
)
BLOWS = 10  # of the real command in one task
BEGINNING = 14  # operations: a recovery has about ten
REAL = ("kill", "stop", "full", "descriptors")  # tasks with the real command
AT_ONCE = 5000  # acquisitions of a lock in one task
ATTEMPTS = 20  # of an adversary in one task
LOOKING_SECONDS = 60

Task = tuple[Any, ...]  # what to do, and numbers that say where


@dataclass
class Report:
    """Figures, by what was done, and losses, each with the task that finds it again."""

    counts: Counter[str] = field(default_factory=Counter)
    longest_stop: float = 0.0
    losses: list[str] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        """Add what another process found."""
        self.counts.update(other.counts)
        self.longest_stop = max(self.longest_stop, other.longest_stop)
        self.losses += other.losses


@dataclass
class Site:
    """What a process works with; small `steps` as long as it lives."""

    history: History
    checker: Checker
    folder: Path
    raw: Path  # for the real command
    expected: Sequence[kills.Undisturbed]
    variants: int
    seed: int
    steps: ExitStack


# --- tasks: each adds to a report


def point(site: Site, report: Report, number: int) -> None:
    """Crash at one operation in every way; go on from one of them to the end."""
    history = site.history
    command, possible = history.command(number), history.commits.possible(number)
    found = list(crashes(history.log.start, history.ops, [number], site.variants, site.seed))
    continued = random.Random(f"{site.seed} {number} continued").randrange(len(found))
    report.counts["operations crashed at"] += 1
    for i, (_, kind, folder) in enumerate(found):
        report.counts[kind.rstrip(" 0123456789")] += 1
        if i == continued:
            _try(report, f"point {number}", kind, lambda f=folder: site.checker.check(f, possible, command))
        else:
            _try(report, f"point {number}", kind, lambda f=folder: site.checker.glance(f, possible))


def second(site: Site, report: Report, number: int) -> None:
    """Kill at one operation; crash again while a second process recovers and continues."""
    history = site.history
    command, possible = history.command(number), history.commits.possible(number)
    dead = history.log.disk(number)
    site.checker.lay(dead.killed())
    with interposed(without_waiting):
        log, commits = after(dead, site.checker, command, possible)
    rng = random.Random(f"{site.seed} {number}")
    points = sorted({*range(min(BEGINNING, len(log.ops))), *rng.choices(range(len(log.ops) + 1), k=4), len(log.ops)})
    for at, kind, folder in crashes(dead, log.ops, points, 2, site.seed):
        report.counts["second crashes"] += 1
        allowed = commits.possible(at)
        where = f"{kind} at operation {at} of the second process"
        _try(report, f"second {number}", where, lambda f=folder, p=allowed: site.checker.check(f, p, command))


def fault(site: Site, report: Report, command: int, at: int, error: int, lasting: int, partly: int) -> None:
    """Let one operation fail."""
    ended = disk_fault(site.checker, command, Faults(at, error, bool(lasting), bool(partly)))
    report.counts[f"faults of the disk: {ended}"] += 1


def exception(site: Site, report: Report, command: int, at: int, which: int) -> None:
    """Let a stage raise."""
    ended = stage_fault(site.checker, command, Raising(RAISED[which](), at))
    report.counts["exceptions inside a stage"] += ended != "not reached"


def kill(site: Site, report: Report, blows: int, seed: int) -> None:
    """Kill the real command."""
    tally = kills.strike(site.raw, site.expected, site.folder / "kills", blows, seed)
    _told(report, tally, "SIGKILL", f"kill {blows} {seed}")


def stop(site: Site, report: Report, blows: int, seed: int) -> None:
    """Tell the real command to stop."""
    tally = kills.strike(site.raw, site.expected, site.folder / "kills", blows, seed, signal.SIGTERM)
    _told(report, tally, "SIGTERM", f"stop {blows} {seed}")


def full(site: Site, report: Report, sizes: int) -> None:
    """Run the real command on full disks."""
    if full_disk.mounts_privately():
        tally = full_disk.fill(site.raw, site.expected, site.folder / "disk", sizes)
        _told(report, tally, "full disk", f"full {sizes}")
    else:
        report.counts["full disk: not tried, mounting is not permitted"] += 1


def adversary(site: Site, report: Report, kind: str, amount: int, seed: int) -> None:
    """Have others do something to a project."""
    tally = getattr(adversaries, kind)(site.folder / kind, amount, seed)
    _met(report, tally, f"adversary {kind} {amount} {seed}")


def descriptors(site: Site, report: Report, amount: int, seed: int) -> None:
    """Run the real command with standard streams closed."""
    tally = adversaries.descriptors(site.raw, site.folder / "descriptors", amount, seed)
    _met(report, tally, f"descriptors {amount} {seed}")


def contend(site: Site, report: Report, way: str, acquisitions: int, seed: int) -> None:
    """Have many processes want one lock."""
    folder = site.folder / f"contend {way} {seed}"
    folder.mkdir()
    tally = contention.contend(folder, way=way, acquisitions=acquisitions, processes=6, seed=seed)
    report.counts[f"contention, {way}: lock acquired"] += tally.acquired
    report.counts[f"contention, {way}: refused"] += tally.refused
    report.counts[f"contention, {way}: killed while holding it"] += tally.killed
    report.counts[f"contention, {way}: held by two at once"] += tally.at_once
    if tally.at_once:
        report.losses.append(
            f'--again "contend {way} {acquisitions} {seed}"  held by two at once: {tally.at_once} times'
        )


TASKS: dict[str, Callable[..., None]] = {
    f.__name__: f for f in (point, second, fault, exception, kill, stop, full, adversary, descriptors, contend)
}


def _try(report: Report, task: str, where: str, check: Callable[[], None]) -> None:
    """Go on after a loss, with the next of many crashes of a task."""
    try:
        check()
    except Lost as lost:
        report.losses.append(f'--again "{task}"  {where}: {lost}')


def _met(report: Report, tally: adversaries.Tally, task: str) -> None:
    report.counts.update(tally.counts)
    report.losses += [f'--again "{task}"  {problem}' for problem in tally.problems]


def _told(report: Report, tally: kills.Tally, what: str, task: str) -> None:
    report.counts[what] += tally.blows
    report.counts[f"{what}: commands brought to their end"] += tally.finished
    report.counts[f"{what}: stages continued from a checkpoint"] += tally.resumed
    report.longest_stop = max(report.longest_stop, tally.longest_stop)
    report.losses += [f'--again "{task}"  {problem}' for problem in tally.problems]


# --- which tasks


def tasks(history: History, points: str, n_kills: int, n_others: int, seed: int) -> Iterator[Task]:
    """Yield everything that is to be tried; the real command first, since it takes longest."""
    rng = random.Random(seed)
    n = len(history.ops) + 1
    for i in range(0, n_others, ATTEMPTS):
        for kind in ("names", "neighbours", "namespaces"):
            yield "adversary", kind, ATTEMPTS, seed + i
        yield "adversary", "readers", LOOKING_SECONDS, seed + i
        yield "descriptors", ATTEMPTS // 4, seed + i
        for way in ("kernel", "names"):
            yield "contend", way, AT_ONCE, seed + i
    for i in range(0, n_kills, BLOWS):
        yield "kill", min(BLOWS, n_kills - i), seed + i
    if n_kills:
        yield "stop", min(n_kills, 3 * BLOWS), seed
        yield "full", max(2, n_kills // 8)
    for number in range(n) if points == "all" else sorted(rng.sample(range(n), min(n, int(points)))):
        yield "point", number
        if rng.random() < 1 / 16:
            yield "second", number
        if number < n - 1 and rng.random() < 1 / 4:
            yield _fault(history, number, rng)
    for command in range(len(COMMANDS)):
        for at in range({"all": 40, "0": 0}.get(points, 8)):
            yield "exception", command, at, at % len(RAISED)


def _fault(history: History, number: int, rng: random.Random) -> Task:
    command = history.command(number)
    at = number - history.ends[command].ops
    return "fault", command, at, rng.choice(ERRORS), rng.randrange(2), rng.randrange(2)


# --- processes

_site: Site


def _enter(prepared: Path) -> None:
    """Get ready to work in a process of the pool."""
    global _site  # noqa: PLW0603 - how a process of a pool keeps what it was given
    os.nice(10)
    steps = ExitStack()
    steps.enter_context(small_steps())
    raw, real, history, expected, variants, seed = pickle.loads(prepared.read_bytes())
    folder = Path(tempfile.mkdtemp(dir=prepared.parent))
    _site = Site(history, Checker(history, raw, folder / "c"), folder, real, expected, variants, seed, steps)


def _perform(task: Task) -> Report:
    report, checker = Report(), _site.checker
    continued, resumed = checker.continued, checker.resumed
    name = f'--again "{" ".join(map(str, task))}"'
    try:
        TASKS[task[0]](_site, report, *task[1:])
    except Lost as lost:
        report.losses.append(f"{name}  {lost}")
    except Exception as error:  # a fault of these tests, or of the program: either is to be looked at
        report.losses.append(f"{name}  ended with {error!r}")
    report.counts["continued to the end"] += checker.continued - continued
    report.counts["stages continued from a checkpoint"] += checker.resumed - resumed
    return report


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves by way of all clean-up
    began, report = time.monotonic(), Report()
    again = tuple(int(n) if n.lstrip("-").isdigit() else n for n in arguments.again.split())
    with tempfile.TemporaryDirectory(prefix="tomoseg-crash-") as name:
        folder = Path(name)
        needs_real = again[0] in REAL if again else arguments.kills + arguments.others > 0
        history = _prepare(folder, needs_real, arguments.variants, arguments.seed)
        todo = (
            [again]
            if again
            else list(tasks(history, arguments.points, arguments.kills, arguments.others, arguments.seed))
        )
        print(
            f"{len(history.ops)} operations, {len(history.commits.states) - 1} commits; {len(todo)} tasks", flush=True
        )
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(arguments.processes, context, _enter, (folder / "prepared",)) as pool:
            try:
                for done, part in enumerate(pool.map(_perform, todo), 1):
                    report.add(part)
                    for loss in part.losses:
                        print(f"LOSS  {loss}", flush=True)
                    if done % 200 == 0:
                        print(f"{done} of {len(todo)}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    _print_table(report, time.monotonic() - began)
    return 1 if report.losses else 0


def _prepare(folder: Path, needs_real: bool, variants: int, seed: int) -> History:
    """Do what is undisturbed, and keep it for the processes."""
    for part in ("recorded", "undisturbed"):
        (folder / part).mkdir()
    raw = write_series(folder)
    with small_steps(), interposed(without_waiting):
        history = record(folder / "recorded", raw)
    real = kills.simulated(folder / "undisturbed") if needs_real else raw
    expected = kills.undisturbed(real, folder / "undisturbed") if needs_real else []
    (folder / "prepared").write_bytes(pickle.dumps((raw, real, history, expected, variants, seed)))
    return history


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.campaign", description=__doc__)
    parser.add_argument("--points", default="100", help="how many operations to crash at and to let fail, or all")
    parser.add_argument("--variants", type=int, default=3, help="power losses at each point")
    parser.add_argument("--kills", type=int, default=100, help="times the real command is killed; 0: it is not started")
    parser.add_argument("--others", type=int, default=100, help="times each of the others does something; 0: never")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other power losses, faults and moments")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--again", default="", metavar="TASK", help="repeat one task, as losses are printed with")
    return parser.parse_args()


def _print_table(report: Report, seconds: float) -> None:
    for what, count in report.counts.items():
        print(f"{what:55} {count:8}")
    print(f"{'longest time to stop after SIGTERM, s':55} {report.longest_stop:8.1f}")
    print(f"{'losses':55} {len(report.losses):8}")
    print(f"{'time, s':55} {seconds:8.0f}")


if __name__ == "__main__":
    sys.exit(main())
