"""What is fresh, stale or missing, and what a run does, on a pipeline of three toy stages over real artifacts."""

import os
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

from tomoseg import config, engine, schema
from tomoseg.errors import InputError, Interrupted, NotReady, StageFailed
from tomoseg.parameters import Field, InputFile, Parameters, ThisRun
from tomoseg.project import Project, provenance
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
    dare: Annotated[bool, ThisRun] = Field(default=False, description="permission")
    table: InputFile | None = Field(default=None, description="more numbers")


def _read(*, params, runtime, outputs):
    outputs.put("angles_deg", np.loadtxt(params.raw))


def _scale(*, angles_deg, params, runtime, outputs):
    sink = outputs.create("shifts_px", (len(angles_deg[:]), 2))
    for i in runtime.track(range(len(angles_deg[:])), "scaling"):
        sink[i] = params.factor * angles_deg[i]
    runtime.say("scaled")


def _sum(*, shifts_px, params, runtime, outputs):
    more = np.loadtxt(params.table).sum() if params.table else 0
    outputs.put("residuals", np.array([shifts_px[:].sum() + more]))
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
        return engine.run(project, config.resolve(*layers, stored=project.settings), Runtime(), **options)


def _states(path, *layers, compare=False):
    with Project.read(path) as project:
        settings = config.resolve(*layers, stored=project.settings)
        return {s.name: s for s in engine.states(project, settings, compare=compare)}


