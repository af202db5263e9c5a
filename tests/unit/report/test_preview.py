"""The one picture, and the plots as files: complete, vector where promised, and nobody's file is overwritten."""

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import tomoseg
from tests.unit.report.test_report_page import SMALL_PX, everything, records, with_assessment
from tomoseg.arrays import MemoryInput
from tomoseg.errors import InputError
from tomoseg.report import preview
from tomoseg.report.figure_files import write_figures
from tomoseg.report.results import Results

ALL = ("tilt_series", "angles_deg", "tilt_series_info", "shifts_px", "alignment_info", "aligned", "volume")


def write_preview(path, artifacts, stages, title):
    """Write a small picture."""
    preview.write_preview(path, Results(artifacts, stages, title, SMALL_PX), 60)


@pytest.fixture(scope="module")
def artifacts():
    return everything()


def test_the_whole_project_on_one_picture(artifacts, tmp_path):
    write_preview(tmp_path / "a.png", artifacts, records(), "My $x$ sample")
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"), int)
    assert picture.shape[1] / picture.shape[0] == pytest.approx(13.3 / 7.5, abs=0.01)
    left, right = picture[:, : picture.shape[1] * 6 // 10], picture[:, picture.shape[1] * 6 // 10 :]
    blue = [(part[..., 2] > part[..., 0] + 60).sum() for part in (left, right)]
    assert blue[0] > 1000  # the labels over the slices
    assert blue[1] > 1000  # the histogram
    assert (right[..., 0] > right[..., 2] + 60).sum() > 30  # the particles
    assert (left.max(axis=2) < 30).sum() > 10_000  # the black of the slices


@pytest.mark.parametrize("last", range(1, len(ALL) + 1))
def test_a_project_that_stopped_early_has_a_picture(last, artifacts, tmp_path):
    write_preview(tmp_path / "a.png", {name: artifacts[name] for name in ALL[:last]}, [], "t")
    assert np.asarray(Image.open(tmp_path / "a.png").convert("L")).std() > 20


def test_a_volume_alone_and_unknown_sizes_have_a_picture(artifacts, tmp_path):
    volume = MemoryInput(artifacts["volume"].array, {})
    write_preview(tmp_path / "a.svg", {"volume": volume, "labels": artifacts["labels"]}, [], "t")
    assert "5\u00a0nm<" in (tmp_path / "a.svg").read_text()  # the labels know their voxel size
    write_preview(tmp_path / "b.svg", {"volume": volume}, [], "t")
    assert "10 px<" in (tmp_path / "b.svg").read_text()


def test_nothing_gives_no_picture(tmp_path):
    with pytest.raises(InputError, match="nothing to show"):
        write_preview(tmp_path / "a.png", {}, [], "t")
    with pytest.raises(InputError, match=r"png, \.pdf or \.svg"):
        write_preview(tmp_path / "a.jpg", {}, [], "t")
    assert list(tmp_path.iterdir()) == []


def test_vector_files_hold_text_and_scale_bars_as_vectors(artifacts, tmp_path):
    write_preview(tmp_path / "a.svg", artifacts, records(), "My $x$ sample")
    text = (tmp_path / "a.svg").read_text()
    for words in ("My $x$ sample", ">5\u00a0nm<", "mean diameter", "xy slice at z = 24", "black ≤", "particles"):
        assert words in text
    assert text.count("<image") == 7  # six slices and the surfaces; all else is drawn
    write_preview(tmp_path / "a.pdf", artifacts, records(), "My sample")
    content = (tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/Type /Font" in content
    drawn = b"".join(
        zlib.decompress(part) for part in re.findall(rb"FlateDecode >>\nstream\n(.*?)\nendstream", content, re.S)
    )
    assert b" Tf" in drawn  # text is text


def test_the_same_project_gives_the_same_file(artifacts, tmp_path):
    for ending in ("pdf", "svg"):
        for name in "ab":
            write_preview(tmp_path / f"{name}.{ending}", artifacts, records(), "t")
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_our_pictures_are_known(ending, artifacts, tmp_path):
    path = tmp_path / f"a.{ending}"
    write_preview(path, {"volume": artifacts["volume"]}, [], "t")
    assert preview.is_ours(path)
    path.write_bytes(path.read_bytes().replace(b"tomoseg", b"someone"))
    assert not preview.is_ours(path)


def test_plots_as_files(artifacts, tmp_path):
    made = with_assessment(artifacts)
    written = write_figures(tmp_path / "new" / "figures", "svg", Results(made, records(), "t"))
    names = {path.name for path in written}
    assert names == {
        f"{n}.svg" for n in ("shifts", "correlation", "residual_of_tilts", "error_of_positions", "residual", "sizes")
    }
    assert "equivalent-sphere diameter (nm)" in (tmp_path / "new" / "figures" / "sizes.svg").read_text()
    assert all("<image" not in path.read_text() for path in written)
    write_figures(tmp_path / "new" / "figures", "svg", Results(made, records(), "t"))  # ours are replaced
    written[0].write_text("changed by hand")
    with pytest.raises(InputError, match=written[0].name):
        write_figures(tmp_path / "new" / "figures", "svg", Results(made, records(), "t"))
    assert written[0].read_text() == "changed by hand"


def test_unknown_formats_of_plots_are_refused(artifacts, tmp_path):
    with pytest.raises(InputError, match="pdf, svg, png"):
        write_figures(tmp_path / "x", "gif", Results(artifacts, [], "t"))
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_the_commands(project, tmp_path):
    picture = project.with_name("copy_preview.png")
    assert tomoseg("preview", project).stdout.strip() == str(picture)
    first = picture.read_bytes()
    tomoseg("preview", project)
    assert picture.read_bytes() == first
    picture.write_bytes(b"somebody's")
    assert "was not written by this command" in tomoseg("preview", project, code=2).stderr
    assert picture.read_bytes() == b"somebody's"
    tomoseg("preview", project, "-o", picture)
    assert picture.read_bytes() == first
    assert "png, .pdf or .svg" in tomoseg("preview", project, "-o", tmp_path / "a.txt", code=2).stderr
    done = tomoseg("report", project, "-o", tmp_path / "r.html", "--figures", tmp_path / "f", "--figure-format", "png")
    files = done.stdout.split()
    assert files[0] == str(tmp_path / "r.html")
    assert {"shifts.png", "residual.png", "shell_correlation.png"} <= {name.rpartition("/")[2] for name in files[1:]}
    assert all(Path(name).read_bytes().startswith(b"\x89PNG") for name in files[1:])


@pytest.mark.slow
def test_the_command_in_the_report_makes_the_same_again(project, small_run, tmp_path):
    import html
    import shlex

    import h5py

    tomoseg("reconstruct", project, "--iterations", "7", "--progress", "none")
    tomoseg("run", project, "--until", "reconstruct", "--progress", "none")
    tomoseg("report", project, "-o", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    command = html.unescape(re.search(r'class="command"><code>(.*?)</code>', page, re.S)[1])
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:3] == ["tomoseg", "run", str(small_run.raw)]
    assert "reconstruct.iterations=7" in words
    tomoseg(*words[1:], "--until", "reconstruct", "--progress", "none", cwd=tmp_path)
    with h5py.File(tmp_path / "copy_again.h5") as again, h5py.File(project) as first:
        name = "reconstruction/volume"
        assert np.array_equal(again[name][:], first[name][:])
