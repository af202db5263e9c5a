"""A project that an earlier version made opens as it was, with the same arrays, and is brought up to date."""

import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import tomoseg as ts
from tests.conftest import tomoseg

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def older(tmp_path):
    """Return a copy of a project made by tomoseg 0.1.0 before its functions could be called from Python."""
    path = tmp_path / "older.h5"
    path.write_bytes(gzip.decompress((DATA / "project_0_1.h5.gz").read_bytes()))
    return path


def test_what_has_changed_since_is_said(older):
    """The raw series is on another machine: what was imported stays, and what the alignment does has changed."""
    states = {s["name"]: s for s in json.loads(tomoseg("status", older, "--json").stdout)["stages"]}
    assert [name for name, state in states.items() if state["state"] == "fresh"] == ["import"]
    assert states["align"]["reasons"][0] == "tomoseg's align has changed since then"


def test_a_run_brings_it_up_to_date_without_the_raw_file(older):
    with h5py.File(older) as file:
        imported = file["/provenance/import"].attrs["run_id"]
        volume, shifts = file["/reconstruction/volume"][:], file["/alignment/shifts_px"][:]
    tomoseg("run", older)
    with h5py.File(older) as file:
        assert file["/provenance/import"].attrs["run_id"] == imported
        np.testing.assert_allclose(file["/alignment/shifts_px"][:], shifts, atol=0.3)
        assert np.corrcoef(file["/reconstruction/volume"][:].ravel(), volume.ravel())[0, 1] > 0.97
    states = json.loads(tomoseg("status", older, "--json").stdout)["stages"]
    assert {state["state"] for state in states} == {"fresh"}


def test_python_reads_it(older):
    with h5py.File(older) as file:
        volume, shifts = file["/reconstruction/volume"][:], file["/alignment/shifts_px"][:]
        diameters = file["/measurement/particles"]["diameter_nm"]
    with ts.open_project(older) as project:
        np.testing.assert_array_equal(project.volume[:], volume)
        np.testing.assert_array_equal(project.shifts_px, shifts)
        np.testing.assert_array_equal(project.particles["diameter_nm"], diameters)
        assert project.status().set_index("stage").loc["export", "state"] == "stale"
