"""Stopping in time: signals, also where Python is not asked, time budgets, and what is cleaned up."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import tomoseg
from tomoseg import runtime as runtime_module
from tomoseg.cli.options import parse_time, process_start, runtime_of
from tomoseg.errors import InputError, Interrupted
from tomoseg.runtime import Runtime, on_abrupt_exit, stopping_on_signals

# One call into C that takes many minutes, without the interpreter's lock: no signal handler runs before it returns.
STUCK = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2_000_000_000)"
PROGRAM = """
import sys, time
from pathlib import Path
from tomoseg.errors import Interrupted
from tomoseg.io.atomic import atomic_path
from tomoseg.runtime import Runtime, on_abrupt_exit, stopping_on_signals
folder = Path(sys.argv[1])
(folder / "lock").touch()
on_abrupt_exit((folder / "lock").unlink)
def fail():
    raise RuntimeError("must not keep the others from being cleaned up")
on_abrupt_exit(fail)
try:
    with stopping_on_signals(lambda: "To go on, say please."), atomic_path(folder / "result") as temporary:
        print("ready", flush=True)
        BODY
except Interrupted as stop:
    print(stop, file=sys.stderr)
    sys.exit(stop.exit_code)
"""


def start(folder: Path, body: str) -> subprocess.Popen:
    code = PROGRAM.replace("BODY", body.replace("\n", "\n        "))
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)  # to be in the midst of the work
    return process


def ended(process: subprocess.Popen, within: float) -> str:
    """Return what the process said on stderr."""
    began = time.monotonic()
    with process:
        try:
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()  # where it does not end, which must not keep a processor busy
    assert time.monotonic() - began < within, said
    return said


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_process_stuck_in_a_library_leaves_within_ten_seconds(tmp_path, signum):
    if signal.getsignal(signum) == signal.SIG_IGN:
        pytest.skip(f"{signum.name} is ignored here, as by `nohup`")
    process = start(tmp_path, STUCK)
    assert len(list(tmp_path.iterdir())) == 2  # the lock and the unfinished file
    process.send_signal(signum)
    said = ended(process, within=10)
    assert process.returncode == 130
    assert said.splitlines()[0].startswith("stopping after the current step")
    assert said.endswith(f"stopped by {signum.name} in the middle of a step. To go on, say please.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_second_signal_stops_at_once(tmp_path):
    process = start(tmp_path, STUCK)
    process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said = ended(process, within=3)  # starved of processor time by other tests it may need some of that
    assert process.returncode == 130
    assert "To go on, say please." in said
    assert list(tmp_path.iterdir()) == []


def test_the_same_request_sent_twice_is_one(tmp_path):
    # `timeout` signals its child and then the group the child is in; a batch system and its script do alike.
    body = """
try:
    while True:
        Runtime().check(); time.sleep(0.01)
finally:
    time.sleep(0.5); (folder / "state").write_text("kept"); (folder / "lock").unlink()
