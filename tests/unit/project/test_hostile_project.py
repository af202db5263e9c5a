"""A project file from a stranger: links are not followed, and what makes no sense is one clear error."""

import hashlib
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from tests.conftest import tomoseg
from tomoseg import schema
from tomoseg.errors import InputError
from tomoseg.project import Project
from tomoseg.project.journal import MAGIC
from tomoseg.project.names import journal_path

OPEN = """
import sys
from pathlib import Path
from tomoseg import schema
from tomoseg.errors import InputError
from tomoseg.project import Project
try:
    with Project.read(Path(sys.argv[1])) as project:
        for artifact in schema.ARTIFACTS:
            project.has(artifact)
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "where",
    [schema.ALIGNED.path, "/measurement", "/provenance/import", "/provenance/history/x", "/staging/align", "/settings"],
)
def test_no_link_is_followed(project, tmp_path, where):
    # Whoever opens this pipe to read waits for ever.
    os.mkfifo(tmp_path / "trap.h5")
    with h5py.File(project, "r+") as file:
        if where in file:
            del file[where]
        file[where] = h5py.ExternalLink(str(tmp_path / "trap.h5"), "/x")
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(project)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "it is a link, which is not followed for safety" in done.stdout


def test_a_link_of_someone_else_beside_the_data_does_no_harm(project, tmp_path):
    os.mkfifo(tmp_path / "trap.h5")
    with h5py.File(project, "r+") as file:
        file["mine/other"] = h5py.ExternalLink(str(tmp_path / "trap.h5"), "/x")
        file["mine/same"] = h5py.SoftLink("/tilt_series/data")
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(project)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == ""


def test_a_link_in_an_old_project_is_not_written_through(project, tmp_path):
    """Opening an old project upgrades its records, in memory; a link would lead that to another file."""
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other.attrs["record"] = json.dumps({"a": 1})
    before = (tmp_path / "other.h5").read_bytes()
    with h5py.File(project, "r+") as file:
        file.attrs[schema.SCHEMA_ATTR] = 1
        file["/provenance/other"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
    with pytest.raises(InputError, match="it is a link"), Project.read(project):
        pass
    assert (tmp_path / "other.h5").read_bytes() == before


def settings(content):
    def change(file):
        file["/settings"].attrs["parameters"] = content

    return change


def record(**changes):
    def change(file):
        attrs = file["/provenance/align"].attrs
        attrs["record"] = json.dumps(json.loads(attrs["record"]) | changes)

    return change


def array_instead_of(path):
    def change(file):
        del file[path]
        file[path] = np.zeros(3)

    return change


def version(value):
    def change(file):
        file.attrs[schema.SCHEMA_ATTR] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        settings("[]"),
        settings("{"),
        settings("[" * 100_000),
        settings(5),
        settings('{"reconstruct": 5}'),
        settings('{"reconstruct": {"iterations": "many"}}'),
        settings('{"\\u001b[31m": {}}'),
        record(consumed=[]),
        record(wall_seconds="long"),
        record(started=None),
        record(more=1),
        record(warnings=["\ud800"]),
        array_instead_of("/provenance"),
        array_instead_of("/provenance/history"),
        array_instead_of("/provenance/align"),
        array_instead_of("/settings"),
        version("two"),
        version(np.inf),
        version(np.arange(3)),
        version(-1),
        version(99),
    ],
)
def test_status_of_what_makes_no_sense(project, change):
    with h5py.File(project, "r+") as file:
        change(file)
    done = tomoseg("status", project, "--verbose", code=2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 1000
    assert "\x1b[31m" not in done.stderr


def test_a_result_of_an_unknown_stage_was_consumed(project):
    with h5py.File(project, "r+") as file:
        record(consumed={"magic": "123"})(file)
    assert "magic is missing" in tomoseg("status", project).stdout


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"size": 1, "runs": 5}',
        b'{"size": 1, "runs": [[1, 2, 3]]}',
        b'{"size": 1, "runs": [["a", "b"]]}',
        b'{"size": -1, "runs": [[-5, -5]]}',
        b'{"size": 1e400, "runs": [[0, 1e400]]}',
        b'{"size": 1, "runs": [[1180591620717411303424, 1180591620717411303424]]}',
        b'{"size": 1, "runs": [[4611686018427387904, 4]]}',
    ],
    ids=lambda head: str(head[:40]),
)
def test_a_journal_by_another_hand_changes_nothing(project, head):
    """Its sum is right, as anybody can make it."""
    before = project.read_bytes()
    payload = head + b"\noldnew"
    journal_path(project).write_bytes(MAGIC + hashlib.sha256(payload).digest() + payload)
    for way in (Project.read, Project.write):
        with way(project) as opened:
            assert opened.record("import") is not None
    assert project.read_bytes() == before


def test_an_array_that_unpacks_to_more_than_its_bytes_can_hold(project):
    with h5py.File(project, "r+") as file:
        path, size = schema.ALIGNED.path, 2 << 20
        del file[path]
        file.create_dataset(path, (200, 512, 1024), "f4", chunks=(1, 512, 1024), compression="gzip")
        for i in range(200):
            file[path].id.write_direct_chunk((i, 0, 0), b"\0" * 8)
    assert project.stat().st_size < size
    with Project.read(project) as opened, pytest.raises(InputError, match="it claims"):
        opened.artifact(schema.ALIGNED)


def test_what_a_terminal_would_obey_is_not_printed(project):
    with h5py.File(project, "r+") as file:
        record(host="lab\x1b[2J\x07", notes=["one\ntwo\x9b31m"])(file)
    said = tomoseg("status", project, "--verbose").stdout
    assert "lab?[2J?" in said
    assert "one two?31m" in said
    assert said.replace("\n", "").isprintable()
