"""A project from a stranger names files and folders of the user's: looking touches none, computing asks first."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from tests.conftest import tomoseg
from tomoseg.cli.run import _places

AGAIN = ("--set", "measure.min_voxels=9", "--progress", "none")  # two quick stages: measure and export
LOOKING = {
    "status": lambda project, _: ["status", project],
    "report": lambda project, folder: ["report", project, "-o", folder / "page.html"],
    "history": lambda project, _: ["history", project],
    "check": lambda project, _: ["check", "default", project],
}


def set_stored(project, **sections):
    """Change what a project remembers of parameters."""
    with h5py.File(project, "r+") as file:
        attrs = file["/settings"].attrs
        settings = json.loads(attrs["parameters"])
        for stage, values in sections.items():
            settings[stage] |= values
        attrs["parameters"] = json.dumps(settings)


def set_read(project, stage, name, path, **facts):
    """Have the provenance of a stage say that it read a file."""
    with h5py.File(project, "r+") as file:
        attrs = file[f"/provenance/{stage}"].attrs
        record = json.loads(attrs["record"])
        known = {"path": str(path), "sha256": "0" * 64, "size": 5, "mtime_ns": 5} | facts
        attrs["record"] = json.dumps(record | {"files": {**record["files"], name: known}})


def states(project):
    stages = json.loads(tomoseg("status", project, "--json").stdout)["stages"]
    return {s["name"]: s for s in stages}


# ---------------------------------------------------------------- looking


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "named"),
    [
        *(("status", path) for path in ("/proc/kmsg", "/dev/zero", "/dev/tty")),
        *((command, "pipe") for command in LOOKING),
    ],
)
def test_looking_waits_for_nothing_that_a_project_names(project, tmp_path, command, named):
    path = Path(named) if named != "pipe" else tmp_path / "pipe"
    if named == "pipe":
        os.mkfifo(path)
    if not path.exists():
        pytest.skip(f"no {named} here")
    set_stored(project, **{"import": {"raw": str(path)}, "align": {"from_project": str(path)}})
    set_read(project, "import", "raw", path)
    set_read(project, "align", "from_project", path)
    arguments = [str(a) for a in LOOKING[command](project, tmp_path)]
    subprocess.run([sys.executable, "-W", "ignore", "-m", "tomoseg", *arguments], timeout=120, check=True)


def test_status_opens_no_file_that_the_project_names(small_run, project, tmp_path):
    raw = shutil.copy(small_run.raw, tmp_path / "raw.mrc")
    other = shutil.copy(project, tmp_path / "other.h5")
    set_stored(project, **{"import": {"raw": str(raw)}, "align": {"from_project": str(other)}})
    set_read(project, "import", "raw", raw)
    set_read(project, "align", "from_project", other)
    code = "import sys\nsys.addaudithook(lambda event, args: print('OPENED', args[0]) if event == 'open' else None)\n"
    code += "from tomoseg.cli import main\nmain(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, "status", project], capture_output=True, text=True, check=True)
    opened = [line for line in done.stdout.splitlines() if line.startswith("OPENED")]
    assert opened
    assert [line for line in opened if str(raw) in line or str(other) in line] == []
    said = " ".join(done.stdout.split())
    assert f"raw file {raw} has another size than when it was read" in said
    assert f"from_project file {other} was touched since it was read; the next run compares its alignment" in said


def test_check_says_what_it_did_not_look_into(small_run, project, tmp_path):
    raw = shutil.copy(small_run.raw, tmp_path / "raw.mrc")  # touched since it was read
    set_stored(project, **{"import": {"raw": str(raw)}})
    set_read(project, "import", "raw", raw)
    said = tomoseg("check", "default", project).stdout
    assert "import was not checked: the project itself names its files (import.raw), which only a run opens" in said
    said = tomoseg("check", "default", project, "--set", f"import.raw={small_run.raw}").stdout
    assert said == "default: no problems found\n"


@pytest.mark.parametrize("text", ["~nobody-of-that-name/x", "/", "a\0b", "x" * 5000, "."])
def test_names_that_lead_nowhere_do_not_break_status(project, text):
    set_stored(project, **{"import": {"raw": text}, "export": {"export_dir": text}})
    code = 2 if text.startswith("~") else 0
    assert "went wrong" not in tomoseg("status", project, code=code).stderr
    refused = tomoseg("run", project, "--from", "export", "--force", code=3 if code == 0 else 2)
    assert "went wrong" not in refused.stderr


# ---------------------------------------------------------------- exports


@pytest.fixture
def precious(tmp_path):
    """Return a folder of the user's away from the project, with a file of the name of an exported one."""
    folder = tmp_path / "thesis" / "figures"
    folder.mkdir(parents=True)
    (folder / "classes.csv").write_text("years of work")
    return folder


@pytest.fixture
def guest(project, tmp_path):
    """Return a project in a folder of its own."""
    (tmp_path / "guest").mkdir()
    return Path(shutil.move(project, tmp_path / "guest" / "p.h5"))


@pytest.mark.slow
def test_a_folder_and_the_right_to_overwrite_are_not_taken_from_a_project(guest, precious):
    set_stored(guest, export={"export_dir": str(precious), "overwrite": True})
    before = guest.read_bytes()
    for command in (["run", guest, *AGAIN], ["export", guest]):
        refused = tomoseg(*command, code=2).stderr
        assert refused == (
            f"tomoseg: The project names the export folder {precious}, which is not beside it and holds no export of "
            f"it; add --export-dir {precious} to use it.\n"
        )
    assert guest.read_bytes() == before
    # Named now it may be used, but not for replacing what is there.
    refused = tomoseg("export", guest, "--export-dir", precious, code=2).stderr
    assert "holds files that no export wrote" in refused
    assert [p.name for p in precious.iterdir()] == ["classes.csv"]
    assert (precious / "classes.csv").read_text() == "years of work"
    tomoseg("export", guest, "--export-dir", precious, "--overwrite", "--formats", "csv")
    assert "years" not in (precious / "classes.csv").read_text()


