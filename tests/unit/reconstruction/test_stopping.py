"""The number of iterations that held-out tilts ask for, against the one that is nearest to the truth."""

from functools import partial

import numpy as np
import pytest

from tomoseg import simulate
from tomoseg.errors import Interrupted
from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.methods import mlem, osem, sirt
from tomoseg.reconstruction.stopping import StoppingCurve, cross_validate, tried


@pytest.fixture(scope="module")
def catalyst():
    """Return the geometry, perfect projections and true slices of a simulated catalyst."""
    phantom = simulate.catalyst(64, 15, seed=5)
    angles = simulate.tilt_angles(68, 2)
    clean = np.maximum(simulate.project(phantom.density, angles), 0)[:, 16:48]
    return ParallelGeometry(angles, 64, 64, 64), clean, phantom.density[:, 16:48]


def with_noise(clean, dose):
    scale = clean.max() / dose
    return (np.random.default_rng(1).poisson(clean / scale) * scale).astype(np.float32)


@pytest.mark.parametrize(("dose", "bound"), [(30, 0.99), (300, 0.99), (3000, 0.99)])
@pytest.mark.parametrize(("method", "most"), [(mlem, 100), (partial(osem, subsets=6), 20), (sirt, 200)])
def test_the_choice_is_nearly_as_good_as_the_best(catalyst, dose, bound, method, most):
    geometry, clean, truth = catalyst
    projections = with_noise(clean, dose)
    curve = cross_validate(CpuOperator, geometry, projections, method, most, workers=2)
    found = {}
    operator = CpuOperator(geometry)

    def watch(iteration, volume):
        if iteration in curve.iterations:
            found[iteration] = np.corrcoef(operator.unload(volume, 16).ravel(), truth[:, :16].ravel())[0, 1]

    method(operator, projections[:, :16], iterations=most, watch=watch)
    assert found[curve.best] >= bound * max(found.values())


def test_noise_ends_earlier(catalyst):
    geometry, clean, _ = catalyst
    noisy, good = (cross_validate(CpuOperator, geometry, with_noise(clean, d), mlem, 100) for d in (30, 3000))
    assert noisy.best < 20
    assert noisy.is_bounded
    assert good.best > 3 * noisy.best


def test_the_residual_is_that_of_the_tilts_left_out(catalyst):
    geometry, clean, _ = catalyst
    data = with_noise(clean, 300)[:, :5]
    curve = cross_validate(CpuOperator, geometry, data, mlem, 3)
    left_out = np.arange(geometry.n_tilt) % 8 == 4
    kept, test = (CpuOperator(geometry.of(np.flatnonzero(part))) for part in (~left_out, left_out))
    volume = mlem(kept, data[~left_out], 3).volume
    computed = test.unload_projections(test.forward(test.load_volume(volume)), 5)
    expected = np.linalg.norm(data[left_out] - computed) / np.linalg.norm(data[left_out])
    assert curve.iterations.tolist() == [1, 2, 3]
    assert curve.held_out[-1] == pytest.approx(expected, rel=1e-5)


def test_threads_change_nothing(catalyst):
    geometry, clean, _ = catalyst
    one, two = (cross_validate(CpuOperator, geometry, with_noise(clean, 300), mlem, 4, workers=w) for w in (1, 2))
    np.testing.assert_array_equal(one.held_out, two.held_out)


def test_it_can_be_stopped(catalyst):
    def stop():
        raise Interrupted("stopped")

    geometry, clean, _ = catalyst
    with pytest.raises(Interrupted):
        cross_validate(CpuOperator, geometry, with_noise(clean, 300), mlem, 4, check=stop)


def test_the_fewest_within_the_tolerance_are_taken():
    curve = StoppingCurve(np.array([1, 2, 3, 4]), np.array([2.0, 1.019, 1.0, 1.5]))
    assert curve.best == 2
    assert curve.is_bounded
    assert not StoppingCurve(np.array([1, 2]), np.array([2.0, 1.0])).is_bounded


@pytest.mark.parametrize("most", [1, 2, 7, 120])
def test_numbers_that_are_tried(most):
    numbers = tried(most)
    assert numbers[0] == 1
    assert numbers[-1] == most
    assert np.all(np.diff(numbers) >= 1)
    assert np.all(numbers[1:] / numbers[:-1] <= 2)
