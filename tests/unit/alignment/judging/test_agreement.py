"""Agreement of neighbouring tilts, on ellipsoids in closed form."""

import numpy as np
import pytest

from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.judging.agreement import measure_agreement, pearson


def test_pearson_is_numpys():
    rng = np.random.default_rng(0)
    a = rng.random((9, 9))
    b = a + rng.random((9, 9))
    assert pearson(a, b, np.ones((9, 9))) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert pearson(a, np.ones((9, 9)), np.ones((9, 9))) == 0


def test_true_moves_agree_better_than_none(ellipsoids):
    leaning = ellipsoids(phi=-33.0, offset=3.0, jitter=2.0, noise=0.01)
    reduced = ReducedSeries(leaning.raw, leaning.angles_deg, np.ones(len(leaning.raw), bool), 1, 2)
    at_truth = measure_agreement(reduced, leaning.moves_px, -33.0)
    raw = measure_agreement(reduced, 0 * leaning.moves_px, -33.0)
    assert at_truth.median > 0.95 > raw.median
    assert np.isfinite(at_truth.neighbours).all()
