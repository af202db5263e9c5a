"""The TomoPy adapter: what it hands over, and, where TomoPy is installed, that the volume is ours."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tomoseg.reconstruct import methods
from tomoseg.reconstruct.cpu_backend import CpuOperator
from tomoseg.reconstruct.geometry import ParallelGeometry
from tomoseg.reconstruct.tomopy_backend import cleaned, from_tomopy, reconstruct, rotation_centre, to_sinograms


class Recorder:
    """Stands in for TomoPy: keeps what it is given and returns one bright voxel."""

    def __init__(self):
        self.calls = []

    def recon(self, tomo, theta, **options):
        self.calls.append({"tomo": tomo.copy(), "theta": theta, **options})
        volume = np.zeros((len(tomo), options["num_gridx"], options["num_gridy"]), np.float32)
        volume[1, 0, 3] = 5
        volume[0, 2, 2] = np.nan
        return volume


@pytest.fixture
def tomopy(monkeypatch):
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "tomopy", SimpleNamespace(recon=recorder.recon))
    return recorder


@pytest.fixture
def geometry():
    return ParallelGeometry(np.array([-40.0, 0.0, 25.0, 60.0]), n_detector=10, nx=10, nz=7)


def test_what_mlem_is_given(tomopy, geometry):
    data = np.random.default_rng(0).random((4, 3, 10), dtype=np.float32)
    data[2, 1, 4] = 0
    data[2, 1, 5] = -3
    (result,) = reconstruct(data, geometry, "mlem", iterations=3, workers=2)
    assert len(tomopy.calls) == 3
    call = tomopy.calls[0]
    assert call["algorithm"] == "mlem"
    assert call["sinogram_order"] is True
    assert call["center"] == 5.0  # axis at (10 - 1)/2 in our counting
    assert (call["num_gridx"], call["num_gridy"], call["num_iter"], call["ncore"]) == (7, 10, 1, 2)
    np.testing.assert_allclose(call["theta"], np.deg2rad(geometry.angles_deg))
    assert call["tomo"].shape == (3, 4, 10)
    assert call["tomo"].flags.c_contiguous
    assert call["tomo"][0, 1, 2] == data[1, 0, 2]
    assert call["tomo"].min() > 0  # no zero, which TomoPy would turn into NaN
    assert call["init_recon"].min() > 0
    assert "accelerated" not in call
    assert result.misfit.shape == (4,)
    assert result.volume[6, 1, 3] == 5  # TomoPy's first row is our last z
    assert np.count_nonzero(result.volume) == 1  # and its NaN is gone


def test_what_fbp_is_given(tomopy, geometry):
    data = np.random.default_rng(0).random((4, 2, 10), dtype=np.float32)
    (result,) = reconstruct(data, geometry, "fbp", filter_name="ramp")
    call = tomopy.calls[0]
    assert "num_iter" not in call  # TomoPy refuses it for fbp
    assert np.all(call["init_recon"] == 0)  # TomoPy's fbp adds to what it is given
    assert abs(call["tomo"].mean()) < 0.1 * np.abs(call["tomo"]).mean() + 0.2  # filtered by us
    assert call["tomo"].min() < 0
    assert result.misfit.shape == (1,)


def test_an_empty_slice_is_empty(tomopy, geometry):
    (result,) = reconstruct(np.zeros((4, 2, 10), np.float32), geometry, "sirt", iterations=1)
    assert np.isfinite(result.volume).all()
    assert result.power == 0


def test_layouts():
    projections = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    assert to_sinograms(projections)[1, 3, 0] == projections[3, 1, 0]
    slices = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    assert from_tomopy(slices)[0, 1, 2] == slices[1, 2, 2]
    assert rotation_centre(ParallelGeometry(np.array([0.0]), 11, 11, 11)) == 5.5


def test_cleaning_mirrors_the_mask():
    seen = np.ones((3, 2), bool)
    seen[0] = False  # our first z
    slices = np.array([[[1.0, np.nan], [-1.0, 2.0], [3.0, 4.0]]], np.float32)
    np.testing.assert_array_equal(cleaned(slices, seen, False), [[[1, 0], [-1, 2], [0, 0]]])
    np.testing.assert_array_equal(cleaned(slices, seen, True), [[[1, 0], [0, 2], [0, 0]]])


def test_osem_is_mlem_on_one_subset_after_the_other(tomopy, geometry):
    data = np.random.default_rng(0).random((4, 3, 10), dtype=np.float32) + 1
    (result,) = reconstruct(data, geometry, "osem", iterations=2, subsets=2)
    assert [call["algorithm"] for call in tomopy.calls] == ["mlem"] * 4
    for call, first in zip(tomopy.calls, (0, 1, 0, 1), strict=True):
        np.testing.assert_allclose(call["theta"], np.deg2rad(geometry.angles_deg[first::2]))
        np.testing.assert_array_equal(call["tomo"], data[first::2].transpose(1, 0, 2))
    assert result.misfit.shape == (3,)


@pytest.mark.parametrize(("n", "nz"), [(64, 48), (65, 47)])
@pytest.mark.parametrize("method", ["mlem", "osem", "sirt", "fbp"])
def test_real_tomopy_gives_our_volume(method, n, nz):
    pytest.importorskip("tomopy", reason="TomoPy is not installed (conda only)")
    geometry = ParallelGeometry(np.linspace(-70, 70, 71), n, n, nz)
    z, x = np.meshgrid(geometry.z, geometry.x, indexing="ij")
    one = 1.0 * ((x - 10) ** 2 + (z + 5) ** 2 < 36) + 0.5 * ((np.abs(x + 12) < 9) & (np.abs(z - 7) < 6))
    volume = np.stack([one, 0 * one, 0.3 * one[::-1]], axis=1).astype(np.float32)
    operator = CpuOperator(geometry)
    data = np.array(operator.unload_projections(operator.forward(operator.load_volume(volume)), 3))
    ours = {
        "mlem": lambda: methods.mlem(operator, data, iterations=15),
        "osem": lambda: methods.osem(operator, data, iterations=3, subsets=5),
        "sirt": lambda: methods.sirt(operator, data, iterations=15),
        "fbp": lambda: methods.fbp(operator, data, "hann"),
    }[method]()
    (theirs,) = reconstruct(data, geometry, method, iterations=len(ours.misfit) - 1, subsets=5, filter_name="hann")
    assert np.isfinite(theirs.volume).all()
    assert np.all(theirs.volume[:, 1] == 0)
    # TomoPy weights by the length within a pixel instead of linear interpolation; that alone gives 0.9996 (mlem, sirt)
    # and 0.9985 (fbp, where theirs back projects along rays). Half a pixel of centre gives 0.970 to 0.987, a mirrored z
    # less than 0.7.
    assert np.corrcoef(ours.volume.ravel(), theirs.volume.ravel())[0, 1] > (0.997 if method == "fbp" else 0.999)
    ours_left, theirs_left = (np.sqrt(r.misfit[-1] / r.power) for r in (ours, theirs))
    assert theirs_left == pytest.approx(ours_left, rel=0.15)
