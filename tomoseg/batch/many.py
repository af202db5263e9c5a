"""Run many series one after the other, each in a process of its own, whose failure stops none of the others.

A process of its own frees all its memory at its end, and takes nothing along when it is killed. What it says goes to a
log beside the project. The same command again goes on: what is finished is found to be fresh within a second.
"""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tomoseg.batch.outcomes import Outcome, State
from tomoseg.batch.series import Series
from tomoseg.errors import Interrupted, printable
from tomoseg.project.provenance import job_id
from tomoseg.runtime import GRACE_SECONDS, Runtime

LOOK_SECONDS = 0.1
LEAST_SECONDS = 20.0  # of a time budget, to begin another series


def run_many(found: Sequence[Series], common: Sequence[str], runtime: Runtime, told: Callable[[Outcome], None]) -> None:
    """Run series one after the other.

    Parameters
    ----------
    common : options of `tomoseg run` for all of them, after which those of each series come
    told : is told that a series is running, and its outcome when it has ended

    Raises
    ------
    Interrupted
        A signal to stop came, or the time is used up; the series that ran kept its state.
    """
    runtime.progress.start("series", len(found))
    try:
        for k, one in enumerate(found):
            runtime.check(LEAST_SECONDS)
            runtime.progress.message(f"series {k + 1} of {len(found)}: {one.name}")
            told(Outcome(one, "running", job_id=job_id()))
            outcome, stop = _run(one, common, runtime)
            told(outcome)
            runtime.progress.message(_words(outcome))
            runtime.progress.advance(k + 1)
            if stop is not None:
                raise stop
    finally:
        runtime.progress.finish()


def _words(outcome: Outcome) -> str:
    name, seconds = outcome.series.name, f"{outcome.seconds:.0f} s"
    if outcome.state == "done":
        return f"{name}: done in {seconds}"
    return f"{name}: {outcome.state} after {seconds} (exit code {outcome.exit_code}): {outcome.reason}"


def _run(one: Series, common: Sequence[str], runtime: Runtime) -> tuple[Outcome, Interrupted | None]:
    """Run one series; return its outcome, and what stopped it if something did."""
    began = time.monotonic()
    one.project.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tomoseg", "run", *one.arguments, *common, *one.options, "--progress", "plain"]
    if runtime.stop_at is not None:
        command += ["--stop-before", f"{max(runtime.stop_at - began, 1):.0f}s"]
    with one.log.open("a", encoding="utf-8", errors="replace") as log:
        log.write(f"\n{time.strftime('%Y-%m-%d %H:%M:%S')} tomoseg {' '.join(command[3:])}\n")
        log.flush()
        start = log.tell()
        # A session of its own: what a terminal sends to a group comes here only, and is passed on.
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        ) as process:
            stop = _wait(process, runtime)
    code = process.returncode
    seconds = time.monotonic() - began
    if code == 0:
        return Outcome(one, "done", 0, "", seconds, job_id()), stop
    state: State = "stopped" if code == Interrupted.exit_code else "failed"
    outcome = Outcome(one, state, code, _reason(one.log, start, code), seconds, job_id())
    if stop is None and state == "stopped" and runtime.stop_at is not None:
        stop = Interrupted(f"{runtime.budget} is used up")
    return outcome, stop


def _wait(process: "subprocess.Popen[bytes]", runtime: Runtime) -> Interrupted | None:
    """Wait for a process; pass on a signal to stop, and return what that was."""
    while process.poll() is None:
        try:
            # Its own time budget ends it: here only signals count.
            runtime.check_signals()
        except Interrupted as error:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2 * GRACE_SECONDS)
            process.kill()
            return error
        time.sleep(LOOK_SECONDS)
    return None


def _reason(log: Path, start: int, code: int) -> str:
    """Return what a run said of its failure: the paragraph at the end of what it wrote."""
    with log.open(encoding="utf-8", errors="replace") as file:
        file.seek(start)
        lines = [line.rstrip() for line in file.read().splitlines()]
    said = [k for k, line in enumerate(lines) if line.startswith("tomoseg: ")]
    if said:
        return printable(" ".join(line.strip() for line in lines[said[-1] :]).removeprefix("tomoseg: "))
    if code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            why = ", most likely for want of memory: lower --max-memory" if -code == signal.SIGKILL else ""
            return f"it was ended by {name}{why}"
    return printable(lines[-1]) if lines and lines[-1] else f"it ended with exit code {code}"
