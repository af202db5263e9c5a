"""What markers say of an alignment: how far they are seen from where they must be, and how certain their fit is."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.finding.estimate import Alignment
from tomoseg.alignment.images.warp import rotate_vectors, unrotate_vectors
from tomoseg.alignment.markers.bundle import adjust, fit_markers
from tomoseg.alignment.markers.corrections import corrected_places
from tomoseg.arrays import FloatArray
from tomoseg.io.shifts import ImageCorrections


@dataclass(frozen=True)
class MarkerFit:
    """Markers in an alignment, in px of the raw images.

    Attributes
    ----------
    places_px : (n_marker, n_tilt, 2) f8
        (y, x) of each marker in the raw image, from its first pixel; NaN where it was not seen or not trusted.
    residuals_px : (n_marker, n_tilt, 2) f8
        (dy', dx') in the aligned frame, from where a marker must be to where it was seen.
    mean_residual_px : float
        Mean length of the residuals.
    step_px : (n_tilt, 2) f8
        (dy', dx'): half of how far the fits of either half of the markers differ, but for a translation of the sample.
        That is as far as the fit of all may be off. Of an image that was placed by hand, how far it lies from that
        fit. NaN for images that are not part of it.
    deviation_px : (n_tilt, 2) f8
        Standard error of the place of an image, from the scatter of the residuals in it.
    difference_px : float
        How far the alignment lies from the fit of all markers, per direction, rms over the tilts.
    """

    places_px: NDArray[np.float64]
    residuals_px: NDArray[np.float64]
    mean_residual_px: float
    step_px: NDArray[np.float64]
    deviation_px: NDArray[np.float64]
    difference_px: float

    def reordered(self, order: NDArray[np.intp]) -> "MarkerFit":
        """Return the same for images in another order."""
        return replace(
            self,
            places_px=self.places_px[:, order],
            residuals_px=self.residuals_px[:, order],
            step_px=self.step_px[order],
            deviation_px=self.deviation_px[order],
        )

    @property
    def n_markers(self) -> int:
        """Number of markers."""
        return len(self.places_px)

    @property
    def n_seen(self) -> NDArray[np.int_]:
        """Number of markers seen in each image."""
        return np.asarray(np.isfinite(self.places_px[..., 0]).sum(axis=0))

    @property
    def halves_px(self) -> float:
        """How far the fits of either half of the markers differ, per direction, rms over the tilts."""
        return 2 * float(np.sqrt(np.nanmean(np.square(self.step_px))))

    @property
    def summary(self) -> str:
        """The figures in words."""
        return (
            f"markers: {self.n_markers}, {self.n_seen.min()} to {self.n_seen.max()} in an image; mean residual "
            f"{self.mean_residual_px:.2f} px; the fits of either half of them differ by {self.halves_px:.2g} px rms"
        )


def judge_markers(
    alignment: Alignment, angles_deg: FloatArray, factor: int, raw_shape: tuple[int, ...]
) -> MarkerFit | None:
    """Compare the markers of an alignment with it; None where it has none.

    `factor` is how many raw pixels a pixel of the reduced series is wide, in which markers were found.
    """
    tracks = alignment.tracks
    if tracks is None:
        return None
    bundle = tracks.bundle
    angle, moves = alignment.axis_angle_deg, alignment.moves_px / factor
    corrections = alignment.corrections or ImageCorrections.none(len(moves))
    angles_deg = np.asarray(angles_deg) + corrections.tilt_error_deg
    observed = corrected_places(tracks.observed_px, corrections)
    trusted = bundle.trusted[..., None]
    seen = np.where(trusted, tracks.observed_px, np.nan)
    residuals = fit_markers(rotate_vectors(np.where(trusted, observed, np.nan), angle) + moves, angles_deg)
    lengths = np.hypot(residuals[..., 0], residuals[..., 1])
    halves = [adjust(half, angles_deg, bundle.axis_angle_deg, bundle.moves_px) for half in bundle.halves(observed)]
    shifts = [unrotate_vectors(half.moves_px, half.axis_angle_deg) for half in halves]
    own = rotate_vectors(unrotate_vectors(bundle.moves_px, bundle.axis_angle_deg), angle)
    step = _less_translation(rotate_vectors(shifts[0] - shifts[1], angle), angles_deg, tracks.joined) / 2
    difference = _less_translation(moves - own, angles_deg, tracks.joined)
    if alignment.by_hand is not None:  # what the fits say of these images is not where they are
        step[alignment.by_hand] = difference[alignment.by_hand]
    counts = np.maximum(np.isfinite(lengths).sum(axis=0), 1)
    deviation = np.sqrt(np.nanmean(np.square(residuals), axis=(0, 1)))[None] / np.sqrt(counts)[:, None]
    centre = (np.array(raw_shape[-2:]) - 1) / 2
    return MarkerFit(
        seen * factor + centre,
        residuals * factor,
        float(np.nanmean(lengths)) * factor,
        step * factor,
        np.where(tracks.joined[:, None], deviation, np.nan) * factor,
        float(np.sqrt(np.nanmean(np.square(difference)))) * factor,
    )


def _less_translation(
    moves_px: NDArray[np.float64], angles_deg: FloatArray, joined: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return moves (n_tilt, 2) without what a translation of the sample explains, NaN where they are not `joined`."""
    t = np.deg2rad(np.asarray(angles_deg)[joined])
    terms = np.stack([np.cos(t), np.sin(t), np.ones(len(t))], axis=1)
    rest = np.full(moves_px.shape, np.nan)
    along, across = moves_px[joined].T
    rest[joined, 0] = along - along.mean()
    rest[joined, 1] = across - terms @ np.linalg.lstsq(terms, across, rcond=None)[0]
    return rest
