"""ASTRA on a GPU against the CPU backend; skipped where there is no GPU."""

from functools import partial

import numpy as np
import pytest

from tomoseg.reconstruction.backends import gpu
from tomoseg.reconstruction.backends.astra import AstraCudaOperator, _has_safe_em, cuda_available
from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.backends.gpu import GpuFailed, Usable, usable
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.methods import fbp, in_blocks, mlem, sirt


@pytest.fixture(autouse=True)
def _gpu():
    if not cuda_available():
        pytest.skip("the ASTRA toolbox finds no CUDA GPU")


@pytest.fixture
def _em(_gpu):
    if not _has_safe_em():
        pytest.skip("ASTRA is older than 2.5: MLEM goes through the 3D kernels")


def block(operator, volume: np.ndarray) -> np.ndarray:
    return np.array(operator.unload_projections(operator.forward(operator.load_volume(volume)), volume.shape[1]))


def phantom(geometry: ParallelGeometry, n: int) -> np.ndarray:
    z, x = np.meshgrid(geometry.z, geometry.x, indexing="ij")
    one = 1.0 * ((x - 10) ** 2 + (z + 5) ** 2 < 36) + 0.5 * ((np.abs(x + 12) < 9) & (np.abs(z - 7) < 6))
    # Every slice is different, and none is symmetric.
    return np.stack([(0.5 + 0.1 * i) * np.roll(one, i % 7 - 3, axis=1) for i in range(n)], axis=1).astype(np.float32)


@pytest.mark.parametrize(("n", "nz"), [(64, 48), (65, 47)])
def test_projections_are_those_of_the_cpu(n, nz):
    geometry = ParallelGeometry(np.arange(-88.0, 89, 4), n_detector=n, nx=n, nz=nz)
    volume = phantom(geometry, 5)
    ours, theirs = block(CpuOperator(geometry), volume), block(AstraCudaOperator(geometry), volume)
    # Texture interpolation has 8 bits of fraction: each of some 50 taps is off by at most 1/512, at random.
    assert np.abs(ours - theirs).max() < 5e-3 * ours.max()


@pytest.mark.parametrize(("x", "z"), [(-7, 3), (5, 9), (-4, -8)])
def test_a_point_is_seen_at_x_cos_t_plus_z_sin_t(x, z):
    geometry = ParallelGeometry(np.arange(-80.0, 81, 8), n_detector=41, nx=31, nz=25)
    volume = np.zeros((25, 3, 31), np.float32)
    volume[z + 12, 1, x + 15] = 1
    seen = block(AstraCudaOperator(geometry), volume)
    assert seen[:, 0].max() < 1e-6
    assert seen[:, 2].max() < 1e-6
    centre = (seen[:, 1] * geometry.detector).sum(1) / seen[:, 1].sum(1)
    np.testing.assert_allclose(centre, x * geometry.cosines + z * geometry.sines, atol=0.3)


@pytest.mark.parametrize(
    ("method", "tolerance"),
    [
        (partial(mlem, iterations=20), 0.03),
        (partial(sirt, iterations=20), 0.03),
        (partial(fbp, filter_name="hann"), 0.02),
    ],
    ids=["mlem", "sirt", "fbp"],
)
def test_volumes_are_those_of_the_cpu(method, tolerance):
    geometry = ParallelGeometry(np.linspace(-70, 70, 71), n_detector=64, nx=64, nz=48)
    operator = CpuOperator(geometry)
    data = np.concatenate([block(operator, phantom(geometry, 10)[:, i : i + 5]) for i in (0, 5)], axis=1)
    ours, theirs = in_blocks(operator, method, data), in_blocks(AstraCudaOperator(geometry), method, data)
    assert np.isfinite(theirs.volume).all()
    # The GPU's back projection interpolates between detector pixels instead of being the exact adjoint: 1.4 % (rms) of
    # the volume in 20 iterations, computed on the CPU with that change alone, and nothing in FBP; plus 8-bit fractions.
    left = np.sqrt(np.mean((ours.volume - theirs.volume) ** 2) / np.mean(ours.volume**2))
    assert left < tolerance
    np.testing.assert_allclose(theirs.misfit[-1], ours.misfit[-1], rtol=0.2)


def test_more_slices_than_a_block_and_an_incomplete_one():
    geometry = ParallelGeometry(np.linspace(-60, 60, 13), n_detector=32, nx=32, nz=32)
    operator = AstraCudaOperator(geometry)
    data = np.random.default_rng(0).random((13, operator.block + 3, 32), dtype=np.float32)
    many = in_blocks(operator, partial(mlem, iterations=3), data)
    few = in_blocks(operator, partial(mlem, iterations=3), data[:, -3:])
    np.testing.assert_allclose(many.volume[:, -3:], few.volume, rtol=1e-4, atol=1e-6)
    operator.close()


