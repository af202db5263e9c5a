"""Corrections by hand: shifts set for single tilts, and tilts left out."""

import numpy as np
import pytest

from tests.conftest import tomoseg
from tomoseg.alignment.api import align
from tomoseg.alignment.images.warp import rotate_vectors
from tomoseg.cli.view import view
from tomoseg.errors import InputError, TomosegWarning
from tomoseg.project import Project
from tomoseg.report.align_viewer import Nudges
from tomoseg.simulate import simulate_series


@pytest.fixture(scope="module")
def raw():
    return simulate_series(48, 12, tilt_step_deg=5, jitter_px=1, drift_px=2, seed=4)


@pytest.fixture(scope="module")
def found(raw):
    return align(raw.raw, raw.angles_deg)


def test_one_image_moves_and_nothing_else(raw, found):
    k = 9
    wanted = found.shifts_px[k] + [1.25, -0.5]
    changed = align(raw.raw, raw.angles_deg, set_shift={float(raw.angles_deg[k]): tuple(wanted)})
    assert changed.shifts_px[k] == pytest.approx(wanted, abs=1e-4)
    assert np.array_equal(np.delete(changed.shifts_px, k, axis=0), np.delete(found.shifts_px, k, axis=0))
    assert changed.tilt_axis_angle_deg == found.tilt_axis_angle_deg
    assert changed.tilt_axis_offset_px == found.tilt_axis_offset_px
    assert np.array_equal(np.delete(changed.aligned, k, axis=0), np.delete(found.aligned, k, axis=0))
    assert not np.allclose(changed.aligned[k], found.aligned[k])
    assert any("shifts set by hand" in note and f"{raw.angles_deg[k]:g}" in note for note in changed.notes)


def test_the_stated_error_is_that_of_the_image_where_it_was_put(raw, found):
    k = 12
    wanted = found.shifts_px[k] + [0.0, 1.5]
    with pytest.warns(TomosegWarning, match=f"tilt {raw.angles_deg[k]:g} degrees"):
        changed = align(raw.raw, raw.angles_deg, set_shift={float(raw.angles_deg[k]): tuple(wanted)})
    error = changed.quality["error_px"]
    assert error[k] > 0.6
    assert np.nanmedian(error) < 0.2


def test_a_bad_image_is_taken_for_good_where_its_user_puts_it(raw):
    k = 13
    moved = raw.raw.copy()
    moved[k] = np.roll(moved[k], 17, axis=0)  # out of reach of any step between neighbours
    right = raw.truth.shifts_px[k] - [17.0, 0.0]
    by_hand = align(moved, raw.angles_deg, max_shift=0.1, set_shift={float(raw.angles_deg[k]): tuple(right)})
    assert abs(by_hand.shifts_px[k] - right).max() < 1e-3
    assert not by_hand.outliers[k]


def test_tilts_that_are_left_out_take_no_part_and_are_told(raw, found):
    damaged = raw.raw.copy()
    damaged[[3, 4]] = damaged[[4, 3]][:, ::-1, ::-1]
    some = align(damaged, raw.angles_deg, exclude_tilt=f"{raw.angles_deg[3]:g}..{raw.angles_deg[4]:g}")
    assert np.flatnonzero(some.outliers).tolist() == [3, 4]
    assert not some.aligned[[3, 4]].any()
    assert any(note.startswith("left out as asked: tilt") for note in some.notes)
    assert not any("do not agree" in text for text in some.warnings)
    kept = np.delete(np.arange(len(damaged)), [3, 4])
    apart = (some.shifts_px - found.shifts_px)[kept]
    assert np.abs(apart - apart.mean(axis=0)).max() < 0.3  # px


def test_something_must_be_left(raw):
    with pytest.raises(InputError, match="keep some"):
        align(raw.raw, raw.angles_deg, exclude_tilt="-90..90")


def test_shifts_that_are_given_can_be_set_too(raw):
    k, angle = 5, float(raw.angles_deg[5])
    with pytest.warns(TomosegWarning):  # nothing is aligned
        same = align(raw.raw, raw.angles_deg, method="none", tilt_axis_angle=3, set_shift=f"{angle:g}=2,-1")
    assert same.shifts_px[k].tolist() == [2, -1]
    assert not np.delete(same.shifts_px, k, axis=0).any()


@pytest.mark.slow
def test_the_command_line_takes_several_and_forgets_what_is_refused(tmp_path):
    raw, project = tmp_path / "r.mrc", tmp_path / "p.h5"
    tomoseg("simulate", "-o", raw, "--size", 48, "--particles", 8, "--step", 8)
    tomoseg("run", raw, "-o", project, "--until", "align", "--set", "align.method=com")
    tomoseg("align", project, "--set-shift", "-60=1,2", "--set-shift", "4=-1.5,0", "--exclude-tilt", "68")
    with Project.read(project) as opened:
        shifts, angles = opened.artifacts()["shifts_px"][:], opened.artifacts()["angles_deg"][:]
    assert shifts[angles == -60].tolist() == [[1, 2]]
    assert shifts[angles == 4].tolist() == [[-1.5, 0]]
    refused = tomoseg("align", project, "--set-shift", "5.9=1,2", code=2)
    assert "no image at 5.9 degrees" in refused.stderr
    assert "align        fresh" in tomoseg("status", project).stdout
    tomoseg("align", project, "--set-shift", "null")
    with Project.read(project) as opened:
        assert opened.settings["align"]["set_shift"] is None
        assert opened.settings["align"]["exclude_tilt"] == "68"


@pytest.mark.slow
def test_what_is_saved_in_the_view_is_aligned_again(tmp_path, monkeypatch, capsys):
    raw, project = tmp_path / "r.mrc", tmp_path / "p.h5"
    tomoseg("simulate", "-o", raw, "--size", 48, "--particles", 8, "--step", 8)
    tomoseg("run", raw, "-o", project, "--until", "align", "--set", "align.method=com")
    with Project.read(project) as opened:
        before = opened.artifacts()["shifts_px"][:]
        axis_deg = opened.artifacts()["alignment_info"].attrs["tilt_axis_angle_deg"]

    def moved_by_hand(results):
        nudges = Nudges(len(before))
        nudges.move(4, (0.0, 2.0))
        nudges.save()
        nudges.move(6, (1.0, 0.0))
        return nudges

    monkeypatch.setattr("tomoseg.report.align_viewer.open_align_viewer", moved_by_hand)
    view(project, stage="align")
    assert f"not saved: what was moved at {-68 + 6 * 8}" in capsys.readouterr().out.replace("\u2212", "-")
    with Project.read(project) as opened:
        after = opened.artifacts()["shifts_px"][:]
    assert rotate_vectors(after[4] - before[4], axis_deg) == pytest.approx([0, 2], abs=2e-3)
    assert np.array_equal(np.delete(after, 4, axis=0), np.delete(before, 4, axis=0))