@pytest.mark.slow
def test_a_folder_that_was_named_once_is_used_again(guest, tmp_path):
    away = tmp_path / "scratch" / "out"
    tomoseg("run", guest, "--export-dir", away, "--set", "export.formats=csv", "--progress", "none")
    assert (away / "classes.csv").exists()
    before = (away / "classes.csv").stat().st_ino
    tomoseg("run", guest, *AGAIN)
    assert (away / "classes.csv").stat().st_ino != before
    assert {s["state"] for s in states(guest).values()} == {"fresh"}
    shutil.rmtree(away)  # then it holds no export of it any more
    assert "add --export-dir" in tomoseg("run", guest, code=2).stderr
    tomoseg("run", guest, "--export-dir", away)


@pytest.mark.slow
def test_a_moved_project_takes_its_default_folder_along(guest, tmp_path):
    tomoseg("run", guest, "--set", "export.formats=csv", "--progress", "none")
    guest.parent.rename(tmp_path / "moved")
    tomoseg("run", tmp_path / "moved" / "p.h5", *AGAIN)
    assert (tmp_path / "moved" / "p_export" / "classes.csv").exists()
    assert not guest.parent.exists()


@pytest.mark.slow
def test_the_right_to_overwrite_is_forgotten_and_makes_nothing_stale(guest, precious):
    tomoseg("export", guest, "--export-dir", precious, "--overwrite", "--formats", "csv")
    assert {s["state"] for s in states(guest).values()} == {"fresh"}
    assert states(guest)["export"]["run"]["parameters"]["overwrite"] is True
    assert "overwrite" not in tomoseg("export-pipeline", guest).stdout
    (precious / "classes.csv").write_text("notes of the user's")
    refused = tomoseg("run", guest, code=2).stderr
    assert "classes.csv" in refused
    assert (precious / "classes.csv").read_text() == "notes of the user's"


def test_a_link_beside_the_project_does_not_lead_an_export_away(guest, precious):
    (guest.parent / "p_export").symlink_to(precious)
    refused = tomoseg("export", guest, "--formats", "csv", code=2).stderr
    assert f"The export folder of the project is {guest.parent}/p_export, which leads to {precious}" in refused
    assert [p.name for p in precious.iterdir()] == ["classes.csv"]


def test_links_in_the_export_folder_are_not_written_through(guest, precious):
    folder = guest.parent / "p_export"
    folder.mkdir()
    (folder / "classes.csv").symlink_to(precious / "classes.csv")
    assert "no export wrote" in tomoseg("export", guest, "--formats", "csv", code=2).stderr
    tomoseg("export", guest, "--formats", "csv", "--overwrite")
    assert (precious / "classes.csv").read_text() == "years of work"
    assert not (folder / "classes.csv").is_symlink()


def test_a_list_of_exported_files_does_not_lead_out_of_its_folder(guest, precious):
    folder = guest.parent / "p_export"
    folder.mkdir()
    status = (precious / "classes.csv").stat()
    name = os.path.relpath(precious / "classes.csv", folder)
    entry = {"name": name, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    (folder / "tomoseg-export.json").write_text(json.dumps({"files": [entry]}))
    assert "cannot be read" in tomoseg("export", guest, "--formats", "csv", code=2).stderr
    assert (precious / "classes.csv").read_text() == "years of work"


# ---------------------------------------------------------------- input files


@pytest.mark.parametrize("stage", ["align", "segment"])
def test_a_file_that_only_the_project_names_is_not_read(guest, tmp_path, stage):
    secret = tmp_path / "secret.txt"
    secret.write_text("1 2\n3 4\n")
    name = {"align": "shifts_file", "segment": "model"}[stage]
    set_stored(guest, **{stage: {name: str(secret)}})
    before = guest.read_bytes()
    refused = tomoseg("run", guest, code=2).stderr
    assert refused == (
        f"tomoseg: The project names {secret} as {stage}.{name}, which no run of {stage} has read; add --set "
        f"{stage}.{name}={secret} to use it.\n"
    )
    assert refused == tomoseg(stage, guest, code=2).stderr
    assert guest.read_bytes() == before


def test_networks_that_ship_with_tomoseg_need_no_word(guest):
    from tomoseg.segmentation.networks.known_models import find_model

    set_stored(guest, segment={"model": str(find_model("gamma-alumina-pt")), "method": "auto"})
    assert "model none ->" in " ".join(states(guest)["segment"]["reasons"])
    wish = ("--set", "segment.method=auto")
    done = tomoseg("run", guest, "--until", "segment", *wish, "--stop-before", "1s", code=130)  # it would run; no time
    assert "used up" in done.stderr


def test_advice_on_going_on_names_what_the_user_named(tmp_path):
    layers = [
        {"segment": {"model": "my net.keras", "classes": 3}, "export": {"export_dir": "old"}},
        {"import": {"angles": "x.tlt"}, "align": {"mask": None}, "export": {"export_dir": "/data/out"}},
    ]
    assert _places(layers) == ["--set 'segment.model=my net.keras'", "--set export.export_dir=/data/out"]
    assert _places([]) == []
