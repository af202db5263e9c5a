"""When an alignment is doubted, on assessments made up for the purpose."""

import numpy as np
import pytest

from tomoseg.alignment.judging.assessment import Assessment
from tomoseg.alignment.judging.warnings import Judgement

N = 40
ANGLES = np.linspace(-60, 60, N)


def assessment(residual, step_px=0.02, deviation_px=0.02):
    return Assessment(np.full(N, residual), np.full((N, 2), step_px), np.full((N, 2), deviation_px))


RAW, GOOD = assessment(0.4, 6.0, 1.0), assessment(0.03)


def doubts(before=RAW, after=GOOD, outliers=()):
    bad = np.zeros(N, bool)
    bad[list(outliers)] = True
    return Judgement(before, after, ANGLES, bad, True, None).doubts()


def test_a_good_alignment_is_not_doubted():
    assert doubts() == []
    assert doubts(outliers=[3, 4]) == []


def test_a_series_that_was_aligned_is_not_doubted():
    assert doubts(GOOD, GOOD) == []
    # Noise is most of what there is, before and after; positions are as good as can be seen.
    noisy = assessment(0.5, 0.2, 0.2)
    assert doubts(noisy, assessment(0.49, 0.15, 0.2)) == []


def test_large_errors_are_doubted_only_where_they_are_seen():
    (words,) = doubts(after=assessment(0.2, 0.8, 0.2))
    assert "0.8 px" in words
    assert "tilt axis" in words
    # Images of 4096 px are judged on copies of 128: what cannot be seen is no reason to worry.
    assert doubts(after=assessment(0.05, 1.0, 0.9)) == []


def test_a_residual_that_does_not_fall_is_doubted_where_it_should():
    (words,) = doubts(after=assessment(0.39))
    assert "hardly better" in words
    assert "0.40 -> 0.39" in words


def test_a_residual_that_rises_is_doubted():
    (words,) = doubts(GOOD, assessment(0.05))
    assert "worse" in words


def test_as_given_and_not_aligned():
    (words,) = doubts(RAW, RAW)
    assert "method auto" in words


def test_what_foresees_nothing_is_doubted():
    assert any("less than half" in words for words in doubts(assessment(1.1, 0.3, 0.3), assessment(1.0, 0.3, 0.3)))


@pytest.mark.parametrize(("n", "doubted"), [(4, False), (5, True)])
def test_many_outliers_are_doubted(n, doubted):
    assert any("outliers" in words for words in doubts(outliers=range(n))) is doubted


def test_single_images_out_of_place_are_named():
    after = assessment(0.03)
    after.step_px[7] = 2.0
    (words,) = doubts(after=after)
    assert f"tilt {ANGLES[7]:g} degrees" in words
    assert doubts(after=after, outliers=[7]) == []  # that is known already
    unsure = assessment(0.03)
    unsure.step_px[7], unsure.deviation_px[7] = 2.0, 0.5
    assert doubts(after=unsure) == []


def test_too_few_tilts_are_said_to_be_too_few():
    (words,) = doubts(outliers=range(29))
    assert "11 tilts are too few" in words
    narrow = Judgement(RAW, GOOD, ANGLES / 10, np.zeros(N, bool), True, None)
    assert "narrow" in narrow.doubts()[0]


def test_the_figures_are_those_of_the_tilts_that_are_trusted():
    after = assessment(0.03, 0.1, 0.02)
    after.residual[:10], after.step_px[:10] = 0.9, 5.0
    outliers = np.arange(N) < 10
    judgement = Judgement(RAW, after, ANGLES, outliers, True, None)
    attrs = judgement.attrs()
    assert attrs["residual_before"] == pytest.approx(0.4)
    assert attrs["residual_after"] == pytest.approx(0.03)
    assert attrs["estimated_error_px"] == pytest.approx(0.1)
    assert attrs["error_uncertainty_px"] == pytest.approx(0.02)
    assert "0.400 -> 0.030" in judgement.note()
    table = np.zeros(
        N, [(name, "f8") for name in ("residual_before", "residual_after", "error_px", "error_uncertainty_px")]
    )
    judgement.fill(table)
    assert table["error_px"][[0, 20]].tolist() == pytest.approx([5.0, 0.1])
    assert table["residual_after"][[0, 20]].tolist() == pytest.approx([0.9, 0.03])


def test_a_cut_sample_hides_slow_errors():
    notes = [Judgement(RAW, GOOD, ANGLES, np.zeros(N, bool), whole, None).note() for whole in (True, False)]
    assert ["slowly" in note for note in notes] == [False, True]


def test_nothing_known_is_nothing_said():
    nothing = Assessment.unknown(N)
    judgement = Judgement(nothing, nothing, ANGLES, np.zeros(N, bool), True, None)
    assert judgement.note() == ""
    assert judgement.doubts() == []
    assert all(np.isnan(value) for value in judgement.attrs().values())
