import math

import pytest

from tomoseg.io.units import checked_pixel_size, degrees_per, length_to_nm


@pytest.mark.parametrize(
    ("value", "unit", "nm"),
    [
        (3.36, "nm", 3.36),
        (0.018, "µm", 18.0),
        (0.018, "μm", 18.0),  # Greek mu instead of the micro sign
        (0.018, "um", 18.0),
        (0.018, "micron", 18.0),
        (0.018, "microns", 18.0),
        (0.018, "\\u00B5m", 18.0),  # as ImageJ writes it
        (7.88, "Å", 0.788),
        (7.88, "\u212b", 0.788),
        (7.88, "A", 0.788),
        (7.88, "Angstrom", 0.788),
        (7.88, "angstroms", 0.788),
        (8.17, "pm", 0.00817),
        (3.6e-9, "m", 3.6),
        (3.6e-9, "meters", 3.6),
        (2e-6, "mm", 2.0),
        (1e-7, "cm", 1.0),
        (2.0, "[n_m]", 2.0),  # NCEM EMD
    ],
)
def test_lengths(value, unit, nm):
    assert length_to_nm(value, unit) == pytest.approx(nm, rel=1e-12)


@pytest.mark.parametrize("unit", [None, "", "1/nm", "px", "pixels", "deg", "s", "a"])
def test_what_is_no_length(unit):
    assert length_to_nm(1.0, unit) is None


def test_angles():
    assert degrees_per("deg") == degrees_per("degrees") == degrees_per("°") == degrees_per("[deg]") == 1
    assert degrees_per("rad") == degrees_per("radians") == pytest.approx(180 / math.pi)
    assert degrees_per("mrad") == pytest.approx(0.18 / math.pi)
    assert degrees_per("") is degrees_per(None) is degrees_per("nm") is None


def test_a_pixel_size_that_can_be_believed():
    size = checked_pixel_size((3.36, 3.36), ("nm", "nm"), "header")
    assert (size.nm, size.source, size.doubt) == (3.36, "header", "")
    # 1 with a unit is a pixel size; only the format's own placeholder is not
    assert checked_pixel_size((1.0, 1.0), ("nm", "nm"), "header", placeholder_nm=0.1).nm == 1.0
    # sides that differ by rounding
    assert checked_pixel_size((3.36, 3.3601), ("nm", "nm"), "header").nm == 3.3601
    assert checked_pixel_size((0.0033601, 3.36), ("µm", "nm"), "header").nm == 3.36


@pytest.mark.parametrize(
    ("sides", "units", "reason"),
    [
        ((0.0, 0.0), ("nm", "nm"), "is not a size"),
        ((-1.0, -1.0), ("nm", "nm"), "is not a size"),
        ((float("nan"), 1.0), ("nm", "nm"), "is not a size"),
        ((float("inf"), float("inf")), ("nm", "nm"), "is not a size"),
        ((1.0, 1.0), ("", None), "has no unit"),
        ((3.36, 3.36), (None, None), "has no unit"),
        ((0.1, 0.1), ("1/nm", "1/nm"), "'1/nm', which is not a length"),
        ((3.0, 2.0), ("nm", "nm"), "not square"),
        ((2.0, 2.0), ("nm", "pm"), "not square"),
        ((1.0, 1.0), ("Å", "Å"), "placeholder"),
    ],
)
def test_a_doubtful_pixel_size_is_unknown_and_says_why(sides, units, reason):
    size = checked_pixel_size(sides, units, "MRC header", placeholder_nm=0.1)
    assert size.nm is None
    assert size.source == "unknown"
    assert reason in size.doubt
    assert "MRC header" in size.doubt
