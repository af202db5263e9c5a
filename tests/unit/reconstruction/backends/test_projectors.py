"""Projectors: weights against an independent dense reference, adjointness, orientation, agreement of backends."""

import numpy as np
import pytest

from tomoseg.reconstruction.backends.astra import AstraCpuOperator, detector_vectors
from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.kernels import WIDE
from tomoseg.reconstruction.simd import LANES

# Odd and even sizes, a slice narrower and one wider than the detector, and the directions where the rows and columns
# change roles (45), where a ray meets the pixel centres exactly (0, 90), and beyond a half turn.
ANGLES = np.array([-90.0, -71.3, -45.0, -44.9, -20.0, 0.0, 0.01, 33.0, 45.0, 60.0, 90.0, 135.0, 200.0])
GEOMETRIES = [
    ParallelGeometry(ANGLES, n_detector=32, nx=32, nz=32),
    ParallelGeometry(ANGLES, n_detector=33, nx=33, nz=20),
    ParallelGeometry(ANGLES, n_detector=21, nx=40, nz=37),
    ParallelGeometry(ANGLES, n_detector=70, nx=30, nz=45),
]
NAMES = ["square", "thin", "wider than the detector", "narrower than the detector"]


def joseph(slice_: np.ndarray, geometry: ParallelGeometry) -> np.ndarray:
    """Project one slice in float64 by the definition: hat(distance across) * length, summed over rows or columns."""
    result = np.zeros((geometry.n_tilt, geometry.n_detector))
    for t, (c, s) in enumerate(zip(geometry.cosines, geometry.sines, strict=True)):
        if abs(c) >= abs(s):
            across = (geometry.detector[:, None] - geometry.z * s) / c  # x at which ray d crosses row z
            hat = np.maximum(0, 1 - np.abs(across[:, :, None] - geometry.x))
            result[t] = np.einsum("dzx,zx->d", hat, slice_) / abs(c)
        else:
            across = (geometry.detector[:, None] - geometry.x * c) / s
            hat = np.maximum(0, 1 - np.abs(across[:, :, None] - geometry.z))
            result[t] = np.einsum("dxz,zx->d", hat, slice_) / abs(s)
    return result


def project(operator, volume: np.ndarray) -> np.ndarray:
    n = volume.shape[1]
    return np.array(operator.unload_projections(operator.forward(operator.load_volume(volume)), n))


def back(operator, projections: np.ndarray) -> np.ndarray:
    n = projections.shape[1]
    return np.array(operator.unload(operator.backward(operator.load(projections)), n))


def random_block(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(7).random(shape, dtype=np.float32)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=NAMES)
def test_cpu_weights_are_josephs(geometry):
    volume = random_block((geometry.nz, 3, geometry.nx))
    computed = project(CpuOperator(geometry), volume)
    for i in range(3):
        expected = joseph(volume[:, i].astype(np.float64), geometry)
        # float32 positions have an error of 1e-7 px, sums of 50 terms one of some 1e-6.
        np.testing.assert_allclose(computed[:, i], expected, atol=5e-6 * expected.max(), rtol=0)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=NAMES)
def test_cpu_backward_is_the_adjoint_of_forward(geometry):
    operator = CpuOperator(geometry)
    x = random_block((geometry.nz, LANES, geometry.nx)) - 0.5
    y = random_block((geometry.n_tilt, LANES, geometry.n_detector)) - 0.5
    left = np.einsum("tsd,tsd->s", project(operator, x).astype(np.float64), y)
    right = np.einsum("zsx,zsx->s", back(operator, y).astype(np.float64), x)
    # Relative to the size of the vectors: <Ax, y> of random vectors is a small difference of large numbers.
    scale = np.linalg.norm(project(operator, x)) * np.linalg.norm(y) / LANES
    np.testing.assert_allclose(left, right, atol=1e-5 * scale, rtol=0)


