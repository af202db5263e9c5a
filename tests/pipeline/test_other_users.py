"""Projects that belong to somebody else: looking works wherever one may read, computing where one may write."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import tomoseg

NOBODY, GROUP = 65534, 61234
PROGRAM = [sys.executable, "-W", "ignore", "-m", "tomoseg"]
CHANGE = ("--set", "measure.min_voxels=9", "--progress", "none")


class Guest:
    """Another user of this machine, without any rights but those of all."""

    def __init__(self, home):
        self.home = home
        home.mkdir()
        os.chown(home, NOBODY, NOBODY)
        package = Path(__file__).parents[2]
        kept = {name: str(home) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR")}
        self.environment = {**os.environ, **kept, "PYTHONPATH": str(package)}

    def run(self, command, groups=()):
        become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}"]
        become += [f"--groups={','.join(map(str, groups))}"] if groups else ["--clear-groups"]
        return subprocess.run(
            [*become, *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            cwd=self.home,
            umask=0o002,
        )

    def __call__(self, *arguments, code=0, groups=()):
        done = self.run([*PROGRAM, *arguments], groups)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture
def place():
    """Return a folder that all may enter: those of pytest are private."""
    folder = Path(tempfile.mkdtemp(prefix="tomoseg-shared-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def guest(place):
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("becoming another user needs root and setpriv")
    guest = Guest(place / "home")
    if (tried := guest.run([sys.executable, "-c", "import numpy, h5py, tomoseg.cli"])).returncode != 0:
        pytest.skip(f"another user cannot run this Python: {tried.stderr.strip().splitlines()[-1]}")
    return guest


@pytest.fixture
def owned(project, place):
    """Return a complete project in a folder, both of this user and with a umask of 002."""
    (place / "lab").mkdir()
    path = Path(shutil.copy(project, place / "lab" / "p.h5"))
    command = [*PROGRAM, "run", str(path), "--set", "export.formats=csv", "--progress", "none"]
    subprocess.run(command, check=True, capture_output=True, umask=0o002)
    return path


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
def test_in_a_folder_to_read_one_can_look_and_not_compute(guest, owned):
    folder, before = owned.parent, content(owned.parent)
    folder.chmod(0o755)
    owned.chmod(0o644)
    assert "stale" not in guest("status", owned).stdout
    guest("report", owned, "-o", guest.home / "page.html")
    guest("history", owned)
    for command in (["run", owned, *CHANGE], ["run", owned], ["measure", owned], ["compact", owned]):
        refused = guest(*command, code=2).stderr
        assert refused.startswith("tomoseg: ")
        assert refused.count("\n") == 1
        assert str(folder) in refused
    assert content(folder) == before


@pytest.mark.slow
def test_a_file_to_read_in_a_folder_to_write_is_not_written(guest, owned):
    folder, before = owned.parent, content(owned.parent)
    folder.chmod(0o777)
    owned.chmod(0o644)
    assert "stale" not in guest("status", owned).stdout
    guest("run", owned)  # there is nothing to do
    for command in (["run", owned, *CHANGE], ["measure", owned, "--progress", "none"]):
        refused = guest(*command, code=2).stderr
        said = f"tomoseg: {owned} may only be read: ask its owner for the right to write, or work on a copy.\n"
        assert refused == said
    assert content(folder) == before
    mine = shutil.copy(owned, guest.home / "mine.h5")
    os.chown(mine, NOBODY, NOBODY)
    guest("run", mine, *CHANGE)


def test_what_one_may_not_see_is_not_lost(guest, owned):
    (owned.parent / "p_export").chmod(0o700)
    owned.parent.chmod(0o755)
    owned.chmod(0o644)
    assert "stale" not in guest("status", owned).stdout


def test_a_project_that_one_may_not_read_is_one_clear_error(guest, owned):
    owned.chmod(0o600)
    owned.parent.chmod(0o755)
    for command in (["status", owned], ["run", owned]):
        refused = guest(*command, code=2).stderr
        assert "is not readable" in refused
        assert "went wrong" not in refused


def test_a_group_shares_a_project(guest, owned):
    folder = owned.parent
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 0, GROUP)
        path.chmod(0o2775 if path.is_dir() else 0o664)
    guest("run", owned, *CHANGE, groups=[GROUP])
    assert "stale" not in tomoseg("status", owned).stdout
    for path in (folder, *folder.rglob("*")):
        status = path.stat()
        assert status.st_gid == GROUP, path
        assert stat.S_IMODE(status.st_mode) == (0o2775 if path.is_dir() else 0o664), path
    tomoseg("run", owned, "--set", "measure.min_voxels=8", "--progress", "none")
    assert {p.name for p in folder.iterdir()} == {"p.h5", "p_export"}
