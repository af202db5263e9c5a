"""A project is one file, whatever it is called, and what lies beside it is tomoseg's own or is left alone."""

import os
import socket
import subprocess
import sys

import h5py
import numpy as np
import pytest

from tests.unit.project.conftest import HOLD, process, record, write
from tomoseg import schema
from tomoseg.errors import InputError, ProjectLocked, StageFailed
from tomoseg.project import Project, compact, is_project
from tomoseg.project.names import journal_path, lock_path, unborn_path

KILL = """
import os, sys
from pathlib import Path
from tests.unit.project.conftest import record, write
from tomoseg.project import disk
calls = 0
def dying(name, real):
    def call(*arguments):
        global calls
        calls += 1
        if sys.argv[2] in (name, str(calls)):
            os.kill(os.getpid(), 9)
        return real(*arguments)
    return call
for name in ("create", "write", "sync", "sync_folder", "rename", "remove", "truncate"):
    setattr(disk, name, dying(name, getattr(disk, name)))
write(Path(sys.argv[1]), 9)
print(calls)
"""


def value(path):
    """Return the one value of all results, as tomoseg sees it."""
    with Project.read(path) as project:
        found = {*np.unique(project.artifact(schema.ALIGNED)[:]), *np.unique(project.artifact(schema.SHIFTS)[:])}
    assert len(found) == 1, found
    return found.pop()


def other_name(project, kind):
    """Give a project another name in another folder."""
    other = project.parent.parent / "elsewhere" / "other.h5"
    other.parent.mkdir()
    if kind == "hard link":
        other.hardlink_to(project)
    elif kind == "link":
        other.symlink_to(project)
    else:
        other.parent.rmdir()
        other.parent.symlink_to(project.parent)
        other = other.parent / project.name
    return other


@pytest.mark.parametrize("kind", ["hard link", "link", "folder link"])
def test_two_writers_by_two_names(numbered, kind):
    other = other_name(numbered, kind)
    for one, two in ((numbered, other), (other, numbered)):
        with Project.write(one), process(_trying(ProjectLocked), two):
            pass
    write(numbered, 1)
    write(other, 2)
    assert value(numbered) == value(other) == 2
    assert {p.name for p in (*numbered.parent.iterdir(), *other.parent.iterdir())} <= {"p.h5", "other.h5"}


