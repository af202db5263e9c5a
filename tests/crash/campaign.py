"""The crash campaign: `python -m tests.crash.campaign --points 400 --faults 100 --kills 100 --stops 20`.

Prints what was tried and what was lost, and exits 1 if anything was.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.check import Checker, History, Lost, record
from tests.crash.faults import Raising, disk_fault, stage_fault
from tests.crash.kills import simulated, strike, undisturbed
from tests.crash.recorder import Faults
from tests.crash.replay import Disk, crashes
from tests.crash.scenario import COMMANDS, small_steps, write_series


@dataclass
class Figures:
    """What was tried, by kind, and what was lost."""

    tried: dict[str, int] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)

    def count(self, kind: str, n: int = 1) -> None:
        """Add to what was tried."""
        self.tried[kind] = self.tried.get(kind, 0) + n


def spread(n: int, wanted: int | None) -> list[int]:
    """Return all of range(n), or `wanted` evenly spread numbers of it."""
    if wanted is None or wanted >= n:
        return list(range(n))
    return sorted({round(i * (n - 1) / max(wanted - 1, 1)) for i in range(wanted)})


def try_points(history: History, checker: Checker, points: list[int], variants: int, seed: int, found: Figures) -> None:
    """Crash at operations of the undisturbed run, in every way."""
    found.count("operations of the whole scenario", len(history.ops))
    found.count("operations stopped at", len(points))
    for point, kind, folder in crashes(Disk({}), history.ops, points, variants, seed):
        found.count(f"  {kind.split()[0]}")
        try:
            checker.check(folder, history.commits.possible(point), history.command(point))
        except Lost as lost:
            found.losses.append(f"{kind} at operation {point} of {len(history.ops)}: {lost}")


def try_faults(history: History, checker: Checker, wanted: int, seed: int, found: Figures) -> None:
    """Let the disk refuse single operations, or all from one on, and stages raise."""
    rng = random.Random(seed)
    n_ops = [b.ops - a.ops for a, b in zip(history.ends[:-1], history.ends[1:], strict=True)]
    for i in range(wanted):
        command = rng.randrange(len(COMMANDS))
        name = rng.choice(("ENOSPC", "ENOSPC", "EDQUOT", "EIO", "EROFS"))
        at, lasting, partly = rng.randrange(n_ops[command]), rng.random() < 0.5, rng.random() < 0.5
        try:
            if i % 5 == 4:
                kind = "exceptions in stages"
                stage_fault(checker, command, Raising(ZeroDivisionError("on purpose"), rng.randrange(12)))
            else:
                kind = f"disk errors {name}"
                number = getattr(__import__("errno"), name)
                disk_fault(checker, command, Faults(at, number, lasting=lasting, partly=partly))
        except Lost as lost:
            found.losses.append(f"{kind} in command {command} at {at} lasting={lasting} partly={partly}: {lost}")
        found.count(kind)


def try_kills(folder: Path, kills: int, stops: int, seed: int, found: Figures) -> None:
    """Kill the real command, and tell it to stop, at random times."""
    raw = simulated(folder)
    (folder / "calm").mkdir()
    expected = undisturbed(raw, folder / "calm")
    for signum, wanted in ((signal.SIGKILL, kills), (signal.SIGTERM, stops)):
        tally = strike(raw, expected, folder / "struck", wanted, seed, signum) if wanted else None
        if tally is not None:
            found.count(signum.name, tally.blows)
            found.count(f"  commands brought to their end in spite of {signum.name}", tally.finished)
            found.count(f"  stages that went on from a checkpoint after {signum.name}", tally.resumed)
            found.losses += tally.problems
            if signum == signal.SIGTERM:
                print(f"longest time from SIGTERM to the end: {tally.longest_stop:.1f} s")


def main() -> int:
    """Run what the options ask for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", default="all", help="operations to stop at: a number, or all")
    parser.add_argument("--variants", type=int, default=3, help="power losses per operation")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found, began = Figures(), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.kills or options.stops:
            (folder / "real").mkdir()
            try_kills(folder / "real", options.kills, options.stops, options.seed, found)
        if options.points != "0" or options.faults:
            with small_steps():
                raw = write_series(folder)
                (folder / "undisturbed").mkdir()
                history = record(folder / "undisturbed", raw)
                checker = Checker(history, raw, folder / "crashed")
                wanted = None if options.points == "all" else int(options.points)
                points = spread(len(history.ops) + 1, wanted) if wanted != 0 else []
                try_points(history, checker, points, options.variants, options.seed, found)
                try_faults(history, checker, options.faults, options.seed, found)
                found.count("projects looked at", checker.looked)
                found.count("projects continued to the end", checker.continued)
    for kind, n in found.tried.items():
        print(f"{n:>7}  {kind}")
    print(f"{len(found.losses):>7}  LOSSES, in {time.monotonic() - began:.0f} s")
    print(*found.losses[:20], sep="\n")
    return int(bool(found.losses))


if __name__ == "__main__":
    sys.exit(main())
