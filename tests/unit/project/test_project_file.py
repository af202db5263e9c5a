"""Transactions, attributes, and one writer at a time."""

import json
import subprocess
import sys
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

from tomoseg import schema
from tomoseg.errors import InputError, StageFailed
from tomoseg.project import Project, Record, is_project


def _record(run_id="a" * 32, stage="align"):
    return Record(stage, run_id, "f", 1, {"method": "none"}, {}, {}, "2026-01-01T00:00:00+00:00", 1.5, 1 << 20, "cpu")


@contextmanager
def _stage(path, run_id="a" * 32, stage="align", opener=Project.write):
    """Run a stage that ends well unless its body raises."""
    with opener(path) as project, project.transaction(_record(run_id, stage)) as outputs:
        yield outputs
        outputs.commit(_record(run_id, stage))


def _write(path, values, run_id="a" * 32, opener=Project.write):
    with _stage(path, run_id, opener=opener) as outputs:
        outputs.put("shifts_px", values)
        outputs.set_attrs("alignment_info", {"method": "none"})


@pytest.fixture
def project_path(tmp_path):
    path = tmp_path / "p.h5"
    _write(path, np.ones((3, 2)), opener=Project.create)
    return path


def test_what_was_committed_reads_back_with_plain_h5py(project_path):
    with h5py.File(project_path, "r") as file:
        assert file.attrs[schema.SCHEMA_ATTR] == schema.SCHEMA_VERSION
        np.testing.assert_array_equal(file["/alignment/shifts_px"][:], np.ones((3, 2)))
        assert file["/alignment"].attrs["method"] == "none"
        assert file["/provenance/align"].attrs["run_id"] == "a" * 32
        assert json.loads(file["/provenance/align"].attrs["parameters"]) == {"method": "none"}


def test_a_second_commit_replaces_the_first_whole(project_path):
    with _stage(project_path, "b" * 32) as outputs:
        outputs.put("tilt_quality", np.zeros(2, dtype=[("angle_deg", "f8"), ("name", "U5")]))
    with Project.read(project_path) as project:
        assert not project.has(schema.SHIFTS)  # of the first commit, which is gone
        assert project.has(schema.TILT_QUALITY)
        assert project.record("align").run_id == "b" * 32
        assert project.past_record("a" * 32).run_id == "a" * 32


def test_a_stage_that_does_not_commit_keeps_the_old_result(project_path):
    with Project.write(project_path) as project, pytest.raises(StageFailed, match="without committing"):
        with project.transaction(_record("b" * 32)) as outputs:
            outputs.put("shifts_px", np.zeros((9, 2)))
    with Project.read(project_path) as project:
        np.testing.assert_array_equal(project.artifact(schema.SHIFTS)[:], np.ones((3, 2)))


def test_large_metadata_fit(tmp_path):
    """HDF5's old format refuses attributes over 64 KiB; a long series has more metadata than that."""
    path, text = tmp_path / "p.h5", "x" * 300_000
    with _stage(path, stage="import", opener=Project.create) as outputs:
        outputs.put("angles_deg", np.arange(3.0))
        outputs.set_attrs("tilt_series_info", {"metadata": text})
    with Project.read(path) as project:
        assert project.artifact(schema.TILT_SERIES_INFO).attrs["metadata"] == text


def test_tables_with_text_columns_read_back(project_path):
    table = np.array([("α-phase", 1.5), ("Pt", 2.5)], dtype=[("name", "U8"), ("volume_nm3", "f8")])
    with _stage(project_path, "c" * 32, "measure") as outputs:
        outputs.put("class_table", table)
    with Project.read(project_path) as project:
        read = project.artifact(schema.CLASS_TABLE)[:]
        assert [name.decode() for name in read["name"]] == ["α-phase", "Pt"]
        np.testing.assert_array_equal(read["volume_nm3"], [1.5, 2.5])


def test_rerunning_a_stage_reuses_its_space(project_path):
    """Twelve generations of 8.2 MB may take two: the new one is written before the old one is freed."""
    for i in range(12):
        with _stage(project_path, f"{i:032d}") as outputs:
            outputs.create("aligned", (20, 320, 320))[:] = i
    assert project_path.stat().st_size < 2.1 * 24 * 320 * 320 * 4  # whole chunks of 8 tilts are stored


