"""Shifts that move images out of the aligned frame."""

import numpy as np
import pytest

from tomoseg.alignment.api import align
from tomoseg.alignment.finding.estimate import Alignment
from tomoseg.alignment.judging.frame import frame_warnings, part_in_frame, require_in_frame
from tomoseg.errors import InputError, StageFailed, TomosegWarning
from tomoseg.simulate import simulate_series

ANGLES = np.array([-20.0, 0.0, 20.0])
ALL = np.ones(3, bool)


def shifted(*shifts, angle=0.0, offset=0.0):
    return Alignment(np.array(shifts, float), angle, offset, whole=True, method="")


def test_parts_are_those_of_overlapping_rectangles():
    parts = part_in_frame(shifted((0, 0), (20, 0), (20, -40)), (40, 80))
    # Half of the rows; half of the columns as well.
    np.testing.assert_allclose(parts, [1, 0.5, 0.25], atol=0.03)
    # About a horizontal axis height and width change places, and the offset of the axis counts along y.
    parts = part_in_frame(shifted((0, 0), (0, 60), (0, 0), angle=90.0, offset=10.0), (40, 80))
    np.testing.assert_allclose(parts, [0.75, 0.75 * 0.25, 0.75], atol=0.03)
    np.testing.assert_allclose(part_in_frame(shifted((0, 0), angle=40.0), (40, 80)), 1)
    assert part_in_frame(shifted((41, 0), (0, 0)), (40, 80))[0] == 0


def test_images_out_of_the_frame_are_refused_by_who_moved_them():
    parts = np.array([1.0, 0.01, 0.9])
    with pytest.raises(StageFailed, match=r"shifts found move 1 of 3 images \(tilt 0 degrees\) out of the frame"):
        require_in_frame(parts, ANGLES, ALL, found=True)
    with pytest.raises(InputError, match="offset given move 1 of 3 images"):
        require_in_frame(parts, ANGLES, ALL, found=False)
    require_in_frame(parts, ANGLES, np.array([True, False, True]), found=True)  # an outlier may be anywhere


def test_images_mostly_out_of_the_frame_are_named():
    assert frame_warnings(np.array([1.0, 0.6, 0.9]), ANGLES, ALL) == []
    (words,) = frame_warnings(np.array([0.3, 0.6, 0.2]), ANGLES, ALL)
    assert words.startswith("2 of 3 images lie with more than half of their area outside")
    assert "tilt -20, 20 degrees; the least shows 20% of it" in words


@pytest.fixture(scope="module")
def raw():
    return simulate_series(40, 4, tilt_step_deg=12, jitter_px=1, drift_px=1, seed=6)


def test_given_shifts_beyond_the_frame_are_wrong_input(raw, tmp_path):
    table = tmp_path / "shifts.csv"

    def write(last):
        lines = ["dy,dx", *["0,0"] * (len(raw.raw) - 1), f"{last},0"]
        table.write_text("\n".join(lines))

    write(300)
    with pytest.raises(InputError, match=r"move 1 of 12 images \(tilt 66 degrees\) out of the frame"):
        align(raw.raw, raw.angles_deg, shifts_file=table, tilt_axis_angle=3)
    write(26)
    with pytest.warns(TomosegWarning):
        found = align(raw.raw, raw.angles_deg, shifts_file=table, tilt_axis_angle=3)
    assert any("more than half of their area outside the aligned frame" in text for text in found.warnings)
    with pytest.raises(InputError, match="axis offset given move 12 of 12 images"):
        align(raw.raw, raw.angles_deg, method="none", tilt_axis_angle=3, tilt_axis_offset=-200)