"""
    process = start(tmp_path, body)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    said = ended(process, within=5)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "stopped by SIGTERM. To go on, say please."
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_signals_mean_what_they_did_before_once_the_work_is_done():
    def handlers():
        return [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT)]

    before = handlers()
    with stopping_on_signals():
        assert handlers() != before
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted, match="stopped by SIGTERM"):
            Runtime().check()
    assert handlers() == before
    Runtime().check()  # the signal is forgotten
    assert signal.set_wakeup_fd(-1) == -1


def test_a_hangup_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by `nohup`
    try:
        with stopping_on_signals():
            signal.raise_signal(signal.SIGHUP)
            Runtime().check()
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(Interrupted, match="stopped by SIGTERM"):
                Runtime().check()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_hangup_stops_as_sigterm_does():
    with stopping_on_signals():
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(Interrupted, match="stopped by SIGHUP"):
            Runtime().check()


def test_an_interruption_tells_how_to_go_on():
    with pytest.raises(Interrupted, match=r"^why\. Call again\.$"), stopping_on_signals(lambda: "Call again."):
        raise Interrupted("why")


def test_clean_ups_are_taken_back_one_by_one():
    taken_back = on_abrupt_exit(print), on_abrupt_exit(print)
    assert len(runtime_module._clean_ups) == 2
    for take_back in taken_back:
        take_back()
    assert runtime_module._clean_ups == []


# ----------------------------------------------------------------------------------------------- time budgets


def test_a_used_up_budget_stops_the_work():
    runtime = Runtime(stop_at=time.monotonic() - 1, budget="the time budget of 55m")
    with pytest.raises(Interrupted, match="the time budget of 55m is used up"):
        runtime.check()
    Runtime(stop_at=time.monotonic() + 60).check()
    with pytest.raises(Interrupted):
        Runtime(stop_at=time.monotonic() + 60).check(seconds=61)


def test_no_item_is_begun_that_would_not_end_in_time():
    stop_at = time.monotonic() + 1.3
    done = []

    def take_naps():
        for item in Runtime(stop_at=stop_at).track(range(1000), "naps"):
            time.sleep(0.01 if item else 0.5)  # the longest counts
            done.append(item)

    with pytest.raises(Interrupted):
        take_naps()
    assert done
    # Another item of 0.5 s would not end in time from 0.8 s on.
    assert stop_at - time.monotonic() > 0.1


def test_an_item_during_which_the_process_was_stopped_tells_nothing_of_how_long_items_take():
    stop_at = time.monotonic() + 1.5
    with stopping_on_signals():
        for item in Runtime(stop_at=stop_at).track(range(3), "naps"):
            if item == 0:
                time.sleep(1)  # so long it would not be begun again
                signal.raise_signal(signal.SIGCONT)
    assert item == 2
    assert runtime_module._pauses == []


def test_a_budget_counts_from_the_start_of_the_program():
    runtime = runtime_of("cpu", 1, "", "none", " 55m ")
    # The kernel tells the start in hundredths of a second.
    assert runtime.stop_at == pytest.approx(process_start() + 3300 - 10, abs=0.03)
    assert runtime.budget == "the time budget of 55m"
    assert runtime_of("cpu", 1, "", "none", "30s").stop_at == pytest.approx(process_start() + 24, abs=0.03)
    assert runtime_of("cpu", 1, "", "none").stop_at is None


def test_the_start_of_the_process_is_known():
    before = time.monotonic()
    code = "import time; time.sleep(1); from tomoseg.cli.options import process_start; print(process_start())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # `time.monotonic` counts from the same instant in all processes of a machine.
    assert before - 0.05 < float(done.stdout) < before + 0.9


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("55m", 3300),
        ("3300s", 3300),
        ("3300", 3300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2:30:00", 9000),
        ("55:00", 3300),
        ("1d2h", 93600),
        (" 90s ", 90),
    ],
)
def test_times_are_read(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-5m", "1h30", "30m1h", "soon", "1:2:3:4", "1.2.3s", "5 m", "inf", "m"]
)
def test_times_that_are_none_are_refused(text):
    with pytest.raises(InputError, match=r"--stop-before .*55m"):
        parse_time(text)


def test_a_run_ends_within_its_budget_and_says_how_to_go_on(project):
    began = time.monotonic()
    # Without the budget these would take minutes on the fastest machine.
    settings = ("--set", "reconstruct.iterations=10000", "--set", "reconstruct.z_size=2000", "--progress", "plain")
    done = tomoseg("run", project, *settings, "--stop-before", "10s", code=130)
    assert time.monotonic() - began < 25  # a busy machine may be late
    assert f"the time budget of 10s is used up. What was finished is kept; `tomoseg run {project}` con" in done.stderr
    refused = tomoseg("run", project, "--stop-before", "soon", code=2)
    assert "--stop-before soon" in refused.stderr


def test_a_lock_of_another_host_is_taken_over_only_when_asked(project):
    lock = project.with_name(project.name + ".lock")
    lock.write_text('{"host": "elsewhere", "pid": 1, "process_start": "1", "since": "2026-01-01"}')
    assert "--break-lock" in tomoseg("run", project, code=4).stderr
    assert "elsewhere" in tomoseg("reconstruct", project, code=4).stderr
    tomoseg("measure", project, "--break-lock")
    assert not lock.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux keeps what is freed")
def test_freed_arrays_leave_the_process():
    program = """
import numpy as np
from pathlib import Path
from tomoseg.runtime import return_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def use_and_free():
    arrays = [np.ones(8 << 20, np.uint8) for _ in range(20)]
    kept = np.ones(1 << 16, np.uint8)  # in front of which all else would stay
    return kept

np.ones(31 << 20, np.uint8)  # freeing it makes the C library keep all smaller ones
return_freed_memory()
before = resident()
kept = use_and_free()
print(resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 8 << 20


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_or_after_the_work_ends_the_program_with_the_same_code(signum):
    program = f"""
import os
from tomoseg.cli import main
from tomoseg.cli.app import app
app.command("signalled")(lambda: os.kill(os.getpid(), {int(signum)}))
main(["signalled"])
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 130


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_python_ends_changes_nothing(signum):
    program = f"""
import os
from tomoseg.cli import main
class Late:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, {int(signum)})
late = Late()  # deleted when the module is, after all exit handlers
main(["--version"])
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
