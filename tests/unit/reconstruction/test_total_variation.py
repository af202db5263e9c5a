"""Total variation: the proximal map against a general minimiser, and what the method gains."""

from functools import partial

import numpy as np
import pytest
from scipy import optimize

from tomoseg import simulate
from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.methods import in_blocks, mlem, tv, tv_scale
from tomoseg.reconstruction.total_variation import Proximal


def total_variation(slices):
    """Return the isotropic total variation of slices (nz, nx, n), summed."""
    dz, dx = np.zeros_like(slices), np.zeros_like(slices)
    dz[:-1], dx[:, :-1] = np.diff(slices, axis=0), np.diff(slices, axis=1)
    return float(np.sqrt(dz**2 + dx**2).sum(dtype=np.float64))


def objective(v, u, weight):
    return 0.5 * np.sum((v - u) ** 2) + weight * total_variation(v)


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5])
def test_the_proximal_map_is_the_minimum(weight):
    u = np.random.default_rng(0).normal(0.5, 0.5, (7, 6, 1))
    found, point = np.zeros(u.shape, np.float32), u.astype(np.float32)
    smoothed = Proximal(u.shape, weight)
    for _ in range(60):
        smoothed(point, found)

    def smooth_objective(flat):
        """Total variation with rounded corners, whose minimum a general method finds."""
        v = flat.reshape(u.shape)
        dz, dx = np.zeros_like(v), np.zeros_like(v)
        dz[:-1], dx[:, :-1] = np.diff(v, axis=0), np.diff(v, axis=1)
        length = np.sqrt(dz**2 + dx**2 + 1e-10)
        gradient = v - u
        for part, axis in ((weight * dz / length, 0), (weight * dx / length, 1)):
            gradient = gradient - part + np.roll(part, 1, axis)  # the last difference along an axis is 0
        return 0.5 * np.sum((v - u) ** 2) + weight * length.sum(), gradient.ravel()

    best = optimize.minimize(
        smooth_objective, np.maximum(u, 0).ravel(), jac=True, method="L-BFGS-B", bounds=[(0, None)] * u.size,
        options={"maxiter": 20_000, "maxfun": 20_000, "ftol": 1e-14},
    )  # fmt: skip
    assert found.min() >= 0
    # The rounded corners leave the general method some 1e-4 above the minimum.
    assert objective(found, u, weight) <= objective(best.x.reshape(u.shape), u, weight) + 1e-4
    np.testing.assert_allclose(found.ravel(), best.x, atol=0.01)


def test_slices_do_not_mix():
    u = np.random.default_rng(1).random((5, 6, 3), dtype=np.float32)
    together = np.zeros_like(u)
    Proximal(u.shape, 0.1)(u, together)
    for i in range(3):
        alone = np.zeros((5, 6, 1), np.float32)
        Proximal(alone.shape, 0.1)(u[:, :, i : i + 1].copy(), alone)
        np.testing.assert_array_equal(together[:, :, i], alone[:, :, 0])


def test_total_variation_of_a_step_and_a_corner():
    step = np.zeros((4, 5, 2))
    step[:, 3:, 0] = 2
    assert total_variation(step) == pytest.approx(4 * 2)
    corner = np.zeros((4, 4, 1))
    corner[:2, :2] = 1
    # Two voxels with a difference below, two with one to the right, of which one has both.
    assert total_variation(corner) == pytest.approx(2 + np.sqrt(2))


@pytest.fixture(scope="module")
def series():
    """Return geometry, noisy projections and the true slices of a simulated catalyst."""
    phantom = simulate.catalyst(64, 15, seed=2)
    angles = simulate.tilt_angles(60, 3)
    clean = np.maximum(simulate.project(phantom.density, angles), 0)[:, 24:40]
    noisy = np.random.default_rng(0).poisson(200 * clean / clean.max()) * (clean.max() / 200)
    return ParallelGeometry(angles, 64, 64, 64), noisy.astype(np.float32), phantom.density[:, 24:40]


def correlation(volume, truth):
    return np.corrcoef(volume.ravel(), truth.ravel())[0, 1]


def test_it_is_nearer_to_the_truth_than_mlem(series):
    geometry, projections, truth = series
    operator = CpuOperator(geometry)
    weight = 0.02 * tv_scale(geometry, projections)
    smooth = correlation(tv(operator, projections, 60, weight).volume, truth)
    best = max(correlation(mlem(operator, projections, n).volume, truth) for n in (5, 10, 20, 40))
    assert smooth > best + 0.02


def test_a_larger_weight_leaves_less_variation_and_a_larger_misfit(series):
    geometry, projections, _ = series
    scale = tv_scale(geometry, projections)
    found = [tv(CpuOperator(geometry), projections, 60, w * scale) for w in (0.0, 0.01, 0.1)]
    variation = [total_variation(np.moveaxis(r.volume, 1, -1)) for r in found]
    assert variation[0] > 1.2 * variation[1] > 1.2 * 1.2 * variation[2]
    assert found[0].misfit[-1] < found[1].misfit[-1] < found[2].misfit[-1]


def test_the_weight_scales_with_the_data(series):
    geometry, projections, _ = series
    # A power of two, so that float32 rounds alike.
    volumes = [
        in_blocks(CpuOperator(geometry), partial(tv, iterations=10, weight=0.02 * tv_scale(geometry, p)), p).volume
        for p in (projections, projections * 1024)
    ]
    np.testing.assert_allclose(volumes[1], volumes[0] * 1024, rtol=1e-4, atol=1e-3)
