"""The quality of an alignment in figures, per tilt and for the series."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.finding.estimate import Alignment, Placement
from tomoseg.alignment.finding.joint import Film
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import aligned_shape
from tomoseg.alignment.judging.agreement import Agreement, compare_neighbours, measure_agreement
from tomoseg.alignment.judging.assessment import Assessment, Preview, Summary, assess, brightest_rows, enough, preview
from tomoseg.alignment.judging.markers import MarkerFit, judge_markers
from tomoseg.alignment.judging.order import Contradiction, contradiction_of
from tomoseg.alignment.judging.thickness import film_thickness
from tomoseg.arrays import FloatArray

FEWEST = 5  # correlations, from which a usual one and its scatter can be told
# What drifts slowly from tilt to tilt shows in no prediction where the sample goes on outside the frame. Errors were so
# many times what was seen of them, in the median of simulated series cut by the frame (`benchmarks/stated_error.py`).
SLOW = 1.5
LEAST_DROP = 0.15  # of the correlation below the usual one
SCATTERS = 8  # that far below the usual one, in robust standard deviations


@dataclass(frozen=True)
class AlignmentQuality:
    """Agreement of neighbouring tilts and prediction of held-out tilts, raw and aligned.

    `angles_deg` (n_tilt,) are as recorded, `outliers` (n_tilt,) took no part in predicting others, the user `left_out`
    some of them, and `whole` says whether the sample ends inside the frame across the axis. There is no preview of too
    few tilts. At `breaks` (n_tilt,) begin parts of the series that agree in themselves and not with the rest.
    """

    raw: Assessment
    aligned: Assessment
    raw_agreement: Agreement
    aligned_agreement: Agreement
    angles_deg: NDArray[np.float64]
    outliers: NDArray[np.bool_]
    whole: bool
    preview: Preview | None
    contradiction: Contradiction | None = None
    markers: MarkerFit | None = None
    film: Film | None = None
    film_thickness_px: float = np.nan
    left_out: NDArray[np.bool_] | None = None
    breaks: NDArray[np.bool_] | None = None

    @property
    def unexpected(self) -> NDArray[np.bool_]:
        """Outliers that the user did not leave out, (n_tilt,)."""
        return self.outliers if self.left_out is None else self.outliers & ~self.left_out

    @property
    def is_unchanged(self) -> bool:
        """Whether the alignment left the series as it was."""
        return self.raw is self.aligned

    @property
    def can_predict(self) -> bool:
        """Whether there are enough tilts, over enough of a range, to predict some of them from the others."""
        return enough(self.angles_deg, ~self.outliers)

    @property
    def summaries(self) -> tuple[Summary, Summary]:
        """Prediction of held-out tilts in the raw and in the aligned series."""
        return self.raw.summary(~self.outliers), self.aligned.summary(~self.outliers)

    @property
    def figures(self) -> dict[str, float]:
        """The figures for the series; NaN where unknown."""
        (raw, aligned), film = self.summaries, self.film
        return {
            "correlation_before": self.raw_agreement.median,
            "correlation_after": self.aligned_agreement.median,
            "common_line_before": self.raw_agreement.common_line,
            "common_line_after": self.aligned_agreement.common_line,
            "residual_before": raw.residual,
            "residual_after": aligned.residual,
            "estimated_error_px": aligned.error_px,
            "error_uncertainty_px": aligned.uncertainty_px,
            "film_inclination_deg": np.nan if film is None else film.recorded_deg,
            "film_thickness_px": self.film_thickness_px,
            "marker_residual_px": np.nan if self.markers is None else self.markers.mean_residual_px,
        }

    @property
    def columns(self) -> dict[str, NDArray[np.float64]]:
        """The figures per tilt, (n_tilt,) each: NaN where unknown, but correlations of empty tilts are 0."""
        return {
            "correlation_before": np.nan_to_num(self.raw_agreement.neighbours),
            "correlation_after": np.nan_to_num(self.aligned_agreement.neighbours),
            "residual_before": self.raw.residual,
            "residual_after": self.aligned.residual,
            "error_px": self.aligned.error_px,
            "error_uncertainty_px": self.aligned.uncertainty_px,
        }


def assess_alignment(
    series: ReducedSeries,
    alignment: Alignment,
    placement: Placement,
    scales: FloatArray,
    raw_shape: tuple[int, ...],
) -> AlignmentQuality:
    """Assess the raw and the aligned series; `scales` (n_tilt,) are factors for the brightness of aligned images."""
    angle, moves = alignment.axis_angle_deg, alignment.moves_px / series.factor
    raw_agreement = measure_agreement(placement.raw, placement.raw_moves_px, angle)
    aligned_agreement = measure_agreement(placement.aligned, placement.aligned_moves_px, angle)
    outliers, breaks = _outliers_and_breaks(series, alignment, placement, aligned_agreement.neighbours)
    inliers, whole = ~outliers, alignment.whole
    corrected = series.corrected(alignment.corrections)
    rows = brightest_rows(corrected, moves, angle)
    film = alignment.film
    aligned = assess(corrected, moves, angle, whole=whole, inliers=inliers, rows=rows, scales=scales, film=film)
    raw = aligned
    if moves.any() or np.any(scales != 1) or alignment.corrections is not None:
        raw = assess(series, np.zeros_like(moves), angle, whole=whole, inliers=inliers, rows=rows, film=film)
    shown = None
    if enough(series.angles_deg, inliers):
        height = aligned_shape(raw_shape, angle)[0]
        shown = preview(series, moves, angle, whole=whole, inliers=inliers, full_height=height, corrected=corrected)
    thickness = np.nan
    if film is not None:
        thickness = film_thickness(corrected, moves, angle, film, inliers) * series.factor
    markers = judge_markers(alignment, series.angles_deg, series.factor, raw_shape)
    if markers is not None:
        aligned = _with_markers(aligned, markers, inliers)
    elif film is None and not whole and aligned is not raw:
        aligned = aligned.widened(SLOW)
    contradiction = contradiction_of(series)
    if contradiction is not None:
        unchanged = aligned is raw
        aligned = aligned.without_error()
        raw = aligned if unchanged else raw.without_error()
    return AlignmentQuality(
        raw,
        aligned,
        raw_agreement,
        aligned_agreement,
        series.angles_deg,
        outliers,
        whole,
        shown,
        contradiction,
        markers,
        film,
        thickness,
        breaks=breaks,
    )


def _with_markers(images: Assessment, markers: MarkerFit, inliers: NDArray[np.bool_]) -> Assessment:
    """Return the errors that images or markers tell, whichever are less, but no less than what is left of the latter.

    The error of the markers alone, e, follows from their halves: it is too large where they are few, or lie in a body
    whose texture moves their centres. That of the images is too large where noise hides it, and misses what drifts
    slowly from tilt to tilt. Comparing images moved everything by d after the markers were fitted: where that took
    errors of the markers away, e^2 - d^2 is left of them.
    """
    alone, seen = markers.halves_px / 2, images.summary(inliers).error_px
    left = float(np.sqrt(max(alone**2 - markers.difference_px**2, 0.0)))
    of_markers = replace(images, step_px=markers.step_px, deviation_px=markers.deviation_px)
    if seen > alone or not np.isfinite(seen):
        return of_markers
    return of_markers.widened(left / alone) if left > seen else images


def outliers_of(series: ReducedSeries, alignment: Alignment, placement: Placement) -> NDArray[np.bool_]:
    """Return which tilts are outliers of an alignment, (n_tilt,), as `assess_alignment` finds them."""
    neighbours = compare_neighbours(placement.aligned, placement.aligned_moves_px, alignment.axis_angle_deg)
    return _outliers_and_breaks(series, alignment, placement, neighbours)[0]


def _outliers_and_breaks(
    series: ReducedSeries, alignment: Alignment, placement: Placement, neighbours: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return outliers and breaks, (n_tilt,) each, by the correlation of aligned neighbours."""
    outliers = find_outliers(series.usable, neighbours, alignment.unpredicted)
    if not (outliers & series.usable).any():
        return outliers, np.zeros(len(outliers), bool)
    # A good image beside a bad one agrees with the one beyond.
    moves, angle = placement.aligned_moves_px, alignment.axis_angle_deg
    beyond = compare_neighbours(placement.aligned, moves, angle, outliers)
    either = np.where(outliers, np.fmax(neighbours, beyond), neighbours)
    outliers = find_outliers(series.usable, either, alignment.unpredicted)
    breaks = find_breaks(series, outliers, neighbours, alignment.unpredicted)
    return outliers & ~breaks, breaks


