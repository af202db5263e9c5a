"""What every stage must do, whatever it computes: run alone, reload, repeat, go stale, refuse, fail cleanly."""

import json
from dataclasses import dataclass

import h5py
import numpy as np
import pytest

from tests.conftest import tomoseg
from tomoseg.project import Project
from tomoseg.stages import BY_NAME, STAGES

NAMES = [stage.name for stage in STAGES]


@dataclass(frozen=True)
class Change:
    """A parameter of a stage, a value that is not its default, and one that it must refuse."""

    parameter: str
    other: str
    bad: str

    def option(self, value):
        return f"--{self.parameter.replace('_', '-')}", value


CHANGES = {
    "import": Change("pixel_size", "0.7", "-1"),
    "align": Change("tilt_axis_angle", "2.5", "north"),
    "reconstruct": Change("iterations", "3", "0"),
    "segment": Change("classes", "2", "1"),
    "measure": Change("min_voxels", "7", "-4"),
    "export": Change("formats", "[csv]", "[povray]"),
}


def _command(name, small_run, project):
    return ("import", small_run.raw, "-o", project) if name == "import" else (name, project)


def _status(project, *options):
    return {s["name"]: s for s in json.loads(tomoseg("status", project, "--json", *options).stdout)["stages"]}


def _arrays(project, stage):
    with h5py.File(project, "r") as file:
        return {a.name: file[a.path][()] for a in stage.writes if not a.is_group and a.path in file}


@pytest.mark.parametrize("name", NAMES)
def test_it_leaves_what_it_declares(name, small_run):
    with Project.read(small_run.project) as project:
        for artifact in BY_NAME[name].writes:
            if not project.has(artifact):
                assert artifact.optional, artifact.name
                continue
            stored = project.artifact(artifact)
            assert set(artifact.attrs) <= set(stored.attrs), artifact.name
            if not artifact.is_group:
                assert len(stored.shape) == len(artifact.dims), artifact.name
                assert not artifact.dtype or stored.dtype == artifact.dtype, artifact.name
                if stored.dtype.kind == "f" and "NaN" not in artifact.meaning:
                    assert np.isfinite(stored[...]).all(), artifact.name
        record = project.record(name)
    assert record.wall_seconds > 0
    assert record.parameters.keys() == BY_NAME[name].parameters.model_fields.keys()


@pytest.mark.parametrize("name", NAMES)
def test_run_alone_again_it_gives_the_same_and_makes_later_ones_stale(name, small_run, project):
    before = _arrays(project, BY_NAME[name])
    run_id = _status(project)[name]["run"]["run_id"]
    tomoseg(*_command(name, small_run, project))
    after = _arrays(project, BY_NAME[name])
    assert before.keys() == after.keys()
    for key in before:
        assert before[key].tobytes() == after[key].tobytes(), key  # to the bit, NaN in tables included
    states = _status(project)
    assert states[name]["state"] == "fresh"
    assert states[name]["run"]["run_id"] != run_id
    later = [other for other in NAMES[NAMES.index(name) + 1 :] if states[other]["state"] == "fresh"]
    # a later stage may stay fresh only if nothing it read comes from this one, directly or not
    reads = {s.name: {w.name for w in STAGES if any(a in s.reads for a in w.writes)} for s in STAGES}
    assert all(name not in reads[other] for other in later)


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_parameter_makes_it_stale_and_says_why(name, project):
    change = CHANGES[name]
    states = _status(project, "--set", f"{name}.{change.parameter}={change.other}")
    assert states[name]["state"] == "stale"
    assert any(reason.startswith(f"{change.parameter} ") for reason in states[name]["reasons"])
    assert all(states[other]["state"] == "fresh" for other in NAMES[: NAMES.index(name)])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_its_option_and_its_set_key_are_the_same_parameter(name, small_run, project):
    change = CHANGES[name]
    tomoseg(*_command(name, small_run, project), *change.option(change.other))
    assert _status(project, "--set", f"{name}.{change.parameter}={change.other}")[name]["state"] == "fresh"


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_parameter_changes_nothing(name, small_run, project):
    change = CHANGES[name]
    before = project.read_bytes()
    failed = tomoseg(*_command(name, small_run, project), *change.option(change.bad), code=2)
    assert f"{name}.{change.parameter}" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert project.read_bytes() == before


@pytest.mark.parametrize("name", NAMES[2:])
def test_without_its_input_it_is_refused(name, small_run, tmp_path):
    path = tmp_path / "only_imported.h5"
    tomoseg("import", small_run.raw, "-o", path)
    refused = tomoseg(name, path, code=3)
    assert "tomoseg run" in refused.stderr
    assert _status(path)[name]["state"] == "missing"
