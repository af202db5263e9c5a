import json
import os
import subprocess
import sys

import pytest

from tomoseg.errors import InputError
from tomoseg.export import manifest as manifest_module
from tomoseg.export.manifest import MANIFEST, Manifest, doubt_about, lost_files
from tomoseg.io.atomic import atomic_folder


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


RUNS = {"import": "i1", "segment": "s1"}


@pytest.mark.parametrize(
    ("made", "now", "left", "kept"),
    [
        (RUNS, RUNS, [], True),  # another format of the same results
        (RUNS, {**RUNS, "segment": "s2"}, [], False),
        (RUNS, {"import": "i2", "segment": "s2"}, ["b.csv", "c.zarr"], True),  # another series in the same folder
        (RUNS, {}, ["b.csv", "c.zarr"], True),  # arrays of unknown origin
        ({}, RUNS, ["b.csv", "c.zarr"], True),  # listed before origins were
    ],
)
def test_files_of_earlier_results_are_removed(tmp_path, made, now, left, kept):
    first = Manifest(tmp_path, made)
    for name in ("a.csv", "b.csv", "changed.csv"):
        write(first, name)
    with first.writing("c.zarr", atomic_folder) as folder:
        (folder / "part").write_text("x")
    first.finish()
    (tmp_path / "changed.csv").write_text("by the user")
    (tmp_path / "own.csv").write_text("of the user")
    second = Manifest(tmp_path, now)
    write(second, "a.csv", "new")
    assert second.remove_outdated() == ([] if kept else ["b.csv", "c.zarr"])
    assert second.left_over() == left
    second.finish()
    assert all((tmp_path / name).exists() for name in ("a.csv", "changed.csv", "own.csv"))
    assert [(tmp_path / name).exists() for name in ("b.csv", "c.zarr")] == [kept, kept]
    assert ("b.csv" in (tmp_path / MANIFEST).read_text()) == kept
    assert Manifest(tmp_path).foreign(["a.csv", "changed.csv"]) == ["changed.csv"]


def test_a_link_in_place_of_an_outdated_file_is_left_alone(tmp_path):
    first = Manifest(tmp_path, RUNS)
    write(first, "a.csv")
    with first.writing("c.zarr", atomic_folder) as folder:
        (folder / "part").write_text("x")
    first.finish()
    (tmp_path / "there").mkdir()
    for name in ("a.csv", "c.zarr"):
        (tmp_path / name).rename(tmp_path / "there" / name)
        (tmp_path / name).symlink_to(tmp_path / "there" / name)
    assert Manifest(tmp_path, {**RUNS, "segment": "s2"}).remove_outdated() == []
    assert (tmp_path / "there" / "c.zarr" / "part").read_text() == "x"


def test_removed_files_are_forgotten(tmp_path):
    first = Manifest(tmp_path)
    write(first, "a.csv")
    (tmp_path / "a.csv").unlink()
    first.finish()
    assert json.loads((tmp_path / MANIFEST).read_text())["files"] == []


def listing(*names, **more):
    return json.dumps({"files": [{"name": name, "bytes": 1, "mtime_ns": 1, **more} for name in names]})


@pytest.mark.parametrize(
    "text",
    [
        *("not json", "[]", '{"files": 3}', "{}", '{"files": [3]}', '{"files": {"a": 1}}', "[" * 100_000, "\xff"),
        *(
            listing(name)
            for name in ("../a", "/etc/passwd", "..", ".", "", "a/b", "a\0b", "a\\b", "x" * 300, "\ud800", 3)
        ),
        *(listing("a", **{key: value}) for key in ("bytes", "mtime_ns") for value in ("1", None, 1.5)),
    ],
    ids=lambda text: text[:40],
)
def test_unreadable_list_is_named(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=MANIFEST):
        Manifest(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "dangling link", "huge"])
def test_a_list_that_is_no_file_of_ours_is_named_and_neither_waited_for_nor_followed(tmp_path, kind, monkeypatch):
    path, folder = tmp_path / "there" / MANIFEST, tmp_path / "there"
    folder.mkdir()
    (tmp_path / "elsewhere").write_text(listing("a"))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "huge":
        monkeypatch.setattr(manifest_module, "MOST_BYTES", 50)
        path.write_text(listing("a", "b"))
    else:
        path.symlink_to("../elsewhere" if kind == "link" else "../nowhere")
    with pytest.raises(InputError, match=MANIFEST):
        Manifest(folder)
    assert (tmp_path / "elsewhere").read_text() == listing("a")


def test_a_link_among_the_files_is_foreign_and_what_it_leads_to_is_left_alone(tmp_path):
    first = Manifest(tmp_path)
    write(first, "a.csv")
    first.finish()
    (tmp_path / "a.csv").rename(tmp_path / "precious")  # of the very size and time in the list
    (tmp_path / "a.csv").symlink_to("precious")
    (tmp_path / "b.csv").symlink_to("nowhere")
    again = Manifest(tmp_path)
    assert again.foreign(["a.csv", "b.csv", "c.csv"]) == ["a.csv", "b.csv"]
    assert again.left_over() == []
    for name in ("a.csv", "b.csv"):  # as the user may demand
        write(again, name, "new")
    assert not (tmp_path / "a.csv").is_symlink()
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text() == "new"
    assert (tmp_path / "precious").read_text() == "x"
    assert not (tmp_path / "nowhere").exists()


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


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "a/../../x"])
def test_a_project_does_not_have_other_folders_looked_at(tmp_path, name):
    entry = {"name": name, "bytes": 1, "mtime_ns": 1}
    with pytest.raises(ValueError, match="name of a file in the folder"):
        lost_files({"directory": str(tmp_path), "files": json.dumps([entry])})


