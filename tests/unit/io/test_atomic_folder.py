import json
import os
import shutil

import pytest

from tomoseg.export.manifest import MANIFEST, Manifest, lost_files
from tomoseg.io.atomic import atomic_folder


def write(manifest, name, **files):
    with manifest.writing(name, atomic_folder) as folder:
        for file, text in files.items():
            (folder / "inner").mkdir(exist_ok=True)
            (folder / "inner" / file).write_text(text)


def entries(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "a").exists()
    assert entries(tmp_path) == ["a"]
    assert (tmp_path / "a" / "x").read_text() == "1"


@pytest.mark.parametrize("before", [True, False])
def test_a_failure_leaves_what_was_there(tmp_path, before):
    if before:
        with atomic_folder(tmp_path / "a") as folder:
            (folder / "x").write_text("old")

    def fail():
        with atomic_folder(tmp_path / "a") as folder:
            (folder / "x").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert entries(tmp_path) == (["a"] if before else [])
    assert not before or (tmp_path / "a" / "x").read_text() == "old"


def test_an_old_folder_is_replaced_whole(tmp_path):
    for name in ("x", "y"):
        with atomic_folder(tmp_path / "a") as folder:
            (folder / name).write_text(name)
    assert entries(tmp_path) == ["a"]
    assert entries(tmp_path / "a") == ["y"]


def test_own_folders_may_be_replaced_and_others_not(tmp_path):
    first = Manifest(tmp_path)
    write(first, "a.zarr", x="1", y="2")
    first.finish()
    (tmp_path / "b.zarr").mkdir()
    assert Manifest(tmp_path).foreign(["a.zarr", "b.zarr", "c.zarr"]) == ["b.zarr"]
    info = {"directory": str(tmp_path), "files": json.dumps(first.written)}
    assert lost_files(info) == []


@pytest.mark.parametrize("change", ["edited", "touched", "added", "removed", "a file instead"])
def test_a_changed_folder_is_not_ours(tmp_path, change):
    manifest = Manifest(tmp_path)
    write(manifest, "a.zarr", x="1", y="2")
    manifest.finish()
    file = tmp_path / "a.zarr" / "inner" / "x"
    if change == "edited":
        file.write_text("longer")
    elif change == "touched":
        status = file.stat()
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    elif change == "added":
        (file.parent / "notes").write_text("the user's")
    elif change == "removed":
        file.unlink()
    else:
        (tmp_path / "a.zarr").rename(tmp_path / "moved")
        (tmp_path / "a.zarr").write_text("12")
    assert Manifest(tmp_path).foreign(["a.zarr"]) == ["a.zarr"]
    lost = lost_files({"directory": str(tmp_path), "files": json.dumps(manifest.written)})
    # Of a folder only the size is looked at here, as of a file.
    assert len(lost) == (change != "touched")


def test_what_a_killed_export_left_of_a_folder_is_removed(tmp_path):
    left = tmp_path / ".a.zarr.abcd1234.part"
    (left / "inner").mkdir(parents=True)
    (left / "inner" / "x").write_text("half")
    manifest = Manifest(tmp_path)
    write(manifest, "a.zarr", x="1")
    manifest.finish()
    assert entries(tmp_path) == ["a.zarr", MANIFEST]


def test_a_link_of_that_name_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "x").write_text("kept")
    for target in ("else", "nowhere"):
        (tmp_path / "a").symlink_to(target)
        with atomic_folder(tmp_path / "a") as folder:
            (folder / "x").write_text("new")
        assert not (tmp_path / "a").is_symlink()
        assert (tmp_path / "a" / "x").read_text() == "new"
        shutil.rmtree(tmp_path / "a")
    assert entries(tmp_path) == ["else"]
    assert (tmp_path / "else" / "x").read_text() == "kept"
