import numpy as np
import pytest

from tomoseg.measurement.particles import sizes
from tomoseg.measurement.particles.sizes import (
    MOST_BINS,
    confidence_intervals,
    half_voxel_changes,
    size_summary,
    size_table,
)


def test_bins_hold_every_particle_and_all_volume():
    diameters = np.random.default_rng(0).lognormal(2, 0.3, 500)
    table = size_table(diameters, 0.5)
    assert table["count"].sum() == 500
    assert table["number_fraction"].sum() == pytest.approx(1)
    assert table["volume_fraction"].sum() == pytest.approx(1)
    np.testing.assert_array_equal(table["from_px"][1:], table["to_px"][:-1])
    np.testing.assert_allclose(table["from_nm"], 0.5 * table["from_px"])
    k = 4
    inside = (diameters >= table["from_px"][k]) & (diameters < table["to_px"][k])
    assert table["count"][k] == inside.sum()
    assert table["volume_fraction"][k] == pytest.approx((diameters[inside] ** 3).sum() / (diameters**3).sum())


def test_bin_width_is_in_nm_and_edges_are_its_multiples():
    table = size_table([4.0, 5.0, 9.9], 0.5, bin_width_nm=1.0)
    np.testing.assert_allclose(table["from_nm"], [2, 3, 4])
    assert table["count"].tolist() == [2, 0, 1]
    # On an edge: the bin above it.
    np.testing.assert_allclose(size_table([4.0], 0.5, bin_width_nm=1.0)["from_nm"], [2])


def test_unknown_voxel_size_bins_pixels():
    table = size_table([4.0, 5.0, 9.9], np.nan, bin_width_nm=1.0)
    assert np.isnan(table["from_nm"]).all()
    assert table["count"].sum() == 3


@pytest.mark.parametrize("diameters", [[7.0], [7.0, 7.0, 7.0]])
def test_equal_diameters_share_a_bin(diameters):
    table = size_table(diameters, 1.0)
    assert len(table) == 1
    assert table["from_px"][0] < 7 < table["to_px"][0]


def test_no_particles():
    assert len(size_table([], 1.0)) == 0
    assert all(np.isnan(v) for v in size_summary([]).values())


def test_an_outlier_does_not_make_thousands_of_bins():
    assert len(size_table([*np.linspace(5, 6, 1000), 5000.0], 1.0)) <= MOST_BINS


def test_summary_of_known_sets():
    summary = size_summary([2.0, 1.0, 3.0])
    assert summary["mean"] == pytest.approx(2)
    assert summary["std"] == pytest.approx(1)
    assert summary["median"] == summary["d50"] == pytest.approx(2)
    assert summary["d43"] == pytest.approx((1 + 16 + 81) / (1 + 8 + 27))
    assert (summary["d10"], summary["d90"]) == (pytest.approx(1.2), pytest.approx(2.8))
    assert np.isnan(size_summary([5.0])["std"])
    assert size_summary([5.0])["dv90"] == pytest.approx(5)


def test_volume_percentiles_of_a_uniform_distribution():
    # Diameters uniform in [0, 1]: volume up to d grows as d^4, so dv50 = 0.5^(1/4).
    summary = size_summary((np.arange(20000) + 0.5) / 20000)
    for name, part in (("dv10", 0.1), ("dv50", 0.5), ("dv90", 0.9)):
        assert summary[name] == pytest.approx(part**0.25, abs=1e-4)  # the grid's spacing


def test_surface_weights():
    table = size_table([1.0, 1.0, 2.0], 1.0, bin_width_nm=1.0)
    np.testing.assert_allclose(table["surface_fraction"], [2 / 6, 4 / 6])
    summary = size_summary([1.0, 1.0, 2.0])
    assert summary["d32"] == pytest.approx((1 + 1 + 8) / (1 + 1 + 4))
    # Diameters uniform in [0, 1]: surface up to d grows as d^3.
    many = size_summary((np.arange(20000) + 0.5) / 20000)
    for name, part in (("ds10", 0.1), ("ds50", 0.5), ("ds90", 0.9)):
        assert many[name] == pytest.approx(part ** (1 / 3), abs=1e-4)


def test_resampled_numbers_are_those_of_the_samples():
    d = np.sort(np.random.default_rng(1).lognormal(1, 0.4, 17))
    times = np.random.default_rng(2).multinomial(17, np.full(17, 1 / 17), 50)
    found = sizes._drawn_percentiles(d, times)
    expected = [np.quantile(np.repeat(d, row), (0.1, 0.5, 0.9)) for row in times]
    np.testing.assert_allclose(found, expected)


def test_confidence_is_the_same_every_time_and_bounded(monkeypatch):
    d = np.random.default_rng(3).lognormal(1, 0.4, 40)
    once = confidence_intervals(d)
    assert once == confidence_intervals(d[::-1])
    monkeypatch.setattr(sizes, "DRAWN_AT_ONCE", 100)  # two samples at once
    assert once == confidence_intervals(d)
    for name, (low, high) in once.items():
        assert low < size_summary(d)[name] < high


def test_confidence_of_a_mean_is_its_standard_error():
    d = np.random.default_rng(4).normal(10, 1, 400)
    low, high = confidence_intervals(d)["mean"]
    # Of 2000 resamples, the ends scatter by 3% of the half-width each.
    assert (high - low) / 2 == pytest.approx(1.96 * d.std() / 20, rel=0.1)


@pytest.mark.parametrize("d", [[], [3.0]])
def test_no_confidence_without_a_sample(d):
    assert all(np.isnan(v) for ends in confidence_intervals(d).values() for v in ends)


def test_half_voxel_on_equal_spheres_is_a_voxel():
    changes = half_voxel_changes([5.0, 5.0], [1.0, 1.0])
    assert changes == {"mean": pytest.approx(1), "d32": pytest.approx(1)}
    assert all(np.isnan(v) for v in half_voxel_changes([], []).values())
