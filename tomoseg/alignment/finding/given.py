"""Shifts that are known beforehand, applied as they are; an axis that they leave open is found for them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.finding import solve as solver
from tomoseg.alignment.finding.axis import direction_warnings, find_direction
from tomoseg.alignment.finding.consistency import centre_of_mass, row_window
from tomoseg.alignment.finding.estimate import Alignment, Placement, can_show_axis
from tomoseg.alignment.finding.refine import refine_angle
from tomoseg.alignment.finding.solve import Solution
from tomoseg.alignment.finding.track import Band
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import rotate_vectors
from tomoseg.io.shifts import GivenAlignment


def keep_as_is(
    series: ReducedSeries, *, axis_angle_deg: float | None, axis_near_deg: float | None, axis_offset_px: float | None
) -> tuple[Alignment, Placement]:
    """Take a series for aligned already: shifts of 0, and the axis as given, else the nominal one, else vertical."""
    warnings = []
    angle = axis_angle_deg if axis_angle_deg is not None else axis_near_deg
    if angle is None:
        angle = 0.0
        warnings.append(
            "method none, but the direction of the tilt axis is unknown: it is taken as the raw image's vertical. If "
            "it is horizontal, set tilt_axis_angle to 90."
        )
    offset = axis_offset_px or 0.0
    zeros = np.zeros((series.n_tilt, 2))
    moves = zeros - np.array([0.0, offset / series.factor])
    whole = solver.looks_whole(series, moves, angle)
    alignment = Alignment(zeros, angle, offset, whole, "none", warnings=warnings)
    return alignment, Placement(series, zeros, series, moves)


def apply_given(
    series: ReducedSeries,
    given: GivenAlignment,
    *,
    axis_angle_deg: float | None = None,
    axis_near_deg: float | None = None,
    axis_offset_px: float | None = None,
    band: Band | None = None,
) -> tuple[Alignment, Placement]:
    """Align a tilt series by given shifts and image corrections, in its raw pixels, which are kept as they are.

    The other parameters are those of `estimate_alignment` and take precedence over what `given` says of the axis. Where
    neither says anything, direction and offset of the axis are found for these shifts.
    """
    raw, series = series, series.corrected(given.corrections)
    band, warnings = band or Band(), list(given.notes)
    here = given.shifts_px / series.factor
    angle = given.axis_angle_deg if axis_angle_deg is None else axis_angle_deg
    offset = given.axis_offset_px if axis_offset_px is None else axis_offset_px
    direction = None
    if angle is None and can_show_axis(series):
        direction = find_direction(series, here, band, axis_near_deg)
        angle = direction.angle_deg
    elif angle is None:
        angle = axis_near_deg or 0.0
        warnings.append(
            f"too few tilts to find the direction of the tilt axis for the given shifts: {angle:g} degrees assumed"
        )
    whole = solver.looks_whole(series, rotate_vectors(here, angle), angle)
    if direction is not None:
        angle = refine_angle(series, Solution(angle, rotate_vectors(here, angle), whole), band)
        warnings += direction_warnings(series, here, band, direction, angle)
    moves = rotate_vectors(here, angle)
    if offset is None:
        offset = _offset(series, moves, angle, whole=whole) * series.factor if can_show_axis(series) else 0.0
    alignment = Alignment(
        np.array(given.shifts_px),
        angle,
        offset,
        whole,
        f"as in {Path(given.source).name}",
        [f"shifts as in {given.source}"],
        warnings,
        corrections=given.corrections,
    )
    placed = moves - np.array([0.0, offset / series.factor])
    return alignment, Placement(raw, np.zeros_like(moves), series, placed)


def _offset(series: ReducedSeries, moves: NDArray[np.float64], axis_angle_deg: float, *, whole: bool) -> float:
    """Return the offset of the axis in px of the reduced series, for moves that do not include it."""
    if not whole:
        small = series.reduced(solver.OFFSET_PX)
        scale = series.factor / small.factor
        return -solver.best_offset(small, moves * scale, axis_angle_deg) / scale
    aligned, seen = series.warped(moves, axis_angle_deg)
    centres = centre_of_mass(aligned, row_window(seen, series.usable))[series.usable]
    t = np.deg2rad(series.angles_deg[series.usable])
    # The centre of mass goes round the axis: x = offset + x0 cos(t) + z0 sin(t)
    terms = np.stack([np.ones(len(t)), np.cos(t), np.sin(t)], axis=1)
    return float(np.linalg.lstsq(terms, centres, rcond=None)[0][0])
