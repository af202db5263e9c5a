"""What a user sees next: states with dates and the next step, JSON, and settings that a failure leaves alone."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from tomoseg import beforehand
from tomoseg.cli.app import app
from tomoseg.errors import InputError, StageFailed
from tomoseg.io.mrc import write_angles, write_mrc
from tomoseg.project import Project
from tomoseg.stages import BY_NAME

OTSU = ["--set", "segment.method=otsu"]


def call(*words, code=0):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == code or code is None, (done.exception, done.output)
    return done


def test_status_tells_dates_warnings_and_the_next_step(project):
    text = call("status", project).stdout
    assert text.count(" 20") >= 5  # the year of each date
    assert "warning: labels were made by intensity thresholds" in text
    assert text.rstrip().splitlines()[-1].startswith(f"next: tomoseg report {project}")
    text = call("status", project, "--set", "measure.min_voxels=30").stdout
    assert text.rstrip().splitlines()[-1] == f"next: tomoseg run {project}"


def test_json_is_a_flag_and_goes_to_stdout(project):
    options = ["--set", "measure.min_voxels=30", "--until", "measure", "--json", "--progress", "none"]
    done = call("run", project, *OTSU, *options)
    content = json.loads(done.stdout)
    assert [stage["name"] for stage in content["stages"]][-1] == "measure"
    assert content["stages"][-1]["run"]["parameters"]["min_voxels"] == 30
    assert json.loads(call("status", project, "--json").stdout)["stages"]
    assert json.loads(call("history", project, "--json").stdout)
    assert json.loads(call("models", "--json").stdout)["models"]
    assert any(finding["what"] == "numpy" for finding in json.loads(call("doctor", "--json").stdout))
    assert json.loads(call("check", "quick", "--json").stdout) == {"problems": [], "warnings": [], "not_checked": {}}
    wrong = call(
        "check", "quick", "--set", "reconstruct.method=gridrec", "--set", "reconstruct.backend=cpu", "--json", code=2
    )
    assert len(json.loads(wrong.stdout)["problems"]) == 1


def test_a_class_that_will_not_be_is_found_before_computing(project):
    with pytest.raises(InputError, match="there will be no class 'Pt'; segment makes 'background', 'support'"):
        CliRunner().invoke(app, ["check", "default", "--set", "measure.particle_class=Pt"], catch_exceptions=False)
    options = ["--set", "segment.model=gamma-alumina-pt", "--set", "segment.method=unet"]
    call("check", "default", "--set", "measure.particle_class=Pt", *options)


@pytest.mark.parametrize("error", [StageFailed("out of luck"), InputError("not like this")])
def test_a_run_that_fails_leaves_good_results_fresh(project, monkeypatch, error):
    with Project.read(project) as opened:
        before = opened.settings

    def fail(**_):
        raise error

    stage = BY_NAME["segment"]
    monkeypatch.setitem(BY_NAME, "segment", type(stage)(**{**vars(stage), "run": fail}))
    done = call("run", project, *OTSU, "--set", "segment.smooth=1.5", "--set", "measure.min_voxels=99", code=None)
    assert done.exception is error
    done = call("segment", project, "--smooth", "1.5", "--method", "otsu", code=None)
    assert done.exception is error
    with Project.read(project) as opened:
        assert opened.settings == before
    assert "stale" not in call("status", project).stdout


def test_a_later_failure_keeps_what_was_wished_for(project, monkeypatch):
    """Once a result has changed, the next run goes on with the same parameters."""
    stage = BY_NAME["segment"]

    def fail(**_):
        raise StageFailed("out of luck")

    monkeypatch.setitem(BY_NAME, "segment", type(stage)(**{**vars(stage), "run": fail}))
    options = ["--set", "reconstruct.iterations=3", *OTSU, "--set", "segment.smooth=1.5"]
    call("run", project, *options, code=None)
    with Project.read(project) as opened:
        assert opened.settings["reconstruct"]["iterations"] == 3
        assert opened.settings["segment"]["smooth"] == 1.5


def test_a_project_has_the_ending_of_one(tmp_path):
    with pytest.raises(InputError, match=r"must end in \.h5 or \.hdf5"):
        CliRunner().invoke(app, ["run", str(tmp_path), "-o", str(tmp_path / "x.hdf")], catch_exceptions=False)


def test_colours_without_quotes_are_explained(tmp_path):
    (tmp_path / "p.yaml").write_text("segment:\n  class_colors: [#ff0000, #00ff00, #0000ff]\n")
    with pytest.raises(InputError, match="write colours in quotes"):
        CliRunner().invoke(app, ["check", str(tmp_path / "p.yaml")], catch_exceptions=False)


def test_a_disk_without_room_is_found_before_computing(tmp_path, monkeypatch):
    raw = tmp_path / "raw.mrc"
    write_mrc(raw, np.ones((41, 64, 128), np.int16), 1.0, kind="stack", label="")
    write_angles(raw.with_suffix(".rawtlt"), np.arange(-60.0, 61, 3))
    # 41 images of 2 + 4 bytes per pixel, 128 x 64 x 128 voxels of 6.
    needed = 41 * 64 * 128 * 6 + 128 * 64 * 128 * 6
    for free, fits in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(beforehand.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        done = CliRunner().invoke(app, ["check", str(raw)])
        assert (done.exit_code == 0) == fits
    assert "reconstruct.binning" in str(done.exception)
    done = CliRunner().invoke(app, ["run", str(raw), "-o", str(tmp_path / "p.h5")])
    assert "GiB are free in" in str(done.exception)
    assert not (tmp_path / "p.h5").exists()
    half = CliRunner().invoke(app, ["check", str(raw), "--set", "reconstruct.binning=2"])
    assert half.exit_code == 0, half.exception


def test_the_memory_for_an_alignment_is_found_out_before_computing(tmp_path, monkeypatch):
    raw = tmp_path / "raw.mrc"
    write_mrc(raw, np.ones((41, 64, 128), np.int16), 1.0, kind="stack", label="")
    write_angles(raw.with_suffix(".rawtlt"), np.arange(-60.0, 61, 3))
    monkeypatch.setattr(beforehand, "available_memory", lambda: 10 << 20)
    for command in (["check", str(raw)], ["run", str(raw), "-o", str(tmp_path / "p.h5")]):
        done = CliRunner().invoke(app, command)
        assert isinstance(done.exception, InputError)
        assert "finding the alignment of 41 images takes about" in str(done.exception)
    assert not (tmp_path / "p.h5").exists()
    assert CliRunner().invoke(app, ["check", str(raw), "--set", "align.method=none"]).exit_code == 0


@pytest.mark.parametrize(
    ("pixel_nm", "code", "said"), [(0.12, 0, ""), (1.0, 0, "usually a mistake"), (50.0, 2, "too much")]
)
def test_a_network_for_other_pixels_is_found_out_before_computing(tmp_path, pixel_nm, code, said):
    raw = tmp_path / "raw.mrc"
    write_mrc(raw, np.ones((41, 64, 64), np.int16), pixel_nm, kind="stack", label="")
    write_angles(raw.with_suffix(".rawtlt"), np.arange(-60.0, 61, 3))
    of_network = ["--set", "segment.model=gamma-alumina-pt"]
    done = CliRunner().invoke(app, ["check", str(raw), *of_network, "--json"])
    found = json.loads(done.stdout)
    assert done.exit_code == code
    texts = found["problems"] if code else found["warnings"]
    assert all("segment: the network was trained on pixels of" in text and said in text for text in texts)
    assert len(texts) == (said != "")
    binned = CliRunner().invoke(app, ["check", str(raw), *of_network, "--set", "reconstruct.binning=8", "--json"])
    assert binned.exit_code == (0 if pixel_nm < 0.2 else 2)  # the voxels count, not the pixels of the series
    (tmp_path / "p.h5").unlink(missing_ok=True)
    CliRunner().invoke(app, ["import", str(raw), "-o", str(tmp_path / "p.h5")], catch_exceptions=False)
    again = CliRunner().invoke(app, ["check", str(tmp_path / "p.h5"), *of_network, "--json"])
    assert json.loads(again.stdout)["problems" if code else "warnings"] == texts


def test_a_gpu_that_is_not_there_is_told_though_all_is_fresh(project, monkeypatch):
    call("run", project, *OTSU)
    monkeypatch.setattr("tomoseg.reconstruction.backends.choice._gpu", lambda: False)
    done = call("run", project, *OTSU, "--device", "cuda", code=None)
    assert isinstance(done.exception, InputError)
    assert "finds no CUDA GPU" in str(done.exception)
