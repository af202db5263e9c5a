"""A small project, stages that write it, and processes that hold it."""

import subprocess
import sys
from contextlib import contextmanager

import pytest

from tomoseg.project import Project, Record, opened

SHAPE = (20, 64, 300)  # 1.5 MB, so that its space is reserved


def record(number, stage="align"):
    """Return the provenance of run `number`."""
    return Record(stage, f"{number:032d}", "f", 1, {}, {}, {}, f"2026-01-01T00:00:00.{number:03d}+00:00")


def write(path, number, opener=Project.write, **options):
    """Run a stage whose results are all `number`."""
    with opener(path, **options) as project, project.transaction(record(number)) as outputs:
        outputs.create("aligned", SHAPE)[:] = number
        outputs.put("shifts_px", [[float(number)] * 2] * SHAPE[0])
        outputs.commit(record(number))


@pytest.fixture
def numbered(tmp_path, monkeypatch):
    """Return a project, all of whose results are 0, in a folder of its own; writers do not wait for readers."""
    monkeypatch.setattr(opened, "FINISH_SECONDS", 0.0)
    path = tmp_path / "folder" / "p.h5"
    path.parent.mkdir()
    write(path, 0, Project.create)
    return path


@contextmanager
def process(code, *arguments, wrapper=()):
    """Run Python code in a process, which says that it is ready by a line, and ends when its stdin is closed."""
    command = [*wrapper, sys.executable, "-c", code, *map(str, arguments)]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with running:
        assert running.stdout.readline().strip() == "ready"
        yield running
        running.stdin.close()


HOLD = """
import sys
from pathlib import Path
from tomoseg.project.lock import writing
with writing(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""
