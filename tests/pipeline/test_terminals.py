"""Runs whose terminal is lost, or that are stopped and go on (Ctrl-Z, `fg`)."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import pytest

from tests.conftest import tomoseg

LONG = ("--set", "reconstruct.iterations=10000")  # minutes within one slab
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="terminals as on Linux")


def command(project, *options):
    return [sys.executable, "-W", "ignore", "-m", "tomoseg", "run", str(project), *options]


def start_in_terminal(arguments, ignored=()):
    """Start a program in a new terminal; return the process and the other end of the terminal."""
    ours, theirs = pty.openpty()
    code = "import fcntl, os, signal, sys, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    code += "".join(f"signal.signal({int(signum)}, signal.SIG_IGN)\n" for signum in ignored)
    code += "os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    return process, ours


def read_until(terminal, text, seconds=120):
    said, give_up = "", time.monotonic() + seconds
    while text not in said:
        assert time.monotonic() < give_up, said
        said += os.read(terminal, 4096).decode(errors="replace")
    return said


def results(project):
    """Return the bytes of what was computed."""
    with h5py.File(project, "r") as file:
        return {name: file[name][()].tobytes() for name in ("reconstruction/volume", "segmentation/labels")}


@pytest.mark.parametrize("progress", ["plain", "bar"])
def test_a_lost_terminal_ends_a_run_in_order(project, progress):
    before = results(project)
    process, terminal = start_in_terminal(command(project, *LONG, "--progress", progress))
    with process:
        read_until(terminal, "reconstruct:")
        time.sleep(2)
        os.close(terminal)  # as sshd does when the connection is lost
        lost = time.monotonic()
        assert process.wait(60) == 130
        assert time.monotonic() - lost < 15
    assert results(project) == before
    assert [p.name for p in project.parent.iterdir()] == [project.name]
    with h5py.File(project, "r") as file:
        runs = [run.attrs["record"] for run in file["provenance/history"].values()]
    assert sum('"outcome": "interrupted"' in run or '"outcome": "running"' in run for run in runs) == 1
    tomoseg("run", project, "--progress", "none", "--set", "reconstruct.iterations=30")


def test_without_hangups_a_run_outlives_its_terminal(project):
    # As by `nohup tomoseg run ... > log 2>&1 &`; here the terminal itself takes the words.
    options = ("--set", "reconstruct.iterations=2000", "--until", "reconstruct", "--progress", "none")
    process, terminal = start_in_terminal(command(project, *options), ignored=[signal.SIGHUP])
    with process:
        time.sleep(2)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGHUP)
        assert process.wait(300) == 0
        os.close(terminal)
    with h5py.File(project, "r") as file:
        assert len(file["reconstruction/residuals"]) == 2001


def state_of(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for(condition, seconds=60):
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def stop_when(process, text, found):
    for line in process.stderr:
        if text in line:
            found.append(line)
            process.send_signal(signal.SIGTSTP)
            break


def test_a_run_that_is_stopped_and_goes_on_gives_the_same(project, tmp_path):
    undisturbed = tmp_path / "undisturbed.h5"
    undisturbed.write_bytes(project.read_bytes())
    options = ("--set", "reconstruct.iterations=40", "--until", "segment", "--progress", "plain")
    tomoseg("run", undisturbed, *options)
    # A group of its own, beside that of the tests: the system does not stop the only group of a session.
    with subprocess.Popen(
        command(project, *options, "--stop-before", "10m"), stderr=subprocess.PIPE, text=True, process_group=0
    ) as process:
        found = []
        reader = threading.Thread(target=stop_when, args=(process, "reconstruct:", found))
        reader.start()
        reader.join(120)
        assert found
        wait_for(lambda: state_of(process) == "T")
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert results(project) == results(undisturbed)


@pytest.mark.slow
def test_time_in_which_a_run_is_stopped_counts(project):
    with subprocess.Popen(
        command(project, *LONG, "--progress", "plain", "--stop-before", "20s"),
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        began = time.monotonic()
        found = []
        stop_when(process, "reconstruct:", found)
        assert found
        time.sleep(max(0.0, began + 21 - time.monotonic()))  # past its time
        process.send_signal(signal.SIGCONT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "the time budget of 20s is used up" in said