def test_files_that_are_no_projects_are_refused(tmp_path):
    other, text = tmp_path / "other.h5", tmp_path / "text.h5"
    h5py.File(other, "w").close()
    text.write_text("hello")
    for path in (other, text, tmp_path / "absent.h5"):
        assert not is_project(path)
        with pytest.raises(InputError), Project.read(path):
            pass


def test_a_project_of_a_newer_schema_is_refused(project_path):
    with h5py.File(project_path, "r+") as file:
        file.attrs[schema.SCHEMA_ATTR] = schema.SCHEMA_VERSION + 1
    with pytest.raises(InputError, match="newer tomoseg"), Project.read(project_path):
        pass


def test_create_never_overwrites(project_path):
    before = project_path.read_bytes()
    with pytest.raises(InputError, match="already exists"), Project.create(project_path):
        pass
    assert project_path.read_bytes() == before


def test_a_project_is_readable_while_a_stage_writes(project_path):
    code = "import sys, tomoseg.cli; tomoseg.cli.main(['status', sys.argv[1]])"
    with _stage(project_path, "d" * 32) as outputs:
        sink = outputs.create("aligned", (4, 300, 300))
        sink[:] = 1.0
        looked = subprocess.run([sys.executable, "-c", code, project_path], capture_output=True, text=True, check=False)
    assert looked.returncode == 0, looked.stderr
    assert "align" in looked.stdout


def test_a_project_can_be_read_outside_with_until_it_is_closed(project_path):
    before = project_path.read_bytes()
    project = Project.read(project_path)
    shifts = project.artifact(schema.SHIFTS)
    assert (shifts.shape, shifts[1].tolist()) == ((3, 2), [1.0, 1.0])
    assert project.record("align").parameters == {"method": "none"}
    project.close()
    project.close()  # again does no harm
    with pytest.raises(InputError, match=r"p\.h5 is closed"):
        shifts[1]
    assert project_path.read_bytes() == before
    _write(project_path, np.zeros((3, 2)), "b" * 32)  # nothing is held
    with Project.read(project_path) as project:
        assert project.artifact(schema.SHIFTS)[1].tolist() == [0.0, 0.0]


def test_a_project_opens_after_its_writer_was_killed(project_path):
    code = "import os, sys; from pathlib import Path; from tomoseg.project import Project, Record\n"
    code += "record = Record('align', 'e' * 32, 'f', 1, {}, {}, {}, 'then', 0, 0, '')\n"
    code += "with Project.write(Path(sys.argv[1])) as p, p.transaction(record) as o:\n"
    code += "    o.create('aligned', (4, 300, 300))[:] = 1.0\n    os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", code, project_path], check=False)
    assert killed.returncode == -9
    heard = []
    with Project.write(project_path, heard.append) as project:
        np.testing.assert_array_equal(project.artifact(schema.SHIFTS)[:], np.ones((3, 2)))
    assert "took over the lock" in heard[0]


def test_arrays_are_read_through_a_cache_of_the_size_asked_for(project_path):
    with _stage(project_path, "d" * 32) as outputs:
        sink = outputs.create("aligned", (48, 512, 512))  # 48 MiB
        sink[:] = np.arange(512, dtype=np.float32)
    code = "import sys; from pathlib import Path; from tomoseg import schema; from tomoseg.project import Project\n"
    code += "def held():\n    lines = Path('/proc/self/status').read_text().splitlines()\n"
    code += "    return next(int(line.split()[1]) for line in lines if line.startswith('VmRSS'))\n"
    code += "with Project.read(Path(sys.argv[1])) as p:\n    a = p.artifact(schema.ALIGNED, int(sys.argv[2])); a[0]\n"
    code += "    before = held()\n    assert sum(float(a[i].mean()) for i in range(48)) == 48 * 255.5\n"
    code += "    print(held() - before)"
    grown = [
        int(subprocess.run([sys.executable, "-c", code, project_path, str(n)], capture_output=True, check=True).stdout)
        for n in (1 << 20, 64 << 20)
    ]
    # KiB. The large cache keeps what was read, the small one a chunk or two.
    assert grown[0] < 8 << 10
    assert grown[1] > 32 << 10
