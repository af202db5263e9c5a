"""Each method of the stage `align`, the axis as given, and parts of the frame, on simulated series of known truth."""

from dataclasses import replace

import numpy as np
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
        ("auto", 0.05, "xcorr, centre of mass and common line, reprojection"),
        ("com", 0.1, "xcorr, centre of mass"),
        ("common-line", 0.1, "xcorr, centre of mass and common line"),
        ("xcorr", 1.5, "xcorr"),
        ("reprojection", 0.1, "xcorr, reprojection"),
    ],
)
def test_each_method_on_a_whole_sample(series, method, allowed_px, how):
    outputs, runtime = _align(series.raw, series.angles_deg, method=method, tilt_axis_angle=5)
    assert _rms_error(outputs, series.truth, series.angles_deg).max() < allowed_px
    assert outputs.attrs["alignment_info"]["method"] == how
    assert not runtime.warnings


@pytest.mark.slow
def test_the_methods_differ(series):
    shifts = [
        _align(series.raw, series.angles_deg, method=method, tilt_axis_angle=5)[0].arrays["shifts_px"].tobytes()
        for method in ("xcorr", "com", "common-line", "reprojection")
    ]
    assert len(set(shifts)) == 4


@pytest.mark.parametrize("method", ["xcorr", pytest.param("com", marks=pytest.mark.slow)])
def test_the_axis_is_found_whatever_the_method(series, method):
    outputs, _ = _align(series.raw, series.angles_deg, "y", method=method)
    assert abs(outputs.attrs["alignment_info"]["tilt_axis_angle_deg"] - 5) < 1


@pytest.mark.parametrize("method", ["com", "common-line"])
def test_a_centre_of_mass_of_a_cut_sample_is_not_trusted(series, method):
    _, runtime = _align(series.raw[:, 16:-16, 16:-16], series.angles_deg, method=method, tilt_axis_angle=5)
    assert any("is unreliable; use method auto or reprojection" in warning for warning in runtime.warnings)


@pytest.mark.parametrize("method", ["auto", "xcorr", "none"])
def test_zero_is_a_value(series, method):
    """The true axis lies at 5 degrees, 4 px from the centre: neither is taken where 0 is given."""
    given, _ = _align(series.raw, series.angles_deg, "x", method=method, tilt_axis_angle=0, tilt_axis_offset=0)
    info = given.attrs["alignment_info"]
    assert (info["tilt_axis_angle_deg"], info["tilt_axis_offset_px"]) == (0, 0)


# --------------------------------------------------------------------------------------- masks and parts of the frame


@pytest.mark.slow
@pytest.mark.parametrize("corner", [(20, 50), (30, 30)], ids=["beside the sample", "on it"])
@pytest.mark.parametrize("per_tilt", [False, True])
def test_a_spot_burnt_into_all_images(series, tmp_path, corner, per_tilt):
    y, x = corner
    raw = series.raw.copy()
    raw[:, y : y + 6, x : x + 6] = 2 * raw.max()
    mask = np.full(raw.shape[1:], 255, np.uint8)
    mask[y - 1 : y + 7, x - 1 : x + 7] = 0
    np.save(tmp_path / "mask.npy", np.stack([mask] * len(raw)) if per_tilt else mask)
    pulled, _ = _align(raw, series.angles_deg, tilt_axis_angle=5)
    assert _rms_error(pulled, series.truth, series.angles_deg).max() > 1
    outputs, runtime = _align(raw, series.angles_deg, tilt_axis_angle=5, mask=tmp_path / "mask.npy")
    assert _rms_error(outputs, series.truth, series.angles_deg).max() < 0.2  # measured 0.06
    assert not runtime.warnings
    # What was masked is background in the aligned series; the spot was twice as bright as anything.
    assert outputs.arrays["aligned"].max() < series.raw.max()


@pytest.fixture(scope="module")
def beside_a_wanderer(series):
    """Widen the frame, where something bright moves about by itself; return raw images and their truth."""
    rng = np.random.default_rng(2)
    n, height, width = len(series.raw), 64, 120
    raw = 1000 + rng.normal(0, 5, (n, height, width)).astype(np.float32)
    raw[:, :, :64] = series.raw
    y, x = np.indices((height, width))
    for i, (cy, cx) in enumerate(rng.normal((32, 96), 5, (n, 2))):
        raw[i] += 40000 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 20)
    # The centre of the frame has moved by (120 - 64) / 2 to the right.
    offset = series.truth.tilt_axis_offset_px - 28 * np.cos(np.deg2rad(5))
    return raw, replace(series.truth, tilt_axis_offset_px=offset)


# Measured: 0.03 whole, 0.13 by reprojection, 0.23 where the patch cuts the sample; 5 to 6 px without a patch.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "allowed_px"),
    [
        ({"x_range": (4, 60)}, 0.1),
        ({"x_range": (4, 60), "y_range": (4, 60)}, 0.1),
        ({"x_range": (4, 60), "method": "reprojection"}, 0.4),
        ({"x_range": (16, 48), "y_range": (16, 48)}, 0.7),
    ],
)
def test_a_patch_of_the_frame(series, beside_a_wanderer, parameters, allowed_px):
    raw, truth = beside_a_wanderer
    outputs, runtime = _align(raw, series.angles_deg, tilt_axis_angle=5, **parameters)
    assert _rms_error(outputs, truth, series.angles_deg).max() < allowed_px
    assert outputs.arrays["aligned"].shape == raw.shape
    assert not runtime.warnings
    assert np.abs(outputs.arrays["shifts_px"]).max() < 10  # the frame stays where it was


def test_the_wanderer_pulls_without_a_patch(series, beside_a_wanderer):
    raw, truth = beside_a_wanderer
    outputs, _ = _align(raw, series.angles_deg, tilt_axis_angle=5)
    assert _rms_error(outputs, truth, series.angles_deg).max() > 3


@pytest.mark.slow
def test_the_axis_is_found_in_a_patch(series, beside_a_wanderer):
    outputs, _ = _align(beside_a_wanderer[0], series.angles_deg, "y", x_range=(4, 60))
    assert abs(outputs.attrs["alignment_info"]["tilt_axis_angle_deg"] - 5) < 0.4
