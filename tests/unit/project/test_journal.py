"""The bytes of a project file: what is committed stays until the next commit is certain."""

import errno
import os

import numpy as np
import pytest

from tomoseg.project import disk
from tomoseg.project.journal import Journal, JournaledFile, read_journal, recover
from tomoseg.project.looking import Look
from tomoseg.project.names import journal_path, unborn_path

SUPERBLOCK = b"\x89HDF\r\n\x1a\n\x02\x08\x08\x00" + bytes(8) + b"\xff" * 8  # then the end of the file, 8 bytes


@pytest.fixture
def path(tmp_path):
    """Return a committed file of 20 000 random bytes behind a superblock that says so."""
    path = tmp_path / "p.h5"
    path.write_bytes(_content(0, 20_000))
    return path


def _content(seed, size):
    random = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()
    return SUPERBLOCK + size.to_bytes(8, "little") + random[36:]


def _put(file, start, data):
    file.seek(start)
    file.write(data)


def _get(file, start, length):
    file.seek(start)
    buffer = bytearray(length)
    file.readinto(buffer)
    return bytes(buffer)


def _journal(path):
    look = Look(path)
    try:
        return read_journal(path, look.fd)
    finally:
        look.close()


def _looked(path):
    look = Look(path)
    try:
        return JournaledFile.look(path, look.fd, read_journal(path, look.fd))
    finally:
        look.close()


def _commit_without_applying(path, monkeypatch, *writes):
    """Commit, but have the process stop before the journal is applied."""

    class Stopped(Exception):
        pass

    def stop(*_):
        raise Stopped

    file = JournaledFile.open(path)
    for start, data in writes:
        _put(file, start, data)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "apply", stop)
        with pytest.raises(Stopped):
            file.commit()
    file.close()


def test_it_reads_back_what_was_written_like_any_file(path):
    """Random writes, reads, commits and roll-backs against a plain byte array."""
    rng = np.random.default_rng(1)
    model = committed = bytearray(path.read_bytes())
    file = JournaledFile.open(path)
    for _ in range(300):
        what = rng.choice(["write", "read", "commit", "roll back", "lend"], p=[0.5, 0.35, 0.06, 0.04, 0.05])
        start, length = int(rng.integers(36, len(model) + 300)), int(rng.choice([1, 7, 100, 5000, 9000]))
        if what == "write":
            data = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
            _put(file, start, data)
            model = model + bytes(max(0, start - len(model)))
            model[start : start + length] = data
        elif what == "read":
            wanted = bytes(model[start : start + length])
            assert _get(file, start, length) == wanted + bytes(length - len(wanted))
        elif what == "commit":
            file.commit()
            committed = bytearray(model)
            assert path.read_bytes() == bytes(model)
            assert not journal_path(path).exists()
        elif what == "roll back":
            file.roll_back()
            model = bytearray(committed)
            assert path.read_bytes() == bytes(committed)
    file.commit()
    assert path.read_bytes() == bytes(model)


def test_until_the_commit_the_disk_holds_the_old_state(path):
    before = path.read_bytes()
    file = JournaledFile.open(path)
    _put(file, 1000, b"x" * 12_000)
    _put(file, 19_990, b"y" * 50_000)  # over the end: what is past it goes to the disk, what is before it does not
    assert path.read_bytes()[:20_000] == before
    assert len(path.read_bytes()) == 69_990
    file.close()
    assert _get(_looked(path), 0, 20_000) == before


def test_only_lent_space_is_written_in_place(path):
    before = path.read_bytes()
    file = JournaledFile.open(path)
    file.lend([(5000, 6000), (8000, 9000)])
    _put(file, 4000, b"x" * 6000)
    now = path.read_bytes()
    assert now[5000:6000] == now[8000:9000] == b"x" * 1000
    assert now[:5000] + now[6000:8000] + now[9000:] == before[:5000] + before[6000:8000] + before[9000:]
    file.commit()
    assert path.read_bytes()[4000:10_000] == b"x" * 6000


def test_a_complete_journal_is_the_new_state(path, monkeypatch):
    before = path.read_bytes()
    _commit_without_applying(path, monkeypatch, (100, b"new" * 2000), (15_000, b"z"))
    assert path.read_bytes() == before
    wanted = before[:100] + b"new" * 2000 + before[6100:15_000] + b"z" + before[15_001:]
    assert _get(_looked(path), 0, 20_000) == wanted
    assert path.read_bytes() == before  # looking changes nothing
    assert "completed" in recover(path)
    assert path.read_bytes() == wanted
    assert not journal_path(path).exists()
    assert recover(path) == ""