def _touch(path, hours=1):
    """Change the time of a file and nothing else."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + int(hours * 3.6e12)))


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
    raw.write_text("1\n2\n14\n")
    assert _states(made)["import"].reasons == [f"raw file {raw} has another size than when it was read"]
    assert _states(made, compare=True)["import"].reasons == [f"raw file {raw} has changed"]
    _run(made)
    assert _sum_of(made) == 2 * 2 * (1 + 2 + 14)
    assert [s.state for s in _states(made).values()] == ["fresh"] * 3


def test_a_raw_file_moved_away_leaves_the_project_fresh(made, raw):
    raw.unlink()
    assert [s.state for s in _states(made).values()] == ["fresh"] * 3


def test_a_touched_but_equal_raw_file_is_no_change_for_a_run(made, raw):
    before = _run_ids(made)
    _touch(raw)
    said = f"raw file {raw} was touched since it was read; the next run compares its content"
    assert _states(made)["import"].reasons == [said]
    _run(made)
    assert _run_ids(made) == before
    assert _states(made)["import"].reasons == [said]  # nothing was written
    _run(made, {"scale": {"factor": 5}})  # a run that writes anyway notes the new time
    assert [s.state for s in _states(made).values()] == ["fresh"] * 3
    assert [name for name, run_id in _run_ids(made).items() if run_id == before[name]] == ["import"]


def test_looking_opens_no_file_that_a_project_names(made, raw, monkeypatch):
    def refused(*_):
        raise AssertionError("opened")

    _touch(raw)
    monkeypatch.setattr(engine, "sha256", refused)
    monkeypatch.setattr(engine, "alignment_digest", refused)
    assert _states(made)["import"].state == "stale"
    with pytest.raises(AssertionError, match="opened"):
        _run(made)


@pytest.mark.parametrize("kind", ["pipe", "folder", "dangling link", "loop", "a file for a folder"])
def test_what_stands_where_a_file_was_is_as_good_as_gone(made, raw, kind):
    raw.unlink()
    if kind == "pipe":
        os.mkfifo(raw)
    elif kind == "folder":
        raw.mkdir()
    elif kind == "a file for a folder":
        raw.symlink_to(made / "x")
    else:
        raw.symlink_to(raw if kind == "loop" else "nowhere")
    for compare in (False, True):
        assert [s.state for s in _states(made, compare=compare).values()] == ["fresh"] * 3


def test_what_may_no_longer_be_read_keeps_its_recorded_facts(made, raw, monkeypatch):
    def refused(_path):
        raise PermissionError(13, "Permission denied")

    _touch(raw)
    monkeypatch.setattr(engine, "sha256", refused)
    assert [s.state for s in _states(made, compare=True).values()] == ["fresh"] * 3


# ---------------------------------------------------------------- what only the project names


def test_a_permission_holds_for_one_run_and_makes_nothing_stale(made):
    given = {"sum": {"dare": True}}
    assert _states(made, given)["sum"].state == "fresh"
    _run(made, given, {"scale": {"factor": 3}})
    with Project.read(made) as project:
        assert project.record("sum").parameters["dare"] is True
        assert "dare" not in project.settings["sum"]
        assert config.resolve(stored={"sum": {"dare": True}})["sum"].dare is False
    assert [s.state for s in _states(made).values()] == ["fresh"] * 3


def test_a_file_that_only_the_project_names_is_not_read(made, tmp_path):
    (tmp_path / "away").mkdir()
    secret = tmp_path / "away" / "secret.txt"
    secret.write_text("1\n")
    before = made.read_bytes()
    with Project.write(made) as project:
        settings = config.resolve(stored={**project.settings, "sum": {"table": str(secret)}})
        with pytest.raises(InputError) as refused:
            engine.run(project, settings, Runtime())
        with pytest.raises(InputError, match="no run of sum has read; add --set"):
            engine.run_one(project, "sum", settings, Runtime())
    assert str(refused.value) == (
        f"The project names {secret} as sum.table, which no run of sum has read; add --set sum.table={secret} to use "
        "it."
    )
    assert made.read_bytes() == before


def test_a_file_that_was_named_once_is_read_again(made, tmp_path):
    (tmp_path / "away").mkdir()
    table = tmp_path / "away" / "table.txt"
    table.write_text("1\n")
    _run(made, {"sum": {"table": str(table)}})
    assert _sum_of(made) == 25
    table.write_text("2\n")
    _touch(table)
    _run(made)
    assert _sum_of(made) == 26
    _run(made, {"sum": {"table": None}})
    _run(made, {"scale": {"factor": 3}})
    for make in (os.mkfifo, lambda path: path.symlink_to(path)):
        table.unlink()
        make(table)
        with Project.write(made) as project:
            settings = config.resolve(stored={**project.settings, "sum": {"table": str(table)}})
            with pytest.raises(InputError, match="is no regular file"):
                engine.run(project, settings, Runtime())


def test_a_file_beside_the_project_may_be_read_unless_it_is_a_link_away(made, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    moved = shutil.move(made, folder / "p.h5")
    (folder / "table.txt").write_text("1\n")
    (tmp_path / "secret.txt").write_text("2\n")
    (folder / "link.txt").symlink_to("../secret.txt")

    def run_with(name):
        with Project.write(moved) as project:
            settings = config.resolve(stored={**project.settings, "sum": {"table": str(folder / name)}})
            engine.run(project, settings, Runtime())

    run_with("table.txt")
    assert _sum_of(moved) == 25
    with pytest.raises(InputError, match=r"link\.txt as sum\.table"):
        run_with("link.txt")


def test_paths_of_a_project_are_suggested_as_a_shell_takes_them(made, tmp_path):
    (tmp_path / "away").mkdir()
    odd = tmp_path / "away" / "$(touch x) \x1b[31m;"
    odd.write_text("1\n")
    with Project.write(made) as project:
        settings = config.resolve(stored={**project.settings, "sum": {"table": str(odd)}})
        with pytest.raises(InputError) as refused:
            engine.run(project, settings, Runtime())
    assert f"--set sum.table='{tmp_path}/away/$(touch x) ?[31m;' to use it" in str(refused.value)


# ---------------------------------------------------------------- a clock that jumps


def test_the_order_of_runs_is_known_whatever_the_clock_says(tmp_path, raw, monkeypatch):
    class Clock(datetime):
        hours = iter([0, 5, -7, 3, -1000, 2, 1, -3, 9])

        @classmethod
        def now(cls, zone=None):
            return datetime.now(zone) + timedelta(hours=next(cls.hours))

    monkeypatch.setattr(provenance, "datetime", Clock)
    path = tmp_path / "p.h5"
    with Project.create(path) as project:
        engine.run(project, config.resolve({"import": {"raw": str(raw)}}), Runtime())
    for factor in (3, 4, 5):
        _run(path, {"scale": {"factor": factor}})
    with Project.read(path) as project:
        runs = project.history()
        assert [run.sequence for run in runs] == list(range(1, 10))
        assert [run.parameters.get("factor") for run in runs if run.stage == "scale"] == [2, 3, 4, 5]
        assert [run.started for run in runs] != sorted(run.started for run in runs)
        assert project.record("scale").sequence == 8
    assert [s.state for s in _states(path).values()] == ["fresh"] * 3
    assert _sum_of(path) == 60


def test_runs_of_earlier_versions_come_first_in_the_order_of_their_clock(made):
    from tomoseg.project import transaction

    with Project.write(made) as project:
        file = project.for_writing()
        for run in project.history():
            old = replace(run, sequence=0, started=f"2099-{run.sequence}")
            transaction._write_record(file, f"{schema.HISTORY}/{run.run_id}", old)
        project.settle()
    _run(made, {"sum": {"fail": "", "table": None}, "scale": {"factor": 7}})
    with Project.read(made) as project:
        assert [run.stage for run in project.history()] == ["import", "scale", "sum", "scale", "sum"]


def test_a_file_beside_the_raw_one_that_is_used_unnamed_is_noticed(made, raw):
    beside = raw.with_suffix(".more")
    beside.write_text("4\n")
    assert _states(made)["import"].reasons == [f"more none -> {beside}"]
    _run(made)
    assert _states(made)["import"].state == "fresh"
    beside.write_text("15\n")
    assert _states(made, compare=True)["import"].reasons == [f"more file {beside} has changed"]
    assert _states(made)["import"].reasons == [f"more file {beside} has another size than when it was read"]
    _run(made)
    beside.unlink()  # the project holds what was in it
    raw.unlink()
    assert [s.state for s in _states(made).values()] == ["fresh"] * 3


def test_a_new_stage_version_makes_its_result_stale(made, monkeypatch):
    newer = tuple(replace(s, version=2) if s.name == "scale" else s for s in engine.STAGES)
    monkeypatch.setattr(engine, "STAGES", newer)
    assert _states(made)["scale"].reasons == ["tomoseg's scale has changed since then"]


def _stage_with(monkeypatch, name, **changes):
    stages = tuple(replace(s, **changes) if s.name == name else s for s in engine.STAGES)
    for module in (engine, config):
        monkeypatch.setattr(module, "STAGES", stages)
        monkeypatch.setattr(module, "BY_NAME", {s.name: s for s in stages})


def test_a_parameter_that_comes_later_makes_nothing_stale_until_it_is_set(made, monkeypatch):
    class Later(ScaleParameters):
        offset: float = Field(default=0.0, description="to add")

    _stage_with(monkeypatch, "scale", parameters=Later)
    assert _states(made)["scale"].state == "fresh"
    assert _states(made, {"scale": {"factor": 3}})["scale"].reasons == ["factor 2.0 -> 3.0"]
    assert _states(made, {"scale": {"offset": 1}})["scale"].reasons == ["offset none -> 1.0"]


def test_what_was_imported_from_a_file_that_is_gone_stays_as_it_is(made, raw, monkeypatch):
    _stage_with(monkeypatch, "import", version=2, source="raw")
    assert _states(made)["import"].reasons == ["tomoseg's import has changed since then"]
    raw.unlink()
    assert _states(made)["import"].state == "fresh"
    raw.write_text("1\n2\n4\n")
    assert _states(made, compare=True)["import"].state == "stale"


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
