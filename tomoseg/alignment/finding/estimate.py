"""From background-subtracted images to shifts, tilt axis and figures of quality."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.finding.axis import search_axis
from tomoseg.alignment.finding.consistency import least_motion
from tomoseg.alignment.finding.image_corrections import Adjustment, adjust
from tomoseg.alignment.finding.patch import Patch, View, look_at, whole_frame
from tomoseg.alignment.finding.quality import Quality, measure_quality
from tomoseg.alignment.finding.refine import stray_tilts
from tomoseg.alignment.finding.solve import Solution, sample_reach
from tomoseg.alignment.finding.strategies import ABSOLUTE, Method, place, refine
from tomoseg.alignment.finding.track import Band, track_neighbours
from tomoseg.alignment.images.reduced_series import Copies
from tomoseg.alignment.images.warp import Adjustments, aligned_shape, rotate_vectors, unrotate_vectors
from tomoseg.arrays import FloatArray

TRACK_PX = 128
MIN_TILTS = 5  # fewer do not tell a direction of the axis
MIN_RANGE_DEG = 20.0
SAFE_RANGE_DEG = 80.0
WORDS = {
    "xcorr": "xcorr",
    "com": "xcorr, centre of mass",
    "common-line": "xcorr, centre of mass and common line",
    "reprojection": "xcorr, reprojection",
    "all": "xcorr, centre of mass and common line, reprojection",
}


@dataclass(frozen=True)
class Alignment:
    """How a tilt series is brought into register, in raw pixels; see `tomoseg.alignment.images.warp` for the geometry.

    Attributes
    ----------
    shifts_px : (n_tilt, 2) f8, (dy, dx)
    axis_angle_deg, axis_offset_px : float
    before, after : Quality
    whole : bool
        Whether the sample is whole in the frame across the axis.
    residual : float
        Relative difference of the images from what a quick reconstruction explains; NaN where none was made.
    how : in words, what the shifts come from
    notes, warnings : sentences for the user
    stray : (n_tilt,) bool, or None
        Tilts that the others do not predict and that had no part in finding shifts and axis; None: not asked.
    adjustments : Adjustments
        What single images need besides; None where it was not sought, or nothing was gained by it.
    """

    shifts_px: NDArray[np.float64]
    axis_angle_deg: float
    axis_offset_px: float
    before: Quality
    after: Quality
    whole: bool
    residual: float
    how: str = "none"
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stray: NDArray[np.bool_] | None = None
    adjustments: Adjustments | None = None

    @property
    def moves_px(self) -> NDArray[np.float64]:
        """Shifts and offset together: (n_tilt, 2) (dy', dx') to add to raw pixels' coordinates after rotation."""
        return np.asarray(rotate_vectors(self.shifts_px, self.axis_angle_deg) - np.array([0.0, self.axis_offset_px]))


def estimate_alignment(
    copies: Copies,
    *,
    axis_angle_deg: float | None = None,
    axis_near_deg: float | None = None,
    axis_offset_px: float | None = None,
    band: Band | None = None,
    max_shift: float = 1 / 3,
    method: Method = "auto",
    patch: Patch | None = None,
    adjusting: Sequence[Adjustment] = (),
) -> Alignment:
    """Align a tilt series.

    Parameters
    ----------
    copies : images with background 0, at least one usable
    axis_angle_deg : float, optional
        Direction of the tilt axis where it is known; sought otherwise.
    axis_near_deg : float, optional
        Nominal direction, sought within 20 degrees of it; all directions by default.
    axis_offset_px : float, optional
        Offset of the axis in raw pixels where it is known; found otherwise.
    band : limits of the band-pass
    max_shift : float
        Largest step between neighbouring tilts, as a part of the longer side of the images.
    method : str
        What follows the tracking of neighbours, see `place`.
    patch : Patch, optional
        The part of the frame that shifts and axis are found from; all of it by default.
    adjusting : sequence of str
        What is found for single images besides shifts, see `adjust`.
    """
    band = band or Band()
    notes: list[str] = []
    warnings: list[str] = []
    view = whole_frame(copies) if patch is None else look_at(copies, patch, band, max_shift)
    near = view.copies
    tracked = _track(near, None, band, max_shift)
    if not can_show_axis(near):
        solution = _without_axis(near, tracked, axis_angle_deg, axis_near_deg, warnings)
        if adjusting:
            warnings.append(f"too few tilts to find what single images need besides shifts: {', '.join(adjusting)}")
        return _finish(copies, view, solution, axis_offset_px, WORDS["xcorr"], notes, warnings, split=False)
    angle = axis_angle_deg
    if angle is None:
        angle = find_direction(near, tracked, band, axis_near_deg, warnings)
    solution = _solved(near, tracked, angle, band, max_shift, method)
    solution = refine(method, near, solution, band, find_angle=axis_angle_deg is None)
    stray = stray_tilts(solution)
    if stray.any():  # once more, without them
        view = replace(view, copies=replace(near, usable=near.usable & ~stray))
        tracked = _track(view.copies, None, band, max_shift)
        solution = _solved(view.copies, tracked, solution.axis_angle_deg, band, max_shift, method)
        solution = refine(method, view.copies, solution, band, find_angle=axis_angle_deg is None)
    _tell_if_cut(solution, method, "frame" if patch is None else "patch", notes, warnings)
    found = ("all" if solution.whole else "reprojection") if method == "auto" else method
    solution, adjustments = adjust(view.copies, solution, adjusting)
    if adjusting and adjustments is None:
        notes.append(
            f"single images: {', '.join(adjusting)} as found hardly make the tilts agree better and are left out"
        )
    done = _finish(copies, view, solution, axis_offset_px, WORDS[found], notes, warnings, adjustments)
    return replace(done, stray=stray)


