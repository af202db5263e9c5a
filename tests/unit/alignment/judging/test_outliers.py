"""Which tilts are outliers, from correlations with their neighbours."""

import numpy as np
import pytest

from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.judging.quality import find_breaks, find_outliers

USABLE = np.ones(20, bool)


def correlations(**odd):
    values = 0.95 + 0.01 * np.sin(np.arange(20))  # scatters by about 0.01
    for name, value in odd.items():
        values[int(name[1:])] = value
    return values


@pytest.mark.parametrize(("value", "is_outlier"), [(0.94, False), (0.82, False), (0.75, True), (0.0, True)])
def test_a_tilt_far_below_the_usual_correlation_is_an_outlier(value, is_outlier):
    found = find_outliers(USABLE, correlations(t7=value))
    assert found[7] == is_outlier
    assert not np.delete(found, 7).any()


def test_what_scatters_by_itself_is_none():
    assert not find_outliers(USABLE, np.random.default_rng(0).uniform(0.3, 0.9, 20)).any()


def test_empty_and_unpredicted_tilts_are_outliers_whatever_their_correlation():
    usable, unpredicted = USABLE.copy(), np.zeros(20, bool)
    usable[3], unpredicted[5] = False, True
    found = find_outliers(usable, correlations(t3=np.nan), unpredicted)
    assert np.flatnonzero(found).tolist() == [3, 5]
    assert not usable[3]
    assert usable.sum() == 19
    assert unpredicted.sum() == 1


def test_of_four_correlations_nothing_is_concluded():
    values = np.full(20, np.nan)
    values[:4] = 0.9, 0.9, 0.9, 0.1
    assert not find_outliers(USABLE, values).any()


def test_where_a_part_of_its_own_begins():
    """Images that agree among themselves, and not with those before them, are no outliers: the chain is broken."""
    angles = np.linspace(-60, 60, 20)
    series = ReducedSeries(np.zeros((20, 4, 4), np.float32), angles, USABLE, 1)
    values = correlations(t15=0.1)  # with its inner neighbour; those beyond agree with it
    outliers = np.arange(20) == 15
    assert np.flatnonzero(find_breaks(series, outliers, values, None)).tolist() == [15]
    alone = correlations(t15=0.1, t16=0.1, t17=0.1)  # two bad ones: nothing agrees with either
    assert not find_breaks(series, np.isin(np.arange(20), [15, 16]), alone, None).any()
    assert not find_breaks(series, outliers, values, outliers).any()  # not predicted by the others: a bad image
    at_the_end = correlations(t19=0.1)
    assert not find_breaks(series, np.arange(20) == 19, at_the_end, None).any()
