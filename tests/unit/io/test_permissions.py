"""Files are made with the permissions of any new file of the user's, and are private until they are complete."""

import os
import stat
import threading
from pathlib import Path

import pytest

from tomoseg.io.atomic import atomic_folder, atomic_path


@pytest.fixture
def umask():
    """Set the umask of this process for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077, 0o027, 0])
def test_a_new_file_or_folder_has_the_permissions_of_any_other(tmp_path, umask, mask):
    umask(mask)
    (tmp_path / "plain").touch()
    (tmp_path / "plain folder").mkdir()
    with atomic_path(tmp_path / "file") as temporary:
        assert mode(temporary) == 0o600
        temporary.write_text("x")
    with atomic_folder(tmp_path / "folder") as temporary:
        assert mode(temporary) == 0o700
        (temporary / "x").touch()
    assert mode(tmp_path / "file") == mode(tmp_path / "plain") == 0o666 & ~mask
    assert mode(tmp_path / "folder") == mode(tmp_path / "plain folder") == 0o777 & ~mask
    assert mode(tmp_path / "folder" / "x") == mode(tmp_path / "plain")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "plain", "plain folder"]


def test_a_folder_of_a_group_stays_one(tmp_path, umask):
    umask(0o002)
    tmp_path.chmod(0o2775)
    (tmp_path / "plain").mkdir()
    with atomic_folder(tmp_path / "folder"):
        pass
    assert mode(tmp_path / "folder") == mode(tmp_path / "plain")


def test_other_threads_keep_their_umask(tmp_path, umask):
    umask(0o022)
    done = threading.Event()
    modes = set()

    def make_files(folder):
        n = 0
        while not done.is_set() or n < 50:
            path = folder / str(n)
            path.touch()
            modes.add(mode(path))
            n += 1

    other = tmp_path / "other"
    other.mkdir()
    thread = threading.Thread(target=make_files, args=(other,))
    thread.start()
    for n in range(100):
        with atomic_path(tmp_path / f"{n}") as temporary:
            temporary.write_text("x")
    done.set()
    thread.join()
    assert modes == {0o644}


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    from tomoseg.errors import InputError

    for atomic in (atomic_path, atomic_folder):
        with pytest.raises(InputError, match="name a folder that exists"), atomic(Path(tmp_path / "none" / "x")):
            pass
