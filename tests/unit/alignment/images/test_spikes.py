"""Spikes and defective pixels: what is replaced, and above all what is not."""

import numpy as np
import pytest

from tomoseg.alignment.images import spikes
from tomoseg.alignment.images.conditioning import ConditionedSeries, condition
from tomoseg.runtime import Runtime


def replaced(series, angles):
    """Return (n, y, x) which pixels are replaced."""
    done = condition(series, angles, runtime=Runtime(workers=2))
    marked = np.zeros(series.shape, bool)
    for image, bad in zip(marked, done.bad, strict=True):
        image.ravel()[bad] = True
    return marked, done


def test_the_height_above_the_ring_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, (23, 31)).astype(np.float32)
    image[5, 7] = np.nan
    found = np.zeros(image.shape, np.float32)
    spikes._stand_out(image, found)
    for y, x in [(0, 0), (1, 29), (22, 30), (5, 9), (5, 7), *rng.integers(0, 23, (40, 2))]:
        ring = sorted(
            image[v, u]
            for v in range(max(y - 2, 0), min(y + 3, 23))
            for u in range(max(x - 2, 0), min(x + 3, 31))
            if max(abs(v - y), abs(u - x)) == 2 and np.isfinite(image[v, u])
        )
        value = image[y, x]
        expected = value - ring[-2] if value > ring[-2] else value - ring[1] if value < ring[1] else 0
        assert found[y, x] == pytest.approx(expected if np.isfinite(value) else 0, abs=1e-6)


@pytest.mark.parametrize("dose", [0.1, 1.0, 20.0])
def test_noise_of_few_counts_has_no_spikes(dose, grains):
    truth, angles = grains()
    raw = np.random.default_rng(1).poisson(truth / 150 * dose + 0.02 * dose).astype(np.uint16)
    marked, done = replaced(raw, angles)
    assert marked.mean() <= 1e-5
    assert not done.warnings


def test_spikes_are_replaced_and_grains_stay(grains):
    truth, angles = grains()
    rng = np.random.default_rng(2)
    raw = rng.poisson(truth + 20).astype(np.float32)
    put = np.zeros(raw.shape, bool)
    for image, mark in zip(raw, put, strict=True):
        for y, x in rng.integers(2, 78, (3, 2)):
            image[y, x] += rng.uniform(500, 3000)
            mark[y, x] = True
    raw[4, 40, 40:42] += (2500, 1200)  # charge shared by two pixels
    put[4, 40, 40:42] = True
    marked, done = replaced(raw, angles)
    assert (marked & put).sum() >= 0.93 * put.sum()  # now and then a spike meets another one beside it
    assert (marked & ~put).sum() <= 3
    assert np.array_equal(done.n_replaced, marked.sum(axis=(1, 2)))
    assert "spikes" in done.notes[0]
    mended = ConditionedSeries(raw, done)[:]
    assert np.abs(mended - truth - 20)[marked].max() < 80  # a grain's slope, and noise of 7 to 20


def test_defective_pixels_and_lines_are_replaced_in_all_tilts(grains):
    truth, angles = grains(seed=3)
    rng = np.random.default_rng(3)
    raw = rng.poisson(truth + 50).astype(np.uint16)
    raw[:, 30, 61] += 400
    raw[:, 52, 20] = 0
    raw[:, :, 11] = raw[:, :, 11] // 2
    raw[:, 70] += 60
    marked, done = replaced(raw, angles)
    everywhere = np.zeros((80, 80), bool)
    everywhere[30, 61] = everywhere[52, 20] = True
    everywhere[:, 11] = everywhere[70] = True
    assert np.array_equal(marked.all(axis=0), everywhere)
    assert np.array_equal(marked.any(axis=0), everywhere)
    assert "2 defective pixels" in done.notes[0]
    assert "2 defective columns or rows" in done.notes[0]
    mended = ConditionedSeries(raw, done)[:]
    assert np.abs(mended[:, 20:60, 11] - truth[:, 20:60, 11] - 50).max() < 45  # 5 sigma of the noise, and slopes


@pytest.mark.parametrize("width_px", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("n_grains", [2, 12, 80])
def test_sharp_particles_stay(width_px, n_grains, grains):
    # As sharp as spikes: only that they recur, moved with the sample, tells.
    truth, angles = grains(n_grains=n_grains, width_px=width_px, seed=5)
    marked, _ = replaced(np.random.default_rng(5).poisson(truth + 10).astype(np.float32), angles)
    assert marked.sum() == 0


@pytest.mark.parametrize("period_px", [2.0, 3.3, 5.0])
def test_a_lattice_stays(period_px):
    angles = np.arange(-20.0, 21, 4)
    y, x = np.indices((72, 72))
    rng = np.random.default_rng(0)
    turn = 2 * np.pi / period_px
    waves = [np.cos(turn * (x + 3 * i)) * np.cos(turn * y) for i in range(len(angles))]
    lattice = np.array([100 + 80 * np.maximum(wave, 0) ** 2 for wave in waves])
    marked, _ = replaced(rng.poisson(lattice).astype(np.float32), angles)
    assert marked.sum() == 0


def test_sharp_edges_and_thin_lines_stay(grains):
    truth, angles = grains()
    for i, image in enumerate(truth):
        image[20 + i % 3 : 35 + i % 3, 15:50] += 400
        image[:, 60 + i % 4] += 300  # a sheet seen edge on
    marked, _ = replaced(np.random.default_rng(0).poisson(truth + 10).astype(np.float32), angles)
    assert marked.sum() == 0


def test_a_needle_along_the_rows_has_no_defective_rows():
    y, x = np.indices((64, 64))
    needle = np.exp(-(((y - 33) / 7) ** 2)) * (x < 60) * (1000 + 500 * (x // 6 % 2))
    raw = np.random.default_rng(0).poisson(np.stack([needle] * 12) + 5)
    marked, _ = replaced(raw.astype(np.uint16), np.arange(12) * 3.0)
    assert marked.sum() == 0


def test_few_tilts_have_no_fixed_pixels():
    assert spikes.fixed_pixels([], (8, 8)).size == 0
    assert spikes.fixed_lines([np.array([3])] * 4).size == 0
    assert spikes.fixed_lines([np.array([3]), np.array([3, 5])] * 5).tolist() == [3, 5]
    assert spikes.fixed_lines([np.array([3]), np.array([3, 5])] * 3).tolist() == [3]


def test_mending_takes_the_median_and_leaves_holes():
    image = np.arange(100, dtype=np.float64).reshape(10, 10)
    bad = np.zeros(image.shape, bool)
    bad[4, 4] = bad[0, 0] = True
    expected = image.copy()
    assert spikes.mend(image, bad) == 2
    expected[4, 4] = np.median([33, 34, 35, 43, 45, 53, 54, 55])
    expected[0, 0] = image[0, 0]
    np.testing.assert_array_equal(image, expected)
    assert image[0, 0] == np.median([1, 10, 11])
    large = np.full((20, 20), 5.0)
    hole = np.zeros(large.shape, bool)
    hole[4:16, 4:16] = True
    large[hole] = np.nan
    spikes.mend(large, hole)
    assert np.isnan(large[6:14, 6:14]).all()