def find_breaks(
    series: ReducedSeries,
    outliers: NDArray[np.bool_],
    neighbours: NDArray[np.float64],
    unpredicted: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:
    """Return outliers (n_tilt,) with which the next tilt outward agrees: with them begins a part of its own."""
    found = np.zeros(len(outliers), bool)
    known = neighbours[np.isfinite(neighbours) & ~outliers]
    if len(known) < FEWEST:
        return found
    for chain in series.outward:
        for i, outer in itertools.pairwise(chain[1:]):
            is_bad = unpredicted is not None and unpredicted[i]
            agrees = not outliers[outer] and neighbours[outer] > np.median(known) - LEAST_DROP
            found[i] |= outliers[i] and agrees and not is_bad
    return found


def find_outliers(
    usable: NDArray[np.bool_], correlation: FloatArray, unpredicted: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return which tilts take no part in judging the alignment, nor in reconstruction, (n_tilt,).

    They are empty or damaged (not `usable`), not predicted by the others, or unlike their neighbours, by their
    `correlation` after alignment (NaN where unknown).
    """
    outliers = ~usable if unpredicted is None else ~usable | unpredicted
    known = np.isfinite(correlation)
    if known.sum() >= FEWEST:
        usual = np.median(correlation[known])
        scatter = 1.5 * np.median(np.abs(correlation[known] - usual))
        outliers[known] |= correlation[known] < usual - max(LEAST_DROP, SCATTERS * scatter)
    return np.asarray(outliers)
