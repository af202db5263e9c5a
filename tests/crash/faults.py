"""The scenario on a disk that fails, or with a stage that raises: it ends clearly or goes on, and loses nothing."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.crash.check import Checker, Commits, Lost, after
from tests.crash.recorder import Faults, Log, Recorder, interposed, without_waiting
from tests.crash.replay import crashes
from tests.crash.scenario import COMMANDS, issue
from tomoseg.errors import StageFailed
from tomoseg.runtime import Progress


@dataclass
class Raising(Progress):
    """Progress that raises `error` when it hears of progress for the time `at`: inside a stage."""

    error: BaseException
    at: int
    count: int = 0

    def advance(self, done: int) -> None:
        """Raise, if it is time."""
        self.count += 1
        if self.count == self.at + 1:
            raise self.error


def disk_fault(checker: Checker, command: int, fault: Faults) -> str:
    """Let a command meet a fault of the disk, and continue; return how it ended: failed, went on or not reached.

    Raises `Lost` where the error does not say what happened, or something was lost.
    """
    checker.lay(checker.history.ends[command].folder)
    recorder = Recorder(checker.folder)
    with interposed(without_waiting), interposed(fault), interposed(recorder):
        error, commits = _issued(checker, command, lambda: len(recorder.log.ops))
    if not fault.failed:
        return "not reached"
    if error is not None:
        _must_be_clear(error, fault)
    possible = [commits.states[-1], *commits.intended]
    if fault.failed in ("sync", "sync_folder"):
        _without_power(checker, command, recorder.log, possible, fault.at)
        return "failed" if error else "went on"
    with interposed(without_waiting):
        checker.go_on(checker.recovered(possible), command)
    return "failed" if error else "went on"


def stage_fault(checker: Checker, command: int, raising: Raising) -> str:
    """Let a stage raise, and continue; return 'failed' or 'not reached'."""
    checker.lay(checker.history.ends[command].folder)
    with interposed(without_waiting):
        error, commits = _issued(checker, command, int, raising)
        if raising.count <= raising.at:
            return "not reached"
        if error is None:
            raise Lost(f"{raising.error!r} inside a stage was swallowed")
        checker.go_on(checker.recovered([commits.states[-1]]), command)
    return "failed"


def _issued(
    checker: Checker, command: int, position: Callable[[], int], progress: Any = None
) -> tuple[BaseException | None, Commits]:
    """Issue a command; return how it ended, and its commits."""
    commits = Commits([checker.history.ends[command].state])
    try:
        with commits.watched(position):
            issue(COMMANDS[command], checker.project, checker.raw, progress)
    except BaseException as error:
        if isinstance(error, Lost):
            raise
        return error, commits
    return None, commits


def _must_be_clear(error: BaseException, fault: Faults) -> None:
    """See that an error is one paragraph that names the cause."""
    text = str(error)
    if not isinstance(error, StageFailed) or "\n" in text or fault.reason not in text:
        raise Lost(f"{fault.failed} failed with {fault.reason!r}, and the command with {type(error).__name__}: {text}")


def _without_power(checker: Checker, command: int, log: Log, possible: list[Any], seed: int) -> None:
    """After a failed sync: continue in a second process, and let the power fail at its end or some time before.

    What the failed sync dropped is still seen by that process, and nothing but writing it anew brings it to the disk.
    """
    dead = log.disk()
    with interposed(without_waiting):
        checker.recovered(possible)
    checker.lay(dead.killed())
    with interposed(without_waiting):
        second, commits = after(dead, checker, command, possible)
    points = sorted({0, *random.Random(seed).choices(range(len(second.ops)), k=3), len(second.ops)})
    for point, kind, found in crashes(dead, second.ops, points, 2, seed):
        try:
            checker.check(found, commits.possible(point), command)
        except Lost as lost:
            raise Lost(f"{kind} at operation {point} of a second process: {lost}") from lost
