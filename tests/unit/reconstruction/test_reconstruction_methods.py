"""MLEM, SIRT and FBP: their equations, and what they do with awkward data."""

from functools import partial

import numpy as np
import pytest

from tomoseg.reconstruction.backends.astra import AstraCpuOperator
from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.methods import fbp, in_blocks, mlem, osem, reciprocal, sirt, tv

GEOMETRY = ParallelGeometry(np.linspace(-70, 70, 36), n_detector=40, nx=40, nz=32)
SHORT = [
    partial(mlem, iterations=3),
    partial(sirt, iterations=3),
    fbp,
    partial(osem, iterations=3, subsets=5),
    partial(tv, iterations=3, weight=1.0),
]
NAMES = ["mlem", "sirt", "fbp", "osem", "tv"]


def matrix(geometry: ParallelGeometry) -> np.ndarray:
    """Return the projector as a dense matrix in float64."""
    operator = CpuOperator(geometry)
    n = geometry.nz * geometry.nx
    columns = np.eye(n, dtype=np.float32).reshape(n, geometry.nz, geometry.nx).transpose(1, 0, 2)
    parts = []
    for start in range(0, n, operator.block):
        block = columns[:, start : start + operator.block]
        parts.append(
            np.array(operator.unload_projections(operator.forward(operator.load_volume(block)), block.shape[1]))
        )
    return np.concatenate(parts, 1).transpose(0, 2, 1).reshape(-1, n).astype(np.float64)


