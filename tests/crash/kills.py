"""The real command, killed or told to stop at random moments, and continued until it is done.

One experiment is two commands: `tomoseg run` on a raw series, then the same with other parameters. After every blow
`tomoseg status --json` must work, and what was committed must still be there.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import BY_THRESHOLDS
from tests.crash.scenario import exported, results
from tomoseg.project import Project

# One thread computes 16 slices at a time: there are four slabs, long enough to be hit.
PHASES: tuple[tuple[str, ...], ...] = (
    ("--workers", "1", "--set", "reconstruct.iterations=600"),
    ("--workers", "1", "--set", "reconstruct.iterations=500", "--set", "segment.smooth=0.4"),
)
# The real program, but for checkpoints after every slab rather than every few seconds.
EAGER = """
import tomoseg.project.transaction as transaction
from tomoseg.cli import main
transaction.CHECKPOINT_SECONDS, transaction.CHECKPOINT_SHARE = 0.0, 1e9
main()
"""
TO_STOP_SECONDS = 10.0  # what a batch system grants


class Wrong(Exception):
    """Something that must hold does not."""


@dataclass
class Tally:
    """What happened; `problems` are losses."""

    blows: int = 0
    finished: int = 0  # commands that came to their end
    longest_stop: float = 0.0  # seconds from SIGTERM to the end
    resumed: int = 0  # stages that went on from a checkpoint
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Undisturbed:
    """What a phase leaves when nobody disturbs it, and how long it takes."""

    results: dict[str, str]
    exported: dict[str, str]
    seconds: float


def simulated(folder: Path, size: int = 64) -> Path:
    """Write a small raw series; return its path."""
    raw = folder / "raw.mrc"
    shape = ("--size", size, "--particles", 6, "--step", 6, "--jitter", 1, "--drift", 2)
    done = _tomoseg("simulate", "-o", raw, *shape)
    if done.returncode != 0:
        raise Wrong(done.stderr)
    return raw


def undisturbed(raw: Path, folder: Path, phases: Sequence[Sequence[str]] = PHASES) -> list[Undisturbed]:
    """Run all phases on a new project in `folder` without blows."""
    ends = []
    for options in phases:
        began = time.monotonic()
        experiment = Experiment(raw, folder / "p.h5", options)
        code, said = experiment.run()
        if code != 0:
            raise Wrong(f"exit {code} without a blow: {said[-500:]}")
        ends.append(finished(experiment.project, time.monotonic() - began))
    return ends


def finished(project: Path, seconds: float) -> Undisturbed:
    """Return what a run that took some seconds left."""
    with Project.read(project) as opened:
        return Undisturbed(results(opened), exported(project), seconds)


@dataclass
class Experiment:
    """A command on one project, to be run until it comes to its end.

    `committed` are the results known to be there; `took` is how long the command outlived the last blow in seconds,
    None where it had come to its end before.
    """

    raw: Path
    project: Path
    options: Sequence[str]
    eager: bool = False
    committed: dict[str, str] = field(default_factory=dict)  # stage -> run id
    took: float | None = None

    def begin(self) -> None:
        """Note what there is."""
        self.committed = self._status()

    def run(self, strike_after: float | None = None, signum: int = signal.SIGKILL) -> tuple[int, str]:
        """Run the command, strike it after some seconds; return its exit code and what it said."""
        self.took = None
        program = ("-c", EAGER) if self.eager else ("-m", "tomoseg")
        arguments = ("run", self.raw, "-o", self.project, "--progress", "plain", *BY_THRESHOLDS, *self.options)
        command = [sys.executable, "-W", "ignore", *program, *map(str, arguments)]
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
            try:
                process.wait(strike_after)
            except subprocess.TimeoutExpired:
                began = time.monotonic()
                process.send_signal(signum)
                process.wait(120)
                self.took = time.monotonic() - began
            said.seek(0)
            return process.returncode, said.read()

    def look(self, said: str) -> None:
        """See that nothing which was committed is gone; what the command said tells of commits as well."""
        now = self._status()
        lines = said.splitlines()
        begun = {line.partition(":")[0] for line in lines if not line.endswith(": up to date")}
        done = {line.partition(":")[0] for line in lines if ": done in " in line}
        lost = {s for s, run_id in self.committed.items() if s not in now or (now[s] != run_id and s not in begun)}
        lost |= {s for s in done if now.get(s) == self.committed.get(s)}
        if lost:
            raise Wrong(f"lost {', '.join(lost)}; it had said {said[-800:]!r}")
        self.committed = now

    def complete(self, end: Undisturbed) -> int:
        """Run without a blow, and compare; return how many stages went on from a checkpoint."""
        self.begin()
        code, said = self.run()
        if code != 0:
            raise Wrong(f"exit {code} without a blow: {said[-500:]}")
        self.look(said)
        return self.compare(end)

    def compare(self, end: Undisturbed) -> int:
        """See that all is as in the undisturbed run; return how many stages went on from a checkpoint."""
        with Project.read(self.project) as opened:
            found = results(opened)
            resumed = sum(bool(r.continues) for r in opened.history() if r.outcome == "done")
        wrong = [name for name in sorted({*found, *end.results}) if found.get(name) != end.results.get(name)]
        files = exported(self.project)
        wrong += [name for name in sorted({*files, *end.exported}) if files.get(name) != end.exported.get(name)]
        left = [p.name for p in self.project.parent.iterdir() if p.is_file() and p != self.project]
        if wrong or left:
            raise Wrong(f"at the end: not as undisturbed: {wrong}; left over: {left}")
        return resumed

    def _status(self) -> dict[str, str]:
        """Return the run id of every stage that has a result, as `tomoseg status` tells it."""
        if not self.project.exists():
            if self.committed:
                raise Wrong("the project file is gone")
            return {}
        done = _tomoseg("status", self.project, "--json")
        if done.returncode != 0:
            raise Wrong(f"status: exit {done.returncode}: {done.stderr[-500:]}")
        stages: list[dict[str, Any]] = json.loads(done.stdout)["stages"]
        return {s["name"]: s["run"]["run_id"] for s in stages if s["run"]}


def strike(
    raw: Path,
    expected: Sequence[Undisturbed],
    folder: Path,
    blows: int,
    seed: int,
    signum: signal.Signals = signal.SIGKILL,
    phases: Sequence[Sequence[str]] = PHASES,
) -> Tally:
    """Repeat experiments until `blows` signals hit a running command; an experiment ends at its first problem."""
    tally, rng, eager = Tally(), random.Random(f"{seed} {signum}"), False
    while tally.blows < blows:
        eager = not eager
        with _emptied(folder):
            try:
                for options, end in zip(phases, expected, strict=True):
                    _strike_until_done(Experiment(raw, folder / "p.h5", options, eager), end, blows, signum, tally, rng)
            except Wrong as problem:
                tally.problems.append(f"{signum.name}, seed {seed}, blow {tally.blows}: {problem}")
    return tally


def _strike_until_done(
    experiment: Experiment, end: Undisturbed, blows: int, signum: signal.Signals, tally: Tally, rng: random.Random
) -> None:
    """Start a command again and again, until it comes to its end; without blows when there were enough."""
    experiment.begin()
    while True:
        seconds = rng.uniform(0, end.seconds) if tally.blows < blows else None
        code, said = experiment.run(seconds, signum)
        if experiment.took is not None:
            tally.blows += 1
            _must_stop_well(code, experiment.took, signum, said, tally)
        elif code != 0:
            raise Wrong(f"exit {code} without a blow: {said[-500:]}")
        experiment.look(said)
        if code == 0:
            tally.finished += 1
            tally.resumed += experiment.compare(end)
            return


def _must_stop_well(code: int, took: float, signum: signal.Signals, said: str, tally: Tally) -> None:
    if signum == signal.SIGKILL:
        return
    tally.longest_stop = max(tally.longest_stop, took)
    if took > TO_STOP_SECONDS:
        raise Wrong(f"took {took:.1f} s to stop; it had said {said[-500:]!r}")
    # The interpreter that is still loading tomoseg, and has said nothing, is ended by the signal itself.
    if code not in (130, 0) and (said or code != -signum):
        raise Wrong(f"exit {code}, not 130; it had said {said[-500:]!r}")


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder)


def _tomoseg(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "tomoseg", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
