"""Alignments taken from other projects and from files, through the program as users run it."""

import json
import shutil

import h5py
import mrcfile
import numpy as np
import pytest

from tests.conftest import tomoseg
from tomoseg import schema
from tomoseg.io.mrc import write_angles, write_mrc


@pytest.fixture(scope="module")
def channel(small_run, tmp_path_factory):
    """Import a second channel of the small series, binned by two, into a project of its own."""
    folder = tmp_path_factory.mktemp("channel")
    with mrcfile.open(small_run.raw) as file:
        raw = file.data.astype(np.float32)
    write_mrc(folder / "edx.mrc", raw.reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4)), 0.5, kind="stack")
    shutil.copy(small_run.raw.with_suffix(".rawtlt"), folder / "edx.rawtlt")
    tomoseg("import", folder / "edx.mrc", "-o", folder / "edx.h5")
    return folder / "edx.h5"


@pytest.fixture
def edx(channel, tmp_path):
    return shutil.copy(channel, tmp_path / "edx.h5")


def alignment(project):
    with h5py.File(project, "r") as file:
        info = file[schema.ALIGNMENT_INFO.path].attrs
        axis = info["tilt_axis_angle_deg"], info["tilt_axis_offset_px"]
        return file[schema.SHIFTS.path][()], np.array(axis)


def state(project):
    stages = json.loads(tomoseg("status", project, "--json").stdout)["stages"]
    return next(s for s in stages if s["name"] == "align")


def test_another_channel_takes_the_alignment_over(project, edx):
    before = project.read_bytes()
    said = tomoseg("align", edx, "--from", project).stderr
    assert f"shifts as in {project}" in said
    assert project.read_bytes() == before
    shifts, axis = alignment(project)
    taken, taken_axis = alignment(edx)
    np.testing.assert_allclose(taken, shifts / 2)
    np.testing.assert_allclose(taken_axis, axis / [1, 2])


def test_image_corrections_are_taken_over(project, edx):
    with h5py.File(project, "r+") as file:
        table = file[schema.TILT_QUALITY.path][()]
        table["rotation_deg"][:2] = 0.5, -0.5
        table["magnification"][2:4] = 1.01, 0.99
        table["tilt_error_deg"][4:6] = 0.25, -0.25
        file[schema.TILT_QUALITY.path][...] = table
    said = tomoseg("align", edx, "--from", project).stderr
    assert "image corrections: rotation 0.15 degrees rms (0.50 at most)" in " ".join(said.split())
    with h5py.File(edx, "r") as file:
        for name in ("rotation_deg", "magnification", "tilt_error_deg"):
            np.testing.assert_array_equal(file[schema.TILT_QUALITY.path][name], table[name])
        refined, recorded = (file[a.path][()] for a in (schema.REFINED_ANGLES, schema.ANGLES))
        np.testing.assert_allclose(refined - recorded, table["tilt_error_deg"], atol=1e-12)
    assert state(edx)["state"] == "fresh"
    tomoseg("align", edx, "--from-project", "null", "--method", "none")
    with h5py.File(edx, "r") as file:  # nothing is left of what is no longer asked for
        assert schema.REFINED_ANGLES.path not in file
        assert not file[schema.TILT_QUALITY.path]["tilt_error_deg"].any()


@pytest.mark.slow
def test_only_the_alignment_of_the_other_project_counts(project, edx):
    tomoseg("align", edx, "--from-project", project)
    assert state(edx)["state"] == "fresh"
    tomoseg("measure", project, "--min-voxels", "9")
    touched = f"from_project file {project} was touched since it was read; the next run compares its alignment"
    assert state(edx)["reasons"] == [touched]  # the other file is not opened to tell
    assert "align: up to date" in tomoseg("run", edx, "--until", "align", "--progress", "plain").stderr
    tomoseg("align", project, "--method", "com")
    assert state(edx)["reasons"] == [touched]
    said = tomoseg("run", edx, "--until", "align", "--progress", "plain").stderr
    assert f"align: starting (from_project file {project} has changed)" in " ".join(said.split())
    assert state(edx)["state"] == "fresh"
    project.unlink()
    assert state(edx)["state"] == "fresh"  # as a raw file that is gone: what was in it is here


