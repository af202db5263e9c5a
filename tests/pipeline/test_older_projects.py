"""A project that an earlier version made opens as it was: fresh, with the same arrays, and is continued, not redone."""

import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import tomoseg as ts
from tests.conftest import tomoseg

DATA = Path(__file__).parents[1] / "data"
COMPUTED = ["import", "align", "reconstruct", "segment", "measure"]


@pytest.fixture
def older(tmp_path):
    """Return a copy of a project made by tomoseg 0.1.0 before its functions could be called from Python."""
    path = tmp_path / "older.h5"
    path.write_bytes(gzip.decompress((DATA / "project_0_1.h5.gz").read_bytes()))
    return path


def test_everything_in_it_is_fresh(older):
    """The raw series and the exported files are on another machine: only the files are missed."""
    states = {s["name"]: s for s in json.loads(tomoseg("status", older, "--json").stdout)["stages"]}
    assert [name for name, state in states.items() if state["state"] == "fresh"] == COMPUTED
    assert all("gone" in reason for reason in states["export"]["reasons"])


def test_a_run_computes_nothing_but_the_files(older):
    with h5py.File(older) as file:
        before = {name: file[f"/provenance/{name}"].attrs["run_id"] for name in COMPUTED}
        volume = file["/reconstruction/volume"][:]
    tomoseg("run", older)
    with h5py.File(older) as file:
        assert {name: file[f"/provenance/{name}"].attrs["run_id"] for name in COMPUTED} == before
        np.testing.assert_array_equal(file["/reconstruction/volume"][:], volume)


def test_python_reads_it(older):
    with h5py.File(older) as file:
        volume, shifts = file["/reconstruction/volume"][:], file["/alignment/shifts_px"][:]
        diameters = file["/measurement/particles"]["diameter_nm"]
    with ts.open_project(older) as project:
        np.testing.assert_array_equal(project.volume[:], volume)
        np.testing.assert_array_equal(project.shifts_px, shifts)
        np.testing.assert_array_equal(project.particles["diameter_nm"], diameters)
        assert project.status().set_index("stage").loc["export", "state"] == "stale"