def test_the_adjoint_is_exact_voxel_by_voxel():
    geometry = ParallelGeometry(np.array([-63.0, 10.0, 45.0]), n_detector=9, nx=8, nz=7)
    operator = CpuOperator(geometry)
    matrix = np.empty((geometry.n_tilt * geometry.n_detector, 56))
    for k in range(56):
        one = np.zeros((7, 1, 8), np.float32)
        one.reshape(-1)[k] = 1
        matrix[:, k] = project(operator, one).reshape(-1)
    y = random_block((3, 1, 9))
    np.testing.assert_allclose(back(operator, y).reshape(-1), matrix.T @ y.reshape(-1), atol=1e-6)


def test_updates_are_what_they_say():
    geometry = GEOMETRIES[1]
    operator = CpuOperator(geometry)
    x = random_block((geometry.nz, 2, geometry.nx)) - 0.3
    y = random_block((geometry.n_tilt, 2, geometry.n_detector)) - 0.5
    plane = random_block((geometry.nz, geometry.nx))
    step = back(operator, y) * plane[:, None]
    volume = operator.load_volume(x)
    operator.add(volume, operator.load(y), plane, 0.0)
    # Two orders of adding 26 numbers of order 1 in float32.
    np.testing.assert_allclose(operator.unload(volume, 2), np.maximum(x + step, 0), atol=1e-5)
    volume = operator.load_volume(np.abs(x))
    operator.multiply(volume, operator.load(np.abs(y)), plane)
    expected = np.abs(x) * back(operator, np.abs(y)) * plane[:, None]
    np.testing.assert_allclose(operator.unload(volume, 2), expected, rtol=1e-5, atol=1e-7)


def test_the_border_stays_zero():
    geometry = GEOMETRIES[0]
    operator = CpuOperator(geometry)
    volume = operator.load_volume(np.ones((geometry.nz, LANES, geometry.nx), np.float32))
    projections = operator.forward(volume)
    operator.add(volume, projections, np.ones((geometry.nz, geometry.nx), np.float32), 0.0)
    assert volume[:2].max() == volume[-2:].max() == volume[:, :2].max() == volume[:, -2:].max() == 0
    assert projections[:, :2].max() == projections[:, -2:].max() == 0


def test_interpolation_reads_the_detector_between_its_pixels():
    geometry = ParallelGeometry(np.array([-30.0, 20.0, 70.0]), n_detector=41, nx=24, nz=20)
    ramp = np.broadcast_to(geometry.detector.astype(np.float32), (3, 2, 41))
    volume = CpuOperator(geometry)
    out = volume.unload(volume.interpolate(volume.load(ramp), np.ones((20, 24), np.float32)), 2)
    # A linear function is interpolated exactly, so the sum over tilts is that of x cos t + z sin t.
    expected = geometry.x * geometry.cosines.sum() + geometry.z[:, None] * geometry.sines.sum()
    np.testing.assert_allclose(out[:, 0], expected, atol=1e-4)
    np.testing.assert_array_equal(out[:, 0], out[:, 1])


@pytest.mark.parametrize("operator", [CpuOperator, AstraCpuOperator])
@pytest.mark.parametrize(("x", "z"), [(-7, 3), (5, 9), (-4, -8), (0, 6)])
def test_a_point_is_seen_at_x_cos_t_plus_z_sin_t(operator, x, z):
    geometry = ParallelGeometry(np.arange(-80.0, 81, 8), n_detector=41, nx=31, nz=25)
    volume = np.zeros((25, 3, 31), np.float32)
    volume[z + 12, 1, x + 15] = 1
    seen = project(operator(geometry), volume)
    assert seen[:, 0].max() == seen[:, 2].max() == 0
    centre = (seen[:, 1] * geometry.detector).sum(1) / seen[:, 1].sum(1)
    # On the detector a voxel is a hat of half-width m = max(|cos t|, |sin t|) >= 0.71: where only one pixel lies under
    # it, that pixel is up to 1 - m = 0.29 px from its centre.
    np.testing.assert_allclose(centre, x * geometry.cosines + z * geometry.sines, atol=0.3)


