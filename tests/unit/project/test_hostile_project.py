"""A project file from a stranger: links are not followed, and what makes no sense is one clear error."""

import hashlib
import json
import os
import subprocess
import sys
import zlib

import h5py
import numpy as np
import pytest

from tests.conftest import tomoseg
from tests.fuzz import bombs
from tomoseg import schema
from tomoseg.errors import InputError
from tomoseg.project import Project
from tomoseg.project.journal import MAGIC
from tomoseg.project.names import journal_path
from tomoseg.project.validate import CheckedDataset

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


READ_ALL = """
import resource, sys
from pathlib import Path
from tomoseg.errors import InputError
from tomoseg.project import Project
in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + (3 << 30),) * 2)
def used():
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
before = used()
try:
    with Project.read(Path(sys.argv[1])) as project:
        project.history(), project.settings
        for one in project.artifacts().values():
            dict(one.attrs), one[:] if 0 not in one.shape else None
except InputError as error:
    print(error)
print((used() - before) / 1024)
"""


def read_all(path):
    """Read all that is in a project in a process of its own; return what is said, and the memory that it took, MiB."""
    command = [sys.executable, "-c", READ_ALL, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    *said, peak = done.stdout.splitlines()
    return "\n".join(said), float(peak)


def test_a_sound_project_takes_little_memory(project):
    said, peak = read_all(project)
    assert said == ""
    assert peak < 50


@pytest.mark.parametrize("what", bombs.PROJECTS)
def test_a_project_that_unpacks_to_far_more_than_it_is(project, what):
    project.write_bytes(bombs.PROJECTS[what](project.read_bytes()))
    said, peak = read_all(project)
    assert "is not what tomoseg writes" in said or "takes far more memory than its size suggests" in said
    assert "Traceback" not in said
    assert len(said) < 500
    assert peak < 200  # the gigabytes are in none of them


def packing(chunks, *filters):
    """Return how an array is to be stored: in chunks that go through filters, by the names of h5py."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(chunks)
    for one in filters:
        getattr(plist, one)()
    return plist


@pytest.mark.parametrize(
    ("shape", "chunks", "n_gzip", "message"),
    [
        ((64, 64, 64), (64, 16, 64), 2, "compressed in a way that tomoseg does not use"),
        ((512, 512, 512), (512, 512, 512), 1, "compressed in pieces of 134217728 bytes"),
        ((1 << 15, 1, 1 << 14), (64, 1, 64), 1, "a plane of it has 536870912 bytes"),
    ],
)
def test_what_an_interrupted_run_left_may_not_be_packed_otherwise(project, shape, chunks, n_gzip, message):
    with h5py.File(project, "r+") as file:
        plist = packing(chunks, *["set_deflate"] * n_gzip)
        file.create_dataset(f"/staging/segment{schema.LABELS.path}", shape, "u1", dcpl=plist)
    with pytest.raises(InputError, match=message), Project.read(project):
        pass


def test_what_an_interrupted_run_left_need_not_be_complete(project):
    with h5py.File(project, "r+") as file:
        for artifact, dtype in ((schema.LABELS, "u1"), (schema.VOLUME, "f4")):
            name = f"/staging/segment{artifact.path}"
            file.create_dataset(name, (640, 640, 640), dtype, chunks=(64, 16, 64), compression="gzip")
            file[name][:64, :16, :64] = 1
    with Project.read(project) as opened:
        assert opened.has(schema.LABELS)


PIECE = bytes(range(256)) * 256


@pytest.mark.parametrize(
    ("stored", "mask", "is_sound"),
    [
        (zlib.compress(PIECE), 0, True),
        (PIECE, 1, True),  # stored without the filter, as HDF5 does where that saves nothing
        (zlib.compress(PIECE + b"\0"), 0, False),
        (zlib.compress(PIECE[:-1]), 0, False),
        (PIECE[:-1], 1, False),
        (PIECE + b"\0", 1, False),
        (zlib.compress(PIECE)[:-20], 0, False),
    ],
    ids=["packed", "plain", "one more", "one less", "plain and less", "plain and more", "cut off"],
)
def test_a_chunk_unpacks_to_the_bytes_of_one(project, stored, mask, is_sound):
    with h5py.File(project, "r+") as file:
        old = file[schema.LABELS.path]
        old.id.write_direct_chunk((0, 16, 0), stored, mask)
    with Project.read(project) as opened:
        if is_sound:
            assert opened.artifact(schema.LABELS)[:, 16:32].tobytes() == PIECE
        else:
            with pytest.raises(InputError, match="65536 bytes"):
                opened.artifact(schema.LABELS)[:, 17:19]
        if not mask:  # what is stored in more than a chunk has is seen before any of it is read
            assert opened.artifact(schema.LABELS)[:, :16].shape == (64, 16, 64)


@pytest.mark.parametrize(
    "key",
    [
        (slice(None),),
        (slice(3, 9), slice(None), slice(60, 70)),
        (..., 5),
        (7, ..., slice(2, 3)),
        (-1,),
        (slice(None, None, 3), 2, slice(40, 3)),
        ([1, 5], slice(None), slice(None)),
        (slice(9, 2),),
    ],
    ids=str,
)
def test_a_checked_array_is_read_as_any(tmp_path, key):
    values = np.random.default_rng(1).integers(0, 3, (70, 33, 65)).astype(np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        node = file.create_dataset("a", (70, 33, 65), "u1", chunks=(16, 16, 16), compression="gzip")
        node[:20] = values[:20]  # of the others, nothing is stored
        values[20:] = 0
        np.testing.assert_array_equal(CheckedDataset(node.id)[key], node[key])
        np.testing.assert_array_equal(node[key], values[tuple(key)])


def test_the_order_of_filters_is_that_of_tomoseg(project):
    """Shuffled after it was packed, a chunk could not be looked at."""
    with h5py.File(project, "r+") as file:
        del file[schema.LABELS.path]
        plist = packing((64, 16, 64), "set_deflate", "set_shuffle")
        file.create_dataset(schema.LABELS.path, (64, 64, 64), "u1", dcpl=plist)[:] = 1
    with Project.read(project) as opened, pytest.raises(InputError, match="compressed in a way that"):
        opened.artifact(schema.LABELS)


@pytest.mark.slow
def test_legal_labels_of_great_size_are_read_slab_by_slab(project, tmp_path):
    """A volume of 1 GB and labels of 0.3 GB, in 2 MB: nothing is wrong with them."""
    project.write_bytes(bombs.legal_labels(project.read_bytes(), 512))
    assert project.stat().st_size < 8 << 20
    code = (
        "import resource, runpy, sys; sys.argv[0] = 'tomoseg'\n"
        "try: runpy.run_module('tomoseg', run_name='__main__')\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    limits = {"report": 900, "segment": 360}  # MiB; of these, 140 and 230 are libraries
    for command, options in {"report": ("-o", tmp_path / "r.html"), "segment": ("--max-memory", "128M")}.items():
        line = [sys.executable, "-W", "ignore", "-c", code, command, project, *options]
        done = subprocess.run([*map(str, line)], capture_output=True, text=True, check=False)
        assert float(done.stdout.splitlines()[-1]) < limits[command], done.stderr
