"""Standard streams that are closed: nothing that is said gets into a file that has their number."""

import os
import signal
import subprocess
import sys
import time

import h5py
import pytest

CLOSED = ("<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-")


def shell(closed, *command):
    """Return a command that is run with streams closed."""
    return ["sh", "-c", f'exec "$@" {closed}', "sh", *map(str, command)]


@pytest.mark.parametrize("closed", CLOSED)
def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path, closed):
    code = """
import os, sys
from tomoseg.__main__ import open_standard_streams
open_standard_streams()
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
assert fd > 2
print("said"), print("said", file=sys.stderr), os.write(2, b"said"), sys.stdin.read()
os.write(fd, b"written")
"""
    path = tmp_path / "file"
    done = subprocess.run(
        shell(closed, sys.executable, "-c", code, path), capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == b"written"


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "2>&-"])
def test_a_stopped_run_without_streams_keeps_the_project(small_run, tmp_path, closed):
    project = tmp_path / "p.h5"
    project.write_bytes(small_run.project.read_bytes())
    command = (sys.executable, "-m", "tomoseg", "run", project, "--force", "--progress", "plain")
    process = subprocess.Popen(shell(closed, *command, "--set", "reconstruct.iterations=2000"))
    give_up = time.monotonic() + 60
    while project.read_bytes() == small_run.project.read_bytes() and time.monotonic() < give_up:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    with h5py.File(project, "r") as file:
        assert file["/reconstruction/volume"].shape
    assert "stop" not in os.fsdecode(project.read_bytes()[:4096])
    done = subprocess.run([sys.executable, "-m", "tomoseg", "status", str(project)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
