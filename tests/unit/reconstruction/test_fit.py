"""What explains nothing fails, in words and figures; what explains little, or at a wrong scale, does not."""

import sys
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from tests.unit.stages.interruptions import Fatal, Killed
from tomoseg.arrays import MemoryOutputs
from tomoseg.errors import StageFailed
from tomoseg.reconstruction import api
from tomoseg.reconstruction.api import reconstruct, reconstruct_series
from tomoseg.reconstruction.backends import choice
from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.parameters import ReconstructParameters
from tomoseg.runtime import Runtime

ANGLES = np.linspace(-64, 64, 17)
N_X = 24
SUPPORTS = "all", "cylinder"


def projected(volume, angles=ANGLES, n_detector=N_X):
    """Return projections (n_tilt, n, n_detector) of a volume (z, n, x)."""
    operator = CpuOperator(ParallelGeometry(angles, n_detector, volume.shape[2], volume.shape[0]))
    return np.array(operator.unload_projections(operator.forward(operator.load_volume(volume)), volume.shape[1]))


def with_noise(images, electrons):
    scale = images.max() / electrons
    return (np.random.default_rng(1).poisson(images / scale) * scale).astype(np.float32)


@pytest.fixture(scope="module")
def volume():
    array = np.zeros((N_X, 3, N_X), np.float32)
    array[5:9, :, 12:20] = 1
    array[14, 1:, 4:7] = 3
    return array


@pytest.fixture(scope="module")
def aligned(volume):
    return projected(volume)


def run(aligned, **params):
    return reconstruct(aligned, ANGLES, resolution=False, device="cpu", workers=1, **{"iterations": 5, **params})


@pytest.fixture
def returned(monkeypatch):
    """Let TomoPy return what a function makes of the start and the data, (n, z, x) and (n, tilt, x)."""

    def set_to(make):
        def recon(tomo, theta, *, num_gridx, num_gridy, init_recon=None, **options):
            start = np.zeros((len(tomo), num_gridx, num_gridy), np.float32) if init_recon is None else init_recon
            return np.asarray(make(start, tomo), np.float32)

        monkeypatch.setattr(choice, "find_spec", lambda name: True)
        monkeypatch.setitem(sys.modules, "tomopy", SimpleNamespace(recon=recon))

    return set_to


@pytest.mark.parametrize("method", ["mlem", "osem", "sirt"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda start, data: 0 * start, "residual is 1.0000 after 5 iterations, .*, and each slice is uniform[.]"),
        (lambda start, data: start, r"residual is (\d.\d{4}) after 5 iterations, \1 at the start and 1 without"),
        (lambda start, data: start + 9 * data.max(), r"residual is \d+.\d{4} after 5 iterations, \d.\d{4} at"),
    ],
    ids=["zero", "the start", "brighter and brighter"],
)
def test_an_iterative_method_that_explains_nothing_fails(aligned, returned, method, make, words):
    returned(make)
    with pytest.raises(StageFailed, match=f"{method} gave on backend tomopy does not explain .*{words}") as error:
        run(aligned, method=method, backend="tomopy")
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)
    assert "Try" in str(error.value)


@pytest.mark.parametrize("method", ["fbp", "gridrec"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda start, data: 0 * start, r"each slice is uniform \(relative residual [01].\d\d\d\)"),
        (lambda start, data: start - np.arange(1, N_X + 1), r"correlate with them by -0.\d\d\d \(relative residual \d"),
    ],
    ids=["zero", "negative"],
)
@pytest.mark.parametrize("support", SUPPORTS)
def test_a_direct_method_that_explains_nothing_fails(aligned, returned, method, make, words, support):
    returned(make)
    with pytest.raises(StageFailed, match=f"{method} gave on backend tomopy does not explain the images: .*{words}"):
        run(aligned, method=method, backend="tomopy", support=support)


@pytest.mark.parametrize("support", SUPPORTS)
def test_a_constant_of_a_direct_method_fails(aligned, returned, support):
    returned(lambda start, data: start + 2)
    with pytest.raises(StageFailed, match=r"fbp .*: each slice is uniform \(relative residual \d+.\d\d\d\)[.]"):
        run(aligned, method="fbp", backend="tomopy", support=support)


@pytest.mark.parametrize(
    ("params", "sign", "words"),
    [
        ({"method": "sirt"}, -1, "each slice is uniform[.] .*non_negative false"),
        ({"method": "mlem"}, -1, "^None of the 1224 aligned pixels that .* is positive, and mlem counts negative"),
        ({"method": "osem"}, -1, "^None of the 1224 aligned pixels that .* is positive, and osem counts negative"),
        ({"method": "sirt"}, -1e-30, "^The aligned images are too faint: their pixels are .*e-30 on average"),
        ({"method": "fbp"}, 1e-30, "^The aligned images are too faint: their pixels are .*e-30 on average"),
    ],
)
def test_what_makes_tomosegs_own_methods_fail_is_told(aligned, params, sign, words):
    with pytest.raises(StageFailed, match=words):
        run(aligned * np.float32(sign), **params)


