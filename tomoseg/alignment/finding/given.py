"""Shifts that were not found from the images, applied as they are; what they leave open is found for them."""

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.finding import solve as solver
from tomoseg.alignment.finding.consistency import centre_of_mass, is_whole, row_window
from tomoseg.alignment.finding.estimate import Alignment, can_show_axis, find_direction
from tomoseg.alignment.finding.quality import measure_quality
from tomoseg.alignment.finding.refine import refine_angle
from tomoseg.alignment.finding.solve import Solution
from tomoseg.alignment.finding.track import Band
from tomoseg.alignment.images.reduced_series import Copies
from tomoseg.alignment.images.warp import Adjustments, rotate_vectors
from tomoseg.arrays import FloatArray


def apply_given(
    copies: Copies,
    shifts_px: FloatArray,
    how: str,
    *,
    axis_angle_deg: float | None = None,
    axis_near_deg: float | None = None,
    axis_offset_px: float | None = None,
    band: Band | None = None,
    adjustments: Adjustments | None = None,
) -> Alignment:
    """Align a tilt series by given shifts.

    Parameters
    ----------
    copies : images with background 0
    shifts_px : (n_tilt, 2) array
        (dy, dx) to add to raw coordinates, in raw pixels; kept as they are.
    how : in words, what the shifts come from
    axis_angle_deg, axis_near_deg, axis_offset_px, band
        As for `estimate_alignment`: direction and offset of the axis are found for these shifts where not given.
    adjustments : Adjustments, optional
        What single images need besides; kept as it is.
    """
    raw, copies = copies, copies.adjusted(adjustments)
    band, warnings = band or Band(), list[str]()
    shifts = np.array(shifts_px, float)
    here = shifts / copies.factor
    angle, sought = axis_angle_deg, axis_angle_deg is None
    if angle is None and can_show_axis(copies):
        angle = find_direction(copies, here, band, axis_near_deg, warnings)
    elif angle is None:
        angle = axis_near_deg or 0.0
        warnings.append(f"too few tilts to find the direction of the tilt axis for the shifts given: {angle:g} assumed")
        sought = False
    whole = _is_whole(copies, rotate_vectors(here, angle), angle)
    if sought:
        angle = refine_angle(copies, Solution(angle, rotate_vectors(here, angle), whole, float("nan")), band)
    moves = rotate_vectors(here, angle)
    offset = axis_offset_px
    if offset is None:
        offset = _offset(copies, moves, angle, whole=whole) * copies.factor if can_show_axis(copies) else 0.0
    before = measure_quality(raw, np.zeros_like(moves), angle)
    after = measure_quality(copies, moves - np.array([0.0, offset / copies.factor]), angle)
    return Alignment(
        shifts, angle, offset, before, after, whole, float("nan"), how, [], warnings, adjustments=adjustments
    )


def _is_whole(copies: Copies, moves: NDArray[np.float64], axis_angle_deg: float) -> bool:
    aligned, seen = copies.warped(moves, axis_angle_deg)
    return is_whole(aligned, seen, row_window(seen, copies.usable), copies.usable)


def _offset(copies: Copies, moves: NDArray[np.float64], axis_angle_deg: float, *, whole: bool) -> float:
    """Return the offset of the axis in px of the copies, for moves that do not hold it yet."""
    if not whole:
        small = copies.reduced(solver.OFFSET_PX)
        scale = copies.factor / small.factor
        return -solver.best_offset(small, moves * scale, axis_angle_deg) / scale
    aligned, seen = copies.warped(moves, axis_angle_deg)
    centres = centre_of_mass(aligned, row_window(seen, copies.usable))[copies.usable]
    t = np.deg2rad(copies.angles_deg[copies.usable])
    # The centre of mass goes round the axis: x = offset + x0 cos(t) + z0 sin(t)
    terms = np.stack([np.ones(len(t)), np.cos(t), np.sin(t)], axis=1)
    return float(np.linalg.lstsq(terms, centres, rcond=None)[0][0])
