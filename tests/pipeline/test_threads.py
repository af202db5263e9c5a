"""One budget of threads for all libraries: `--workers 1` keeps one CPU busy, on a machine with several."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import tomoseg

pytestmark = pytest.mark.slow
EVERY_S = 1.0
MOST = 1.6  # CPUs: with one thread of its own, TensorFlow also computes in the thread that calls it


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy(command):
    """Run a command; return how many CPUs it kept busy in each second."""
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    found, before, then = [], 0.0, time.monotonic()
    while process.poll() is None:
        time.sleep(EVERY_S)
        try:
            now, used = time.monotonic(), cpu_seconds(process.pid)
        except (FileNotFoundError, ProcessLookupError, IndexError):
            break
        found.append((used - before) / (now - then))
        before, then = used, now
    assert process.wait() == 0, process.stderr.read()
    process.stderr.close()
    return found


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2 or not Path("/proc/self/stat").exists(), reason="needs two CPUs")
def test_one_worker_keeps_one_cpu_busy(tmp_path):
    raw = tmp_path / "raw.mrc"
    tomoseg("simulate", "-o", raw, "--size", 128, "--step", 4)
    options = ["--set", "reconstruct.method=tv", "--set", "reconstruct.iterations=60", "--pipeline", "catalyst"]
    command = [sys.executable, "-W", "ignore", "-m", "tomoseg", "run", raw, "-o", tmp_path / "p.h5", *options]
    one = sorted(busy([*command, "--workers", "1"]))
    assert one[int(0.95 * len(one))] < MOST, one
    two = sorted(busy([*command, "--force", "--workers", "2", "--from", "reconstruct", "--until", "segment"]))
    assert two[-1] > MOST, two  # so that the measure can fail
