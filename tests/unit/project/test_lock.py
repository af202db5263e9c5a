"""One writer at a time: whoever holds the lock while alive keeps it, whoever is dead loses it, and one takes it."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import asdict, replace

import pytest

from tests.crash import contention
from tests.unit.project.conftest import HOLD, process, record
from tomoseg.errors import InputError, ProjectLocked, StageFailed
from tomoseg.project import Project, lock
from tomoseg.project.lock import Holder, writing
from tomoseg.project.names import lock_path

DEAD = 2**22 + 1  # more than any process number of Linux


def left(path, **changes):
    """Leave the lock file of a process; return who it says it is."""
    holder = replace(Holder.me(path), pid=DEAD, process_start="1", **changes)
    lock_path(path).write_bytes(holder.encoded())
    return holder


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "p.h5"
    path.write_bytes(b"x")
    return path


@pytest.fixture(params=["kernel", "names"])
def way(request, monkeypatch):
    """Take the lock from the kernel, or as on a file system without locks."""
    if request.param == "names":
        monkeypatch.setattr(lock, "_has_locks", lambda _folder: False)
    return request.param


def test_it_is_there_while_it_is_held_and_gone_afterwards(path, way):
    with writing(path):
        told = json.loads(lock_path(path).read_text())
        assert (told["pid"], told["host"]) == (os.getpid(), socket.gethostname())
        assert (told["device"], told["inode"]) == (path.stat().st_dev, path.stat().st_ino)
    assert [p.name for p in path.parent.iterdir()] == ["p.h5"]


def test_a_second_writer_is_told_who_holds_it(path, way):
    with process(HOLD, path) as holder:
        with pytest.raises(ProjectLocked) as caught, writing(path):
            pass
        assert str(holder.pid) in str(caught.value)
        with pytest.raises(ProjectLocked), writing(path, break_lock=True):  # a living process keeps it in any case
            pass
    with writing(path):
        pass


def test_the_same_process_is_refused_too(path, way):
    with writing(path), pytest.raises(ProjectLocked), writing(path):
        pass


def test_a_killed_process_loses_it_at_once(path, way):
    with process(HOLD, path) as holder:
        holder.kill()
        holder.wait()
        heard = []
        with writing(path, heard.append):
            pass
    assert f"process {holder.pid} on {socket.gethostname()} left behind" in heard[0]
    assert [p.name for p in path.parent.iterdir()] == ["p.h5"]


def test_a_living_process_keeps_it_whatever_its_number_seems_to_be(path, monkeypatch):
    """As seen from another PID namespace, where its number is nobody's or somebody else's."""
    with process(HOLD, path):
        monkeypatch.setattr(lock, "_pid_namespace", lambda: "pid:[1]")
        monkeypatch.setattr(lock, "_runs", lambda _holder: False)
        monkeypatch.setattr(socket, "gethostname", lambda: "container")
        with pytest.raises(ProjectLocked), writing(path, break_lock=True):
            pass


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-rpf", "true"], check=False).returncode != 0,
    reason="this system does not let us make PID namespaces",
)
@pytest.mark.parametrize("who", ["holder", "taker"])
def test_a_process_in_another_pid_namespace_keeps_it(path, who):
    apart = ("unshare", "-rpf", "--mount-proc")
    with process(HOLD, path, wrapper=apart if who == "holder" else ()):
        code = HOLD.replace("sys.stdin.read()", "")
        wrapper = apart if who == "taker" else ()
        with pytest.raises(AssertionError), process(code, path, wrapper=wrapper):
            pass
        assert lock_path(path).exists()


def test_the_number_of_a_dead_process_may_be_given_to_another(path, way):
    holder = replace(Holder.me(path), process_start="1")
    lock_path(path).write_bytes(holder.encoded())
    with writing(path):
        pass


# --- what cannot be known


OTHERS = {
    "another machine": {"host": "elsewhere", "boot_id": "b"},
    "a clone of this machine": {"boot_id": "b"},
    "a container": {"host": "elsewhere", "pid_namespace": "pid:[1]"},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("is_local", [True, False])
def test_what_cannot_be_known_is_refused(path, way, changes, is_local, monkeypatch):
    monkeypatch.setattr(lock, "_is_local", lambda _path: is_local)
    holder = left(path, **changes)
    is_known = way == "kernel" and is_local and next(n for n, c in OTHERS.items() if c is changes) != "another machine"
    if is_known:  # nobody else has this disk: the kernel knows everybody
        with writing(path):
            return
    with pytest.raises(ProjectLocked, match="--break-lock"), writing(path):
        pass
    assert json.loads(lock_path(path).read_text()) == asdict(holder)


def test_breaking_a_lock_takes_it_only_where_the_heartbeat_stands_still(path, way, monkeypatch):
    monkeypatch.setattr(lock, "WATCH_SECONDS", 0.3)
    holder = left(path, **OTHERS["another machine"])
    heard = []
    with writing(path, heard.append, break_lock=True):
        assert json.loads(lock_path(path).read_text())["nonce"] != holder.nonce
    assert "elsewhere" in heard[-1]
    holder = left(path, **OTHERS["another machine"])
    beating = threading.Timer(0.1, lambda: lock_path(path).write_bytes(replace(holder, beat=holder.beat + 1).encoded()))
    beating.start()
    with pytest.raises(ProjectLocked, match="heartbeat goes on"), writing(path, break_lock=True):
        pass
    beating.join()


def test_the_heartbeat_rises(path, way, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    with writing(path):
        first = json.loads(lock_path(path).read_text())["beat"]
        give_up = time.monotonic() + 20
        while json.loads(lock_path(path).read_text())["beat"] < first + 3:
            assert time.monotonic() < give_up
    assert not lock_path(path).exists()


def test_a_lock_of_an_older_version_is_believed_as_it_was_meant(path, way):
    old = {"host": socket.gethostname(), "pid": os.getpid(), "since": "then"}
    alive = old | {"process_start": Holder.me(path).process_start}
    lock_path(path).write_text(json.dumps(alive))
    with pytest.raises(ProjectLocked), writing(path, break_lock=True):
        pass
    lock_path(path).write_text(json.dumps(old | {"pid": DEAD}))
    with writing(path):
        pass
    lock_path(path).write_text(json.dumps(alive | {"host": "elsewhere"}))
    with pytest.raises(ProjectLocked, match="--break-lock"), writing(path):
        pass
    with writing(path, break_lock=True):
        pass


def test_an_empty_lock_file_is_of_a_process_that_went_down(path, way):
    lock_path(path).touch()
    if way == "kernel":
        with writing(path):
            return
    with pytest.raises(ProjectLocked, match="just begun"), writing(path):
        pass


@pytest.mark.parametrize(
    "content",
    [
        "my notes",
        "[]",
        '{"host": "h", "pid": 1, "since": "", "nonce": "../x"}',
        '{"host": 1, "pid": "x", "since": ""}',
        "[" * 9999,
    ],
)
def test_a_file_of_the_users_that_has_its_name_is_left_alone(path, way, content):
    lock_path(path).write_text(content)
    with pytest.raises(InputError, match="not a lock of tomoseg's"), writing(path):
        pass
    assert lock_path(path).read_text() == content


# --- a lock that is taken away


def test_nothing_is_committed_without_it(numbered):
    with Project.write(numbered) as project:
        lock_path(numbered).unlink()
        with pytest.raises(StageFailed, match="was removed, or taken"):
            project.transaction(record(1)).__enter__()
    with Project.read(numbered) as project:
        assert [r.outcome for r in project.history()] == ["done"]


def test_the_lock_of_the_next_one_is_not_removed(path, way):
    with writing(path):
        lock_path(path).unlink()
        left(path, host="next")
    assert json.loads(lock_path(path).read_text())["host"] == "next"


# --- two names of one file


def test_a_file_is_locked_under_all_its_names(numbered, tmp_path):
    other = tmp_path / "other.h5"
    other.hardlink_to(numbered)
    with process(HOLD, numbered):
        with pytest.raises(ProjectLocked, match="another of its names"), writing(other):
            pass
        assert not lock_path(other).exists()


def test_on_a_file_system_without_locks_a_file_of_several_names_is_refused(numbered, tmp_path, monkeypatch):
    (tmp_path / "other.h5").hardlink_to(numbered)
    monkeypatch.setattr(lock, "_is_local", lambda _path: False)
    with pytest.raises(InputError, match="2 names"), writing(numbered):
        pass
    assert not lock_path(numbered).exists()


# --- taking over is one step


def test_many_who_want_it_and_some_who_are_killed_never_hold_it_at_once(tmp_path, way):
    tally = contention.contend(tmp_path, way=way, acquisitions=300, processes=4, seed=1)
    assert tally.acquired >= 300
    assert tally.killed > 0
    assert tally.at_once == 0
