"""What is fresh, stale or missing, and what a run does, on a pipeline of three toy stages over real artifacts."""

from pathlib import Path

import numpy as np
import pytest

from tomoseg import config, engine, schema
from tomoseg.errors import InputError, Interrupted, NotReady, StageFailed
from tomoseg.parameters import Field, InputFile, Parameters
from tomoseg.project import Project
from tomoseg.runtime import Runtime
from tomoseg.stages.base import Stage


class ReadParameters(Parameters):
    raw: InputFile | None = Field(default=None, description="numbers")

    def companions(self):
        beside = Path(self.raw).with_suffix(".more")
        return {"more": beside} if beside.is_file() else {}


class ScaleParameters(Parameters):
    factor: float = Field(default=2.0, gt=0, description="scale")


class SumParameters(Parameters):
    fail: str = Field(default="", description="how to fail")


def _read(*, params, runtime, outputs):
    outputs.put("angles_deg", np.loadtxt(params.raw))


def _scale(*, angles_deg, params, runtime, outputs):
    sink = outputs.create("shifts_px", (len(angles_deg[:]), 2))
    for i in runtime.track(range(len(angles_deg[:])), "scaling"):
        sink[i] = params.factor * angles_deg[i]
    runtime.say("scaled")


def _sum(*, shifts_px, params, runtime, outputs):
    outputs.put("residuals", np.array([shifts_px[:].sum()]))
    if params.fail == "error":
        raise StageFailed("asked to fail")
    if params.fail == "interrupt":
        raise Interrupted("stopped")


@pytest.fixture(autouse=True)
def toy_stages(monkeypatch):
    stages = (
        Stage("import", 1, "", ReadParameters, (), (schema.ANGLES,), _read),
        Stage("scale", 1, "", ScaleParameters, (schema.ANGLES,), (schema.SHIFTS,), _scale),
        Stage("sum", 1, "", SumParameters, (schema.SHIFTS,), (schema.RESIDUALS,), _sum),
    )
    by_name = {s.name: s for s in stages}
    for module in (engine, config):
        monkeypatch.setattr(module, "STAGES", stages)
        monkeypatch.setattr(module, "BY_NAME", by_name)


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "raw.txt"
    path.write_text("1\n2\n3\n")
    return path


@pytest.fixture
def made(tmp_path, raw):
    """Return a project in which everything ran once."""
    path = tmp_path / "p.h5"
    with Project.create(path) as project:
        engine.run(project, config.resolve({"import": {"raw": str(raw)}}), Runtime())
    return path


def _run(path, *layers, **options):
    with Project.write(path) as project:
        return engine.run(project, config.resolve(project.settings, *layers), Runtime(), **options)


def _states(path, *layers):
    with Project.read(path) as project:
        return {s.name: s for s in engine.states(project, config.resolve(project.settings, *layers))}


def _run_ids(path):
    with Project.read(path) as project:
        return {name: project.record(name).run_id for name in ("import", "scale", "sum")}


def _sum_of(path):
    with Project.read(path) as project:
        return project.artifact(schema.RESIDUALS)[0]


def test_a_run_computes_everything_in_order(made):
    assert _sum_of(made) == 2 * 2 * (1 + 2 + 3)
    assert [s.state for s in _states(made).values()] == ["fresh"] * 3


def test_an_optional_input_is_there_only_where_it_was_made(made, monkeypatch):
    def scale(*, angles_deg, params, runtime, outputs):
        outputs.put("shifts_px", np.zeros((3, 2)))
        if params.factor > 2:
            outputs.put("refined_angles_deg", params.factor * angles_deg[:])

    def total(*, shifts_px, params, runtime, outputs, refined_angles_deg=None):
        outputs.put("residuals", np.array([-1.0 if refined_angles_deg is None else refined_angles_deg[:].sum()]))

    writes, reads = (schema.SHIFTS, schema.REFINED_ANGLES), (schema.SHIFTS, schema.REFINED_ANGLES)
    stages = (
        engine.STAGES[0],
        Stage("scale", 2, "", ScaleParameters, (schema.ANGLES,), writes, scale),
        Stage("sum", 2, "", SumParameters, reads, (schema.RESIDUALS,), total),
    )
    for module in (engine, config):
        monkeypatch.setattr(module, "STAGES", stages)
        monkeypatch.setattr(module, "BY_NAME", {s.name: s for s in stages})
    found = []
    for factor in (2, 3, 2):
        _run(made, {"scale": {"factor": factor}})
        found.append(_sum_of(made))
    assert found == [-1, 3 * (1 + 2 + 3), -1]


def test_a_second_run_does_nothing(made):
    before = _run_ids(made)
    _run(made)
    assert _run_ids(made) == before


def test_a_changed_parameter_reruns_that_stage_and_those_after_it(made):
    before = _run_ids(made)
    change = {"scale": {"factor": 5}}
    states = _states(made, change)
    assert [s.state for s in states.values()] == ["fresh", "stale", "stale"]
    assert states["scale"].reasons == ["factor 2.0 -> 5.0"]
    assert states["sum"].reasons == ["scale is stale"]
    _run(made, change)
    after = _run_ids(made)
    assert _sum_of(made) == 5 * 2 * (1 + 2 + 3)
    assert [name for name in before if before[name] != after[name]] == ["scale", "sum"]


