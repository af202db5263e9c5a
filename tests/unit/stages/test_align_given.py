"""Stage `align` with shifts from a file or from another project."""

import numpy as np
import pytest

from tomoseg.alignment.images.warp import warp_image
from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.errors import InputError
from tomoseg.io.shifts import GivenAlignment
from tomoseg.runtime import Runtime
from tomoseg.simulate import simulate_series
from tomoseg.stages import align


def run(raw, angles, elsewhere=None, axis="unknown", source="raw.mrc", **parameters):
    outputs, runtime = MemoryOutputs(), Runtime(workers=2)
    params = align.AlignParameters(**parameters)
    align.run(
        tilt_series=MemoryInput(raw),
        angles_deg=MemoryInput(np.asarray(angles, float)),
        tilt_series_info=MemoryInput(None, {"tilt_axis": axis, "pixel_size_nm": 1.0, "source": source}),
        params=params,
        runtime=runtime,
        outputs=outputs,
        from_project=elsewhere,
    )
    return outputs, runtime


@pytest.fixture(scope="module")
def series():
    return simulate_series(
        64, 8, tilt_step_deg=4, jitter_px=1.5, drift_px=5, tilt_axis_angle_deg=4, tilt_axis_offset_px=2.5, seed=3
    )


@pytest.fixture
def table(series, tmp_path):
    rows = np.column_stack([series.angles_deg, series.truth.shifts_px])[::-1]
    np.savetxt(tmp_path / "s.csv", rows, delimiter=",", header="angle,dy,dx", comments="")
    return tmp_path / "s.csv"


def test_shifts_of_a_table_are_applied_as_they_are_and_the_axis_is_found(series, table):
    outputs, runtime = run(series.raw, series.angles_deg, shifts_file=table)
    np.testing.assert_array_equal(outputs.arrays["shifts_px"], series.truth.shifts_px)
    info = outputs.attrs["alignment_info"]
    assert abs(info["tilt_axis_angle_deg"] - 4) < 0.3
    # Known to a tenth of a pixel of noise, times 4 as cos(t) resembles a constant.
    assert abs(info["tilt_axis_offset_px"] - 2.5) < 0.4
    assert info["method"] == "as in s.csv"
    assert not runtime.warnings


def test_the_axis_of_a_sample_cut_by_the_frame(series, table):
    outputs, _ = run(series.raw[:, 12:-12, 12:-12], series.angles_deg, shifts_file=table, tilt_axis_angle=4)
    assert abs(outputs.attrs["alignment_info"]["tilt_axis_offset_px"] - 2.5) < 1


def test_what_is_given_by_itself_takes_precedence(series, table):
    outputs, _ = run(series.raw, series.angles_deg, shifts_file=table, tilt_axis_angle=0, tilt_axis_offset=0)
    info = outputs.attrs["alignment_info"]
    assert (info["tilt_axis_angle_deg"], info["tilt_axis_offset_px"]) == (0, 0)
    np.testing.assert_array_equal(
        outputs.arrays["aligned"][3],
        warp_image(
            series.raw[3] - outputs.arrays["tilt_quality"]["background"][3], series.truth.shifts_px[3], 0.0, 0.0
        ),
    )


def test_shifts_with_the_wrong_sign_are_noticed(series, tmp_path):
    np.savetxt(tmp_path / "s.txt", -series.truth.shifts_px)
    _, runtime = run(series.raw, series.angles_deg, shifts_file=tmp_path / "s.txt", tilt_axis_angle=4)
    assert any("with the given shifts" in warning for warning in runtime.warnings)


def test_the_alignment_of_another_project_on_binned_images(series):
    small = series.raw.reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4))
    other = GivenAlignment(
        "haadf.h5", series.truth.shifts_px, series.angles_deg, False, 4.0, 2.5, series.raw.shape[1:], 0.5
    )
    outputs, runtime = run(small, series.angles_deg, other, from_project="haadf.h5")
    np.testing.assert_allclose(outputs.arrays["shifts_px"], series.truth.shifts_px / 2)
    info = outputs.attrs["alignment_info"]
    assert (info["tilt_axis_angle_deg"], info["tilt_axis_offset_px"]) == (4, 1.25)
    assert not runtime.warnings
    with pytest.raises(InputError, match="other tilts"):
        run(small, series.angles_deg + 0.1, other, from_project="haadf.h5")


def test_two_tilts_with_given_shifts(series, tmp_path):
    np.savetxt(tmp_path / "s.txt", series.truth.shifts_px[10:12])
    outputs, runtime = run(series.raw[10:12], series.angles_deg[10:12], shifts_file=tmp_path / "s.txt")
    assert any("too few tilts" in warning for warning in runtime.warnings)
    np.testing.assert_allclose(outputs.arrays["shifts_px"], series.truth.shifts_px[10:12])


def test_contradictions_and_bad_files_are_told_before_anything_runs(tmp_path):
    (tmp_path / "s.csv").write_text("what,ever\n1,2\n")
    problems = align.check(
        align.AlignParameters(shifts_file=tmp_path / "s.csv", from_project=tmp_path / "p.h5", method="none")
    )
    assert len(problems) == 3
    assert "align.shifts_file and align.from_project and align.method none contradict each other" in problems[0]
    assert "not clear which columns" in problems[1]
    assert "there is no project" in problems[2]
    (problem,) = align.check(align.AlignParameters(method="none", refine=("rotation",)))
    assert "align.refine and align.method none contradict each other" in problem