def test_a_project_that_calls_all_files_there_are_its_export_is_not_searched_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_module, "MOST_FILES", 5)
    manifest = Manifest(tmp_path)
    with manifest.writing("big.zarr", atomic_folder) as folder:
        for n in range(8):
            (folder / str(n)).write_text("x")
    seen = []
    lstat = type(tmp_path).lstat
    monkeypatch.setattr(type(tmp_path), "lstat", lambda path: (seen.append(path), lstat(path))[1])
    info = {"directory": str(tmp_path), "files": json.dumps([{**manifest.written[0], "bytes": 5}])}
    assert lost_files(info) == []
    assert len(seen) <= 7


def test_lost_files_follows_no_link(tmp_path):
    manifest = Manifest(tmp_path)
    write(manifest, "a.csv")
    (tmp_path / "a.csv").rename(tmp_path / "b.csv")
    (tmp_path / "a.csv").symlink_to("b.csv")
    info = {"directory": str(tmp_path), "files": json.dumps(manifest.written)}
    assert lost_files(info) == [f"{tmp_path / 'a.csv'} is gone"]


# ---------------------------------------------------------------- whose a folder is


@pytest.fixture
def exported(tmp_path):
    """Return a project's path, the folder away from it that it was exported to, and what it knows of that."""
    folder, home = tmp_path / "data" / "out", tmp_path / "home"
    folder.mkdir(parents=True)
    home.mkdir()
    manifest = Manifest(folder)
    write(manifest, "a.csv")
    manifest.finish()
    info = {"directory": str(folder), "files": json.dumps(manifest.written), "manifest": manifest.id}
    return home / "p.h5", folder, info


def test_a_folder_has_one_name_for_good(exported):
    _, folder, info = exported
    assert len(info["manifest"]) == 32
    again = Manifest(folder)
    write(again, "b.csv")
    again.finish()
    assert Manifest(folder).id == info["manifest"]


def test_the_folder_that_a_project_was_exported_to_is_known(exported):
    project, folder, info = exported
    assert doubt_about(folder, project, info) == ""
    assert doubt_about(folder, project, {**info, "manifest": "0" * 32}) == "is not beside it and holds no export of it"
    assert doubt_about(folder, project, {}) == "is not beside it and holds no export of it"
    assert doubt_about(folder.parent, project, info) == "is not beside it and holds no export of it"
    assert doubt_about(folder.parent / "new", project, info) == "is not beside it and holds no export of it"


def without_name(folder):
    content = json.loads((folder / MANIFEST).read_text())
    del content["id"]
    (folder / MANIFEST).write_text(json.dumps(content))


def test_an_export_from_before_folders_had_names_is_known_by_its_files(exported):
    project, folder, info = exported
    without_name(folder)
    del info["manifest"]
    assert doubt_about(folder, project, info) == ""
    assert doubt_about(folder, project, {**info, "files": "[]"}) != ""
    assert doubt_about(folder, project, {**info, "files": info["files"].replace('"bytes": 1', '"bytes": 2')}) != ""
    assert doubt_about(folder, project, {**info, "files": info["files"].replace("a.csv", "../out/a.csv")}) != ""
    os.utime(folder / "a.csv")
    assert doubt_about(folder, project, info) != ""


def test_new_folders_beside_the_project_and_the_default_one_need_no_word(exported):
    project, _, _ = exported
    home = project.parent
    for name in ("new", "empty", "p_export"):
        assert doubt_about(home / name, project, {}) == ""
    (home / "empty").mkdir()
    (home / "p_export").mkdir()
    (home / "p_export" / "notes.txt").touch()
    (home / "other").mkdir()
    (home / "other" / "notes.txt").touch()
    assert doubt_about(home / "empty", project, {}) == ""
    assert doubt_about(home / "p_export", project, {}) == ""
    assert doubt_about(home / "other", project, {}) == "holds no export of it"
    assert doubt_about(home / "x" / ".." / "other", project, {}) == "holds no export of it"
    assert doubt_about(home, project, {}) != ""


def test_a_link_is_the_folder_that_it_leads_to(exported):
    project, folder, info = exported
    (project.parent / "p_export").symlink_to(folder)
    assert doubt_about(project.parent / "p_export", project, info) == ""
    why = f"leads to {folder} and is not beside it and holds no export of it"
    assert doubt_about(project.parent / "p_export", project, {}) == why


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_a_folder_that_cannot_be_is_doubted(exported, name):
    project, _, info = exported
    assert doubt_about(project.parent / "y" / name, project, info) != ""
