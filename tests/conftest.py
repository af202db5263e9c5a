"""Fixtures shared by all tests. The real program runs once per session; other tests build on what it made."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Keep converted networks out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("LOCALAPPDATA", str(tmp_path_factory.mktemp("local")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real tilt series and labelled slices, or skip."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not present at {SHARED_DATA}")
    return SHARED_DATA


def tomoseg(*arguments, code=0, cwd=None):
    """Run the program as a user would and check its exit code; returns the completed process."""
    command = [sys.executable, "-W", "ignore", "-m", "tomoseg", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == code, f"exit {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
    return done


@dataclass(frozen=True)
class Run:
    """A finished `tomoseg run` on a simulated series."""

    project: Path
    raw: Path
    truth: Path
    stdout: str


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Run:
    """Return a whole run on a small simulated catalyst, for tests that need a project rather than a good result."""
    folder = tmp_path_factory.mktemp("small")
    run = Run(folder / "small.h5", folder / "small.mrc", folder / "truth.h5", "")
    shape = ("--size", 64, "--particles", 6, "--step", 6, "--jitter", 1, "--drift", 2)
    tomoseg("simulate", "-o", run.raw, "--truth", run.truth, *shape)
    done = tomoseg("run", run.raw, "-o", run.project, "--progress", "plain")
    return Run(run.project, run.raw, run.truth, done.stdout)


@pytest.fixture
def project(small_run, tmp_path) -> Path:
    """Return a copy of the small project, to be changed at will."""
    return shutil.copy(small_run.project, tmp_path / "copy.h5")
