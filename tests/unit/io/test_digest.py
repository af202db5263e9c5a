import hashlib
import os
from pathlib import Path

import pytest

from tomoseg.errors import InputError
from tomoseg.io.digest import sha256
from tomoseg.io.regular import open_regular, status_of


def test_the_digest_is_that_of_the_content_and_follows_it(tmp_path):
    path = tmp_path / "raw.bin"
    content = os.urandom(3_000_000)
    path.write_bytes(content)
    assert sha256(path) == hashlib.sha256(content).hexdigest()
    path.write_bytes(content[::-1] + b"more")
    assert sha256(path) == hashlib.sha256(content[::-1] + b"more").hexdigest()


def test_a_file_of_the_same_size_and_time_under_the_same_name_is_read_again(tmp_path):
    path = tmp_path / "raw.bin"
    path.write_bytes(b"one")
    first, status = sha256(path), path.stat()
    (tmp_path / "other").write_bytes(b"two")
    (tmp_path / "other").replace(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert sha256(path) == hashlib.sha256(b"two").hexdigest() != first


@pytest.mark.parametrize("kind", ["pipe", "folder", "/dev/zero", "link to a pipe"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "/dev/zero":
        path = Path(kind)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to("pipe")
    with pytest.raises(InputError, match="is not a regular file"):
        sha256(path)
    with pytest.raises(InputError, match="is not a regular file"):
        open_regular(path)
    assert status_of(path) is None


def test_a_file_that_never_ends_is_read_as_far_as_its_size(tmp_path):
    # Like /proc/kmsg: a regular file of size 0 that has more to tell, for as long as one listens.
    endless = Path("/proc/self/status")
    if not endless.exists():
        pytest.skip("no /proc")
    assert endless.stat().st_size == 0
    assert sha256(endless) == hashlib.sha256(b"").hexdigest()


def test_a_link_is_followed_unless_it_must_not_be(tmp_path):
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"text"
    with pytest.raises(InputError, match="a link"):
        open_regular(tmp_path / "link", follow=False)
    with open_regular(tmp_path / "file", follow=False) as file:
        assert file.read() == b"text"


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "none", "\ud800"])
def test_names_that_no_file_can_have_are_no_files(tmp_path, name):
    assert status_of(tmp_path / name) is None
