"""What programs and people see of a job from outside: events, the states as they change, the file system."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import tomoseg
from tomoseg.io import file_system
from tomoseg.progress import Events, Plain, Progress, progress_words


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "s.mrc"
    tomoseg("simulate", "-o", path, "--size", 32, "--particles", 3, "--step", 8)
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_tell_what_a_run_did(raw, tmp_path):
    events = tmp_path / "events.jsonl"
    run = ("run", raw, "-o", tmp_path / "p.h5", "--events", events)
    tomoseg(*run, "--until", "align")
    first = read(events)
    names = [event["event"] for event in first]
    assert names.index("stage_started") < names.index("task_started") < names.index("stage_finished")
    assert [e["stage"] for e in first if e["event"] == "stage_finished"] == ["import", "align"]
    finished = next(e for e in first if e["event"] == "stage_finished" and e["stage"] == "align")
    assert finished["seconds"] > 0
    assert finished["peak_memory_bytes"] > 1 << 20
    assert all(event["time"].endswith("+00:00") for event in first)
    begun = next(e for e in first if e["event"] == "stage_started" and e["stage"] == "align")
    assert begun["run_id"] == finished["run_id"]
    tomoseg(*run, "--set", "reconstruct.y_range=5000,6000", code=2)
    last = read(events)[len(first) :]
    assert [(e["stage"], e["exit_code"]) for e in last if e["event"] == "stage_failed"] == [("reconstruct", 2)]


def test_a_file_of_events_that_cannot_be_written_is_refused(raw, tmp_path):
    done = tomoseg("run", raw, "-o", tmp_path / "p.h5", "--events", tmp_path / "no" / "e.jsonl", code=2)
    assert "--events" in done.stderr
    assert not (tmp_path / "p.h5").exists()


def test_a_full_disk_ends_no_computation():
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    shown = []
    inner = Progress()
    inner.message = shown.append
    progress = Events(inner, Path("/dev/full"))
    progress.start("x", 3)
    progress.advance(3)
    progress.finish()
    progress.message("all the same")
    assert shown == ["all the same"]


def test_progress_is_told_with_rate_and_time_left(capsys):
    progress = Plain(every_seconds=0)
    progress.start("slices", 4)
    time.sleep(0.02)
    progress.advance(1)
    assert "slices: 25 % (1/4), " in capsys.readouterr().err
    assert progress_words(0, 10, 5.0) == "0 % (0/10), 5 s"
    assert progress_words(10, 10, 5.0) == "100 % (10/10), 5 s"
    assert progress_words(1, 3, 4000.0) == "33 % (1/3), 67 min, 4e+03 s each, 2.2 h left"


def test_watching_shows_each_change_and_ends_when_all_is_fresh(raw, tmp_path):
    project = tmp_path / "p.h5"
    tomoseg("run", raw, "-o", project, "--until", "import")
    command = [sys.executable, "-W", "ignore", "-m", "tomoseg", "status", str(project), "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        tomoseg("run", project, "--pipeline", "quick")
        told = watching.communicate(timeout=60)[0]
    assert watching.returncode == 0
    assert "align        missing" in told
    *_, last, going_on = told.splitlines()
    assert last.split()[:2] == ["export", "fresh"]
    assert going_on.startswith("next: tomoseg report")


def test_watching_can_be_left(raw, tmp_path):
    project = tmp_path / "p.h5"
    tomoseg("run", raw, "-o", project, "--until", "import")
    command = [sys.executable, "-W", "ignore", "-m", "tomoseg", "status", str(project), "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert "--watch" in tomoseg("status", project, "--watch", "--json", code=2).stderr


def test_a_good_folder_passes_and_is_left_as_it_was(tmp_path):
    (tmp_path / "kept").write_text("x")
    done = tomoseg("doctor", tmp_path)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok"] * 5
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert "no folder" in tomoseg("doctor", tmp_path / "kept", code=2).stderr


def test_a_file_system_whose_locks_hold_nobody_is_told(tmp_path, monkeypatch):
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    tried = {name: (works, detail) for name, works, detail in file_system.trials(tmp_path)}
    assert tried["locks"][0] is False
    assert "second lock" in tried["locks"][1]
    assert tried["rename"][0]
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(22, "Invalid argument")))
    tried = {name: works for name, works, _ in file_system.trials(tmp_path)}
    assert tried["fsync"] is False
    assert not list(tmp_path.iterdir())