def phantom(geometry: ParallelGeometry) -> np.ndarray:
    """Return two slices without any symmetry, shape (nz, 2, nx)."""
    z, x = np.meshgrid(geometry.z, geometry.x, indexing="ij")
    one = 1.0 * ((x - 6) ** 2 + (z + 4) ** 2 < 30) + 0.5 * ((np.abs(x + 7) < 6) & (np.abs(z - 3) < 5))
    return np.stack([one, 3 * one[::-1]], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def projections() -> np.ndarray:
    operator = CpuOperator(GEOMETRY)
    return np.array(operator.unload_projections(operator.forward(operator.load_volume(phantom(GEOMETRY))), 2))


def test_mlem_follows_its_equation():
    geometry = ParallelGeometry(np.array([-60.0, -20.0, 15.0, 70.0]), n_detector=12, nx=12, nz=10)
    a = matrix(geometry)
    p = np.random.default_rng(1).random((4, 1, 12)).astype(np.float32)
    measured, v = p.reshape(-1), np.ones(120)
    v *= measured.sum() / (a @ v).sum()
    expected = [np.sum((measured - a @ v) ** 2)]
    for _ in range(4):
        v *= a.T @ (measured / (a @ v)) / a.sum(axis=0)
        expected.append(np.sum((measured - a @ v) ** 2))
    result = mlem(CpuOperator(geometry), p, iterations=4)
    np.testing.assert_allclose(result.volume.reshape(-1), v, rtol=1e-4)  # float32 through four products
    np.testing.assert_allclose(result.misfit, expected, rtol=1e-4)
    assert result.power == pytest.approx((measured.astype(np.float64) ** 2).sum())


def test_osem_follows_its_equation():
    geometry = ParallelGeometry(np.array([-60.0, -20.0, 15.0, 40.0, 70.0]), n_detector=12, nx=24, nz=10)
    a = matrix(geometry)
    p = np.random.default_rng(1).random((5, 1, 12)).astype(np.float32)
    measured = p.reshape(-1)
    v = 1.0 * (a.sum(axis=0) > 0)
    v *= measured.sum() / (a @ v).sum()
    expected = [np.sum((measured - a @ v) ** 2)]
    tilt = np.arange(5).repeat(12)
    for _ in range(3):
        for first in (0, 1):  # of every other tilt
            rows = tilt % 2 == first
            column = a[rows].sum(axis=0)
            with np.errstate(invalid="ignore", divide="ignore"):
                factor = a[rows].T @ (measured[rows] / (a[rows] @ v)) / column
            v *= np.where(column > 0, factor, 1)  # what a subset does not see stays
        expected.append(np.sum((measured - a @ v) ** 2))
    assert (a[tilt % 2 == 1].sum(axis=0) == 0).any()
    result = osem(CpuOperator(geometry), p, iterations=3, subsets=2)
    np.testing.assert_allclose(result.volume.reshape(-1), v, rtol=2e-4, atol=1e-7)
    np.testing.assert_allclose(result.misfit, expected, rtol=2e-4)


@pytest.mark.parametrize("non_negative", [True, False])
def test_sirt_follows_its_equation(non_negative):
    geometry = ParallelGeometry(np.array([-60.0, -20.0, 15.0, 70.0]), n_detector=12, nx=12, nz=10)
    a = matrix(geometry)
    p = (np.random.default_rng(1).random((4, 1, 12)) - 0.3).astype(np.float32)
    v = np.zeros(120)
    rows = np.where(a.sum(axis=1) > 1e-2, 1 / np.maximum(a.sum(axis=1), 1e-2), 0)
    for _ in range(4):
        v += a.T @ (rows * (p.reshape(-1) - a @ v)) / a.sum(axis=0)
        v = np.maximum(v, 0) if non_negative else v
    result = sirt(CpuOperator(geometry), p, iterations=4, non_negative=non_negative)
    np.testing.assert_allclose(result.volume.reshape(-1), v, atol=1e-5)
    assert (result.volume.min() < -0.01) == (not non_negative)


def test_the_norm_of_the_projector():
    expected = np.linalg.norm(matrix(GEOMETRY), 2) ** 2
    assert CpuOperator(GEOMETRY).norm_squared == pytest.approx(expected, rel=0.01)
    assert CpuOperator(GEOMETRY).norm_squared <= expected * (1 + 1e-5)


def test_subsets_share_the_tilts_out():
    operator = CpuOperator(GEOMETRY)
    seen = np.concatenate([np.arange(36)[tilts] for tilts, _ in operator.subsets(5)])
    assert sorted(seen) == list(range(36))
    for tilts, part in operator.subsets(5):
        np.testing.assert_array_equal(part.geometry.angles_deg, GEOMETRY.angles_deg[tilts])
    assert len(operator.subsets(100)) == 36


@pytest.mark.parametrize(
    "method",
    [partial(mlem, iterations=30), partial(sirt, iterations=60), partial(osem, iterations=6)],
    ids=["mlem", "sirt", "osem"],
)
def test_the_residual_falls_and_the_volume_approaches_the_truth(method, projections):
    result = method(CpuOperator(GEOMETRY), projections)
    assert np.all(np.diff(result.misfit) < 0)
    assert np.sqrt(result.misfit[-1] / result.power) < 0.05
    # A 40 degree missing wedge costs both some correlation; a mirrored or shifted volume has less than 0.7.
    assert np.corrcoef(result.volume.ravel(), phantom(GEOMETRY).ravel())[0, 1] > 0.93


def test_the_stored_residual_is_that_of_the_volume(projections):
    operator = CpuOperator(GEOMETRY)
    for method in SHORT:
        result = method(operator, projections)
        again = operator.unload_projections(operator.forward(operator.load_volume(result.volume)), 2)
        expected = np.square(projections - again, dtype=np.float64).sum()
        assert result.misfit[-1] == pytest.approx(expected, rel=1e-4)
        assert result.power == pytest.approx(np.square(projections, dtype=np.float64).sum())


def test_fbp_recovers_values_from_a_full_half_turn():
    geometry = ParallelGeometry(np.arange(0.0, 180, 2), n_detector=64, nx=64, nz=64)
    z, x = np.meshgrid(geometry.z, geometry.x, indexing="ij")
    disc = (1.0 * ((x - 6) ** 2 + (z + 5) ** 2 < 15**2)).astype(np.float32)[:, None]
    operator = CpuOperator(geometry)
    p = np.array(operator.unload_projections(operator.forward(operator.load_volume(disc)), 1))
    volume = fbp(operator, p, "hann").volume[:, 0]
    inside = (x - 6) ** 2 + (z + 5) ** 2 < 11**2
    # 90 tilts sample a radius of 15 px well; what is left inside is ripple of the edge.
    assert volume[inside].mean() == pytest.approx(1, abs=0.01)
    assert volume[inside].std() < 0.02


@pytest.mark.parametrize("operator", [CpuOperator, AstraCpuOperator])
@pytest.mark.parametrize("method", SHORT, ids=NAMES)
def test_empty_slices_stay_empty_and_nothing_is_ever_nan(operator, method, projections):
    data = np.zeros((36, 5, 40), np.float32)
    data[:, 1:3] = projections
    data[10, 3, 20] = 1e-30  # next to nothing
    data[:, 4] = -1  # nothing but noise below the background
    result = method(operator(GEOMETRY), data[:, :4]), method(operator(GEOMETRY), data[:, 4:])
    for part in result:
        assert np.isfinite(part.volume).all()
        assert np.isfinite(part.misfit).all()
    assert np.all(result[0].volume[:, 0] == 0)
    if method in (SHORT[0], SHORT[3]):
        assert np.all(result[1].volume == 0)


def test_mlem_on_zero_rays_empties_their_voxels(projections):
    data = projections.copy()
    data[18] = 0  # the tilt nearest 0: every voxel lies on one of its rays, but also on others
    data[:, :, 25] = 0
    result = mlem(CpuOperator(GEOMETRY), data, iterations=20)
    assert np.isfinite(result.volume).all()
    assert result.volume.min() >= 0
    whole = mlem(CpuOperator(GEOMETRY), projections, iterations=20)
    assert result.volume.sum() < 0.97 * whole.volume.sum()


def test_mlem_takes_negative_data_as_zero(projections):
    noisy = projections - 0.5
    a = mlem(CpuOperator(GEOMETRY), noisy, iterations=5)
    b = mlem(CpuOperator(GEOMETRY), np.maximum(noisy, 0), iterations=5)
    np.testing.assert_array_equal(a.volume, b.volume)
    np.testing.assert_array_equal(a.misfit, b.misfit)


def test_mlem_scales_with_the_data(projections):
    # Powers of two, so that float32 rounds alike.
    small = mlem(CpuOperator(GEOMETRY), projections, iterations=5).volume
    large = mlem(CpuOperator(GEOMETRY), projections * 2**20, iterations=5).volume
    np.testing.assert_allclose(large, small * 2**20, rtol=1e-5, atol=1e-6)


def test_voxels_that_no_ray_meets_are_zero():
    geometry = ParallelGeometry(np.array([0.0, 5.0]), n_detector=10, nx=40, nz=8)
    p = np.ones((2, 1, 10), np.float32)
    for method in SHORT[:2]:
        volume = method(CpuOperator(geometry), p).volume
        assert np.all(volume[:, :, :13] == 0)
        assert np.all(volume[:, :, 16:24] > 0)


@pytest.mark.parametrize("method", SHORT, ids=NAMES)
def test_the_voxel_mask_is_respected(method, projections):
    mask = GEOMETRY.cylinder()
    volume = method(CpuOperator(GEOMETRY), projections, voxel_mask=mask).volume
    assert np.all(volume[~mask[:, None].repeat(2, 1)] == 0)
    assert np.any(volume[mask[:, None].repeat(2, 1)] != 0)


@pytest.mark.parametrize("method", SHORT, ids=NAMES)
def test_a_slice_does_not_depend_on_its_neighbours_or_on_threads(method, projections):
    rng = np.random.default_rng(3)
    many = np.concatenate([projections, rng.random((36, 35, 40), dtype=np.float32)], axis=1)
    operator = CpuOperator(GEOMETRY)
    one, two = in_blocks(operator, method, many, workers=1), in_blocks(operator, method, many, workers=3)
    np.testing.assert_array_equal(one.volume, two.volume)
    np.testing.assert_allclose(one.misfit, two.misfit, rtol=1e-12)
    assert one.volume.shape == (32, 37, 40)
    for i in (0, 1, 17, 36):
        alone = method(operator, many[:, i : i + 1])
        np.testing.assert_array_equal(one.volume[:, i], alone.volume[:, 0])
    parts = [method(operator, many[:, i : i + 1]) for i in range(37)]
    np.testing.assert_allclose(np.sum([p.misfit for p in parts], axis=0), one.misfit, rtol=1e-6)


@pytest.mark.parametrize("method", SHORT, ids=NAMES)
def test_inputs_are_not_modified(method, projections):
    before = projections.copy()
    method(CpuOperator(GEOMETRY), projections)
    np.testing.assert_array_equal(projections, before)


def test_reciprocal_leaves_out_what_is_not_seen():
    sums = np.array([[0.0, 0.5], [2.0, 4.0]], np.float32)
    np.testing.assert_array_equal(reciprocal(sums, None), [[0, 2], [0.5, 0.25]])
    np.testing.assert_array_equal(reciprocal(sums, None, least=0.5), [[0, 0], [0.5, 0.25]])
    np.testing.assert_array_equal(reciprocal(sums, np.array([[True, True], [False, True]])), [[0, 2], [0, 0.25]])


def test_mlem_survives_numbers_too_small_to_divide(projections):
    """Interpolation leaves subnormal numbers at the edge of an object; a real aligned series once divided by zero."""
    awkward = projections.copy()
    awkward[::3] = np.float32(1e-42)
    volume = mlem(CpuOperator(GEOMETRY), awkward, iterations=20).volume
    assert np.isfinite(volume).all()
    assert volume.max() > 0


WEIGHTED = [(mlem, {}), (sirt, {"non_negative": True}), (osem, {"subsets": 6}), (tv, {"weight": 2.0})]
NAMES = ["mlem", "sirt", "osem", "tv"]


@pytest.mark.parametrize(("method", "options"), WEIGHTED[:2], ids=NAMES[:2])
@pytest.mark.parametrize("operator", [CpuOperator, AstraCpuOperator])
def test_rays_without_weight_are_as_if_not_measured(method, options, operator, projections):
    spoilt, weights = projections.copy(), np.ones((36, 40), np.float32)
    spoilt[7], weights[7] = 100, 0
    others = np.flatnonzero(np.arange(36) != 7)
    found = method(operator(GEOMETRY), spoilt, 8, weights=weights, **options).volume
    expected = method(operator(GEOMETRY.of(others)), spoilt[others], 8, **options).volume
    if method is mlem:  # the start holds all counts, and multiplying by a constant is forgotten slowly
        start = np.ones_like(expected)
        found = mlem(operator(GEOMETRY), spoilt, 8, weights=weights, start=start).volume
        expected = mlem(operator(GEOMETRY.of(others)), spoilt[others], 8, start=start).volume
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


@pytest.mark.parametrize(("method", "options"), WEIGHTED[:3], ids=NAMES[:3])
def test_equal_weights_change_nothing(method, options, projections):
    plain = method(CpuOperator(GEOMETRY), projections, 5, **options).volume
    # SIRT's step shrinks by no weight: C makes up for it.
    equal = method(CpuOperator(GEOMETRY), projections, 5, weights=np.full((36, 40), 2, np.float32), **options).volume
    np.testing.assert_allclose(equal, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("method", "options"), WEIGHTED[:3], ids=NAMES[:3])
def test_a_warm_start_goes_on_where_another_run_ended(method, options, projections):
    operator = CpuOperator(GEOMETRY)
    whole = method(operator, projections, 10, **options)
    half = method(operator, projections, 4, **options)
    rest = method(operator, projections, 6, start=half.volume, **options)
    np.testing.assert_allclose(rest.volume, whole.volume, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rest.misfit, whole.misfit[4:], rtol=1e-4)


@pytest.mark.parametrize(("method", "options"), WEIGHTED, ids=NAMES)
def test_a_ray_without_weight_leaves_no_trace(method, options, projections):
    weights = np.ones((36, 40), np.float32)
    weights[7], weights[20, 13:19] = 0, 0
    start = np.ones((GEOMETRY.nz, projections.shape[1], GEOMETRY.nx), np.float32)
    found = []
    for value in (0, 100):
        spoilt = np.where(weights[:, None] > 0, projections, np.float32(value))
        found.append(method(CpuOperator(GEOMETRY), spoilt, 4, weights=weights, start=start, **options).volume)
    np.testing.assert_array_equal(*found)
    plain = method(CpuOperator(GEOMETRY), spoilt, 4, start=start, **options).volume
    assert np.abs(plain - found[0]).max() > 0.1 * found[0].max()


def test_tv_reaches_the_same_minimum_from_anywhere(projections):
    """The functional is convex: the start decides only how soon the minimum is reached."""
    cold = tv(CpuOperator(GEOMETRY), projections, 400, weight=2.0).volume
    for start in (np.full_like(cold, 3), cold[::-1]):
        warm = tv(CpuOperator(GEOMETRY), projections, 400, weight=2.0, start=start).volume
        assert np.abs(warm - cold).max() < 0.02 * cold.max()
    near = tv(CpuOperator(GEOMETRY), projections, 3, weight=2.0, start=cold).volume
    assert np.abs(near - cold).max() < 0.02 * cold.max()
