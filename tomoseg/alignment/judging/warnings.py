"""What is made of the assessment of an alignment: figures to store, a note, and doubts in words."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.finding.estimate import Alignment
from tomoseg.alignment.images.reduced_series import Copies
from tomoseg.alignment.images.warp import aligned_shape
from tomoseg.alignment.judging.assessment import (
    MIN_RANGE_DEG,
    MIN_TILTS,
    Assessment,
    Preview,
    assess,
    brightest_rows,
    enough,
    preview,
)
from tomoseg.arrays import Array, FloatArray

# A pixel is the mean over its width: errors of half a pixel widen it by a third at most, and those below are lost in
# the blur that reconstruction adds. Above, details of a pixel fade.
LARGE_PX = 0.5
# The residual of an aligned series is that of noise and of few tilts, and cannot fall. Where positions in the raw
# series were off by more than LARGE_PX, bringing them right takes away more than this part of it.
CLEAR_GAIN = 0.05
# Where this is what the others do not foresee, it is half of an image's power.
FORESEEN = 0.5**0.5
# One bad image in ten is bad luck; more are a bad series, or an alignment that failed.
MANY_OUTLIERS, FEWEST_OUTLIERS = 0.1, 3
# A single tilt stands out where it lies this many times further from its place than its own uncertainty and than the
# others usually do: once in thousands by chance.
STANDS_OUT = 5.0


@dataclass(frozen=True)
class Judgement:
    """How well the tilts predict each other, raw and aligned.

    Attributes
    ----------
    before, after : Assessment
    angles_deg : (n_tilt,)
    outliers : (n_tilt,) bool
        Tilts that took no part in predicting others, empty ones among them.
    whole : bool
        Whether the sample ends inside the frame across the axis.
    preview : Preview, or None for too few tilts
    """

    before: Assessment
    after: Assessment
    angles_deg: NDArray[np.float64]
    outliers: NDArray[np.bool_]
    whole: bool
    preview: Preview | None

    @property
    def as_given(self) -> bool:
        """Whether nothing was moved."""
        return self.before is self.after

    @property
    def enough(self) -> bool:
        """Whether there are tilts enough, and far enough apart, to judge."""
        return enough(self.angles_deg, ~self.outliers)

    def fill(self, table: Array) -> None:
        """Fill the columns of a table with a row per tilt; NaN where nothing can be said."""
        table["residual_before"], table["residual_after"] = self.before.residual, self.after.residual
        table["error_px"], table["error_uncertainty_px"] = self.after.error_px, self.after.uncertainty_px

    def attrs(self) -> dict[str, float]:
        """Return the figures for the series; NaN where nothing can be said."""
        aligned = self.after.summary(~self.outliers)
        return {
            "residual_before": self.before.summary(~self.outliers).residual,
            "residual_after": aligned.residual,
            "estimated_error_px": aligned.error_px,
            "error_uncertainty_px": aligned.uncertainty_px,
        }

    def note(self) -> str:
        """Say in a sentence how well the tilts predict each other; empty where nothing can be said."""
        raw, aligned = (a.summary(~self.outliers) for a in (self.before, self.after))
        if not np.isfinite(aligned.residual):
            return ""
        about = "about" if aligned.error_is_seen else "at most about"
        slowly = "" if self.whole else "; errors that change slowly from tilt to tilt cannot be seen in such a sample"
        return (
            f"tilts predicted by the others: residual {raw.residual:.3f} -> {aligned.residual:.3f}; images lie {about} "
            f"{aligned.error_px:.2g} px from where the others put them{slowly}"
        )

    def doubts(self) -> list[str]:
        """Return a sentence for each reason not to rely on the alignment."""
        if not self.enough:
            return [
                f"{(~self.outliers).sum()} tilts are too few to judge how good the alignment is, or their range is too "
                f"narrow ({MIN_TILTS} over {MIN_RANGE_DEG:g} degrees are needed): look at the aligned images before "
                "relying on it"
            ]
        found = (self._unforeseen(), self._error(), self._gain(), self._many(), self._single())
        return [words for words in found if words]

    def _unforeseen(self) -> str:
        residual = self.after.summary(~self.outliers).residual
        if not residual > FORESEEN:
            return ""
        return (
            f"the tilts foresee less than half of what the others show (residual {residual:.2f}): the images are too "
            "noisy, too few, or not aligned"
        )

    def _error(self) -> str:
        aligned = self.after.summary(~self.outliers)
        if not (aligned.error_px > LARGE_PX and aligned.error_is_seen):
            return ""
        advice = "check the direction of the tilt axis and the angles, and leave out bad images"
        if self.as_given:
            advice = "if the series is not aligned yet, use method auto"
        return (
            f"the aligned images lie about {aligned.error_px:.1f} px from where the other tilts put them: details of "
            f"that size are lost in the reconstruction; {advice}"
        )

    def _gain(self) -> str:
        if self.as_given:
            return ""
        raw, aligned = (a.summary(~self.outliers) for a in (self.before, self.after))
        worse = aligned.residual > (1 + CLEAR_GAIN) * raw.residual
        needed = raw.error_px > LARGE_PX and raw.error_is_seen
        if not worse and not (needed and aligned.residual > (1 - CLEAR_GAIN) * raw.residual):
            return ""
        return (
            f"the tilts predict each other {'worse' if worse else 'hardly better'} after alignment than before "
            f"(residual {raw.residual:.2f} -> {aligned.residual:.2f}): do not trust it. If the series is aligned "
            "already use method none; else give the axis angle."
        )

    def _many(self) -> str:
        n = int(self.outliers.sum())
        if n < FEWEST_OUTLIERS or n <= MANY_OUTLIERS * len(self.outliers):
            return ""
        return (
            f"{n} of {len(self.outliers)} images are outliers: that many make the alignment of the others doubtful too"
        )

    def _single(self) -> str:
        known = ~self.outliers & np.isfinite(self.after.error_px)
        if not known.any():
            return ""
        error = np.where(known, self.after.error_px, 0)
        usual = np.maximum(np.nan_to_num(self.after.uncertainty_px), np.median(error[known]))
        far = (error > 2 * LARGE_PX) & (error > STANDS_OUT * usual)
        if not far.any():
            return ""
        listed = ", ".join(f"{a:g}" for a in self.angles_deg[far][:10]) + (" ..." if far.sum() > 10 else "")
        return (
            f"{far.sum()} of {len(error)} images lie {error[far].min():.1f} px or more from where the other tilts put "
            f"them, far more than the rest (tilt {listed} degrees): look at them, and leave them out if they are bad"
        )


def judge(
    copies: Copies,
    alignment: Alignment,
    scales: FloatArray,
    outliers: NDArray[np.bool_],
    raw_shape: tuple[int, ...],
) -> Judgement:
    """Assess the raw and the aligned series.

    Parameters
    ----------
    copies : images with background 0
    alignment : Alignment
    scales : (n_tilt,)
        Factors for the brightness of the aligned images.
    outliers : (n_tilt,) bool, empty images among them
    raw_shape : (height, width) of a raw image
    """
    angle, moves = alignment.axis_angle_deg, alignment.moves_px / copies.factor
    trusted, whole = ~outliers, alignment.whole
    adjusted = copies.adjusted(alignment.adjustments)
    rows = brightest_rows(adjusted, moves, angle)
    after = assess(adjusted, moves, angle, whole=whole, trusted=trusted, rows=rows, scales=scales)
    before = after
    if moves.any() or np.any(scales != 1) or alignment.adjustments is not None:
        before = assess(copies, np.zeros_like(moves), angle, whole=whole, trusted=trusted, rows=rows)
    shown = None
    if enough(copies.angles_deg, trusted):
        height = aligned_shape(raw_shape, angle)[0]
        shown = preview(copies, moves, angle, whole=whole, trusted=trusted, full_height=height, adjusted=adjusted)
    return Judgement(before, after, copies.angles_deg, outliers, whole, shown)