def test_empty_slices_stay_empty():
    geometry = ParallelGeometry(np.linspace(-60, 60, 13), n_detector=32, nx=32, nz=32)
    data = np.zeros((13, 4, 32), np.float32)
    data[:, 2] = 1
    for method in (partial(mlem, iterations=3), partial(sirt, iterations=3)):
        volume = in_blocks(AstraCudaOperator(geometry), method, data).volume
        assert np.isfinite(volume).all()
        assert np.all(volume[:, [0, 1, 3]] == 0)
        assert volume[:, 2].max() > 0


def noisy(n: int = 6) -> tuple[ParallelGeometry, np.ndarray]:
    geometry = ParallelGeometry(np.linspace(-70, 66, 35), n_detector=64, nx=64, nz=48)
    data = block(CpuOperator(geometry), phantom(geometry, n))
    return geometry, np.random.default_rng(1).poisson(20 * data).astype(np.float32)


def test_free_memory_is_told():
    found = usable()
    assert found.source == "nvidia-smi" or "half" in found.source
    assert found.free > 0


@pytest.mark.usefixtures("_em")
def test_mlem_stays_on_the_gpu_and_is_that_of_the_3d_kernels():
    geometry, data = noisy()
    operator = AstraCudaOperator(geometry)
    assert operator.keeps_mlem
    ones = np.ones((geometry.n_tilt, geometry.n_detector), np.float32)
    there = mlem(operator, data, 20)
    here = mlem(operator, data, 20, weights=ones)  # weights are for the 3D kernels only
    # Both interpolate linearly in textures; what their 8-bit fractions round differently grows with the iterations.
    assert np.linalg.norm(there.volume - here.volume) < 0.02 * np.linalg.norm(here.volume)
    np.testing.assert_allclose(there.misfit, here.misfit, rtol=0.02)
    assert there.power == here.power
    operator.close()


@pytest.mark.usefixtures("_em")
@pytest.mark.parametrize("unit", [2.0**-40, 2.0**12])
def test_the_unit_of_the_data_does_not_matter_on_the_gpu(unit):
    geometry, data = noisy()
    operator = AstraCudaOperator(geometry)
    one, other = mlem(operator, data, 8), mlem(operator, data * np.float32(unit), 8)
    # Powers of two round nothing; where EM_CUDA takes a faint projection for 0 differs.
    np.testing.assert_allclose(other.volume / unit, one.volume, rtol=1e-4, atol=1e-4 * one.volume.max())
    operator.close()


@pytest.mark.usefixtures("_em")
def test_volumes_are_watched_on_their_way():
    geometry, data = noisy()
    seen = []
    operator = AstraCudaOperator(geometry)
    result = mlem(operator, data, 4, watch=lambda i, volume: seen.append((i, volume.copy())))
    assert [i for i, _ in seen] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(operator.unload(seen[-1][1], 6), result.volume)
    measured = operator.load(data)
    misfit = [float(np.square(operator.forward(v) - measured, dtype=np.float64).sum()) for _, v in seen]
    np.testing.assert_allclose(result.misfit, misfit, rtol=0.02)  # of EM_CUDA's 2D kernel, and of the 3D one
    operator.close()


@pytest.mark.parametrize("method", [partial(mlem, iterations=5), partial(sirt, iterations=5)], ids=["mlem", "sirt"])
def test_a_slice_does_not_depend_on_the_slab(method):
    geometry = ParallelGeometry(np.linspace(-60, 60, 13), n_detector=48, nx=48, nz=40)
    data = np.random.default_rng(0).random((13, 256, 48), dtype=np.float32)
    volumes = []
    for size in (256, 64, 16):
        operator = AstraCudaOperator(geometry)
        operator.block = size
        volumes.append(in_blocks(operator, method, data).volume)
        operator.close()
    # A slab is centred on its rows, which fall on texels: no interpolation across slices.
    np.testing.assert_allclose(volumes[1], volumes[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(volumes[2], volumes[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [partial(mlem, iterations=5), partial(sirt, iterations=5)], ids=["mlem", "sirt"])
def test_several_gpus_make_what_one_makes(method, monkeypatch):
    import astra

    found = usable()
    if len(found.numbers) < 2:
        pytest.skip("there is one GPU only, or they are of different kinds")
    geometry, data = noisy(19)
    together = in_blocks(AstraCudaOperator(geometry), method, data)
    monkeypatch.setattr(gpu, "usable", lambda: Usable((), found.free, found.source))
    astra.set_gpu_index([0])
    alone = in_blocks(AstraCudaOperator(geometry), method, data)
    np.testing.assert_allclose(together.volume, alone.volume, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(together.misfit, alone.misfit, rtol=1e-4)


def test_what_comes_back_without_numbers_is_a_failure():
    geometry = ParallelGeometry(np.linspace(-60, 60, 3), n_detector=32, nx=32, nz=32)
    operator = AstraCudaOperator(geometry)
    assert operator.forward(np.ones((4, 32, 32), np.float32)).any()
    with pytest.raises(GpuFailed, match="the GPU failed"):
        operator.forward(np.full((4, 32, 32), np.inf, np.float32))
    operator.close()
