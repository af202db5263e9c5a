"""The paragraph on methods: what was done is told with its source, and nothing else."""

import re

import h5py
import pytest
from typer.testing import CliRunner

from tomoseg.cli.app import app


def cited(project, *more):
    done = CliRunner().invoke(app, ["cite", str(project), *map(str, more)])
    assert done.exception is None, done.exception
    return done.stdout


def test_what_was_done_is_told_with_its_source(project):
    text = cited(project)
    paragraph, rest = text.split("## References")
    references, parameters = rest.split("## Parameters")
    assert "A tilt series of 23 images" in paragraph
    assert "aligned by cross-correlation" in paragraph
    assert "(MLEM)" in paragraph
    assert "Thresholds on intensity labelled its voxels" in paragraph
    assert "particles" in paragraph
    n = len(references.strip().splitlines())
    cited_numbers = {int(k) for group in re.findall(r"\[([\d, ]+)\]", paragraph) for k in group.split(",")}
    assert cited_numbers == set(range(1, n + 1))
    assert "Shepp, L. A. & Vardi" in references
    assert "Otsu" in references
    assert "Ronneberger" not in references  # no network labelled it
    assert "reconstruct:" in parameters
    assert "iterations:" in parameters


@pytest.mark.parametrize(
    ("px", "told"),
    [(3.5, "correlate by 1/7 at 0.875 nm"), (2.0, "by more than 1/7 up to the limit of the voxels, 0.5")],
)
def test_a_resolution_at_the_limit_of_the_voxels_is_called_that(project, px, told):
    with h5py.File(project, "r+") as file:
        file["reconstruction"].attrs["resolution_px"] = px
        file["reconstruction"].attrs["resolution_nm"] = 0.25 * px
    assert told in cited(project)


def test_another_method_is_cited_as_such(project):
    with h5py.File(project, "r+") as file:
        file["reconstruction"].attrs["method"] = "sirt"
    text = cited(project)
    assert "simultaneous iterative reconstruction technique" in text
    assert "Gregor, J." in text
    assert "Shepp" not in text


def test_it_is_written_to_a_file(project, tmp_path):
    assert cited(project, "-o", tmp_path / "methods.md") == f"{tmp_path / 'methods.md'}\n"
    assert (tmp_path / "methods.md").read_text(encoding="utf-8").startswith("## Methods")