def test_one_electron_for_many_pixels_and_many_subsets_leave_nothing(aligned):
    scarce = (np.random.default_rng(0).random(aligned.shape) < 0.01).astype(np.float32)
    with pytest.raises(StageFailed, match=r"osem .*each slice is uniform.*fewer subsets"):
        run(scarce, method="osem", subsets=17)


def test_negative_signals_are_explained_where_they_may_be(aligned):
    assert run(-aligned, method="sirt", non_negative=False).residuals[-1] < 0.5
    assert run(-aligned, method="fbp").residuals[-1] < 0.5


SERIES = {
    "71 tilts": np.linspace(-70, 70, 71),
    "15 tilts": np.linspace(-70, 70, 15),
    "3 tilts": np.array([-60.0, 0, 60]),
    "2 tilts": np.array([-10.0, 10]),
    "narrow": np.linspace(-5, 5, 11),
    "one side": np.linspace(0, 50, 21),
    "uneven": np.sort(np.random.default_rng(5).uniform(-70, 70, 30)),
    "round": np.linspace(-180, 174, 60),
}


@pytest.mark.parametrize("angles", SERIES.values(), ids=SERIES)
@pytest.mark.parametrize("nz", [1, 6, 24, 40])
def test_poor_series_do_not_fail(volume, angles, nz):
    """Low dose, coarse tilts, a thin or thick slab, an object that leaves the field of view, one slice of it."""
    wide = np.repeat(volume, 2, axis=2)
    for images, electrons, support in product((projected(volume, angles), projected(wide, angles)), (2, 400), SUPPORTS):
        noisy = with_noise(images[:, 1:2], electrons)
        for params in ({"method": "fbp", "filter": "ramp"}, {"method": "fbp"}, {"method": "mlem"}, {"method": "sirt"}):
            options = {"iterations": 3, "resolution": False, "device": "cpu", "workers": 1, **params}
            assert reconstruct(noisy, angles, z_size=nz, support=support, **options).volume.any()


def test_a_residual_above_that_of_an_empty_volume_is_no_failure_of_a_direct_method(volume):
    angles = SERIES["3 tilts"]
    found = reconstruct(projected(volume, angles), angles, method="fbp", filter="ramp", device="cpu", z_size=40)
    assert found.residuals[0] > 2  # each tilt stands for 60 degrees; its scale is far off
    assert np.corrcoef(found.volume[8:32].ravel(), volume.ravel())[0, 1] > 0.25


def test_an_empty_part_of_a_volume_that_explains_is_kept(aligned):
    found = run(aligned, z_range=(0, 2), x_range=(0, 3), iterations=30, support="cylinder")
    assert not found.volume.any()
    assert found.residuals[-1] < 0.3 * found.residuals[0]


def test_a_start_that_explains_all_is_no_failure():
    flat = np.ones((2, 1, 1), np.float32)
    found = reconstruct(flat, [-10.0, 10.0], z_size=1, iterations=3, device="cpu", resolution=False)
    assert found.residuals[0] < 1e-4


@pytest.mark.parametrize("method", ["mlem", "osem", "sirt", "tv", "fbp"])
def test_pixels_too_large_for_single_precision_are_named(aligned, method):
    with pytest.raises(StageFailed, match=r"NaN or infinite.*, in slices 0 to 2, whose pixels reach .*e\+30[.] .*1e18"):
        run(np.where(aligned == aligned.max(), np.float32(1e30), aligned), method=method)
    with pytest.raises(StageFailed, match="with backend cpu failed: the volume or its residual is NaN or infinite"):
        run(aligned * np.float32(1e30), method=method, iterations="auto")


def test_a_volume_that_is_not_finite_is_not_written(aligned, monkeypatch):
    """Of two slabs, the second fails: nothing of it is stored, and no checkpoint says that it was."""
    images = np.tile(aligned, (1, 7, 1))
    images[3, 18, 5] = 1e30
    runtime, outputs = Runtime(device="cpu", workers=1, max_memory=1), MemoryOutputs()
    params = ReconstructParameters(iterations=2, resolution=False)
    with pytest.raises(StageFailed, match="slices 16 to 20"):
        reconstruct_series(
            images, ANGLES, outliers=None, pixel_size_nm=None, params=params, runtime=runtime, outputs=outputs
        )
    assert outputs.state["slices"] == 16
    assert np.isfinite(outputs.arrays["volume"][:, :16]).all()
    assert np.isnan(outputs.arrays["volume"][:, 16:]).all()  # MemoryOutputs fills with NaN what is never written


def test_what_was_explained_before_an_interruption_counts(aligned, monkeypatch):
    """The slices that are left are blank: alone they would fail."""
    images = np.concatenate([np.tile(aligned, (1, 6, 1))[:, :16], np.zeros_like(aligned)], axis=1)

    def go(outputs):
        runtime = Runtime(device="cpu", workers=1, max_memory=1)
        params = ReconstructParameters(method="fbp", resolution=False)
        return api.reconstruct_series(
            images, ANGLES, outliers=None, pixel_size_nm=None, params=params, runtime=runtime, outputs=outputs
        )

    first = Fatal(1)
    with pytest.raises(Killed):
        go(first)
    assert go(MemoryOutputs(*first.kept)).residuals == go(MemoryOutputs()).residuals