def can_show_axis(copies: Copies) -> bool:
    """Say whether there are enough tilts over enough of a range to find the tilt axis."""
    angles = copies.angles_deg[copies.usable]
    return len(angles) >= MIN_TILTS and bool(np.ptp(angles) >= MIN_RANGE_DEG)


def _tell_if_cut(solution: Solution, method: Method, where: str, notes: list[str], warnings: list[str]) -> None:
    """Say what it means that the sample goes on outside the frame or the patch, where it does."""
    if solution.whole:
        return
    if method in ABSOLUTE:
        warnings.append(
            f"the sample goes on outside the {where} across the tilt axis, where its centre of mass cannot be known: "
            f"method {method} is not to be trusted; use auto or reprojection"
        )
    elif method == "auto":
        notes.append(
            f"the sample goes on outside the {where} across the tilt axis: shifts and offset come from comparing "
            "images with reprojections, which is less certain than a centre of mass"
        )


def _track(copies: Copies, axis_angle_deg: float | None, band: Band, max_shift: float) -> NDArray[np.float64]:
    """Return shifts between neighbours in px of `copies`, stretched across the axis if that makes them agree better."""
    small = copies.reduced(TRACK_PX)
    reach = max_shift * max(small.images.shape[1:])
    shifts, scores = track_neighbours(small, None, band, reach)
    if axis_angle_deg is not None:
        stretched, better = track_neighbours(small, axis_angle_deg, band, reach)
        # Stretching is right for a film and wrong for a lump: the images say which the sample is.
        if np.nanmedian(better) > np.nanmedian(scores):
            shifts = stretched
    return shifts * small.factor / copies.factor


def _without_axis(
    copies: Copies, tracked: FloatArray, given_deg: float | None, near_deg: float | None, warnings: list[str]
) -> Solution:
    """Align by neighbours only, where there are too few tilts to find an axis."""
    angle = next((a for a in (given_deg, near_deg) if a is not None), 0.0)
    source = "given" if given_deg is not None else "nominal" if near_deg is not None else "assumed"
    warnings.append(
        f"{copies.usable.sum()} usable tilts are too few, or their range is too narrow, to find the tilt axis: "
        f"{source} direction {angle:g} degrees, offset taken as 0 unless given, shifts from neighbouring images only"
    )
    moves = rotate_vectors(tracked, angle)
    return Solution(angle, moves - moves[copies.usable].mean(axis=0), False, float("nan"))


def find_direction(
    copies: Copies,
    tracked: FloatArray,
    band: Band,
    near_deg: float | None,
    warnings: list[str],
) -> float:
    """Return the direction of the axis from the images, and warn where it is uncertain."""
    search = search_axis(copies, tracked, band, near_deg)
    if search.rival_deg is not None:
        warnings.append(
            f"the direction of the tilt axis is uncertain: {search.rival_deg:.0f} degrees explains the images nearly "
            f"as well as the {search.angle_deg:.1f} degrees used; set the axis angle if it is known"
        )
    covered = float(np.ptp(copies.angles_deg[copies.usable]))
    if covered < SAFE_RANGE_DEG:
        warnings.append(
            f"the tilts cover {covered:g} degrees only: direction and offset of the tilt axis found from them are "
            "uncertain"
        )
    return search.angle_deg


def _solved(
    copies: Copies, tracked: FloatArray, angle: float, band: Band, max_shift: float, method: Method
) -> Solution:
    """Solve at `angle` from the tracked shifts, and from stretched ones where those may be better."""
    solution = place(method, copies, tracked, angle, band)
    if solution.whole or method in ABSOLUTE:
        return solution
    # Cut by the frame: the sample may well be a film, whose neighbours agree once stretched across the axis.
    stretched = _track(copies, angle, band, max_shift)
    if np.array_equal(stretched, tracked):
        return solution
    if method == "xcorr":
        return place(method, copies, stretched, angle, band)
    return min(solution, place(method, copies, stretched, angle, band), key=lambda s: s.residual)


def _finish(
    copies: Copies,
    view: View,
    solution: Solution,
    given_offset_px: float | None,
    how: str,
    notes: list[str],
    warnings: list[str],
    adjustments: Adjustments | None = None,
    *,
    split: bool = True,
) -> Alignment:
    """Split moves into shifts and offset, in raw pixels, and measure the quality before and after."""
    solution = view.back(solution, adjustments)
    angle, factor = solution.axis_angle_deg, copies.factor
    along = solution.moves_px[:, 0] - solution.moves_px[view.copies.usable, 0].mean()
    across, offset_px = solution.moves_px[:, 1], given_offset_px or 0.0
    if split:
        width = aligned_shape(copies.images.shape, angle)[1]
        room = (width / 2 - sample_reach(copies.adjusted(adjustments), solution)) if solution.whole else np.inf
        across, offset = least_motion(across, copies.angles_deg, view.copies.usable, width, max(room, 0.0))
        offset_px = offset * factor
    if given_offset_px is not None:
        if abs(given_offset_px - offset_px) > 2:
            notes.append(f"the images put the axis at {offset_px:.1f} px, {given_offset_px:g} px used as given")
        offset_px = given_offset_px
    shifts = unrotate_vectors(np.stack([along, across], axis=1), angle) * factor
    moves = rotate_vectors(shifts, angle) / factor - np.array([0.0, offset_px / factor])
    before = measure_quality(view.copies, view.moves(np.zeros_like(moves), angle), angle)
    adjusted = view.copies.adjusted(adjustments)
    after = measure_quality(adjusted, view.moves(moves, angle, adjustments), angle)
    whole, residual = solution.whole, solution.residual
    return Alignment(
        shifts, angle, offset_px, before, after, whole, residual, how, notes, warnings, adjustments=adjustments
    )
