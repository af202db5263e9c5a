"""The quality of an alignment in words: a summary, and a warning for each reason to doubt the alignment."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.judging.agreement import Agreement
from tomoseg.alignment.judging.assessment import MIN_RANGE_DEG, MIN_TILTS
from tomoseg.alignment.judging.quality import AlignmentQuality

# A pixel is the mean over its width: errors of half a pixel widen it by a third at most, and those below are lost in
# the blur that reconstruction adds. Above, details of a pixel fade.
LARGE_PX = 0.5
# The residual of an aligned series is that of noise and of few tilts, and cannot fall. Where positions in the raw
# series were off by more than LARGE_PX, bringing them right takes away more than this part of it.
CLEAR_GAIN = 0.05
# At this residual, half of an image's power is not predicted by the other tilts.
HALF_PREDICTED = 0.5**0.5
# One bad image in ten is bad luck; more are a bad series, or an alignment that failed.
MANY_OUTLIERS, FEWEST_OUTLIERS = 0.1, 3
# A single tilt stands out where it lies this many times further from its place than its own uncertainty and than the
# others usually do: once in thousands by chance.
STANDS_OUT = 5.0
AGAINST, LEAST_AGAINST_PX = 2.0, 0.2  # times the difference of halves, and px, that images and markers may differ by
CLEAR_DROP = 0.02  # of the correlation of neighbours, that no change of the resampling explains
ALIKE = 0.5  # correlation below which neighbouring tilts show hardly the same


def summary(quality: AlignmentQuality) -> str:
    """Return a sentence on the prediction of held-out tilts and the estimated error; empty where unknown."""
    raw, aligned = quality.summaries
    if not np.isfinite(aligned.residual):
        return ""
    text = f"prediction of held-out tilts: residual {raw.residual:.3f} before alignment, {aligned.residual:.3f} after"
    if quality.contradiction is not None:
        text += "; the alignment error is unknown, since the images contradict the order of the angles"
    elif np.isfinite(aligned.error_px):
        text += (
            f"; estimated alignment error: {aligned.error_px:.2g} px rms, {aligned.worst_error_px:.2g} px at the worst "
            f"tilt; detection limit {aligned.uncertainty_px:.2g} px"
        )
        if not quality.whole and quality.markers is None:
            text += (
                "; errors that drift slowly from tilt to tilt are underestimated: the sample extends beyond the frame"
            )
    return text


def prediction_warnings(quality: AlignmentQuality) -> list[str]:
    """Return a sentence for each reason in the prediction of held-out tilts not to rely on the alignment."""
    if not quality.can_predict:
        return [
            f"{(~quality.outliers).sum()} tilts are too few to judge the alignment, or cover too small a range: "
            f"{MIN_TILTS} tilts over {MIN_RANGE_DEG:g} degrees are needed. Look at the aligned images before relying "
            "on it."
        ]
    reasons = (_broken, _unpredicted, _large_error, _no_gain, _many_outliers, _single_tilts, _against_markers)
    return [text for reason in reasons for text in reason(quality)]


def _broken(quality: AlignmentQuality) -> Iterator[str]:
    if quality.breaks is not None and quality.breaks.any():
        yield (
            "the series is aligned in parts that do not agree with each other, although the images of each do: one "
            f"begins at {listed(quality.angles_deg[quality.breaks])}. The alignment is unreliable: leave out bad "
            "images there (exclude_tilt), or set the shifts of the images beyond by hand"
        )


def _unpredicted(quality: AlignmentQuality) -> Iterator[str]:
    residual = quality.summaries[1].residual
    if residual > HALF_PREDICTED:
        yield (
            f"the tilts predict less than half of what each other show (residual {residual:.2f}): the images are too "
            "noisy, too few, or not aligned"
        )


def _large_error(quality: AlignmentQuality) -> Iterator[str]:
    aligned = quality.summaries[1]
    if aligned.error_px > LARGE_PX and aligned.error_is_detected:
        advice = "check the direction of the tilt axis and the angles, and leave out bad images"
        if quality.is_unchanged:
            advice = "if the series is not aligned yet, use method auto"
        yield (
            f"the estimated alignment error is {aligned.error_px:.1f} px rms, {aligned.worst_error_px:.1f} px at the "
            f"worst tilt: details of that size are lost in the reconstruction; {advice}"
        )


def _no_gain(quality: AlignmentQuality) -> Iterator[str]:
    if quality.is_unchanged:
        return
    raw, aligned = quality.summaries
    worse = aligned.residual > (1 + CLEAR_GAIN) * raw.residual
    needed = raw.error_px > LARGE_PX and raw.error_is_detected
    if worse or (needed and aligned.residual > (1 - CLEAR_GAIN) * raw.residual):
        yield (
            f"the tilts predict each other {'worse' if worse else 'hardly better'} after alignment than before "
            f"(residual {raw.residual:.2f} before, {aligned.residual:.2f} after): the alignment is unreliable. If the "
            "series is aligned already, use method none; otherwise give tilt_axis_angle."
        )


def _many_outliers(quality: AlignmentQuality) -> Iterator[str]:
    n, total = int(quality.unexpected.sum()), len(quality.outliers)
    if n >= FEWEST_OUTLIERS and n > MANY_OUTLIERS * total:
        yield f"{n} of {total} images are outliers: with so many, the alignment of the others is doubtful too"


def _against_markers(quality: AlignmentQuality) -> Iterator[str]:
    markers = quality.markers
    if markers is not None and markers.difference_px > max(AGAINST * markers.halves_px, LEAST_AGAINST_PX):
        yield (
            f"markers and images disagree: where the images fit each other best is {markers.difference_px:.2g} px rms "
            f"from where the markers do, whose halves differ by {markers.halves_px:.2g} px: look at the aligned images"
        )


def _single_tilts(quality: AlignmentQuality) -> Iterator[str]:
    known = ~quality.outliers & np.isfinite(quality.aligned.error_px)
    if not known.any():
        return
    error = np.where(known, quality.aligned.error_px, 0)
    usual = np.maximum(np.nan_to_num(quality.aligned.uncertainty_px), np.median(error[known]))
    far = (error > 2 * LARGE_PX) & (error > STANDS_OUT * usual)
    if far.any():
        yield (
            f"{far.sum()} of {len(error)} images have an estimated alignment error of {error[far].min():.1f} px or "
            f"more, far above that of the others ({listed(quality.angles_deg[far])}): look at them, and leave them "
            "out if they are bad"
        )


def order_warnings(quality: AlignmentQuality) -> list[str]:
    """Return a sentence if the images contradict the order of their angles."""
    return [] if quality.contradiction is None else [str(quality.contradiction)]


def outlier_warnings(quality: AlignmentQuality) -> list[str]:
    """Return a sentence that names the outliers which the user did not leave out, if there are any."""
    out = quality.unexpected
    if not out.any():
        return []
    return [
        f"{out.sum()} of {len(out)} images are empty or do not agree with the others "
        f"({listed(quality.angles_deg[out])}): look at them, and leave them out of the series if they are bad. Empty "
        "images are 0 in the aligned series, and their shifts lie between those of their neighbours."
    ]


def agreement_warnings(before: Agreement, after: Agreement, *, given: bool, found: bool) -> list[str]:
    """Return a sentence if neighbouring tilts agree less after alignment, or hardly at all.

    Shifts were `given`, which is for channels too noisy to be aligned by themselves, or `found` from the images.
    """
    less = after.median < before.median - CLEAR_DROP
    if given and less:
        return [
            f"the correlation of neighbouring tilts falls from {before.median:.3f} to {after.median:.3f} with the "
            "given shifts: check that they belong to this series, in its order, in px, and with the right signs"
        ]
    if found and less:
        return [
            f"the correlation of neighbouring tilts falls from {before.median:.3f} before alignment to "
            f"{after.median:.3f} after: the alignment is unreliable. If the series is aligned already, use method "
            "none; otherwise give tilt_axis_angle or the limits of the band-pass."
        ]
    if not given and after.median < ALIKE:
        return [
            f"the correlation of neighbouring tilts is only {after.median:.2f} after alignment: the alignment is "
            "unreliable. The images may be too noisy, the tilt steps too large, or the angles wrong."
        ]
    return []


def listed(angles_deg: NDArray[np.float64]) -> str:
    """Return tilt angles in words, the first ten of many."""
    return f"tilt {', '.join(f'{a:g}' for a in angles_deg[:10])}{' ...' if len(angles_deg) > 10 else ''} degrees"
