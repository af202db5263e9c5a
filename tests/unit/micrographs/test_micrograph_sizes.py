"""Weighted size distributions against cases worked by hand, and intervals that hold what they promise."""

import numpy as np

from tomoseg.measurement.particles.sizes import size_summary, size_table
from tomoseg.micrographs.distribution import confidence_intervals, weighted_sizes
from tomoseg.micrographs.records import Record
from tomoseg.micrographs.summary import samples_of


def test_weights_count_as_so_many_particles():
    once = weighted_sizes([1.0, 2.0, 4.0], [2.0, 1.0, 1.0])
    twice = weighted_sizes([1.0, 1.0, 2.0, 4.0])
    assert once["mean"] == twice["mean"] == 2.0
    assert once["d32"] == twice["d32"] == (1 + 1 + 8 + 64) / (1 + 1 + 4 + 16)
    assert once["lognormal_median"] == twice["lognormal_median"]
    np.testing.assert_allclose(once["lognormal_median"], 8 ** (1 / 4))


def test_without_weights_means_are_those_of_tomograms():
    d = np.random.default_rng(0).lognormal(2, 0.3, 500)
    ours, theirs = weighted_sizes(d), size_summary(d)
    for name in ("mean", "std", "d32", "dv50"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9)
    np.testing.assert_allclose(ours["d50"], theirs["d50"], rtol=0.01)


def test_a_lognormal_sample_gives_its_parameters():
    held = 0
    for seed in range(40):
        d = np.random.default_rng(seed).lognormal(np.log(8), 0.3, 150)
        low, high = confidence_intervals(d)["lognormal_sigma"]
        held += low <= 0.3 <= high
    assert held >= 33  # 95 % promised; 150 particles hold a little less
    found = weighted_sizes(np.random.default_rng(1).lognormal(np.log(8), 0.3, 20_000))
    assert abs(found["lognormal_median"] - 8) < 0.05
    assert abs(found["lognormal_sigma"] - 0.3) < 0.005


def test_nothing_and_one():
    assert all(np.isnan(value) for value in weighted_sizes([]).values())
    assert weighted_sizes([3.0])["mean"] == 3.0
    assert np.isnan(confidence_intervals([3.0, 4.0])["mean"]).all()
    assert weighted_sizes([3.0, 5.0], [1.0, np.inf])["mean"] == 4.0


def test_fractions_of_the_histogram_are_weighted():
    table = size_table([1.0, 1.0, 3.0], 1.0, 1.0, weights=[1.0, 1.0, 6.0])
    np.testing.assert_allclose(table["number_fraction"], [0.25, 0, 0.75][: len(table)])
    assert table["count"].sum() == 3


def test_a_particle_as_large_as_the_frame_counts_as_the_largest_weight_in_histogram_and_numbers():
    row = {"sample": "a", "pixel_size_nm": 1.0}
    particles = {"diameter_nm": [3.0, 4.0, 9.0], "weight": [1.0, 3.0, np.inf], "touches_border": [False] * 3}
    particles["origin"] = ["found"] * 3
    (everything,) = samples_of([Record("a.png", "", row, particles)], border_correction=True)
    rows = everything.histogram
    assert everything.numbers["mean"] == (3 + 3 * 4 + 3 * 9) / 7
    assert rows["number_fraction"][0] == 4 / 7
    assert rows["number_fraction"][-1] == 3 / 7
