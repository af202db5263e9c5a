"""Jobs under a real Slurm: dependent stages, a time limit in the middle, a cancelled job, an array with one broken.

Needs Slurm with a free node; without one, the packages slurmctld, slurmd, slurm-client and munge and a script
`local-slurm` beside the checkout that starts one node. Otherwise skipped.
"""

import csv
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.conftest import tomoseg
from tomoseg import config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STARTER = Path(__file__).parents[3] / "shared" / "tools" / "local-slurm"
LONGEST = 600  # seconds for a job here
SMALL = ("--cpus", 1, "--memory", "2G", "--time", "10m")
STEPS = ("--set", "reconstruct.iterations=3000", "--set", "reconstruct.resolution=false", "--until", "reconstruct")


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory):
    if shutil.which("sbatch") is None:
        pytest.skip("Slurm is not installed")
    if subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0:
        yield
        return
    if not STARTER.exists() or os.geteuid() != 0:
        pytest.skip("there is no Slurm to submit to")
    folder = tmp_path_factory.mktemp("slurm")
    done = subprocess.run([str(STARTER), "start", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a local Slurm does not start: {done.stderr}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield
        subprocess.run([str(STARTER), "stop", str(folder)], capture_output=True, check=False)


@pytest.fixture(scope="module")
def raws(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raws")
    for seed in (1, 2, 3):
        tomoseg("simulate", "-o", folder / f"s{seed}.mrc", "--size", 48, "--particles", 4, "--step", 4, "--seed", seed)
    (folder / "broken.mrc").write_bytes((folder / "s1.mrc").read_bytes()[:3000])
    return folder


def numbers(done):
    return re.findall(r": job (\d+)", done.stdout)


def wait(jobs):
    """Wait until jobs are no longer in the queue."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        queue = subprocess.run(["squeue", "-h", "-o", "%A"], capture_output=True, text=True, check=True)
        if not set(queue.stdout.split()) & set(jobs):
            return
        time.sleep(1)
    raise AssertionError(subprocess.run(["squeue"], capture_output=True, text=True, check=True).stdout)


def scripts(folder):
    (jobs,) = folder.iterdir()
    return sorted(jobs.glob("*.slurm")), jobs


def volume(path):
    with h5py.File(path) as file:
        return file["reconstruction/volume"][:]


def states(path):
    lines = tomoseg("status", path).stdout.splitlines()[1:]
    return {line.split()[0]: line.split()[1] for line in lines}


def test_stages_run_as_jobs_that_wait_for_each_other(raws, tmp_path):
    # This node has no GPU: the script without the line that asks for one.
    template = tmp_path / "own.slurm"
    shipped = (config.pipelines_folder() / "submit.slurm").read_text()
    template.write_text("".join(line for line in shipped.splitlines(keepends=True) if "gres" not in line))
    project = tmp_path / "p.h5"
    done = tomoseg(
        "submit", raws / "s1.mrc", "-o", project, *SMALL, "--gpus", 1, "--template", template, "--pipeline", "quick",
        "--now",
    )  # fmt: skip
    jobs = numbers(done)
    assert len(jobs) == 3
    wait(jobs)
    assert set(states(project).values()) == {"fresh"}
    found, folder = scripts(tmp_path / "p_jobs")
    logs = [log.read_text() for log in sorted(folder.glob("*.log"))]
    assert [("exit code 0" in log) for log in logs] == [True] * 3
    assert len(found) == 3


def test_a_job_that_reaches_its_time_limit_goes_on_to_the_same_bits(raws, tmp_path):
    raw, whole, parts = (tmp_path / name for name in ("raw.mrc", "whole.h5", "parts.h5"))
    tomoseg("simulate", "-o", raw, "--size", 96, "--particles", 9, "--step", 4)
    tomoseg("run", raw, "-o", whole, *STEPS, "--workers", 1)
    tomoseg("submit", raw, "-o", parts, *SMALL, *STEPS, "--tries", 20)
    (script,), folder = scripts(tmp_path / "parts_jobs")
    script.write_text(re.sub(r"--stop-before \d+s", "--stop-before 25s", script.read_text()))
    done = subprocess.run(["bash", str(folder / "submit.sh")], capture_output=True, text=True, check=True)
    wait(numbers(done))
    (log,) = folder.glob("*.log")
    assert "try 2 of 20" in log.read_text()
    assert "continuing" in log.read_text()
    assert np.array_equal(volume(whole), volume(parts))


def test_a_cancelled_job_goes_on_when_it_is_submitted_again(raws, tmp_path):
    project = tmp_path / "p.h5"
    command = ("submit", raws / "s2.mrc", "-o", project, *SMALL, *STEPS, "--now")
    (job,) = numbers(tomoseg(*command))
    until = time.monotonic() + LONGEST
    folder = scripts(tmp_path / "p_jobs")[1]
    while time.monotonic() < until:
        if any("reconstruct: starting" in log.read_text() for log in folder.glob("*.log")):
            break
        time.sleep(0.2)
    subprocess.run(["scancel", job], check=True)
    wait([job])  # and is not queued again
    assert states(project)["align"] == "fresh"
    assert states(project)["reconstruct"] != "fresh"
    time.sleep(1)  # scripts are in a folder of their second
    wait(numbers(tomoseg(*command)))
    assert states(project)["reconstruct"] == "fresh"


def test_an_array_of_which_one_is_broken_is_told_and_only_that_submitted_again(raws, tmp_path):
    out = tmp_path / "out"
    command = ("submit", raws / "*.mrc", "-o", out, *SMALL, "--until", "align", "--now")
    wait(numbers(tomoseg(*command)))
    with (out / "series.csv").open() as file:
        table = {row["series"]: row for row in csv.DictReader(file)}
    assert {name: row["state"] for name, row in table.items()} == {
        "broken": "failed", "s1": "done", "s2": "done", "s3": "done",
    }  # fmt: skip
    assert "truncated" in table["broken"]["reason"]
    assert table["s1"]["job_id"]
    (log,) = next((out / "jobs").iterdir()).glob("*table*.log")
    assert "not finished: 1 of 4 series (broken)" in log.read_text()
    time.sleep(1)
    again = tomoseg(*command)
    assert "1 series" not in again.stdout  # no array
    jobs = sorted((out / "jobs").iterdir())[-1]
    assert (jobs / "numbers.txt").read_text() == "1\n"
    wait(numbers(again))


def test_jobs_with_workers_compute_slabs_as_here(raws, tmp_path):
    pytest.importorskip("dask_jobqueue")
    site = tmp_path / "site.yaml"
    site.write_text("site:\n  interface: lo\n  cpus: 1\n  memory: 1G\n  time: 10m\n")
    here, there = tmp_path / "here.h5", tmp_path / "there.h5"
    tomoseg("run", raws / "s1.mrc", "-o", here, "--until", "reconstruct")
    tomoseg("run", raws / "s1.mrc", "-o", there, "--until", "align")
    tomoseg("reconstruct", there, "--cluster", "slurm:2", "--site", site, cwd=tmp_path)
    assert np.array_equal(volume(here), volume(there))
    assert "tomoseg" not in subprocess.run(["squeue"], capture_output=True, text=True, check=True).stdout
