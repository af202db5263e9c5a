"""Whether angles belong to the images: ellipsoids in closed form under true and wrong angles."""

from dataclasses import replace

import numpy as np
import pytest

from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.judging.agreement import Agreement
from tomoseg.alignment.judging.assessment import Assessment
from tomoseg.alignment.judging.order import contradiction_of
from tomoseg.alignment.judging.quality import AlignmentQuality
from tomoseg.alignment.judging.warnings import order_warnings, prediction_warnings, summary

ANGLES = np.arange(-64, 65, 4.0)
HALF = len(ANGLES) // 2
OUTWARD = np.argsort(np.abs(ANGLES), kind="stable")
WRONG = {
    "dose-symmetric angles, sorted images": ANGLES[OUTWARD],
    "sorted angles, dose-symmetric images": ANGLES[np.argsort(OUTWARD)],
    "halves exchanged": np.roll(ANGLES, HALF),
    "a half reversed": np.r_[ANGLES[:HALF], ANGLES[HALF:][::-1]],
    "shuffled": np.random.default_rng(9).permutation(ANGLES),
}


@pytest.fixture(scope="module")
def series(ellipsoids):
    made = ellipsoids(angles_deg=ANGLES, phi=-12.0, jitter=3.0, seed=3, noise=0.005)
    return ReducedSeries(made.raw, made.angles_deg, np.ones(len(ANGLES), bool), 1, 2)


def given(series, angles):
    """The series as it is aligned: images by ascending angle."""
    order = np.argsort(angles, kind="stable")
    return replace(series, images=series.images[order], angles_deg=np.asarray(angles)[order])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_angles_are_noticed(series, name):
    found = contradiction_of(given(series, WRONG[name]))
    assert found is not None
    assert found.other_score > 0.6
    assert found.score < found.other_score - 0.05
    assert f"{found.parted} of {len(ANGLES) - 1} pairs of neighbouring tilts" in str(found)


def test_the_order_that_the_images_support_is_the_true_one(series):
    found = contradiction_of(given(series, WRONG["shuffled"]))
    images = np.argsort(WRONG["shuffled"], kind="stable")[found.order]  # as they were taken, or from the other end
    assert np.abs(np.diff(images)).max() <= 2


def test_true_angles_are_not_doubted(series):
    assert contradiction_of(series) is None
    assert contradiction_of(replace(series, angles_deg=-series.angles_deg[::-1], images=series.images[::-1])) is None
    # Empty images, a gap, brightness that drifts, and exposures taken twice.
    usable = np.ones(len(ANGLES), bool)
    usable[[4, 20]] = False
    images = np.where(usable[:, None, None], series.images, 0) * np.linspace(1, 0.2, len(ANGLES))[:, None, None]
    assert contradiction_of(replace(series, images=images, usable=usable)) is None
    kept = np.delete(np.arange(len(ANGLES)), np.arange(18, 24))
    few = replace(series, images=series.images[kept], angles_deg=ANGLES[kept], usable=usable[kept])
    assert contradiction_of(few) is None
    twice = np.repeat(np.arange(len(ANGLES)), 2)
    doubled = replace(series, images=series.images[twice], angles_deg=ANGLES[twice], usable=usable[twice])
    assert contradiction_of(doubled) is None


def test_images_that_tell_no_order_raise_no_alarm(series):
    rng = np.random.default_rng(2)
    at = np.arange(48) - 23.5
    ball = np.maximum(14.0**2 - at[:, None] ** 2 - at**2, 0) ** 0.5
    for seen in (ball + rng.normal(0, 1, (33, 48, 48)), rng.standard_normal((33, 48, 48))):
        same = ReducedSeries(seen.astype(np.float32), ANGLES, np.ones(33, bool), 1, 2)
        assert contradiction_of(same) is None
    few = slice(0, 9)
    shuffled = ANGLES[few][[4, 0, 7, 2, 8, 5, 1, 6, 3]]
    nine = ReducedSeries(series.images[few], ANGLES[few], np.ones(9, bool), 1, 2)
    assert contradiction_of(given(nine, shuffled)) is None


def test_no_error_is_stated_beside_a_contradiction(series):
    n = len(ANGLES)
    calm = Assessment(np.full(n, 0.1), np.full((n, 2), 0.05), np.full((n, 2), 0.02)).without_error()
    agreements = Agreement(np.full(n, 0.7), 0.9), Agreement(np.full(n, 0.99), 0.95)
    found = contradiction_of(given(series, WRONG["halves exchanged"]))
    quality = AlignmentQuality(calm, calm, *agreements, ANGLES, np.zeros(n, bool), True, None, found)
    assert quality.is_unchanged
    assert np.isnan(quality.figures["estimated_error_px"])
    assert np.isnan(quality.columns["error_px"]).all()
    assert quality.figures["residual_after"] == pytest.approx(0.1)
    assert " px" not in summary(quality)
    assert "the alignment error is unknown" in summary(quality)
    assert order_warnings(quality) == [str(found)]
    assert prediction_warnings(quality) == []
    assert order_warnings(replace(quality, contradiction=None)) == []
