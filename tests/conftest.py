"""Fixtures shared by all tests. The real program runs once per session; other tests build on what it made."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


def _data_folder() -> Path:
    """Return the folder of real data: $TOMOSEG_TEST_DATA, or one in the user's cache, or one beside the checkout."""
    named = os.environ.get("TOMOSEG_TEST_DATA")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tomoseg-test-data"
    beside = Path(__file__).parents[2] / "shared" / "data"
    return Path(named) if named else next((folder for folder in (cache, beside) if folder.is_dir()), cache)


REAL_DATA = _data_folder()  # found at once: tests have a cache folder of their own


class RealData:
    """The folder of real tilt series and labelled slices: `real_data / "tilt-series/needle/HAADF.mrc"`, or a skip."""

    def __truediv__(self, name: str) -> Path:
        path = REAL_DATA / name
        if not path.exists():
            pytest.skip(f"{name} is not in {REAL_DATA} ($TOMOSEG_TEST_DATA names another folder of test data)")
        return path


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Keep converted networks out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("LOCALAPPDATA", str(tmp_path_factory.mktemp("local")))
        yield


@pytest.fixture(scope="session")
def real_data() -> RealData:
    """Return the real data; a test that asks for a file that is not there is skipped."""
    return RealData()


BY_THRESHOLDS = ["--set", "segment.method=otsu"]


def tomoseg(*arguments, code=0, cwd=None):
    """Run the program as a user would and check its exit code; returns the completed process.

    `run` labels by thresholds unless the arguments say how: loading a network takes seconds.
    """
    words = list(map(str, arguments))
    if words[0] == "run" and not any(word == "--pipeline" or word.startswith("segment.") for word in words):
        words += BY_THRESHOLDS
    if words[0] == "segment" and "--model" in words and "--method" not in words:
        words += ["--method", "auto"]
    command = [sys.executable, "-W", "ignore", "-m", "tomoseg", *words]
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
