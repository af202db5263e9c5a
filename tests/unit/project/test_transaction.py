"""A stage's outputs aside until they replace the old ones: continued, restarted, failed, upgraded, compacted."""

import errno
import gzip
import json
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from tomoseg import schema
from tomoseg.errors import InputError, Interrupted, StageFailed
from tomoseg.project import Project, Record, compact, disk

SHAPE = (20, 64, 300)  # 1.5 MB, so that its space is reserved


def _record(number, stage="align", fingerprint="f", consumed=None):
    return Record(
        stage, f"{number:032d}", fingerprint, 1, {}, {}, consumed or {}, f"2026-01-{number + 1:02d}", 0, 0, ""
    )


@contextmanager
def _stage(path, record, **options):
    """Run a stage that ends well unless its body raises."""
    with Project.write(path) as project, project.transaction(record, **options) as outputs:
        yield outputs
        outputs.commit(record)


@pytest.fixture
def path(tmp_path):
    """Return a project whose `aligned` is all 1."""
    path = tmp_path / "p.h5"
    with Project.create(path) as project, project.transaction(_record(0)) as outputs:
        outputs.create("aligned", SHAPE)[:] = 1
        outputs.commit(_record(0))
    return path


def _aligned(path):
    with h5py.File(path, "r") as file:
        return file[schema.ALIGNED.path][:]


def _interrupt(path, record, slabs, error=Interrupted):
    """Write `slabs` of two tilts each with a checkpoint after each, then stop."""
    with pytest.raises(error), _stage(path, record) as outputs:  # noqa: PT012
        sink = outputs.create("aligned", SHAPE)
        for i in range(slabs):
            sink[2 * i : 2 * i + 2] = 10 + i
            outputs.checkpoint({"slabs": i + 1, "sum": 0.1 * i})
        sink[2 * slabs : 2 * slabs + 2] = -1  # of the slab at hand
        raise error("stopped")


def test_an_interrupted_stage_is_continued_from_its_last_checkpoint(path):
    _interrupt(path, _record(1), 4)
    assert (_aligned(path) == 1).all()  # the old result stands
    with Project.read(path) as project:
        assert project.partial("align").state == {"slabs": 4, "sum": 0.1 * 3}
    with _stage(path, _record(2)) as outputs:
        assert outputs.resumed == {"slabs": 4, "sum": 0.1 * 3}
        sink = outputs.create("aligned", SHAPE)
        for i in range(4, 10):
            sink[2 * i : 2 * i + 2] = 10 + i
    np.testing.assert_array_equal(_aligned(path)[:, 0, 0], np.repeat(10 + np.arange(10), 2))
    with Project.read(path) as project:
        assert project.record("align").continues == _record(1).run_id
        assert [r.outcome for r in project.history()] == ["done", "interrupted", "done"]
        assert project.partial("align") is None


@pytest.mark.parametrize("other", [{"fingerprint": "g"}, {"consumed": {"import": "x"}}])
def test_with_other_parameters_or_inputs_it_begins_anew(path, other):
    _interrupt(path, _record(1), 4)
    with _stage(path, _record(2, **other)) as outputs:
        assert outputs.resumed is None
        outputs.create("aligned", SHAPE)[:] = 5
    assert (_aligned(path) == 5).all()


def test_what_was_written_can_be_read_back_and_written_again(path):
    with _stage(path, _record(1)) as outputs:
        sink = outputs.create("aligned", SHAPE)
        sink[:] = np.arange(SHAPE[0])[:, None, None]
        outputs.checkpoint({})
        sink[4:8] = 2 * sink[4:8]
        np.testing.assert_array_equal(sink[3:9, 0, 0], [3, 8, 10, 12, 14, 8])
    np.testing.assert_array_equal(_aligned(path)[3:9, 0, 0], [3, 8, 10, 12, 14, 8])


def test_a_restart_begins_anew(path):
    _interrupt(path, _record(1), 4)
    with _stage(path, _record(2), restart=True) as outputs:
        assert outputs.resumed is None
        outputs.create("aligned", SHAPE)[:] = 5


def test_without_a_checkpoint_nothing_is_left(path):
    _interrupt(path, _record(1), 0)
    with h5py.File(path, "r") as file:
        assert list(file[schema.STAGING]) == []
    assert (_aligned(path) == 1).all()


def test_a_partial_result_goes_when_what_it_was_made_from_is_replaced(path):
    reader = _record(1, "reconstruct", consumed={"align": "x"})
    with pytest.raises(Interrupted), _stage(path, reader) as outputs:  # noqa: PT012
        outputs.create("volume", SHAPE)[:4] = 3
        outputs.checkpoint({"slabs": 1})
        raise Interrupted("stopped")
    with _stage(path, _record(2)) as outputs:
        outputs.create("aligned", SHAPE)[:] = 2
    with Project.read(path) as project:
        assert project.partial("reconstruct") is None


