"""Calibration: hand-counted bins, and networks whose calibration is known."""

import json

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.io.slices import IGNORE
from tomoseg.segmentation.evaluation.calibration import Calibration


def two_classes(p_of_1):
    p = np.asarray(p_of_1, float)
    return np.stack([1 - p, p])


def test_six_pixels_counted_by_hand():
    # Two bins: (0, 0.5] and (0.5, 1]. Confidences: 0.9 0.8 0.6 for class 1, 0.7 0.9 0.8 for class 0.
    probabilities = two_classes([0.9, 0.8, 0.6, 0.3, 0.1, 0.2])
    truth = np.array([1, 1, 0, 0, 0, 1])
    calibration = Calibration.of(probabilities, truth, n_bins=2)
    data = calibration.to_dict()
    assert data["pixels"] == 6
    assert data["reliability"]["n"] == [0, 6]
    assert data["reliability"]["confidence"] == [None, pytest.approx(4.7 / 6)]
    assert data["reliability"]["accuracy"] == [None, pytest.approx(4 / 6)]
    assert data["ece"] == pytest.approx(0.7 / 6)
    assert data["overconfidence"] == pytest.approx(0.7 / 6)
    # Predicted as 1: 0.9 + 0.8 + 0.6 = 2.3, right 2 of 3; as 0: 0.7 + 0.9 + 0.8 = 2.4, right 2 of 3.
    assert data["per_class"]["ece"] == pytest.approx([0.4 / 3, 0.3 / 3])
    # Of class 1, p <= 0.5: 0.3 + 0.1 + 0.2 = 0.6 for 1 true pixel; above: 2.3 for 2. The other class mirrors it.
    assert data["per_class"]["classwise_ece"] == pytest.approx([0.7 / 6, 0.7 / 6])
    assert data["per_class"]["classwise_reliability"][1]["accuracy"] == pytest.approx([1 / 3, 2 / 3])
    squares = 0.1**2 + 0.2**2 + 0.6**2 + 0.3**2 + 0.1**2 + 0.8**2
    assert data["per_class"]["brier"] == pytest.approx([squares / 6, squares / 6])
    assert data["brier"] == pytest.approx(2 * squares / 6)


def test_bins_are_open_below_and_closed_above():
    calibration = Calibration.of(two_classes([0.0, 0.25, 0.5, 0.75, 0.76, 1.0]), np.zeros(6, int), n_bins=4)
    np.testing.assert_array_equal(calibration.by_class.n[1], [2, 1, 1, 2])


def test_the_worst_brier_score_is_2_and_the_best_0():
    probabilities = two_classes([1.0, 1.0, 0.0])
    assert Calibration.of(probabilities, np.array([1, 1, 0])).to_dict()["brier"] == 0
    wrong = Calibration.of(probabilities, np.array([0, 0, 1])).to_dict()
    assert wrong["brier"] == 2
    assert wrong["ece"] == wrong["overconfidence"] == 1


def test_images_add_up_to_all_their_pixels():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1, 1], (40, 30)).transpose(2, 0, 1)
    truth = rng.integers(0, 3, (40, 30))
    whole = Calibration.of(probabilities, truth)
    parts = Calibration.of(probabilities[:, :13], truth[:13]) + Calibration.of(probabilities[:, 13:], truth[13:])
    np.testing.assert_array_equal(parts.confidence.n, whole.confidence.n)
    np.testing.assert_array_equal(parts.by_class.observed, whole.by_class.observed)
    np.testing.assert_allclose(parts.brier(), whole.brier(), rtol=1e-12)
    assert parts.to_dict()["ece"] == pytest.approx(whole.to_dict()["ece"], rel=1e-12)


def test_truth_drawn_from_the_probabilities_is_calibrated():
    rng = np.random.default_rng(1)
    n = 200_000
    p = rng.dirichlet([1, 0.5, 0.3], n).T
    truth = (rng.random(n) > np.cumsum(p, axis=0)).sum(axis=0).clip(max=2)
    data = Calibration.of(p, truth).to_dict()
    # Each of 15 bins of some 13 000 pixels is off by about sqrt(0.2 / 13000) = 0.004.
    assert data["ece"] < 0.006
    assert max(data["per_class"]["classwise_ece"]) < 0.006
    # The expected Brier score is that of the probabilities themselves.
    assert data["brier"] == pytest.approx(float((p * (1 - p)).sum(axis=0).mean()), rel=0.01)
    # Sharpened, it is too sure of itself.
    sharp = p**3 / (p**3).sum(axis=0)
    assert Calibration.of(sharp, truth).to_dict()["overconfidence"] > 0.1


def test_unannotated_and_undefined_pixels_are_left_out():
    probabilities = two_classes([0.9, 0.9, np.nan, np.inf, 0.2])
    truth = np.array([1, IGNORE, 1, 0, 0])
    calibration = Calibration.of(probabilities, truth)
    kept = Calibration.of(two_classes([0.9, 0.2]), np.array([1, 0]))
    assert calibration.n_undefined == 2
    assert {**calibration.to_dict(), "undefined_pixels": 0} == kept.to_dict()


def test_large_images_are_counted_in_parts(monkeypatch):
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet([1, 1], (30, 20)).transpose(2, 0, 1)
    probabilities[0, 3, 3] = np.nan
    truth = rng.choice([0, 1, IGNORE], (30, 20))
    whole = Calibration.of(probabilities, truth).to_dict()
    monkeypatch.setattr("tomoseg.segmentation.evaluation.calibration.AT_ONCE", 37)
    parts = Calibration.of(probabilities, truth).to_dict()
    assert parts["per_class"]["reliability"][0]["n"] == whole["per_class"]["reliability"][0]["n"]
    for key in ("pixels", "undefined_pixels", "ece", "brier"):
        assert parts[key] == pytest.approx(whole[key], rel=1e-12)


def test_without_pixels_there_is_no_number():
    data = Calibration.of(two_classes([0.5]), np.array([IGNORE])).to_dict()
    assert data["ece"] is None
    assert data["brier"] is None
    json.dumps(data, allow_nan=False)


def test_what_does_not_fit_is_refused():
    p = two_classes([0.5, 0.5])
    with pytest.raises(InputError, match="one map"):
        Calibration.of(p, np.zeros(3, int))
    with pytest.raises(InputError, match="labels up to 2"):
        Calibration.of(p, np.array([0, 2]))
    with pytest.raises(InputError, match="0 bins"):
        Calibration.of(p, np.zeros(2, int), n_bins=0)
