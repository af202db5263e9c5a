"""`tomoseg run` and what surrounds it, as a user sees them."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.conftest import tomoseg

NAMES = ["import", "align", "reconstruct", "segment", "measure", "export"]


def _states(project, *options):
    stages = json.loads(tomoseg("status", project, "--json", *options).stdout)["stages"]
    return {s["name"]: s["state"] for s in stages}


def _run_ids(project):
    stages = json.loads(tomoseg("status", project, "--json").stdout)["stages"]
    return {s["name"]: s["run"]["run_id"] for s in stages}


def test_a_run_names_what_it_made(small_run):
    assert str(small_run.project) in small_run.stdout
    (exported,) = [line for line in small_run.stdout.splitlines() if line.startswith("exported ")]
    folder, count = re.fullmatch(r"exported (.+): (\d+) files, .+ MB", exported).groups()
    files = [file for file in Path(folder).iterdir() if file.name != "tomoseg-export.json"]  # the list of them
    assert len(files) == int(count)
    assert {f.suffix for f in files} >= {".vti", ".vtp", ".mrc", ".csv"}
    assert all(f.stat().st_size > 0 for f in files)


def test_a_second_run_does_nothing_and_quickly(project):
    before = _run_ids(project)
    start = time.monotonic()
    tomoseg("run", project)
    assert time.monotonic() - start < 20  # a hang, not a benchmark: the work itself is none
    assert _run_ids(project) == before


def test_one_changed_parameter_reruns_that_stage_and_those_after_it(project):
    before = _run_ids(project)
    tomoseg("run", project, "--set", "reconstruct.iterations=4")
    after = _run_ids(project)
    assert [n for n in NAMES if before[n] != after[n]] == ["reconstruct", "segment", "measure", "export"]
    assert set(_states(project).values()) == {"fresh"}


def test_status_says_why_in_words(project):
    text = tomoseg("status", project, "--set", "reconstruct.iterations=7").stdout
    assert "stale     iterations 30 -> 7" in " ".join(text.split("  ")) or "iterations" in text
    assert "-> 7" in text
    assert "reconstruct is stale" in text


def test_a_pipeline_file_is_followed(project, tmp_path):
    pipeline = tmp_path / "mine.yaml"
    pipeline.write_text("reconstruct:\n  method: sirt\n  iterations: 5\n")
    tomoseg("run", project, "--pipeline", pipeline, "--until", "reconstruct")
    with h5py.File(project, "r") as file:
        assert file["/reconstruction"].attrs["method"] == "sirt"
        assert len(file["/reconstruction/residuals"]) == 6
    assert _states(project)["segment"] == "stale"


def test_the_raw_series_is_kept_as_it_was(small_run):
    import mrcfile

    with h5py.File(small_run.project, "r") as file, mrcfile.open(small_run.raw) as raw:
        assert file["/tilt_series/data"].dtype == raw.data.dtype
        np.testing.assert_array_equal(file["/tilt_series/data"][:], raw.data)


def test_another_raw_series_never_replaces_a_project(small_run, project, tmp_path):
    other = tmp_path / "other.mrc"
    tomoseg("simulate", "-o", other, "--size", 48, "--particles", 3, "--step", 10, "--seed", 5)
    before = project.read_bytes()
    refused = tomoseg("run", other, "-o", project, code=2)
    assert "another tilt series" in refused.stderr
    assert project.read_bytes() == before


def _too_few_angles(folder, raw):
    (folder / "few.rawtlt").write_text("0\n2\n4\n")
    return [raw, "--angles", folder / "few.rawtlt"]


def _word_among_angles(folder, raw):
    (folder / "word.rawtlt").write_text("0\ntwo\n4\n")
    return [raw, "--angles", folder / "word.rawtlt"]


def _truncated(folder, raw):
    data = Path(raw).read_bytes()
    (folder / "cut.mrc").write_bytes(data[: len(data) // 2])
    return [folder / "cut.mrc", "--angles", raw.with_suffix(".rawtlt")]


def _empty(folder, _raw):
    (folder / "empty.mrc").write_bytes(b"")
    return [folder / "empty.mrc"]


def _absent(folder, _raw):
    return [folder / "absent.mrc"]


def _not_a_number(folder, _raw):
    import mrcfile

    values = np.ones((5, 16, 16), np.float32)
    values[1:] = np.nan  # most of it; a few are replaced by align
    with pytest.warns(RuntimeWarning, match="NaN"), mrcfile.new(folder / "nan.mrc", values):
        pass
    (folder / "nan.rawtlt").write_text("-2\n-1\n0\n1\n2\n")
    return [folder / "nan.mrc"]


def _one_image(folder, _raw):
    import mrcfile

    with mrcfile.new(folder / "flat.mrc", np.ones((16, 16), np.float32)):
        pass
    return [folder / "flat.mrc"]


def _text_file(folder, _raw):
    (folder / "notes.txt").write_text("hello")
    return [folder / "notes.txt"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_too_few_angles, "3"),
        (_word_among_angles, "two"),
        (_truncated, "cut.mrc"),
        (_empty, "empty"),
        (_absent, "absent.mrc"),
        (_not_a_number, "nan"),
        (_one_image, "flat.mrc"),
        (_text_file, "notes.txt"),
    ],
)
def test_bad_input_is_one_paragraph_exit_2_and_no_project(make, words, small_run, tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    failed = tomoseg("run", *make(inputs, small_run.raw), "-o", tmp_path / "p.h5", code=2)
    assert words in failed.stderr.lower()
    assert "Traceback" not in failed.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["inputs"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run"], 2),
        (["nonsense"], 2),
        (["run", "RAW"], 2),
        (["run", "PROJECT", "--set", "reconstruct.nope=1"], 2),
        (["run", "PROJECT", "--from", "nowhere"], 2),
        (["run", "PROJECT", "--max-memory", "lots"], 2),
        (["status", "absent.h5"], 2),
        (["align", "RAW"], 2),
        (["check", "absent.yaml"], 2),
        (["check", "default", "absent.mrc"], 2),
        (["check", "default", "RAW"], 0),
        (["check", "genc2022"], 2),  # the paper's network is not in the box: it names a model file to be trained
        (["doctor"], 0),
        (["--version"], 0),
    ],
)
def test_exit_codes(arguments, code, small_run, tmp_path):
    known = {"RAW": small_run.raw, "PROJECT": small_run.project}
    done = tomoseg(*[known.get(a, a) for a in arguments], code=code, cwd=tmp_path)
    assert "Traceback" not in done.stderr


def test_check_reports_every_problem_at_once(tmp_path):
    pipeline = tmp_path / "bad.yaml"
    pipeline.write_text("align:\n  method: magic\nreconstruct:\n  iterations: -1\n  itrations: 3\nsegmnt: {}\n")
    failed = tomoseg("check", pipeline, code=2)
    for part in ("align.method", "reconstruct.iterations", "reconstruct.itrations", "segmnt"):
        assert part in failed.stderr


def test_a_locked_project_is_exit_4(project):
    code = "import sys; from pathlib import Path; from tomoseg.project.lock import writing\n"
    code += "with writing(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, project]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        refused = tomoseg("run", project, "--force", code=4)
        assert str(holder.pid) in refused.stderr
        assert set(_states(project).values()) == {"fresh"}
        holder.stdin.close()


@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_exits_130_keeps_the_state_and_continues(project, signum):
    before = _run_ids(project)
    command = [sys.executable, "-W", "ignore", "-m", "tomoseg", "run", project, "--progress", "plain"]
    command += ["--set", "reconstruct.iterations=10000"]  # minutes within one slab
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("reconstruct:"):
                break
        time.sleep(1)
        process.send_signal(signum)
        sent = time.monotonic()
        said = process.stderr.read()
    assert time.monotonic() - sent < 10
    assert process.returncode == 130, said
    assert f"tomoseg run {project}" in said
    assert _run_ids(project) == before
    assert _states(project)["reconstruct"] == "stale"
    tomoseg("run", project, "--set", "reconstruct.iterations=3")
    assert set(_states(project).values()) == {"fresh"}


def test_results_go_to_stdout_and_progress_to_stderr(project):
    done = tomoseg("run", project, "--from", "measure", "--force", "--progress", "plain")
    assert done.stdout.startswith("project")
    assert "measure" in done.stderr


def test_a_report_of_a_project(small_run, tmp_path):
    page = tmp_path / "report.html"
    assert str(page) in tomoseg("report", small_run.project, "-o", page).stdout
    text = page.read_text()
    assert "data:image/svg+xml;base64," in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_a_project_can_be_moved(small_run, tmp_path):
    moved = shutil.copy(small_run.project, tmp_path / "elsewhere.h5")
    assert set(_states(moved).values()) == {"fresh"}
