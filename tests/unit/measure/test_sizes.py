import numpy as np
import pytest

from tomoseg.measure.sizes import MOST_BINS, size_summary, size_table


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
