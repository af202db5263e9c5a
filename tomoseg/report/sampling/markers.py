"""Markers of the alignment in the aligned images."""

from dataclasses import dataclass

import numpy as np

from tomoseg.arrays import Array
from tomoseg.report.results import Results


@dataclass(frozen=True)
class AlignedMarkers:
    """Markers in px of the aligned images, (n_marker, n_tilt, 2) each; NaN where one was not seen.

    `places_px` are (y, x) from the first pixel, `residuals_px` (dy, dx) from where a marker must be to where it was
    seen.
    """

    places_px: Array
    residuals_px: Array


def aligned_markers(results: Results) -> AlignedMarkers | None:
    """Return the markers of a project, turned and moved as its images were; None without any."""
    places, residuals = results.rows("marker_places_px"), results.rows("marker_residuals_px")
    angles, shifts = results.angles_deg, results.rows("shifts_px")
    raw, aligned = results.get("tilt_series"), results.get("aligned")
    if places is None or residuals is None or angles is None or shifts is None or raw is None or aligned is None:
        return None
    expected = (len(angles), 2)
    if places.shape[1:] != expected or residuals.shape != places.shape or shifts.shape != expected or not places.size:
        return None
    phi = np.deg2rad(results.number("alignment_info", "tilt_axis_angle_deg"))
    offset = results.number("alignment_info", "tilt_axis_offset_px")
    y, x = np.moveaxis(places + shifts - (np.array(raw.shape[1:]) - 1) / 2, -1, 0)
    turned = np.stack([np.sin(phi) * x + np.cos(phi) * y, np.cos(phi) * x - np.sin(phi) * y - offset], axis=-1)
    return AlignedMarkers(turned + (np.array(aligned.shape[1:]) - 1) / 2, residuals)