def test_a_full_disk_is_told_and_costs_nothing(path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StageFailed, match="No space left"), _stage(path, _record(1)) as outputs:  # noqa: PT012
        sink = outputs.create("aligned", SHAPE)
        sink[:2] = 7
        monkeypatch.setattr(disk, "write", full)
        sink[2:] = 7
    monkeypatch.undo()
    assert (_aligned(path) == 1).all()
    with _stage(path, _record(2)) as outputs:
        outputs.create("aligned", SHAPE)[:] = 8
    assert (_aligned(path) == 8).all()


def test_a_run_whose_process_went_down_is_known_as_lost(path):
    with Project.write(path) as project:
        project.transaction(_record(1)).__enter__()  # and never leaves
    with _stage(path, _record(2)) as outputs:
        outputs.create("aligned", SHAPE)[:] = 2
    with Project.read(path) as project:
        assert [r.outcome.split(":")[0] for r in project.history()] == ["done", "lost", "done"]


def test_compact_gives_space_back_and_changes_nothing_else(path):
    for i in range(1, 4):
        with _stage(path, _record(i)) as outputs:
            outputs.create("aligned", SHAPE, attrs={"names": ["a", "β"]})[:] = i
    before = path.stat().st_size
    saved = compact(path, lambda: None, str, break_lock=False)
    assert path.stat().st_size == before - saved < 0.6 * before
    assert (_aligned(path) == 3).all()
    with Project.read(path) as project:
        assert [r.run_id for r in project.history()] == [_record(i).run_id for i in range(4)]
        assert project.artifact(schema.ALIGNED).attrs["names"] == ["a", "β"]
    assert [p.name for p in path.parent.iterdir()] == ["p.h5"]


def test_an_interrupted_compact_leaves_the_project(path):
    before = path.read_bytes()

    def stop():
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        compact(path, stop, str, break_lock=False)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["p.h5"]


def test_a_project_of_schema_1_opens_and_goes_on(tmp_path):
    """The file was written by the last tomoseg of schema 1."""
    path = tmp_path / "old.h5"
    old = gzip.decompress((Path(__file__).parents[2] / "data" / "project_schema_1.h5.gz").read_bytes())
    path.write_bytes(old)
    with Project.read(path) as project:
        assert project.record("reconstruct").parameters["iterations"] == 5
        assert {r.outcome for r in project.history()} == {"done"}
        labels = project.artifact(schema.LABELS)[:]
    assert path.read_bytes() == old  # reading upgrades in memory
    with _stage(path, _record(1, "segment")) as outputs:
        outputs.create("labels", labels.shape)[:] = labels + 1
    with h5py.File(path, "r") as file:
        assert file.attrs[schema.SCHEMA_ATTR] == schema.SCHEMA_VERSION
        np.testing.assert_array_equal(file[schema.LABELS.path][:], labels + 1)
        assert file[schema.VOLUME.path].shape == labels.shape


@pytest.mark.parametrize("how", ["huge", "external", "virtual", "link", "type"])
def test_what_tomoseg_does_not_write_is_refused(path, tmp_path, how):
    """A stranger's file may claim sizes that are not there, or lead to other files."""
    where = schema.ALIGNED.path
    with h5py.File(path, "r+") as file:
        del file[where]
        if how == "huge":
            file.create_dataset(where, (10**6, 10**6, 100), "f4", chunks=(8, 64, 64))
        elif how == "external":
            file.create_dataset(where, (2, 3, 4), "f4", external=[(tmp_path / "secret", 0, 96)])
        elif how == "virtual":
            file.create_virtual_dataset(where, h5py.VirtualLayout((2, 3, 4), "f4"))
        elif how == "link":
            file[where] = h5py.ExternalLink("other.h5", "/data")
        else:
            file[where] = np.zeros((2, 3, 4), "f8")
    with pytest.raises(InputError, match="not what tomoseg writes"), Project.read(path) as project:
        project.artifact(schema.ALIGNED)


def test_a_record_that_makes_no_sense_is_refused(path):
    with h5py.File(path, "r+") as file:
        attrs = file["/provenance/align"].attrs
        attrs["record"] = json.dumps(json.loads(attrs["record"]) | {"files": ["x"], "wall_seconds": "long"})
    with Project.read(path) as project, pytest.raises(InputError, match="provenance"):
        project.record("align")


def test_the_key_of_a_record_is_what_decides_its_result():
    record = _record(1)
    assert replace(record, run_id="other", started="later", host="elsewhere").key == record.key
    assert replace(record, versions={"tomoseg": "9"}).key != record.key