def test_other_tilts_are_refused_in_one_paragraph(project, small_run, tmp_path):
    with mrcfile.open(small_run.raw) as file:
        raw = file.data[:-1].copy()
    write_mrc(tmp_path / "short.mrc", raw, 0.25, kind="stack")
    write_angles(tmp_path / "short.rawtlt", np.loadtxt(small_run.raw.with_suffix(".rawtlt"))[:-1])
    tomoseg("import", tmp_path / "short.mrc", "-o", tmp_path / "short.h5")
    failed = tomoseg("align", tmp_path / "short.h5", "--from", project, code=2)
    assert f"{project} aligns 23 tilts, the series has 22" in failed.stderr
    assert "Traceback" not in failed.stderr


def unaligned(project, file):
    del file["/provenance/align"]


def not_finite(project, file):
    file[schema.SHIFTS.path][3] = np.nan


def no_numbers(project, file):
    file[schema.ALIGNMENT_INFO.path].attrs["tilt_axis_angle_deg"] = "north"


def linked(project, file):
    del file[schema.SHIFTS.path]
    file[schema.SHIFTS.path] = h5py.ExternalLink(str(project.with_name("trap.h5")), "/x")


def another_size(project, file):
    del file[schema.SHIFTS.path]
    file[schema.SHIFTS.path] = np.zeros((4, 2))


def vanishing(project, file):
    table = file[schema.TILT_QUALITY.path][()]
    table["magnification"][3] = 0
    file[schema.TILT_QUALITY.path][...] = table


def no_project(project, file):
    del file.attrs[schema.SCHEMA_ATTR]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unaligned, "holds no alignment"),
        (not_finite, "is damaged, or another program changed it"),
        (no_numbers, "is damaged, or another program changed it"),
        (linked, "it is a link"),
        (another_size, "is damaged, or another program changed it"),
        (vanishing, "is damaged, or another program changed it"),
        (no_project, "not a tomoseg project"),
    ],
)
def test_another_project_that_makes_no_sense(project, edx, change, message):
    with h5py.File(project, "r+") as file:
        change(project, file)
    before = edx.read_bytes()
    failed = tomoseg("align", edx, "--from", project, code=2)
    assert message in " ".join(failed.stderr.split())
    assert "Traceback" not in failed.stderr
    assert edx.read_bytes() == before


def test_a_broken_other_project_does_not_hide_the_state_of_this_one(project, edx):
    tomoseg("align", edx, "--from", project)
    project.write_bytes(b"nothing of HDF5")
    assert state(edx)["state"] == "stale"


def test_no_other_project_and_the_project_itself(edx, tmp_path):
    failed = tomoseg("align", edx, "--from", tmp_path / "none.h5", code=2)
    assert "align.from_project: there is no project" in " ".join(failed.stderr.split())
    failed = tomoseg("align", edx, "--from", edx, code=2)
    assert "is this project itself" in failed.stderr


def test_zero_is_a_value_on_the_command_line(project):
    tomoseg("align", project, "--tilt-axis-angle", "0", "--tilt-axis-offset", "0")
    np.testing.assert_array_equal(alignment(project)[1], [0, 0])


def test_what_was_exported_for_imod_makes_the_same_aligned_series(project, small_run, tmp_path):
    tomoseg("export", project, "--formats", "alignment", "--export-dir", tmp_path / "out")
    tomoseg("import", small_run.raw, "-o", tmp_path / "again.h5")
    tomoseg("align", tmp_path / "again.h5", "--shifts-file", tmp_path / "out" / "alignment.xf")
    with h5py.File(project, "r") as before, h5py.File(tmp_path / "again.h5", "r") as after:
        expected, found = (file[schema.ALIGNED.path][()] for file in (before, after))
    # Shifts of 1e-6 px, angle of 1e-10: rounding of f4 in counts of up to 1e4, but where a border pixel drops out.
    apart = np.abs(found - expected) > 1e-4 * expected.max()
    assert apart.mean() < 1e-3
    tomoseg("align", tmp_path / "again.h5", "--shifts-file", "null", "--from", project)
    assert alignment(tmp_path / "again.h5")[0].tobytes() == alignment(project)[0].tobytes()