@pytest.mark.parametrize("geometry", GEOMETRIES[:2], ids=NAMES[:2])
def test_astra_on_the_cpu_has_the_same_weights(geometry):
    volume = random_block((geometry.nz, 2, geometry.nx))
    y = random_block((geometry.n_tilt, 2, geometry.n_detector))
    cpu, astra = CpuOperator(geometry), AstraCpuOperator(geometry)
    for ours, theirs in ((project(cpu, volume), project(astra, volume)), (back(cpu, y), back(astra, y))):
        # ASTRA adds up a ray's position in float32. At 45 degrees and at 0 and 90 exactly, rays lie on pixel borders.
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * ours.max(), rtol=0)
    astra.close()


def test_astra_detector_vectors_see_a_point_where_we_do():
    geometry = ParallelGeometry(np.array([-50.0, 0.0, 25.0, 90.0]), n_detector=8, nx=8, nz=8)
    vectors = detector_vectors(geometry)
    ray, centre, columns, rows = vectors[:, :3], vectors[:, 3:6], vectors[:, 6:9], vectors[:, 9:]
    point = np.array([3.0, -2.0, 1.0])  # ASTRA's x, y, z are our x, z, y
    # Along the ray from the point, the detector plane is met where (point - centre) has these components.
    found = [
        np.linalg.solve(np.stack([u, v, r], 1), point - d)
        for r, d, u, v in zip(ray, centre, columns, rows, strict=True)
    ]
    expected = 3 * geometry.cosines - 2 * geometry.sines
    np.testing.assert_allclose(np.array(found)[:, 0], expected, atol=1e-12)
    np.testing.assert_allclose(np.array(found)[:, 1], 1, atol=1e-12)
    np.testing.assert_allclose((ray * columns).sum(1), 0, atol=1e-12)


def test_no_array_given_is_modified():
    geometry = GEOMETRIES[0]
    operator = CpuOperator(geometry)
    volume = random_block((geometry.nz, 2, geometry.nx))
    y = random_block((geometry.n_tilt, 2, geometry.n_detector))
    kept, kept_y = volume.copy(), y.copy()
    loaded = operator.load(y)
    operator.multiply(operator.load_volume(volume), loaded, np.ones((geometry.nz, geometry.nx), np.float32))
    np.testing.assert_array_equal(volume, kept)
    np.testing.assert_array_equal(y, kept_y)
    np.testing.assert_array_equal(operator.unload_projections(loaded, 2), y)


def test_slices_in_one_block_do_not_mix():
    geometry = GEOMETRIES[1]
    operator = CpuOperator(geometry)
    volume = random_block((geometry.nz, LANES, geometry.nx))
    together = project(operator, volume)
    for i in (0, 7, LANES - 1):
        np.testing.assert_array_equal(together[:, i : i + 1], project(operator, volume[:, i : i + 1]))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=NAMES)
@pytest.mark.parametrize("n", [WIDE, LANES + 3, 5])
def test_wide_blocks_have_the_bits_of_narrow_ones(geometry, n):
    narrow, wide = CpuOperator(geometry), CpuOperator(geometry, WIDE)
    volume = random_block((geometry.nz, n, geometry.nx)) - 0.2
    y = random_block((geometry.n_tilt, n, geometry.n_detector)) - 0.4
    plane = random_block((geometry.nz, geometry.nx))

    def everything(operator, volume, y):
        added, product = operator.load_volume(volume), operator.load_volume(np.abs(volume))
        operator.add(added, operator.load(y), plane, 0.0)
        operator.multiply(product, operator.load(np.abs(y)), plane)
        read = operator.interpolate(operator.load(y), plane)
        volumes = [np.array(operator.unload(one, volume.shape[1])) for one in (added, product, read)]
        return [project(operator, volume), back(operator, y), *volumes]

    parts = [slice(0, min(n, LANES)), *([slice(LANES, n)] if n > LANES else [])]
    expected = [everything(narrow, volume[:, part], y[:, part]) for part in parts]
    for k, found in enumerate(everything(wide, volume, y)):
        np.testing.assert_array_equal(found, np.concatenate([one[k] for one in expected], axis=1))
    (_, first), *_ = wide.subsets(2)
    assert first.block == WIDE


def test_a_block_has_one_of_two_sizes():
    with pytest.raises(ValueError, match="a block has 16 or 32 slices, not 20"):
        CpuOperator(GEOMETRIES[0], 20)
