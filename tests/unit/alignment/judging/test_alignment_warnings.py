"""When an alignment is doubted, on assessments made up for the purpose."""

from dataclasses import replace

import numpy as np
import pytest

from tomoseg.alignment.judging.agreement import Agreement
from tomoseg.alignment.judging.assessment import Assessment
from tomoseg.alignment.judging.quality import AlignmentQuality
from tomoseg.alignment.judging.warnings import agreement_warnings, outlier_warnings, prediction_warnings, summary

N = 40
ANGLES = np.linspace(-60, 60, N)


def assessment(residual, step_px=0.02, deviation_px=0.02):
    return Assessment(np.full(N, residual), np.full((N, 2), step_px), np.full((N, 2), deviation_px))


RAW, GOOD = assessment(0.4, 6.0, 1.0), assessment(0.03)


def quality(raw=RAW, aligned=GOOD, outliers=(), angles_deg=ANGLES, whole=True):
    bad = np.zeros(N, bool)
    bad[list(outliers)] = True
    agreements = Agreement(np.full(N, 0.7), 0.9), Agreement(np.full(N, 0.99), 0.95)
    return AlignmentQuality(raw, aligned, *agreements, angles_deg, bad, whole, None)


def doubts(before=RAW, after=GOOD, outliers=()):
    return prediction_warnings(quality(before, after, outliers))


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
    assert "estimated alignment error is 0.8 px rms, 0.8 px at the worst tilt" in words
    assert "tilt axis" in words
    # Images of 4096 px are judged on images of 128: what cannot be detected is no reason to worry.
    assert doubts(after=assessment(0.05, 1.0, 0.9)) == []


def test_a_residual_that_does_not_fall_is_doubted_where_it_should():
    (words,) = doubts(after=assessment(0.39))
    assert "hardly better" in words
    assert "residual 0.40 before, 0.39 after" in words


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
    assert "too small a range" in prediction_warnings(quality(angles_deg=ANGLES / 10))[0]


def test_the_figures_are_those_of_the_inliers():
    after = assessment(0.03, 0.1, 0.02)
    after.residual[:10], after.step_px[:10] = 0.9, 5.0
    after.step_px[20] = 0.3
    found = quality(aligned=after, outliers=range(10))
    rms = np.sqrt((29 * 0.1**2 + 0.3**2) / 30)
    figures = found.figures
    assert figures["residual_before"] == pytest.approx(0.4)
    assert figures["residual_after"] == pytest.approx(0.03)
    assert figures["estimated_error_px"] == pytest.approx(rms)
    assert figures["error_uncertainty_px"] == pytest.approx(0.02)
    assert (figures["correlation_before"], figures["correlation_after"]) == (0.7, 0.99)
    assert (figures["common_line_before"], figures["common_line_after"]) == (0.9, 0.95)
    assert summary(found) == (
        "prediction of held-out tilts: residual 0.400 before alignment, 0.030 after; "
        "estimated alignment error: 0.11 px rms, 0.3 px at the worst tilt; detection limit 0.02 px"
    )
    assert found.columns["error_px"][[0, 20, 21]].tolist() == pytest.approx([5.0, 0.3, 0.1])
    assert found.columns["residual_after"][[0, 20]].tolist() == pytest.approx([0.9, 0.03])


def test_the_error_is_never_below_its_uncertainty():
    words = summary(quality(aligned=assessment(0.03, 0.02, 0.05)))
    assert words.endswith("0.05 px rms, 0.05 px at the worst tilt; detection limit 0.05 px")


def test_a_cut_sample_hides_slow_errors():
    assert ["beyond the frame" in summary(quality(whole=whole)) for whole in (True, False)] == [False, True]


def test_nothing_known_is_nothing_said():
    nothing = Assessment.unknown(N)
    found = quality(nothing, nothing)
    assert summary(found) == ""
    assert prediction_warnings(found) == []
    predicted = ("residual_before", "residual_after", "estimated_error_px", "error_uncertainty_px")
    assert all(np.isnan(found.figures[name]) for name in predicted)


def agreement(correlation):
    return Agreement(np.full(N, correlation), np.nan)


@pytest.mark.parametrize(
    ("before", "after", "given", "found", "words"),
    [
        (0.8, 0.9, False, True, None),
        (0.8, 0.7, False, True, "falls from 0.800 before alignment to 0.700 after: the alignment is unreliable"),
        (0.3, 0.4, False, True, "only 0.40"),
        (0.3, 0.4, False, False, "only 0.40"),
        (0.8, 0.7, False, False, None),  # with method none nothing was moved but by the offset
        (0.3, 0.4, True, False, None),  # a noisy channel
        (0.8, 0.7, True, False, "falls from 0.800 to 0.700 with the given shifts"),
        (np.nan, np.nan, False, True, None),
    ],
)
def test_neighbours_that_do_not_agree(before, after, given, found, words):
    warnings = agreement_warnings(agreement(before), agreement(after), given=given, found=found)
    assert [words in warning for warning in warnings] == ([True] if words else [])


def test_outliers_are_named_by_their_tilt():
    assert outlier_warnings(quality()) == []
    bad = quality(outliers=range(12), angles_deg=np.arange(40.0))
    (words,) = outlier_warnings(bad)
    assert words.startswith("12 of 40 images are empty or do not agree")
    assert "(tilt 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 ... degrees)" in words


def test_those_that_were_left_out_are_no_surprise():
    chosen = replace(quality(outliers=range(12)), left_out=np.arange(N) < 11)
    (words,) = outlier_warnings(chosen)
    assert words.startswith("1 of 40 images")
    assert not any("outliers" in text for text in prediction_warnings(chosen))


def test_a_series_in_two_parts_is_unreliable():
    broken = replace(quality(), breaks=np.arange(N) == 30)
    (words,) = prediction_warnings(broken)
    assert f"one begins at tilt {ANGLES[30]:g} degrees" in words
    assert "unreliable" in words
