"""Whoever looks at a project sees one state of it, whatever is written meanwhile."""

import errno
import fcntl
import os
import time

import h5py
import numpy as np
import pytest

from tests.unit.project.conftest import process, write
from tomoseg import schema
from tomoseg.errors import InputError, Interrupted, ProjectLocked
from tomoseg.project import Project, compact, looking
from tomoseg.project.names import journal_path


def seen(file):
    """Return the values in an open HDF5 file, all of which belong to one run."""
    return {*np.unique(file[schema.ALIGNED.path]), *np.unique(file[schema.SHIFTS.path])}


def test_readers_keep_what_they_opened_while_the_result_is_replaced_again_and_again(numbered):
    write(numbered, 1)  # so that there is free space to be used again
    with Project.read(numbered) as first, h5py.File(numbered, "r") as plain:
        handle = first.artifact(schema.ALIGNED, 1000)
        for number in range(2, 6):
            write(numbered, number)
            assert seen(plain) == seen(first.file) == {1}
            assert (handle[:] == 1).all()
            assert first.record("align").run_id == f"{1:032d}"
            with Project.read(numbered) as latest, h5py.File(numbered, "r") as other:
                assert seen(latest.file) == {number}
                assert seen(other) == {1}  # what is in the journal only, tomoseg alone sees
    write(numbered, 6)
    with h5py.File(numbered, "r") as plain:
        assert seen(plain) == {6}
    assert not journal_path(numbered).exists()


def test_readers_who_come_and_go_each_keep_their_own_state(numbered):
    """States of different sizes, the middle one open for longest."""
    opened = []
    for number in range(1, 8):
        write(numbered, number)
        opened.append((number, Project.read(numbered)))
        if number in (3, 5, 6):
            opened.pop(0 if number < 6 else 1)[1].close()
        for known, project in opened:
            assert seen(project.file) == {known}, (known, number)
    for _, project in opened:
        project.close()


def test_the_space_of_what_nobody_reads_is_used_again_after_readers_left(numbered):
    with Project.read(numbered):
        for number in range(1, 6):
            write(numbered, number)
    grown = numbered.stat().st_size
    for number in range(6, 10):
        write(numbered, number)
    assert numbered.stat().st_size <= grown


def test_a_stage_that_goes_on_while_readers_come_writes_into_no_state_of_theirs(numbered):
    """They open between its checkpoints, when its arrays have their space already."""
    write(numbered, 1)
    with Project.write(numbered) as project, project.transaction(project.record("align")) as outputs:
        sink = outputs.create("aligned", (40, 64, 300))
        readers = []
        for i in range(8):
            sink[5 * i : 5 * i + 5] = 100 + i
            outputs.checkpoint({"slabs": i})
            readers.append(Project.read(numbered))
        for reader in readers:
            assert seen(reader.file) == {1}
            reader.close()
        outputs.commit(project.record("align"))


def test_an_interrupted_stage_is_continued_in_front_of_readers(numbered):
    with Project.read(numbered) as before:
        with Project.write(numbered) as project, pytest.raises(Interrupted):  # noqa: PT012
            with project.transaction(project.record("align")) as outputs:
                outputs.create("aligned", (20, 64, 300))[:10] = 7
                outputs.checkpoint({"half": True})
                raise Interrupted("stopped")
        with Project.write(numbered) as project, project.transaction(project.record("align")) as outputs:
            assert outputs.resumed == {"half": True}
            outputs.create("aligned", (20, 64, 300))[10:] = 7
            outputs.put("shifts_px", [[7.0, 7.0]])
            outputs.commit(project.record("align"))
        assert seen(before.file) == {0}
    with Project.read(numbered) as project:
        assert seen(project.file) == {7}


def test_the_writer_says_that_others_still_look(numbered):
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'r'); print('ready', flush=True); sys.stdin.read()"
    heard = []
    with process(code, numbered) as reader:
        with Project.write(numbered, heard.append) as project, project.transaction(project.record("align")) as outputs:
            outputs.put("shifts_px", [[3.0, 3.0]])
            outputs.commit(project.record("align"))
        assert f"{reader.pid} (python" in heard[-1]
    heard.clear()
    with Project.write(numbered, heard.append):
        assert "completed the last commit" in heard[0]
    with h5py.File(numbered, "r") as plain:
        assert plain[schema.SHIFTS.path][0].tolist() == [3.0, 3.0]


def test_compacting_leaves_the_old_file_to_those_who_read_it(numbered):
    write(numbered, 1)
    with Project.read(numbered) as reader:
        write(numbered, 2)
        compact(numbered, lambda: None, str, break_lock=False)
        assert seen(reader.file) == {1}
        with h5py.File(numbered, "r") as plain:
            assert seen(plain) == {2}
    assert [p.name for p in numbered.parent.iterdir()] == ["p.h5"]


def test_another_program_that_writes_the_file_is_waited_for_and_then_told(numbered, monkeypatch):
    monkeypatch.setattr(looking, "PATIENCE", 0.2)
    with h5py.File(numbered, "r+"):
        for way in (Project.read, Project.write):
            with pytest.raises(ProjectLocked, match="Another program"), way(numbered):
                pass


def test_another_program_cannot_begin_to_write_a_file_that_is_open_here(numbered):
    code = "import h5py, sys\ntry:\n    h5py.File(sys.argv[1], 'r+')\nexcept OSError: print('ready', flush=True)"
    with Project.read(numbered), process(code, numbered):
        pass
    with Project.write(numbered) as project:
        project.for_writing()
        with process(code, numbered):
            pass


def test_without_locks_a_reader_notices_that_the_file_was_written(numbered, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Project.read(numbered) as project:
        shifts = project.artifact(schema.SHIFTS)
        assert (shifts[:] == 0).all()
        time.sleep(0.02)  # more than the clock of the file system ticks
        write(numbered, 1)
        with pytest.raises(InputError, match="was written by another process"):
            shifts[:]
        with pytest.raises(InputError, match="was written by another process"):
            project.record("align")
    with Project.read(numbered) as project:
        assert seen(project.file) == {1}