def _trying(error):
    return f"""
import sys
from pathlib import Path
from tomoseg.errors import {error.__name__}
from tomoseg.project import Project
try:
    Project.write(Path(sys.argv[1])).__enter__()
except {error.__name__}:
    print("ready", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hard link", "link"])
def test_a_writer_killed_under_one_name_is_recovered_from_under_the_other(numbered, kind):
    """The old state or the new one, the same by both names, also of what is then written while somebody looks.

    `tests.crash.campaign` does so at every operation.
    """
    other, outcomes = other_name(numbered, kind), set()
    command = [sys.executable, "-c", KILL, str(other)]
    n = int(subprocess.run([*command, "0"], check=True, capture_output=True).stdout)
    for moment in (3, n // 2, *range(n - 8, n, 2), 10**6, "rename", "remove"):
        write(numbered, 0)
        code = subprocess.run([*command, str(moment)], check=False, capture_output=True).returncode
        found = value(numbered)
        assert value(other) == found
        with Project.write(numbered):
            pass
        assert value(numbered) == value(other) == found
        with h5py.File(numbered, "r") as plain:
            assert (plain[schema.SHIFTS.path][:] == found).all()
        with Project.read(other):
            write(numbered, 5)
        assert value(numbered) == value(other) == 5
        outcomes.add((code, float(found)))
    assert outcomes == {(-9, 0.0), (-9, 9.0), (0, 9.0)}
    assert not journal_path(other).exists()


def test_the_user_is_told_of_a_file_with_several_names(numbered):
    other, heard = other_name(numbered, "hard link"), []
    with Project.write(other, heard.append):
        pass
    assert "has 2 names" in heard[0]
    with pytest.raises(InputError, match="only this one"):
        compact(numbered, lambda: None, str, break_lock=False)


def test_a_journal_under_a_name_that_is_gone_is_told(numbered, tmp_path):
    other = other_name(numbered, "hard link")
    with Project.read(numbered):
        write(other, 5)
    journal_path(other).rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"other\.h5\.journal, which is not there"):
        value(numbered)
    (tmp_path / "away").rename(journal_path(other))
    other.unlink()  # but its journal is there
    assert value(numbered) == 5


def test_compacting_by_a_link_leaves_the_link(numbered):
    other = other_name(numbered, "link")
    write(numbered, 1)
    compact(other, lambda: None, str, break_lock=False)
    assert other.is_symlink()
    assert value(numbered) == value(other) == 1


def test_a_new_project_is_made_where_a_link_leads(tmp_path):
    link = tmp_path / "link.h5"
    link.symlink_to(tmp_path / "real.h5")
    write(link, 3, Project.create)
    assert link.is_symlink()
    assert is_project(tmp_path / "real.h5")


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode != 0,
    reason="this system does not let us mount anything",
)
def test_a_file_mounted_under_another_name_is_the_same_file(numbered, tmp_path):
    """As containers mount it."""
    inside = tmp_path / "inside.h5"
    inside.touch()
    mounting = ("unshare", "-rm", "sh", "-c", f'mount --bind {numbered} {inside} && exec "$@"', "sh")
    with process(HOLD, inside, wrapper=mounting):
        with pytest.raises(ProjectLocked, match="another of its names"), Project.write(numbered):
            pass
    with Project.write(numbered), process(_trying(ProjectLocked), inside, wrapper=mounting):
        pass


# --- odd neighbours


def beside(project):
    """Return what may lie beside a project."""
    return {
        "lock": lock_path(project),
        "journal": journal_path(project),
        "unborn journal": unborn_path(journal_path(project)),
        "unborn": unborn_path(project),
    }


KINDS = ("named pipe", "device", "link", "dangling link", "folder", "socket")


def put(path, kind):
    """Put something else than a file there; return what shows that nobody touched it."""
    target = path.parent.parent / "precious"
    if kind == "named pipe":
        os.mkfifo(path)
    elif kind == "device":
        if os.geteuid() != 0:
            pytest.skip("only root can make a device")
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    elif kind == "link":
        target.write_text("precious")
        path.symlink_to(target)
    elif kind == "dangling link":
        path.symlink_to(target)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        path.mkdir()
    return lambda: target.read_text() if target.exists() else None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["lock", "journal", "unborn journal", "unborn"])
def test_an_odd_neighbour_is_refused_by_its_kind_and_left_alone(numbered, kind, where):
    neighbour = beside(numbered)[where]
    content = put(neighbour, kind)
    before, kept = neighbour.lstat(), content()
    named = "a link" if "link" in kind else f"a {kind}"
    with pytest.raises(InputError, match=named), Project.write(numbered):
        pass
    if where == "journal":
        with pytest.raises(InputError, match=named), Project.read(numbered):
            pass
    else:
        assert value(numbered) == 0
    now = neighbour.lstat()
    assert (now.st_ino, now.st_mode, content()) == (before.st_ino, before.st_mode, kept)
    assert where == "lock" or not lock_path(numbered).exists()


@pytest.mark.parametrize("kind", ["dangling link", "folder"])
@pytest.mark.parametrize("where", ["lock", "unborn", "journal", "unborn journal"])
def test_a_new_project_meets_them_too(tmp_path, where, kind):
    path = tmp_path / "folder" / "p.h5"
    path.parent.mkdir()
    put(beside(path)[where], kind)
    with pytest.raises(InputError, match=r"a (link|folder)"):
        write(path, 1, Project.create)
    assert not (tmp_path / "precious").exists()
    assert not path.exists()


def test_a_file_of_the_users_with_the_journals_name_is_kept(numbered):
    journal_path(numbered).write_text("my journal")
    assert value(numbered) == 0
    heard = []
    with Project.write(numbered, heard.append):
        pass
    journal_path(numbered).write_text("my second journal")
    with Project.write(numbered, heard.append):
        pass
    kept = sorted(p.read_text() for p in numbered.parent.glob("p.h5.journal.foreign*"))
    assert kept == ["my journal", "my second journal"]


def test_the_journal_of_a_project_that_was_deleted_is_no_concern_of_a_new_one(tmp_path):
    path = tmp_path / "p.h5"
    journal_path(path).write_text("of an older project")
    write(path, 1, Project.create)
    assert value(path) == 1
    assert (tmp_path / "p.h5.journal.foreign").read_text() == "of an older project"


def test_a_journal_that_would_fill_the_memory_is_refused(numbered):
    with journal_path(numbered).open("wb") as file:
        file.truncate(1 << 40)
    for way in (Project.read, Project.write):
        with pytest.raises(InputError, match="more than tomoseg writes"), way(numbered):
            pass


def test_a_project_that_appears_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "p.h5"
    with Project.create(path) as project, pytest.raises(StageFailed, match="File exists"):  # noqa: PT012
        with project.transaction(record(1)) as outputs:
            outputs.put("shifts_px", [[1.0, 1.0]])
            path.write_text("of another program")
            outputs.commit(record(1))
    assert path.read_text() == "of another program"


# --- permissions


def test_what_lies_beside_a_private_project_is_private(numbered):
    numbered.chmod(0o600)
    with Project.read(numbered):
        write(numbered, 1)
        assert journal_path(numbered).stat().st_mode & 0o777 == 0o600
    write(numbered, 2)
    compact(numbered, lambda: None, str, break_lock=False)
    assert numbered.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_a_new_project_has_the_permissions_of_the_users_mask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write(tmp_path / "p.h5", 1, Project.create)
    finally:
        os.umask(before)
    assert (tmp_path / "p.h5").stat().st_mode & 0o777 == 0o666 & ~mask
