"""Shifts that are set by hand, and tilts that are left out, as a user writes them."""

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.io.exclusion import excluded_tilts
from tomoseg.io.set_shifts import as_text, parse_shifts, set_shifts

ANGLES = np.array([-60.02, -30.0, 0.1, 30.0, 60.0])


def test_text_and_numbers_are_the_same():
    found = parse_shifts("30=1.5,-2; -60 = 0 , .25;0.1deg=-3,4e0;")
    assert found == {30.0: (1.5, -2.0), -60.0: (0.0, 0.25), 0.1: (-3.0, 4.0)}
    assert parse_shifts(as_text(found)) == found
    assert as_text(found) == "-60=0,0.25; 0.1=-3,4; 30=1.5,-2"


@pytest.mark.parametrize(
    "text", ["30", "30=1", "30=1,2,3", "=1,2", "a=1,2", "30=1,b", "30=nan,1", "30=1,inf", "30=1,2 60=3,4", "", ";", "x"]
)
def test_what_sets_no_shift_is_refused(text):
    with pytest.raises(InputError, match="TILT=DY,DX"):
        parse_shifts(text)


def test_images_are_the_nearest_tilts():
    found = set_shifts("-60=1,2; 30.3=-3,0.5", ANGLES, (40, 50))
    assert found.images.tolist() == [0, 3]
    assert found.shifts_px.tolist() == [[1, 2], [-3, 0.5]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("45=1,2", "no image at 45 degrees.*nearest is at 30"),
        ("30=1,2; 30=3,4", "30 degrees is set twice"),
        ("30=1,2; 30.1=3,4", "30 degrees is set twice"),
        ("30=40,0", "out of the frame"),
        ("30=0,-50", "out of the frame"),
    ],
)
def test_shifts_that_cannot_be_are_refused(text, said):
    with pytest.raises(InputError, match=said):
        set_shifts(text, ANGLES, (40, 50))


def test_tilts_are_left_out_by_angle_with_or_without_a_unit():
    assert excluded_tilts("60, -70..-20deg", ANGLES).tolist() == [True, True, False, False, True]
    assert excluded_tilts("0", ANGLES).tolist() == [False, False, True, False, False]
    assert not excluded_tilts(None, ANGLES).any()


@pytest.mark.parametrize("text", ["", "a", "3-5x", "1..", "60;30"])
def test_what_names_no_tilt_is_refused(text):
    with pytest.raises(InputError, match="names no tilts"):
        excluded_tilts(text, ANGLES)


def test_a_tilt_that_is_not_there_is_named():
    with pytest.raises(InputError, match="45"):
        excluded_tilts("45", ANGLES)
