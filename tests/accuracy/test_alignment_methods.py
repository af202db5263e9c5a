"""Each method of the stage `align`, the axis as given, and parts of the frame, on simulated series of known truth."""

import pytest

from tests.accuracy.test_alignment_accuracy import _align, _rms_error
from tomoseg.simulate import simulate_series


@pytest.fixture(scope="module")
def series():
    return simulate_series(64, 8, tilt_step_deg=4, jitter_px=2, drift_px=6, tilt_axis_angle_deg=5, seed=11)


# Measured along and across: auto 0.02, com 0.03, common-line 0.02; xcorr and reprojection 0.5, as errors add up.
@pytest.mark.parametrize(
    ("method", "allowed_px", "how"),
    [
        ("auto", 0.1, "xcorr, centre of mass and common line"),
        ("com", 0.1, "xcorr, centre of mass"),
        ("common-line", 0.1, "xcorr, centre of mass and common line"),
        ("xcorr", 1.5, "xcorr"),
        ("reprojection", 1.5, "xcorr, reprojection"),
    ],
)
def test_each_method_on_a_whole_sample(series, method, allowed_px, how):
    outputs, runtime = _align(series.raw, series.angles_deg, method=method, tilt_axis_angle=5)
    assert _rms_error(outputs, series.truth, series.angles_deg).max() < allowed_px
    assert outputs.attrs["alignment_info"]["method"] == how
    assert not runtime.warnings


def test_the_methods_differ(series):
    shifts = [
        _align(series.raw, series.angles_deg, method=method, tilt_axis_angle=5)[0].arrays["shifts_px"].tobytes()
        for method in ("xcorr", "com", "common-line", "reprojection")
    ]
    assert len(set(shifts)) == 4


@pytest.mark.parametrize("method", ["xcorr", "com"])
def test_the_axis_is_found_whatever_the_method(series, method):
    outputs, _ = _align(series.raw, series.angles_deg, "y", method=method)
    assert abs(outputs.attrs["alignment_info"]["tilt_axis_angle_deg"] - 5) < 1


@pytest.mark.parametrize("method", ["com", "common-line"])
def test_a_centre_of_mass_of_a_cut_sample_is_not_trusted(series, method):
    _, runtime = _align(series.raw[:, 16:-16, 16:-16], series.angles_deg, method=method, tilt_axis_angle=5)
    assert any("not to be trusted; use auto or reprojection" in warning for warning in runtime.warnings)


@pytest.mark.parametrize("method", ["auto", "xcorr", "none"])
def test_zero_is_a_value(series, method):
    """The true axis lies at 5 degrees, 4 px from the centre: neither is taken where 0 is given."""
    given, _ = _align(series.raw, series.angles_deg, "x", method=method, tilt_axis_angle=0, tilt_axis_offset=0)
    info = given.attrs["alignment_info"]
    assert (info["tilt_axis_angle_deg"], info["tilt_axis_offset_px"]) == (0, 0)
