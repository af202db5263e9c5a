"""Streamed histograms and how they are cut."""

import itertools

import numpy as np
import pytest

from tomoseg.errors import StageFailed
from tomoseg.io.slices import read_slice
from tomoseg.segmentation.data.histogram import Histogram, histogram, multi_otsu, partition, sampled_range


def mixture(rng, sizes, levels, noise):
    """Return values scattered around `levels`."""
    parts = [rng.normal(level, s, n) for n, level, s in zip(sizes, levels, noise, strict=True)]
    return np.abs(np.concatenate(parts)).astype(np.float32)


def test_slabs_add_up_to_numpys_histogram():
    values = np.random.default_rng(0).gamma(2, 3, (7, 20, 30)).astype(np.float32)
    whole, edges = np.histogram(values, bins=1000, range=(0, 40))
    parts = histogram((values[a:b] for a, b in ((0, 3), (3, 4), (4, 7))), 0, 40, 1000)
    assert parts.counts.sum() == values.size
    # A value within rounding of a bin edge may fall on either side of it.
    assert np.abs(parts.counts - whole).sum() <= 4
    np.testing.assert_allclose(parts.centres, (edges[1:] + edges[:-1]) / 2, rtol=1e-6)  # NumPy's are f4


def test_values_beyond_the_range_go_to_the_end_bins():
    parts = histogram([np.array([[[-5.0, 0.1, 99.0]]])], 0, 1, 10)
    assert parts.counts[0] == 1
    assert parts.counts[1] == 1
    assert parts.counts[-1] == 1


def test_medians_and_percentiles():
    values = histogram([np.arange(1000.0).reshape(1, 10, 100)], 0, 1000, 1000)
    assert values.percentile(50) == pytest.approx(499.5, abs=1)
    assert values.median_between(900, 1000) == pytest.approx(949.5, abs=1)
    assert Histogram(np.zeros(10), np.arange(10.0)).median_between(2, 6) == 4


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_multi_otsu_finds_the_best_cuts_of_all(n_classes):
    rng = np.random.default_rng(n_classes)
    counts, values = rng.integers(0, 50, 18).astype(float), np.sort(rng.random(18))

    def between(cuts):
        bounds = [0, *cuts, len(counts)]
        classes = [(counts[a:b], values[a:b]) for a, b in itertools.pairwise(bounds)]
        mean = np.average(values, weights=counts)
        return sum(w.sum() * (np.average(v, weights=w) - mean) ** 2 for w, v in classes if w.sum() > 0)

    every = itertools.combinations(range(1, len(counts)), n_classes - 1)
    best = max(between(cuts) for cuts in every)
    assert between(multi_otsu(counts, values, n_classes)) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("rare", [100_000, 1000, 100])
def test_a_rare_bright_class_is_found_at_half_height(rare):
    # Vacuum, support and particles as MLEM gives them; particles from 3 % down to 30 ppm of the voxels.
    rng = np.random.default_rng(1)
    values = mixture(rng, (2_800_000, 400_000, rare), (0, 75, 330), (1, 12, 25))
    found = partition(histogram([values.reshape(1, 1, -1)], 0, 450), 3)
    np.testing.assert_allclose(found.levels, (0, 75, 330), atol=3)  # a quarter of the noise of the support
    np.testing.assert_allclose(found.thresholds, (37.5, 202.5), atol=4)


def test_the_size_of_the_volume_does_not_matter():
    rng = np.random.default_rng(2)
    values = mixture(rng, (280_000, 40_000, 400), (0, 75, 330), (1, 12, 25))
    one = partition(histogram([values.reshape(1, 1, -1)], 0, 450), 3)
    many = partition(histogram([np.tile(values, 20).reshape(1, 20, -1)], 0, 450), 3)
    np.testing.assert_allclose(one.thresholds, many.thresholds, rtol=1e-6)


def test_more_classes_and_two_classes():
    rng = np.random.default_rng(3)
    values = mixture(rng, (2_000_000, 50_000, 40_000, 40_000), (0, 150, 500, 900), (1, 8, 25, 30))
    values = histogram([values.reshape(1, 1, -1)], 0, 1100)
    np.testing.assert_allclose(partition(values, 4).thresholds, (75, 325, 700), atol=8)
    # Two classes: vacuum against everything else, however much brighter the rest is.
    assert 50 < partition(values, 2).thresholds[0] < 500


def test_distinct_layers_are_cut_half_way_between_their_peaks():
    # Intensities of the layers of a real needle: the two brightest differ by a factor of 1.4 only.
    rng = np.random.default_rng(4)
    values = mixture(rng, (4_000_000, 120_000, 30_000, 25_000), (0, 148, 695, 976), (1, 10, 40, 45))
    found = partition(histogram([values.reshape(1, 1, -1)], 0, 1200), 4)
    np.testing.assert_allclose(found.thresholds, (74, 421.5, 835.5), atol=5)


def test_hot_spots_do_not_matter():
    rng = np.random.default_rng(6)
    values = mixture(rng, (2_800_000, 400_000, 1000), (0, 75, 330), (1, 12, 25))
    values[:25] = 40_000  # a hundred times as bright as any particle
    found = partition(histogram([values.reshape(1, 1, -1)], 0, 40_000), 3)
    np.testing.assert_allclose(found.thresholds, (37.5, 202.5), atol=5)


def test_negative_values_of_filtered_back_projection():
    rng = np.random.default_rng(7)
    classes = ((0, 10, 2_500_000), (75, 14, 400_000), (330, 25, 3000))
    parts = [rng.normal(level, noise, n) for level, noise, n in classes]
    values = np.concatenate(parts).astype(np.float32)
    found = partition(histogram([values.reshape(1, 1, -1)], float(values.min()), float(values.max())), 3)
    np.testing.assert_allclose(found.thresholds, (37.5, 202.5), atol=6)


def test_haze_is_not_taken_for_a_class(real_data):
    # Real slices: the vacuum's haze falls off towards the support, and the few particles have no peak of their own.
    # Half-way steps to the end would split the haze (thresholds 11 and 40) and call most of the support particles.
    files = sorted((real_data / "gamma-alumina/images").glob("*.tif"))
    found = partition(histogram((read_slice(file)[None] for file in files), 0, 255), 3)
    # Medians of the hand-made classes: 2 to 16 in vacuum, 51 to 64 in alumina, 137 to 255 in Pt.
    assert 51 < found.levels[1] < 64
    assert 22 < found.thresholds[0] < 35
    assert 85 < found.thresholds[1] < 140


def test_a_volume_without_contrast_or_with_nan_is_refused():
    with pytest.raises(StageFailed, match="nothing but the value"):
        sampled_range(np.ones((4, 5, 6)))
    broken = np.zeros((4, 5, 6))
    broken[2, 1, 1] = np.nan
    with pytest.raises(StageFailed, match="NaN"):
        sampled_range(broken)
    with pytest.raises(StageFailed, match="NaN"):
        histogram([broken], 0, 1)
