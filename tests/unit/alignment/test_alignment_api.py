"""`align` from Python: the bits of the stage, in the order given, with the errors of the command line."""

import doctest
import inspect

import numpy as np
import pytest

from tomoseg.alignment import api
from tomoseg.alignment.api import QUALITY_DTYPE, AlignedSeries, align
from tomoseg.alignment.parameters import AlignParameters
from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.errors import InputError, TomosegWarning
from tomoseg.runtime import Runtime
from tomoseg.simulate import simulate_series
from tomoseg.stages import align as stage


@pytest.fixture(scope="module")
def raw():
    return simulate_series(
        48, 6, tilt_step_deg=8, jitter_px=1.5, tilt_axis_angle_deg=4, tilt_axis_offset_px=1.5, seed=3
    )


@pytest.fixture(scope="module")
def options():
    return {"tilt_axis_angle": 4.0, "method": "common-line", "refine": ("rotation", "tilt-angle")}


@pytest.fixture(scope="module")
def aligned(raw, options):
    return align(raw.raw, raw.angles_deg, tilt_axis="y", pixel_size_nm=0.5, **options)


def staged(raw, **parameters):
    """Run the stage in memory."""
    outputs, runtime = MemoryOutputs(), Runtime(workers=1)
    stage.run(
        tilt_series=MemoryInput(raw.raw),
        angles_deg=MemoryInput(raw.angles_deg),
        tilt_series_info=MemoryInput(None, {"tilt_axis": "y", "pixel_size_nm": 0.5, "source": "raw.mrc"}),
        params=AlignParameters(**parameters),
        runtime=runtime,
        outputs=outputs,
    )
    return outputs, runtime


def test_the_stage_writes_the_same_bits(raw, aligned, options):
    outputs, runtime = staged(raw, **options)
    assert aligned.has_refined_angles
    for name, value in {
        "aligned": aligned.aligned,
        "shifts_px": aligned.shifts_px,
        "refined_angles_deg": aligned.angles_deg,
        "tilt_quality": aligned.table,
        "alignment_preview": aligned.preview.slices,
    }.items():
        np.testing.assert_array_equal(outputs.arrays[name], value, err_msg=name)
    info = outputs.attrs["alignment_info"]
    assert info == {
        "tilt_axis_angle_deg": aligned.tilt_axis_angle_deg,
        "tilt_axis_offset_px": aligned.tilt_axis_offset_px,
        "method": aligned.method,
        **aligned.figures,
    }
    assert (aligned.notes, aligned.warnings) == (runtime.notes, runtime.warnings)


def test_the_result_is_as_documented(raw, aligned):
    n = len(raw.angles_deg)
    assert isinstance(aligned, AlignedSeries)
    assert (aligned.aligned.shape, aligned.aligned.dtype) == ((n, 48, 48), np.float32)
    assert (aligned.shifts_px.shape, aligned.shifts_px.dtype) == ((n, 2), np.float64)
    assert (aligned.outliers.shape, aligned.outliers.dtype) == ((n,), bool)
    np.testing.assert_array_equal(aligned.angles_deg, raw.angles_deg + aligned.quality["tilt_error_deg"])
    assert aligned.tilt_axis_angle_deg == 4.0
    assert aligned.estimated_error_px == aligned.figures["estimated_error_px"] > 0
    assert aligned.preview.slices.shape == (2, 48, 48)
    assert list(aligned.quality.columns) == list(QUALITY_DTYPE.names)
    assert len(aligned.quality) == n
    assert aligned.quality["is_outlier"].dtype == bool
    np.testing.assert_array_equal(aligned.quality["angle_deg"], raw.angles_deg)
    assert any("prediction of held-out tilts" in note for note in aligned.notes)


def test_images_in_any_order_come_back_in_that_order(raw, aligned, options):
    order, reference = np.random.default_rng(0).permutation(len(raw.angles_deg)), aligned
    mixed = align(raw.raw[order], raw.angles_deg[order], tilt_axis="y", **options)
    np.testing.assert_array_equal(mixed.aligned, reference.aligned[order])
    np.testing.assert_array_equal(mixed.shifts_px, reference.shifts_px[order])
    np.testing.assert_array_equal(mixed.angles_deg, reference.angles_deg[order])
    np.testing.assert_array_equal(mixed.quality["angle_deg"], raw.angles_deg[order])
    np.testing.assert_array_equal(mixed.outliers, reference.outliers[order])
    assert mixed.figures == reference.figures


