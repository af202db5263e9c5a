"""Size distributions: weights undo what the frame cuts, and weighted numbers agree with repeated particles."""

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.measurement.particles.sizes import confidence_intervals, size_summary
from tomoseg.micrographs.distribution import (
    Sizes,
    frame_weights,
    log_normal_fit,
    pooled,
    size_distribution,
    whole_sizes,
)
from tomoseg.micrographs.shapes import SHAPE


def test_weights_undo_the_bias_of_the_frame():
    rng = np.random.default_rng(0)
    diameters = np.exp(rng.normal(np.log(40), 0.5, 40_000)).clip(5, 150)
    centres = rng.uniform(-150, 350, (len(diameters), 2))
    whole = ((centres > diameters[:, None] / 2) & (centres < 200 - diameters[:, None] / 2)).all(axis=1)
    weights = frame_weights(diameters[whole], diameters[whole], (200, 200))
    truth = diameters.mean()
    assert diameters[whole].mean() < 0.93 * truth
    assert size_summary(diameters[whole], weights)["mean"] == pytest.approx(truth, rel=0.03)


def test_the_weight_is_that_of_miles_and_lantuejoul_and_counts_free_places_beside_a_mask():
    assert frame_weights([20], [50], (100, 200))[0] == pytest.approx(100 * 200 / (80 * 150))
    mask = np.zeros((100, 200), bool)
    mask[:, 100:] = True  # a frame of half the width
    assert frame_weights([20], [50], (100, 200), mask)[0] == pytest.approx(100 * 100 / (80 * 51), rel=0.02)
    with pytest.raises(InputError, match="as large as its image"):
        frame_weights([100], [5], (100, 200))


def test_whole_weights_count_as_repeated_particles():
    d, w = np.array([3.0, 5, 6, 8]), np.array([1, 2, 1, 3])
    weighted, repeated = size_summary(d, w), size_summary(np.repeat(d, w))
    for name in ("mean", "d32", "d43"):
        assert weighted[name] == pytest.approx(repeated[name])
    even = size_summary(d, np.ones(4))
    assert even["mean"] == size_summary(d)["mean"]
    assert even["d50"] == pytest.approx(size_summary(d)["d50"])


def test_intervals_with_even_weights_are_about_those_without():
    d = np.exp(np.random.default_rng(1).normal(2, 0.3, 200))
    plain, weighted = confidence_intervals(d), confidence_intervals(d, weights=np.full(200, 2.5))
    for name in plain:
        np.testing.assert_allclose(weighted[name], plain[name], rtol=0.02)
    assert plain["mean"] == pytest.approx(weighted["mean"], rel=1e-12)


def test_log_normal_fit_covers_the_truth():
    rng = np.random.default_rng(2)
    hits = np.zeros(2)
    for _ in range(300):
        fit = log_normal_fit(np.exp(rng.normal(1.5, 0.4, 50)), np.ones(50))
        hits += [fit.mu_interval[0] < 1.5 < fit.mu_interval[1], fit.sigma_interval[0] < 0.4 < fit.sigma_interval[1]]
    assert (abs(hits / 300 - 0.95) < 0.04).all()
    assert fit.median == pytest.approx(np.exp(fit.mu))
    assert np.isnan(log_normal_fit([], []).mu)


def test_tables_are_counted_and_pooled():
    table = np.zeros(3, SHAPE)
    table["diameter_px"], table["height_px"], table["width_px"] = [10, 20, 30], [10, 20, 30], [10, 20, 30]
    table["touches_border"] = [False, False, True]
    sizes = whole_sizes(table, (100, 100), 0.5)
    assert (sizes.unit, sizes.n_cut) == ("nm", 1)
    np.testing.assert_allclose(sizes.diameters, [5, 10])
    np.testing.assert_allclose(sizes.weights, [1 / 0.81, 1 / 0.64])
    both = size_distribution(pooled([sizes, sizes]))
    assert (both.n, both.n_cut) == (4, 2)
    assert both.summary["d50"] == pytest.approx(size_distribution(sizes).summary["d50"], rel=0.2)
    with pytest.raises(InputError, match="pixel size"):
        pooled([sizes, whole_sizes(table, (100, 100))])
    with pytest.raises(InputError, match="no sizes"):
        pooled([])
    assert size_distribution(Sizes(np.zeros(0), np.zeros(0), 0, "px")).n == 0
