"""The function `reconstruct`: the bits of the stage, the errors of the command line, what it returns."""

import doctest

import numpy as np
import pytest
from scipy import ndimage

from tomoseg import simulate
from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.errors import InputError, StageFailed, TomosegWarning
from tomoseg.reconstruction import api
from tomoseg.reconstruction.api import reconstruct
from tomoseg.reconstruction.parameters import ReconstructParameters
from tomoseg.runtime import Runtime
from tomoseg.stages.reconstruct import run

ANGLES = np.linspace(-64, 64, 17)


@pytest.fixture(scope="module")
def aligned():
    rng = np.random.default_rng(2)
    smooth = np.cumsum(rng.random((len(ANGLES), 40, 24), np.float32) - 0.4, axis=2)
    return np.maximum(smooth, 0)


def by_stage(aligned, angles=ANGLES, outliers=(), **params):
    quality = np.zeros(len(angles), [("angle_deg", "f8"), ("is_outlier", "u1")])
    quality["is_outlier"][list(outliers)] = 1
    outputs, runtime = MemoryOutputs(), Runtime(device="cpu", workers=2)
    run(
        aligned=MemoryInput(aligned),
        angles_deg=MemoryInput(np.asarray(angles, float)),
        tilt_quality=MemoryInput(quality),
        tilt_series_info=MemoryInput(attrs={"pixel_size_nm": 0.5}),
        params=ReconstructParameters(**params),
        runtime=runtime,
        outputs=outputs,
    )
    return outputs, runtime


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"method": "osem", "subsets": 3, "iterations": 2},
        {"method": "sirt", "iterations": 3, "non_negative": False, "support": "cylinder"},
        {"method": "tv", "iterations": 3, "tv_weight": 0.05, "resolution": False},
        {"method": "fbp", "filter": "ramp", "binning": 2, "z_size": 9, "z_range": (2, 7), "y_range": (3, 17)},
        {"method": "mlem", "iterations": 2, "backend": "astra", "x_range": (4, 20)},
    ],
    ids=lambda params: params.get("method", "defaults"),
)
def test_it_gives_the_bits_that_the_stage_stores(aligned, params):
    stored, runtime = by_stage(aligned, outliers=[5], **params)
    outliers = np.arange(len(ANGLES)) == 5
    found = reconstruct(
        aligned, ANGLES, outliers=outliers, pixel_size_nm=0.5, device="cpu", workers=1, max_memory="64M", **params
    )
    info = stored.attrs["reconstruction_info"]
    np.testing.assert_array_equal(found.volume, stored.arrays["volume"], strict=True)
    np.testing.assert_array_equal(found.residuals, stored.arrays["residuals"], strict=True)
    assert found.voxel_size_nm == stored.attrs["volume"]["voxel_size_nm"]
    assert (found.method, found.backend, found.device) == (info["method"], info["backend"], info["device"])
    assert found.iterations == info["iterations"]
    assert found.notes == runtime.notes
    for table, name in ((found.shells, "shells"), (found.stopping, "stopping")):
        assert (table is None) == (name not in stored.arrays)
        if table is not None:
            columns = stored.arrays[name].dtype.names
            assert tuple(table.columns) == columns
            assert all(np.array_equal(table[c], stored.arrays[name][c], equal_nan=True) for c in columns)
    if "resolution_px" in info:
        np.testing.assert_equal(
            (found.resolution_px, found.resolution_nm), (info["resolution_px"], info["resolution_nm"])
        )
    else:
        assert np.isnan(found.resolution_px)


def test_shapes_and_types_are_as_documented(aligned):
    found = reconstruct(aligned, ANGLES, iterations=3, device="cpu")
    assert (found.volume.shape, found.volume.dtype) == ((24, 40, 24), np.float32)
    assert (found.residuals.shape, found.residuals.dtype) == ((4,), np.float64)
    assert np.isnan(found.voxel_size_nm)  # no pixel size was given
    assert np.isnan(found.resolution_nm)
    assert found.resolution_px >= 2
    columns = ["frequency_per_px", "correlation", "correlation_x", "correlation_y", "coefficients"]
    assert list(found.shells.columns) == columns
    assert found.stopping is None
    assert list(reconstruct(aligned, ANGLES, method="osem", device="cpu").stopping.columns) == [
        "iterations",
        "held_out",
    ]