def test_parameters_asked_for_once_are_remembered(made):
    _run(made, {"scale": {"factor": 5}})
    assert [s.state for s in _states(made).values()] == ["fresh"] * 3
    assert _states(made, {"scale": {"factor": 2}})["scale"].reasons == ["factor 5.0 -> 2.0"]


def test_a_stage_run_alone_makes_later_ones_stale_and_says_why(made):
    with Project.write(made) as project:
        engine.run_one(project, "scale", config.resolve(project.settings, {"scale": {"factor": 3}}), Runtime())
    states = _states(made)
    assert states["scale"].state == "fresh"
    assert states["sum"].state == "stale"
    assert states["sum"].reasons == ["scale was run again (factor 2.0 -> 3.0)"]


def test_a_stage_refuses_stale_inputs_unless_allowed(made):
    with Project.write(made) as project:
        engine.run_one(project, "import", config.resolve(project.settings), Runtime())
        settings = config.resolve(project.settings)
        with pytest.raises(NotReady, match=r"scale in .* is stale"):
            engine.run_one(project, "sum", settings, Runtime())
        engine.run_one(project, "sum", settings, Runtime(), allow_stale=True)
    assert _states(made)["sum"].reasons == ["scale is stale"]


def test_a_missing_input_is_refused_even_when_stale_is_allowed(tmp_path, raw):
    path = tmp_path / "p.h5"
    with Project.create(path) as project:
        settings = config.resolve({"import": {"raw": str(raw)}})
        engine.run(project, settings, Runtime(), last="import")
        with pytest.raises(NotReady, match="missing"):
            engine.run_one(project, "sum", settings, Runtime(), allow_stale=True)


def test_from_and_until_bound_the_run(made):
    before = _run_ids(made)
    _run(made, {"scale": {"factor": 5}}, last="scale")
    middle = _run_ids(made)
    assert [name for name in before if before[name] != middle[name]] == ["scale"]
    _run(made, first="sum")
    assert _sum_of(made) == 60
    with pytest.raises(NotReady):
        _run(made, {"scale": {"factor": 6}}, first="sum")
    with pytest.raises(InputError, match="comes after"):
        _run(made, first="sum", last="import")


def test_force_runs_what_is_fresh(made):
    before = _run_ids(made)
    _run(made, first="scale", force=True)
    after = _run_ids(made)
    assert [name for name in before if before[name] != after[name]] == ["scale", "sum"]


@pytest.mark.parametrize(("how", "error"), [("error", StageFailed), ("interrupt", Interrupted)])
def test_a_failed_stage_leaves_the_old_result(made, how, error):
    before = _run_ids(made)
    with pytest.raises(error):
        _run(made, {"sum": {"fail": how}})
    assert _run_ids(made) == before
    assert _sum_of(made) == 24
    with Project.read(made) as project:
        assert "/staging/sum" not in project._file


def test_a_changed_raw_file_is_noticed(made, raw):
    raw.write_text("1\n2\n4\n")
    states = _states(made)
    assert states["import"].reasons == [f"raw file {raw} has changed"]
    _run(made)
    assert _sum_of(made) == 2 * 2 * (1 + 2 + 4)


def test_a_raw_file_moved_away_leaves_the_project_fresh(made, raw):
    raw.unlink()
    assert [s.state for s in _states(made).values()] == ["fresh"] * 3


def test_a_touched_but_equal_raw_file_is_no_change(made, raw):
    raw.write_text("1\n2\n3\n")
    assert [s.state for s in _states(made).values()] == ["fresh"] * 3


def test_a_file_beside_the_raw_one_that_is_used_unnamed_is_noticed(made, raw):
    beside = raw.with_suffix(".more")
    beside.write_text("4\n")
    assert _states(made)["import"].reasons == [f"more none -> {beside}"]
    _run(made)
    assert _states(made)["import"].state == "fresh"
    beside.write_text("5\n")
    assert _states(made)["import"].reasons == [f"more file {beside} has changed"]
    _run(made)
    beside.unlink()  # the project holds what was in it
    raw.unlink()
    assert [s.state for s in _states(made).values()] == ["fresh"] * 3


def test_a_new_stage_version_makes_its_result_stale(made, monkeypatch):
    from dataclasses import replace

    newer = tuple(replace(s, version=2) if s.name == "scale" else s for s in engine.STAGES)
    monkeypatch.setattr(engine, "STAGES", newer)
    assert _states(made)["scale"].reasons == ["tomoseg's scale has changed since then"]


def test_a_failed_import_leaves_no_project(tmp_path, raw):
    raw.write_text("1\nx\n")
    path = tmp_path / "p.h5"
    with pytest.raises(ValueError, match="x"), Project.create(path) as project:
        engine.run(project, config.resolve({"import": {"raw": str(raw)}}), Runtime())
    assert [p.name for p in tmp_path.iterdir()] == ["raw.txt"]


def test_what_ran_is_recorded(made):
    with Project.read(made) as project:
        record = project.record("scale")
        assert record.parameters == {"factor": 2.0}
        assert record.consumed == {"import": project.record("import").run_id}
        assert record.notes == ["scaled"]
        assert record.versions["numpy"] == np.__version__
        assert record.peak_memory_bytes > 1 << 20
        assert project.past_record(record.run_id) == record
