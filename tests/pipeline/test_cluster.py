"""`--cluster` with a real Dask scheduler and workers over TCP: the same bits as here, whatever happens to them."""

import json
import shutil
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from tests.conftest import tomoseg
from tests.dask_processes import DaskProcesses

pytest.importorskip("distributed")
LONG = ("--set", "reconstruct.iterations=4000", "--set", "reconstruct.resolution=false")
LONGEST = 120  # seconds until something happens


@pytest.fixture
def dask(tmp_path):
    with DaskProcesses(tmp_path, 2) as made:
        yield made


def volume(path):
    with h5py.File(path) as file:
        return file["reconstruction/volume"][:]


@pytest.fixture(scope="module")
def long_run(small_run, tmp_path_factory):
    """Return the volume of a long reconstruction, computed here."""
    path = shutil.copy(small_run.project, tmp_path_factory.mktemp("long") / "long.h5")
    tomoseg("run", path, *LONG, "--until", "reconstruct")
    return volume(path)


def begun(project, dask, events, *options):
    """Start a long reconstruction on the cluster, and return its process once the first slab is there."""
    command = [sys.executable, "-m", "tomoseg", "run", project, *LONG, "--until", "reconstruct", "--progress", "plain"]
    command += ["--cluster", dask.address, "--events", events, *options]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline and process.poll() is None:
        lines = events.read_text().splitlines() if events.exists() else []
        if any("mlem" in line and json.loads(line)["event"] == "task_progress" for line in lines):
            return process
        time.sleep(0.02)
    pytest.fail(f"no slab came: {process.communicate()}")


def test_a_run_on_a_cluster_gives_the_same_bits(small_run, project, dask):
    done = tomoseg("run", project, "--from", "reconstruct", "--force", "--cluster", dask.address)
    assert "is not protected" not in done.stderr  # it listens on the loopback only
    with h5py.File(project) as there, h5py.File(small_run.project) as here:
        for name in (
            "reconstruction/volume",
            "reconstruction/residuals",
            "reconstruction/stopping",
            "segmentation/labels",
        ):
            assert np.array_equal(there[name][()], here[name][()]), name


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(project, dask, long_run, tmp_path):
    process = begun(project, dask, tmp_path / "events.jsonl")
    dask.workers[0].kill()
    _, said = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, said
    assert np.array_equal(volume(project), long_run)


@pytest.mark.slow
def test_without_its_scheduler_a_run_ends_with_its_state_kept_and_goes_on_here(project, dask, long_run, tmp_path):
    process = begun(project, dask, tmp_path / "events.jsonl")
    dask.scheduler.kill()
    _, said = process.communicate(timeout=LONGEST)
    assert process.returncode == 1
    assert f"the Dask scheduler at {dask.address} is gone" in said
    done = tomoseg("run", project, *LONG, "--until", "reconstruct")
    assert "continuing after" in done.stderr
    assert np.array_equal(volume(project), long_run)


@pytest.mark.slow
def test_a_time_budget_ends_a_run_on_a_cluster_which_goes_on_there(project, dask, long_run, tmp_path):
    process = begun(project, dask, tmp_path / "events.jsonl", "--stop-before", "15s")
    _, said = process.communicate(timeout=LONGEST)
    assert process.returncode == 130, said
    done = tomoseg("run", project, *LONG, "--until", "reconstruct", "--cluster", dask.address)
    assert "continuing after" in done.stderr
    assert np.array_equal(volume(project), long_run)


@pytest.mark.slow
def test_a_network_labels_on_a_cluster_as_here(small_run, dask, tmp_path):
    here, there = (shutil.copy(small_run.project, tmp_path / f"{name}.h5") for name in ("here", "there"))
    tomoseg("segment", here, "--model", "gamma-alumina-pt", "--plane", "all")
    tomoseg("segment", there, "--model", "gamma-alumina-pt", "--plane", "all", "--cluster", dask.address)
    with h5py.File(there) as a, h5py.File(here) as b:
        for name in ("segmentation/labels", "segmentation/confidence"):
            assert np.array_equal(a[name][()], b[name][()]), name
