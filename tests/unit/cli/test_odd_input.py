"""What makes no sense, typed or in the environment or in names, is one paragraph, before anything is computed."""

import json
import os
import shutil
import subprocess
import sys

import h5py
import pytest

from tests.conftest import tomoseg
from tomoseg import plain_yaml, schema, terminal
from tomoseg.cli import app as program
from tomoseg.cli.environment import THREADS

MANY = "9" * 400
ODD_NAME = os.fsdecode(b"m\xfcller")  # latin-1, as on old disks


@pytest.fixture
def run(capsys, monkeypatch):
    """Return a function that runs a command in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("MPLBACKEND", "agg")  # so that it is as before afterwards

    def called(*arguments):
        with pytest.raises(SystemExit) as end, terminal.guarded():
            program._run([str(argument) for argument in arguments])
        return end.value.code, *capsys.readouterr()

    return called


def one_paragraph(code, out, err, wanted=2):
    """Check that a command was refused in one printable paragraph, and return it."""
    assert code == wanted, err
    assert out == ""
    assert err.startswith("tomoseg: ")
    assert err.count("\n") == 1, err
    assert err.removesuffix("\n").isprintable()
    assert "something went wrong" not in err
    assert len(err) < 1000
    return err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-memory", MANY], "64M to 1024T"),
        (["--max-memory", "1025T"], "64M to 1024T"),
        (["--max-memory", "1e400"], "64M to 1024T"),
        (["--max-memory", "nan"], "64M to 1024T"),
        (["--max-memory", "\x1b[2J"], "64M to 1024T"),
        (["--workers", "100000"], "from 1 to 9999"),
        (["--workers", MANY], "from 1 to 9999"),
        (["--stop-before", MANY], "at most 366d"),
        (["--stop-before", f"{MANY}d"], "at most 366d"),
        (["--set", f"reconstruct.z_size={MANY}"], "reconstruct.z_size"),
        (["--set", "import.pixel_size=1e400"], "import.pixel_size"),
        (["--set", "import.pixel_size=-inf"], "import.pixel_size"),
        (["--set", "align.tilt_axis_offset=1e200"], "align.tilt_axis_offset"),
        (["--set", "measure.min_voxels=1" + "0" * 400], "measure.min_voxels"),
        (["--set", "segment.model=~nosuchuser/net.keras"], "no home folder of that name"),
        (["--set", "segment.class_colors=[red, '', '#zzzzzz']"], "'red', '', '#zzzzzz'"),
        (["--set", "segment.class_names=[a, 'b\x1b[2J', c]"], "segment.class_names|not written as in YAML"),
        (["--set", 'segment.class_names=[a, "b\\u202e", c]'], "cannot be shown"),
        (["--set", "export.formats=" + "[" * 50_000], "nested too deep"),
        (["--pixel-size", "1e308"], "nm"),
        (["--pixel-size", "1e-300"], "nm"),
        (["--pixel-size", "-3"], "nm"),
        (["--pixel-size", "nan"], "finite"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_numbers_names_and_colours_that_are_none(run, small_run, tmp_path, options, words):
    said = one_paragraph(*run("run", small_run.raw, "-o", tmp_path / "p.h5", *options))
    assert any(word in said for word in words.split("|")), said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["nan", "1e308", "0", "-1"])
@pytest.mark.parametrize("option", ["--pixel-size", "--dose", "--jitter", "--drift", "--tilt-axis-offset"])
def test_a_simulation_of_impossible_numbers(run, tmp_path, option, value):
    if option not in ("--pixel-size", "--dose") and value in ("0", "-1"):
        return
    one_paragraph(*run("simulate", "-o", tmp_path / "x.mrc", "--size", 32, "--particles", 2, option, value))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["-3", "0", "abc", "1.5", "1e3", "99999", MANY, "\x1b[2J", "4,4"])
@pytest.mark.parametrize("name", THREADS)
def test_numbers_of_threads_in_the_environment(run, monkeypatch, project, name, value):
    monkeypatch.setenv(name, value)
    if (name, value) == ("OMP_NUM_THREADS", "4,4"):  # one for each level of nesting
        assert run("status", project)[0] == 0
        return
    assert f"the environment variable {name} is '" in one_paragraph(*run("status", project))


def test_sensible_environments_are_taken(run, monkeypatch, project):
    for name in THREADS:
        monkeypatch.setenv(name, " 2 ")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "")
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    for columns in ("0", "-1", "abc"):
        monkeypatch.setenv("COLUMNS", columns)
        assert run("status", project)[0] == 0
        assert run("status", "--help")[0] == 0
    monkeypatch.delenv("TERM", raising=False)
    assert run("run", project, "--progress", "bar")[0] == 0


def test_a_folder_for_compiled_functions_is_found_anywhere(tmp_path):
    """Where neither the package nor a home can be written to, as in a container."""
    (tmp_path / "file").touch()
    code = (
        "import os, tempfile, tomoseg.cli.environment as e\n"
        "e._can_be_written = lambda folder: False\n"
        "e.prepare_environment(); made = os.environ['NUMBA_CACHE_DIR']\n"
        "assert os.path.isdir(made) and os.stat(made).st_mode & 0o77 == 0\n"
        "from tomoseg.simulate import project; print(made)"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=True)
    assert not os.path.exists(done.stdout.strip())  # noqa: PTH110
    from tomoseg.cli.environment import _can_be_written

    assert _can_be_written(tmp_path / "to" / "be" / "made")
    assert not _can_be_written(tmp_path / "file" / "below")


def test_a_home_that_is_not_there(run, monkeypatch, tmp_path):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", none)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    code, out, _ = run("models")
    assert code == 0
    assert "gamma-alumina-pt" in out
    monkeypatch.setenv("TOMOSEG_MODELS", "~nosuchuser/x")
    one_paragraph(*run("models"))


def test_a_folder_that_was_removed(run, monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "no longer exists" in one_paragraph(*run("doctor"))


def test_a_full_disk_behind_standard_output(project):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-W", "ignore", "-m", "tomoseg", "status", project]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "tomoseg: No space left on device: standard output.\n"


def test_the_reader_of_standard_output_ends_early(project):
    command = [sys.executable, "-W", "ignore", "-m", "tomoseg", "status", project]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


# --- names that are no text ---


@pytest.mark.slow
def test_looking_at_a_project_whose_name_is_no_text(run, project, tmp_path):
    odd = tmp_path / f"{ODD_NAME}.h5"
    shutil.copy(project, odd)
    for arguments in (["status", odd], ["history", odd], ["run", odd, "--help"], ["compact", odd]):
        assert run(*arguments)[0] == 0
    code, out, _ = run("status", odd, "--json")
    assert code == 0
    assert json.loads(out)["project"] == str(odd)  # nothing is lost
    code, out, _ = run("export-pipeline", odd)
    assert out.splitlines()[0].startswith("# Reproduces the results of m?ller.h5")
    for arguments in (["report", odd, "-o", tmp_path / f"{ODD_NAME}.html"], ["preview", odd]):
        code, out, err = run(*arguments)
        assert code == 0, err
        assert "m?ller" in out
    assert "m?ller" in (tmp_path / f"{ODD_NAME}.html").read_text()


@pytest.mark.parametrize("what", ["project", "raw", "angles", "export_dir", "new project", "model"])
def test_computing_with_names_that_are_no_text_is_refused(run, small_run, project, tmp_path, what):
    odd = tmp_path / ODD_NAME
    if what in ("project", "raw"):
        shutil.copy(project if what == "project" else small_run.raw, odd)
    arguments = {
        "project": ["export", odd],
        "raw": ["run", odd, "-o", tmp_path / "new.h5"],
        "angles": ["run", small_run.raw, "--angles", odd, "-o", tmp_path / "new.h5"],
        "export_dir": ["run", project, "--export-dir", odd],
        "new project": ["run", small_run.raw, "-o", tmp_path / f"{ODD_NAME}.h5"],
        "model": ["segment", project, "--model", odd],
    }[what]
    before = project.read_bytes()
    assert "UTF-8" in one_paragraph(*run(*arguments))
    assert project.read_bytes() == before
    assert run("status", project)[0] == 0
    assert not (tmp_path / "new.h5").exists()


def test_a_folder_whose_name_is_no_text(run, small_run, tmp_path, monkeypatch):
    (tmp_path / ODD_NAME).mkdir()
    monkeypatch.chdir(tmp_path / ODD_NAME)
    shutil.copy(small_run.project, "p.h5")
    assert run("status", "p.h5")[0] == 0
    assert "UTF-8" in one_paragraph(*run("export", "p.h5", "--export-dir", "x"))
    assert "UTF-8" in one_paragraph(*run("run", small_run.raw, "-o", "new.h5"))


# --- text from files ---


def hostile(file):
    """Put commands for a terminal, and lines that deceive, into all text of a project that commands repeat."""
    odd = "a\x1b[2Jb\x9b31m\ntomoseg: all is well\u202ec"
    for group in (schema.PROVENANCE, schema.HISTORY):
        for member in file[group].values():
            if "record" in member.attrs:
                record = json.loads(member.attrs["record"])
                record |= {"host": odd, "device": odd, "job_id": odd, "notes": [odd], "warnings": [odd]}
                record["versions"] = {"tomoseg": odd}
                if record["stage"] == "segment":
                    record["parameters"]["class_names"] = [odd, "b", "c"]
                for facts in record["files"].values():
                    facts["path"] = odd
                member.attrs["record"] = json.dumps(record)
    labels = file[schema.LABELS.path].attrs
    labels["class_names"] = [f"background{odd}", f"support{odd}", f"particles{odd}"]
    labels["class_colors"] = ["notacolour", "", "#zzzzzz"]
    file[schema.TILT_SERIES_INFO.path].attrs["source"] = odd
    file[schema.EXPORT_INFO.path].attrs["directory"] = odd


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "PROJECT", "-v"],
        ["history", "PROJECT"],
        ["export-pipeline", "PROJECT"],
        ["measure", "PROJECT", "--allow-stale", "--progress", "plain"],
        ["export", "PROJECT", "--allow-stale", "--progress", "plain", "--formats", "all"],
        ["annotate", "export", "PROJECT", "-o", "FOLDER", "--progress", "plain"],
        ["run", "PROJECT", "--until", "import"],
        ["--debug", "run", "PROJECT", "--set", "nope.x=1"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_no_text_of_a_project_commands_the_terminal(run, project, tmp_path, arguments):
    with h5py.File(project, "r+") as file:
        hostile(file)
    places = {"PROJECT": project, "FOLDER": tmp_path / "ann"}
    code, out, err = run(*[places.get(word, word) for word in arguments])
    assert "something went wrong" not in err
    assert code in (0, 2, 3), err
    for line in (out + err).split("\n"):
        assert line.isprintable()
        assert not line.startswith("tomoseg: all is well")


def test_documents_lose_nothing_of_odd_text(run, project):
    with h5py.File(project, "r+") as file:
        hostile(file)
    odd = "a\x1b[2Jb\x9b31m\ntomoseg: all is well\u202ec"
    stages = json.loads(run("status", project, "--json")[1])["stages"]
    assert {stage["run"]["host"] for stage in stages} == {odd}
    assert {entry["host"] for entry in json.loads(run("history", project, "--json")[1])} == {odd}
    pipeline = plain_yaml.load(run("export-pipeline", project)[1])
    assert pipeline["segment"]["class_names"] == [odd, "b", "c"]


def test_usage_errors_show_what_was_typed(run):
    code, _, err = run("no\x1b[2Jsuch\x9b31m")
    assert code == 2
    assert all(line.isprintable() for line in err.split("\n"))


def test_a_pipeline_on_a_terminal_without_umlauts_keeps_them(project):
    with h5py.File(project, "r+") as file:
        for group in (schema.PROVENANCE, schema.HISTORY):
            for member in file[group].values():
                record = json.loads(member.attrs["record"]) if "record" in member.attrs else {}
                if record.get("stage") == "segment":
                    record["parameters"]["class_names"] = ["größe", "b", "c"]
                    member.attrs["record"] = json.dumps(record)
    command = [sys.executable, "-W", "ignore", "-m", "tomoseg", "export-pipeline", project]
    for encoding in ("ascii", "utf-8"):
        env = {**os.environ, "PYTHONIOENCODING": encoding}
        out = subprocess.run(command, capture_output=True, env=env, check=True).stdout.decode(encoding)
        assert plain_yaml.load(out)["segment"]["class_names"] == ["größe", "b", "c"]


def test_the_program_works_without_standard_streams(project):
    command = f"{sys.executable} -W ignore -m tomoseg status {project} <&- >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", command], check=False).returncode == 0
    assert tomoseg("status", project).returncode == 0