def test_images_are_not_modified_and_lists_are_taken(raw):
    images = raw.raw.copy()
    with pytest.warns(TomosegWarning, match="use method auto"):  # it is not aligned
        align(images, list(raw.angles_deg), tilt_axis="y", method="none")
    np.testing.assert_array_equal(images, raw.raw)


def test_a_mask_is_applied_to_plain_arrays(raw, tmp_path):
    mask = np.ones(raw.raw.shape[1:], np.uint8)
    mask[:8, :8] = 0
    np.save(tmp_path / "mask.npy", mask)
    with pytest.warns(TomosegWarning, match="use method auto"):
        found = align(raw.raw, raw.angles_deg, tilt_axis="y", method="none", mask=tmp_path / "mask.npy")
    assert np.abs(found.aligned[:, :8, :8]).max() < 1e-3  # of 1000 counts
    assert (found.aligned[:, :8, 8:] != 0).any()


def test_another_project_gives_the_alignment(small_run):
    from tomoseg import schema
    from tomoseg.project import Project

    with Project.read(small_run.project) as project:
        images, angles = (project.artifact(a)[:] for a in (schema.TILT_SERIES, schema.ANGLES))
        expected = project.artifact(schema.SHIFTS)[:], project.artifact(schema.ALIGNED)[:]
        pixel_size_nm = project.artifact(schema.TILT_SERIES_INFO).attrs["pixel_size_nm"]
    found = align(images, angles, pixel_size_nm=pixel_size_nm, from_project=small_run.project)
    np.testing.assert_array_equal(found.shifts_px, expected[0])
    np.testing.assert_array_equal(found.aligned, expected[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_shift": 2}, r"align\.max_shift: input should be less than or equal to 0\.5, got 2"),
        ({"metod": "com"}, r"align\.metod: there is no such parameter"),
        ({"low_frequency": 0.3, "high_frequency": 0.1}, r"align\.low_frequency 0\.3 must be below"),
        ({"x_range": (0, 99)}, r"align\.x_range is 0,99, but the images are 48 x 48 px"),
        ({"from_project": "nowhere.h5"}, r"align\.from_project: there is no project nowhere\.h5"),
    ],
)
def test_wrong_options_are_told_as_on_the_command_line(raw, options, message):
    with pytest.raises(InputError, match=message):
        align(raw.raw, raw.angles_deg, **options)


@pytest.mark.parametrize(
    ("images", "angles", "message"),
    [
        (np.zeros((3, 16, 16)), [0, 1], r"shape \(3, 16, 16\) and there are 2 angles"),
        (np.zeros((16, 16)), [0, 1], r"it must be \(n_tilt, y, x\)"),
        (np.zeros((2, 16, 4)), [0, 1], "images of 4 x 16 px are too small"),
        (np.zeros((2, 16, 16), complex), [0, 1], "the images are of type complex128: they must be real numbers"),
        (np.zeros((2, 16, 16)), [0, np.nan], "the tilt angle of image 2 is not a finite number"),
    ],
)
def test_arrays_that_are_no_series_are_refused(images, angles, message):
    with pytest.raises(InputError, match=message):
        align(images, angles)


def test_warnings_are_issued_and_kept(raw):
    with pytest.warns(TomosegWarning, match="too few"):
        found = align(raw.raw[:2], raw.angles_deg[:2], tilt_axis="y")
    assert any("too few" in warning for warning in found.warnings)


def test_the_signature_and_the_docstring_hold_every_parameter():
    names = inspect.signature(align).parameters
    assert set(AlignParameters.model_fields) | {"device", "workers", "max_memory", "progress"} <= set(names)
    assert all(f"\n{name} : " in align.__doc__ for name in AlignParameters.model_fields)


def test_the_example_of_the_docstring():
    tests = [t for t in doctest.DocTestFinder().find(align, "align", module=api) if t.examples]
    assert len(tests) == 1
    runner = doctest.DocTestRunner()
    runner.run(tests[0])
    assert runner.failures == 0
