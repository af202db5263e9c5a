import json
import os
import subprocess
import sys

import pytest

from tomoseg.errors import InputError
from tomoseg.export.manifest import MANIFEST, Manifest, lost_files


def write(manifest, name, text="x"):
    with manifest.writing(name) as path:
        path.write_text(text)


def test_own_files_may_be_replaced_and_others_not(tmp_path):
    first = Manifest(tmp_path)
    write(first, "a.csv")
    write(first, "b.csv")
    first.finish()
    (tmp_path / "b.csv").write_text("the user's notes")
    (tmp_path / "c.csv").write_text("the user's")
    assert Manifest(tmp_path).foreign(["a.csv", "b.csv", "c.csv", "d.csv"]) == ["b.csv", "c.csv"]


def test_same_size_but_touched_is_not_ours(tmp_path):
    manifest = Manifest(tmp_path)
    write(manifest, "a.csv", "1")
    (tmp_path / "a.csv").write_text("2")
    status = (tmp_path / "a.csv").stat()
    os.utime(tmp_path / "a.csv", ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    assert Manifest(tmp_path).foreign(["a.csv"]) == ["a.csv"]


def test_a_file_whose_writing_failed_stays_as_it_was(tmp_path):
    manifest = Manifest(tmp_path)
    write(manifest, "a.csv", "old")

    def fail():
        with manifest.writing("a.csv") as path:
            path.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "a.csv").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", MANIFEST]
    assert Manifest(tmp_path).foreign(["a.csv"]) == []


@pytest.mark.parametrize("renamed", [True, False])
def test_killed_between_listing_and_renaming_the_file_is_still_known(tmp_path, renamed):
    manifest = Manifest(tmp_path)
    write(manifest, "a.csv", "old")
    manifest.finish()
    killed = Manifest(tmp_path)
    writing = killed.writing("a.csv")
    path = writing.__enter__()
    path.write_text("new and longer")
    entry = {"name": "a.csv", "bytes": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}
    killed._save([*killed._entries, entry])
    if renamed:
        path.replace(tmp_path / "a.csv")
    assert Manifest(tmp_path).foreign(["a.csv"]) == []


def test_what_earlier_exports_left(tmp_path):
    first = Manifest(tmp_path)
    write(first, "a.csv")
    write(first, "b.csv")
    first.finish()
    second = Manifest(tmp_path)
    write(second, "a.csv", "new")
    second.finish()
    assert second.left_over() == ["b.csv"]
    assert [entry["name"] for entry in second.written] == ["a.csv"]
    assert Manifest(tmp_path).foreign(["a.csv", "b.csv"]) == []


def test_removed_files_are_forgotten(tmp_path):
    first = Manifest(tmp_path)
    write(first, "a.csv")
    (tmp_path / "a.csv").unlink()
    first.finish()
    assert json.loads((tmp_path / MANIFEST).read_text())["files"] == []


@pytest.mark.parametrize("text", ["not json", "[]", '{"files": 3}', "{}"])
def test_unreadable_list_is_named(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=MANIFEST):
        Manifest(tmp_path)


def test_lost_files(tmp_path):
    manifest = Manifest(tmp_path)
    for name in ("a.csv", "b.csv", "c.csv"):
        write(manifest, name)
    info = {"directory": str(tmp_path), "files": json.dumps(manifest.written)}
    assert lost_files(info) == []
    (tmp_path / "a.csv").unlink()
    (tmp_path / "b.csv").write_text("longer")
    assert lost_files(info) == [f"{tmp_path / 'a.csv'} is gone", f"{tmp_path / 'b.csv'} was changed"]
    assert lost_files({}) == []


def test_what_a_killed_export_left_half_written_is_removed(tmp_path):
    command = f"""
import os
import subprocess
import sys
from pathlib import Path
from tomoseg.export.manifest import Manifest
from tomoseg.io.atomic import atomic_path
with Manifest(Path({str(tmp_path)!r})).writing("a.csv") as path, atomic_path(path) as inner:
    inner.write_text("half")
    os._exit(9)
"""
    subprocess.run([sys.executable, "-c", command], check=False)
    assert len([p for p in tmp_path.iterdir() if p.name.endswith(".part")]) == 2
    manifest = Manifest(tmp_path)
    write(manifest, "a.csv")
    manifest.finish()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", MANIFEST]
