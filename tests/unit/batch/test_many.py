"""Many series by one command: what fails stops nothing else, and the same command goes on."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import tomoseg
from tomoseg.batch import outcomes
from tomoseg.batch.many import run_many
from tomoseg.batch.outcomes import Outcome
from tomoseg.batch.series import Series
from tomoseg.runtime import Runtime


@pytest.fixture(scope="module")
def raws(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raws")
    for seed in (1, 2):
        tomoseg("simulate", "-o", folder / f"s{seed}.mrc", "--size", 32, "--particles", 3, "--seed", seed, "--step", 8)
    (folder / "half.mrc").write_bytes((folder / "s1.mrc").read_bytes()[:3000])
    return folder


def rows(folder):
    with (folder / "series.csv").open() as file:
        return {row["series"]: row for row in csv.DictReader(file)}


def test_one_that_fails_stops_none_of_the_others_and_is_named(raws, tmp_path):
    done = tomoseg("run", "--many", raws / "*.mrc", "-o", tmp_path / "out", "--until", "import", code=1)
    assert "not finished: 1 of 3 series (half)" in done.stderr
    table = rows(tmp_path / "out")
    assert {name: row["state"] for name, row in table.items()} == {"half": "failed", "s1": "done", "s2": "done"}
    assert table["half"]["exit_code"] == "2"
    assert "is truncated" in table["half"]["reason"]
    assert int(table["s1"]["n_tilts"]) == 18
    assert "half" in (tmp_path / "out" / "series.html").read_text()
    kept = (raws / "half.mrc").read_bytes()
    try:
        for ending in ("mrc", "rawtlt"):
            (raws / f"half.{ending}").write_bytes((raws / f"s2.{ending}").read_bytes())
        tomoseg("run", "--many", raws / "*.mrc", "-o", tmp_path / "out", "--until", "import")
    finally:
        (raws / "half.mrc").write_bytes(kept)
        (raws / "half.rawtlt").unlink()
    assert all(row["state"] == "done" for row in rows(tmp_path / "out").values())
    assert "import: up to date" in (tmp_path / "out" / "s1.log").read_text()


@pytest.mark.slow
def test_numbers_choose_series_and_none_only_writes_the_table(raws, tmp_path):
    out = tmp_path / "out"
    tomoseg("run", "--many", raws / "s*.mrc", "-o", out, "--until", "import", "--only", 2)
    assert {name: row["state"] for name, row in rows(out).items()} == {"s1": "not run", "s2": "done"}
    (out / "series.csv").unlink()
    tomoseg("run", "--many", raws / "s*.mrc", "-o", out, "--only", "none", code=1)
    assert rows(out)["s2"]["state"] == "done"
    for wrong in ("3", "0", "x"):
        assert "--only" in tomoseg("run", "--many", raws / "s*.mrc", "-o", out, "--only", wrong, code=2).stderr


def test_one_that_is_chosen_and_fails_is_told_whatever_its_options(raws, tmp_path):
    run = ("run", "--many", raws / "*.mrc", "-o", tmp_path / "out", "--until", "import", "--only", 1)
    done = tomoseg(*run, "--export-dir", tmp_path / "exports", code=1)
    assert "not finished: 1 of 1 series (half)" in done.stderr


def test_options_are_checked_before_the_first_series_runs(raws, tmp_path):
    out = tmp_path / "out"
    many = ("run", "--many", raws / "s*.mrc", "-o", out)
    assert "reconstruct.iterations" in tomoseg(*many, "--set", "reconstruct.iterations=x", code=2).stderr
    assert "Name a folder" in tomoseg(*many[:-2], code=2).stderr
    assert "--many" in tomoseg("run", raws / "s1.mrc", "-o", out / "p.h5", "--only", 1, code=2).stderr
    assert not out.exists()


def test_a_signal_stops_the_series_that_runs_and_all_that_follow(raws, tmp_path):
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tomoseg",
        "run",
        "--many",
        raws / "s*.mrc",
        "-o",
        tmp_path / "out",
    ]
    more = ["--set", "reconstruct.iterations=10000", "--set", "reconstruct.resolution=false"]
    with subprocess.Popen([*command, *more], stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / "out" / "s1.log"
        until = time.monotonic() + 120
        while not (log.exists() and "reconstruct: starting" in log.read_text()) and time.monotonic() < until:
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGTERM)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 130, told
    assert "The same command continues" in told
    table = rows(tmp_path / "out")
    assert (table["s1"]["state"], table["s2"]["state"]) == ("stopped", "not run")
    assert table["s1"]["exit_code"] == "130"


def test_a_process_that_is_killed_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "fake"))
    (tmp_path / "fake").write_text("#!/bin/bash\nkill -KILL $$\n")
    (tmp_path / "fake").chmod(0o755)
    told = []
    run_many([Series("a", tmp_path / "a.mrc", tmp_path / "a.h5")], [], Runtime(), told.append)
    assert [outcome.state for outcome in told] == ["running", "failed"]
    assert told[-1].exit_code == -9
    assert "SIGKILL, most likely for want of memory" in told[-1].reason


def test_outcomes_that_cannot_be_read_count_as_none(tmp_path):
    series = [Series(name, tmp_path, tmp_path) for name in ("a", "b", "c")]
    outcomes.keep(tmp_path, Outcome(series[0], "failed", 2, "no", 3.5, "17"))
    (tmp_path / "outcomes" / "b.json").write_text('{"state": "great"')
    (tmp_path / "outcomes" / "c.json").write_text(
        '{"state": "great", "exit_code": 0, "reason": "", "seconds": 1, "job_id": ""}'
    )
    known = outcomes.known(tmp_path, series)
    assert known == [Outcome(series[0], "failed", 2, "no", 3.5, "17"), Outcome(series[1]), Outcome(series[2])]
