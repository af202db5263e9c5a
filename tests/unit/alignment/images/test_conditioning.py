"""The conditioned series: read by slabs, unchanged where nothing is wrong, and what is told."""

import numpy as np
import pytest

from tomoseg.alignment.images.conditioning import ConditionedSeries, condition
from tomoseg.io.masks import Mask
from tomoseg.runtime import Runtime


@pytest.fixture
def clean(grains):
    truth, angles = grains(n=9)
    return np.random.default_rng(0).poisson(truth + 30).astype(np.float32), angles


def test_a_clean_series_is_not_changed(clean):
    raw, angles = clean
    done = condition(raw, angles, runtime=Runtime(workers=1))
    assert done.changes_nothing
    assert not done.notes
    np.testing.assert_array_equal(ConditionedSeries(raw, done)[:], raw)


def test_slabs_workers_and_memory_do_not_change_the_result(clean):
    raw, angles = clean
    raw[2, 10:13, 10] = np.nan
    raw[5, 30, 30] += 5000
    done = condition(raw, angles, runtime=Runtime(workers=1, max_memory=1 << 20))
    again = condition(raw, angles, runtime=Runtime(workers=3))
    before = raw.copy()
    series = ConditionedSeries(raw, done)
    whole = series[:]
    np.testing.assert_array_equal(whole, ConditionedSeries(raw, again)[:])
    for part in (slice(2, 3), slice(4, 9), slice(5, 6)):
        np.testing.assert_array_equal(series[part], whole[part])
    np.testing.assert_array_equal(raw, before)  # the series itself stays as acquired
    assert done.n_replaced.tolist() == [0, 0, 3, 0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize(("dtype", "expected"), [("u2", "f4"), ("i2", "f4"), ("f4", "f4"), ("i4", "f8"), ("f8", "f8")])
def test_counts_stay_exact(dtype, expected, clean):
    raw, angles = clean
    series = ConditionedSeries(raw.astype(dtype), condition(raw.astype(dtype), angles, runtime=Runtime(workers=1)))
    assert series.dtype == expected
    np.testing.assert_array_equal(series[:], raw)


def test_pixels_without_a_number_are_replaced_and_larger_parts_are_not(clean):
    raw, angles = clean
    truth = raw.copy()
    raw[1, 40, 40], raw[1, 20, 7:9], raw[6, 0, 0] = np.nan, np.inf, -np.inf
    raw[3, 50:70, 50:70] = np.nan
    raw[7, 10:] = np.nan  # of an image like this nothing is made up
    done = condition(raw, angles, despike="off", runtime=Runtime(workers=1))
    read = ConditionedSeries(raw, done)[:]
    assert np.isfinite(read[[1, 6]]).all()
    around = truth[1, 39:42, 39:42].ravel()[[0, 1, 2, 3, 5, 6, 7, 8]]
    assert read[1, 40, 40] == np.median(around)
    assert np.isnan(read[3, 53:67, 53:67]).all()
    assert np.isnan(read[7, 10:]).all()
    assert done.n_replaced[1] == 3
    assert done.n_replaced[7] == 0
    assert done.n_replaced[3] <= 80  # the edge of the hole


def test_nothing_is_looked_for_where_a_mask_is(clean, tmp_path):
    raw, angles = clean
    raw[:, 5, 5:60:3] += 4000  # a scale bar with ticks, burnt in
    used = np.ones((80, 80), np.uint8)
    used[3:8] = 0
    mask = Mask(tmp_path / "mask.png", used.shape, lambda _: used[None])
    assert condition(raw, angles, runtime=Runtime(workers=1)).n_replaced.any()
    assert not condition(raw, angles, runtime=Runtime(workers=1), mask=mask).n_replaced.any()


def test_spikes_may_stay(clean):
    raw, angles = clean
    raw[5, 30, 30] += 5000
    assert condition(raw, angles, despike="off", runtime=Runtime(workers=1)).changes_nothing