def test_lists_and_handles_are_taken_as_arrays(aligned):
    small = aligned[:, :2]
    expected = reconstruct(small, ANGLES, iterations=2, device="cpu").volume
    for given in (small.tolist(), MemoryInput(small)):
        found = reconstruct(given, list(ANGLES), iterations=2, device="cpu").volume
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"iterations": 0}, r"reconstruct.iterations: must be auto, or a whole number from 1 to 10000, got 0"),
        ({"itrations": 3}, "reconstruct.itrations: there is no such parameter"),
        ({"method": "gridrec", "backend": "cpu"}, "reconstruct.method: backend cpu does not compute gridrec"),
        ({"y_range": (0, 99)}, "reconstruct.y_range is 0,99, but the volume has 40 voxels in that direction"),
        ({"outliers": [True]}, "outliers must hold one value for each of the 17 images"),
        ({"outliers": np.arange(17) > 0}, "The tilt series has only one usable image"),
        ({"outliers": np.ones(17)}, "The tilt series has no usable image"),
        ({"device": "gpu"}, "device is gpu"),
    ],
)
def test_what_cannot_be_used_is_refused_as_on_the_command_line(aligned, options, sentence):
    with pytest.raises(InputError, match=sentence):
        reconstruct(aligned, ANGLES, **options)


def test_arrays_that_do_not_fit_are_refused(aligned):
    with pytest.raises(InputError, match=r"shape \(n_tilt, ny, nx\), not \(40, 24\)"):
        reconstruct(aligned[0], ANGLES)
    with pytest.raises(InputError, match="17 images but there are 16 tilt angles"):
        reconstruct(aligned, ANGLES[1:])
    with pytest.raises(StageFailed, match="non-finite values"):
        reconstruct(np.where(aligned > 0, np.nan, aligned), ANGLES, device="cpu")


def test_warnings_are_issued_and_returned(aligned):
    dark = aligned[:, :3].copy()
    dark[:, :, :6] = -dark.max()
    with pytest.warns(TomosegWarning, match="check the background that the alignment subtracted"):
        found = reconstruct(dark, ANGLES, iterations=3, device="cpu")
    assert [warning.partition(" are ")[0] for warning in found.warnings] == ["25.0% of the aligned pixels"]


def test_the_example_of_the_docstring_runs():
    examples = doctest.DocTestFinder().find(reconstruct, "reconstruct", globs={})
    assert sum(len(test.examples) for test in examples) > 5
    for test in examples:
        assert doctest.DocTestRunner().run(test).failed == 0


def test_every_parameter_is_a_documented_keyword():
    for name, field in ReconstructParameters.model_fields.items():
        assert f"\n{name} : " in api.reconstruct.__doc__
        assert field.description[:40] in api.reconstruct.__doc__


def test_a_film_is_reconstructed_within_its_thickness_and_better_for_it():
    """Beyond the frame on all sides: a slab as thick as the film, and as wide as any tilt shows it."""
    width, thick, angles = 48, 8, np.arange(-60, 61, 4.0)
    rng = np.random.default_rng(0)
    film = np.zeros((20, 8, 4 * width), np.float32)
    film[6:14] = 1 + ndimage.gaussian_filter(rng.standard_normal((thick, 8, 4 * width)), 1.2) * 4
    beyond = simulate.project(np.clip(film, 0, None), angles, 1)
    left = (beyond.shape[2] - width) // 2
    images = beyond[:, :, left : left + width]
    truth = film[6:14, :, 3 * width // 2 : 5 * width // 2]
    found = {}
    for name, given in (("film", {"film_thickness_px": float(thick)}), ("whole", {})):
        done = reconstruct(images, angles, iterations=10, resolution=False, device="cpu", **given)
        middle = done.volume[(done.volume.shape[0] - thick) // 2 :][:thick]
        detail = [part - ndimage.gaussian_filter(part, (0, 3, 3)) for part in (middle, truth)]
        found[name] = done.volume.shape, np.corrcoef(detail[0].ravel(), detail[1].ravel())[0, 1]
    assert found["film"][0] == (15, 8, width)  # a third more than the film, and 4 voxels
    assert found["whole"][0] == (width, 8, width)
    assert found["film"][1] > found["whole"][1] + 0.05
    kept = reconstruct(
        images, angles, iterations=10, resolution=False, device="cpu", x_range=(10, 30), film_thickness_px=8.0
    )
    every = reconstruct(images, angles, iterations=10, resolution=False, device="cpu", film_thickness_px=8.0)
    np.testing.assert_array_equal(kept.volume, every.volume[:, :, 10:30])
    chosen = reconstruct(images, angles, iterations=3, resolution=False, device="cpu", film_thickness_px=8.0, z_size=21)
    assert chosen.volume.shape == (21, 8, width)
    direct = reconstruct(images, angles, method="fbp", resolution=False, device="cpu", film_thickness_px=np.nan)
    assert direct.volume.shape == (width, 8, width)