@pytest.mark.parametrize("applied", [0, 3000, 5999])
def test_a_journal_applied_in_part_is_applied_again(path, monkeypatch, applied):
    before = path.read_bytes()
    _commit_without_applying(path, monkeypatch, (100, b"new" * 2000))
    with path.open("r+b") as f:
        f.seek(100)
        f.write((b"new" * 2000)[:applied])
    recover(path)
    assert path.read_bytes() == before[:100] + b"new" * 2000 + before[6100:]


def test_a_journal_cut_short_is_the_old_state(path, monkeypatch):
    before = path.read_bytes()
    _commit_without_applying(path, monkeypatch, (100, b"new" * 2000))
    journal = journal_path(path)
    complete = journal.read_bytes()
    for length in (0, 10, 40, 60, 500, len(complete) - 1):
        journal.write_bytes(complete[:length])
        assert _journal(path) is None
        assert "discarded" in recover(path)
        assert path.read_bytes() == before
        assert not journal.exists()


def test_a_journal_of_another_state_of_the_file_is_not_applied(path, monkeypatch):
    _commit_without_applying(path, monkeypatch, (100, b"new" * 2000))
    backup = _content(7, 20_000)
    path.write_bytes(backup)  # as when a copy is put back
    assert _journal(path) is None
    assert "moved to" in recover(path)
    assert path.read_bytes() == backup
    assert journal_path(path).with_name("p.h5.journal.foreign").exists()


@pytest.mark.parametrize("operation", ["write", "sync", "create", "sync_folder"])
def test_a_disk_that_fails_before_the_journal_is_complete_leaves_the_old_state(path, monkeypatch, operation):
    before = path.read_bytes()
    file = JournaledFile.open(path)
    _put(file, 100, b"new")

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(disk, operation, fail)
        with pytest.raises(OSError, match="No space left"):
            file.commit()
    file.roll_back()
    assert _get(file, 0, 20_000) == before
    _put(file, 100, b"again")
    file.commit()
    assert path.read_bytes() == before[:100] + b"again" + before[105:]


@pytest.mark.parametrize("operation", ["sync", "sync_folder"])
def test_the_journal_of_a_commit_that_failed_may_come_back(path, monkeypatch, operation):
    """It was removed, but its removal may not survive a power loss; the space it refers to was given up."""
    before, kept = path.read_bytes(), []
    file = JournaledFile.open(path)
    _put(file, 100, b"new")
    _put(file, len(before), b"longer")
    calls = []

    def fail_second(*_):
        calls.append(1)
        if len(calls) == (2 if operation == "sync" else 1):  # of the journal, or of its name
            journal = journal_path(path)
            kept.append((unborn_path(journal) if operation == "sync" else journal).read_bytes())
            raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(disk, operation, fail_second)
        with pytest.raises(OSError, match="broken"):
            file.commit()
    file.roll_back()
    file.close()
    journal_path(path).write_bytes(kept[0])
    assert _journal(path) is None
    recover(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("failing", ["remove", "sync_folder"])
def test_a_disk_that_fails_after_the_journal_was_applied_leaves_the_new_state(path, monkeypatch, failing):
    """The file has grown: cutting it back to its old length would lose what was committed."""
    before, real = path.read_bytes(), getattr(disk, failing)
    file = JournaledFile.open(path)
    _put(file, 100, b"new")
    _put(file, len(before), b"longer")
    calls = []

    def fail_at_the_end(*arguments):
        calls.append(arguments)
        if len(calls) == (2 if failing == "sync_folder" else 1):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(disk, failing, fail_at_the_end)
        with pytest.raises(OSError, match="quota"):
            file.commit()
    file.roll_back()
    file.close()
    recover(path)
    assert path.read_bytes() == before[:100] + b"new" + before[103:] + b"longer"


def test_an_error_while_hdf5_writes_is_told_at_the_commit(path, monkeypatch):
    """HDF5 cannot undo what it is doing, so that it must not hear of it."""
    before = path.read_bytes()
    file = JournaledFile.open(path)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        _put(file, 20_000, b"x" * 100)
    _put(file, 20_100, b"x" * 100)
    with pytest.raises(OSError, match="broken"):
        file.commit()
    file.roll_back()
    assert path.read_bytes() == before


def test_a_new_file_whose_name_may_not_be_certain_is_not_emptied(tmp_path, monkeypatch):
    file = JournaledFile.create(tmp_path / "p.h5")
    _put(file, 0, b"x" * 10_000)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync_folder", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        with pytest.raises(OSError, match="broken"):
            file.commit()
    file.roll_back()
    assert (tmp_path / "p.h5").read_bytes() == b"x" * 10_000


def test_a_new_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "p.h5"
    file = JournaledFile.create(path)
    _put(file, 0, b"x" * 10_000)
    assert not path.exists()
    assert unborn_path(path).exists()
    file.commit()
    assert path.read_bytes() == b"x" * 10_000
    assert not unborn_path(path).exists()
    assert not journal_path(path).exists()
