"""Shifts and tilt axis from the images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.finding.axis import Direction, direction_warnings, find_direction, prefer
from tomoseg.alignment.finding.consistency import least_motion
from tomoseg.alignment.finding.film import by_film
from tomoseg.alignment.finding.image_corrections import find_corrections
from tomoseg.alignment.finding.joint import Film
from tomoseg.alignment.finding.marked import Marked, by_markers
from tomoseg.alignment.finding.patch import TRACK_PX, Patch, View, look_at
from tomoseg.alignment.finding.refine import refine, unpredicted_tilts
from tomoseg.alignment.finding.solve import ABSOLUTE, Method, Solution, place, sample_reach
from tomoseg.alignment.finding.track import Band, track_neighbours
from tomoseg.alignment.images.brightness import vacuum_sides
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import aligned_shape, rotate_vectors, unrotate_vectors
from tomoseg.alignment.markers.corrections import CorrectionKind
from tomoseg.alignment.markers.tracks import ENOUGH_AT_LEAST, ENOUGH_MARKERS, Tracks
from tomoseg.arrays import FloatArray
from tomoseg.errors import StageFailed
from tomoseg.io.shifts import ImageCorrections

PARTS = 5  # neighbours, direction of the axis, places, refinement, and what follows
MIN_TILTS = 5  # fewer do not tell a direction of the axis
MIN_RANGE_DEG = 20.0
CLEARLY_BETTER = 0.15  # fit of markers with image corrections: a smaller gain matters little
HOW = {
    "xcorr": "xcorr",
    "com": "xcorr, centre of mass",
    "common-line": "xcorr, centre of mass and common line",
    "reprojection": "xcorr, reprojection",
    "all": "xcorr, centre of mass and common line, reprojection",
    "markers": "markers",
    "markers, film": "markers, then a film compared with its images",
    "film": "xcorr of stretched images, then a film compared with its images",
}


@dataclass(frozen=True)
class Alignment:
    """How a tilt series is brought into register, in raw pixels; see `tomoseg.alignment.images.warp` for the geometry.

    Attributes
    ----------
    shifts_px : (n_tilt, 2) f8, (dy, dx)
    whole : whether the sample is whole in the frame across the axis
    method : how the shifts were found, in words
    notes, warnings : sentences for the user
    unpredicted : (n_tilt,) bool, or None
        Tilts that the others do not predict, and that took no part in finding shifts and axis; None: not tested.
    corrections : ImageCorrections, or None where they were not asked for or gained nothing
    film : Film, or None where the sample is none
    tracks : Tracks of markers in px of the reduced series, or None where there are none
    by_hand : (n_tilt,) bool, the images whose shifts were set by hand, or None for none
    """

    shifts_px: NDArray[np.float64]
    axis_angle_deg: float
    axis_offset_px: float
    whole: bool
    method: str
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unpredicted: NDArray[np.bool_] | None = None
    corrections: ImageCorrections | None = None
    film: Film | None = None
    tracks: Tracks | None = None
    by_hand: NDArray[np.bool_] | None = None

    @property
    def moves_px(self) -> NDArray[np.float64]:
        """Shifts and offset together: (n_tilt, 2) (dy', dx') to add to raw pixels' coordinates after rotation."""
        return np.asarray(rotate_vectors(self.shifts_px, self.axis_angle_deg) - np.array([0.0, self.axis_offset_px]))


@dataclass(frozen=True)
class Placement:
    """The reduced images that an alignment was found from (all of the frame, or a patch), raw and aligned.

    Image corrections are applied to `aligned`. Moves (n_tilt, 2) are (dy', dx') after rotation in its pixels.
    """

    raw: ReducedSeries
    raw_moves_px: NDArray[np.float64]
    aligned: ReducedSeries
    aligned_moves_px: NDArray[np.float64]


def estimate_alignment(
    series: ReducedSeries,
    *,
    axis_angle_deg: float | None = None,
    axis_near_deg: float | None = None,
    axis_offset_px: float | None = None,
    band: Band | None = None,
    max_shift: float = 1 / 3,
    method: Method = "auto",
    patch: Patch | None = None,
    correct: Sequence[CorrectionKind] = (),
    level: bool = True,
    advance: Callable[[int], object] = abs,
) -> tuple[Alignment, Placement]:
    """Find the alignment of a tilt series from its images.

    Parameters
    ----------
    series : images with background 0, at least one usable
    axis_angle_deg, axis_offset_px : direction and offset (raw px) of the tilt axis where known; found otherwise
    axis_near_deg : nominal direction, a hint, see `find_direction`
    max_shift : largest step between neighbouring tilts, as a part of the longer side of the images
    method : what follows the tracking of neighbours, see `place`
    patch : the part of the frame that shifts and axis are found from; all of it by default
    correct : image corrections to find, see `find_corrections`
    advance : called with the number of parts of the work, of `PARTS`, that are done
    level : whether a film's own tilt about the axis is taken from the tilt angles, so that it lies level in the volume
    """
    band = band or Band()
    notes: list[str] = []
    warnings: list[str] = []
    view = look_at(series, patch, band, max_shift)
    near = view.series
    if not can_show_axis(near):
        tracked = _track(near, None, band, max_shift)
        solution = _without_axis(near, tracked, axis_angle_deg, axis_near_deg, warnings)
        if correct:
            warnings.append(f"too few tilts to find image corrections ({', '.join(correct)})")
        return _finish(series, view, solution, axis_offset_px, HOW["xcorr"], notes, warnings, split=False)
    is_cut = patch is None and not any(vacuum_sides(near.images[near.usable]))
    solution, unpredicted, marked, doubts = _solution(
        near, axis_angle_deg, axis_near_deg, band, max_shift, method, correct, advance, is_cut=is_cut
    )
    warnings += doubts
    view = replace(view, series=replace(near, usable=near.usable & ~unpredicted))
    found: str = ("all" if solution.whole else "reprojection") if method == "auto" else method
    if solution.tracks is not None:
        found = "markers" if solution.film is None else "markers, film"
    elif solution.film is not None:
        found = "film"
    corrections = None if marked is None else marked.corrections
    if marked is None:
        solution, corrections = find_corrections(view.series, solution, correct)
    elif marked.wanted > CLEARLY_BETTER:
        warnings.append(
            f"the markers would fit {marked.wanted:.0%} better if images were turned and magnified: try refine "
            "rotation,magnification,tilt-angle"
        )
    if correct and corrections is None:
        notes.append(f"image corrections: {', '.join(correct)} hardly improve the agreement of the tilts; not applied")
    if level and solution.film is not None:
        solution, corrections = _levelled(solution, solution.film, corrections or ImageCorrections.none(series.n_tilt))
    _note_if_cut(solution, method, "frame" if patch is None else "patch", notes, warnings)
    alignment, placement = _finish(series, view, solution, axis_offset_px, HOW[found], notes, warnings, corrections)
    return replace(alignment, unpredicted=unpredicted), placement


def _solution(
    series: ReducedSeries,
    given_deg: float | None,
    near_deg: float | None,
    band: Band,
    max_shift: float,
    method: Method,
    correct: Sequence[CorrectionKind],
    advance: Callable[[int], object],
    *,
    is_cut: bool,
) -> tuple[Solution, NDArray[np.bool_], Marked | None, list[str]]:
    """Align by markers or as a film where the sample is cut at all sides, else by comparing images.

    Returns the solution, the tilts that the others do not predict, what markers say if it is theirs, and reasons to
    doubt the direction of the axis.
    """
    beyond = None
    if method == "markers" or (method == "auto" and is_cut):
        beyond = _beyond(series, band, max_shift, given_deg, correct, only_markers=method == "markers")
    if beyond is not None and (method == "markers" or beyond[0].film is not None):
        return *beyond, []
    solution, unpredicted, doubts = _compared(series, given_deg, near_deg, band, max_shift, method, advance)
    # Markers in something else than a film, such as a needle, may turn about another axis nearly as well.
    if beyond is not None and prefer(series, beyond[0], solution) is beyond[0]:
        return *beyond, []
    return solution, unpredicted, None, doubts


def _beyond(
    series: ReducedSeries,
    band: Band,
    max_shift: float,
    given_deg: float | None,
    correct: Sequence[CorrectionKind],
    *,
    only_markers: bool,
) -> tuple[Solution, NDArray[np.bool_], Marked | None] | None:
    """Align a sample that extends beyond the frame by its markers, else as a film.

    Returns the solution, the tilts that the others do not predict, and what markers say; None where there are neither
    markers nor film.

    Raises
    ------
    StageFailed
        There are too few markers, and nothing else is wanted.
    """
    reach = max_shift * max(series.images.shape[1:])

    def find(series: ReducedSeries) -> tuple[Solution | None, Marked | None]:
        marked = by_markers(series, reach, axis_angle_deg=given_deg, correct=correct)
        if marked is None and not only_markers:
            return by_film(series, band, max_shift, axis_angle_deg=given_deg), None
        return (None if marked is None else marked.solution), marked

    solution, marked = find(series)
    if solution is None and only_markers:
        raise StageFailed(
            "too few particles can be followed through the tilts for method markers: it needs at least "
            f"{ENOUGH_MARKERS} in a usual image and {ENOUGH_AT_LEAST} in each. Use method auto."
        )
    if solution is None:
        return None
    unpredicted = unpredicted_tilts(solution)
    if unpredicted.any():  # once more, without them
        again, marked_again = find(replace(series, usable=series.usable & ~unpredicted))
        solution, marked = (solution, marked) if again is None else (again, marked_again)
    return solution, unpredicted, marked


def _compared(
    series: ReducedSeries,
    given_deg: float | None,
    near_deg: float | None,
    band: Band,
    max_shift: float,
    method: Method,
    advance: Callable[[int], object],
) -> tuple[Solution, NDArray[np.bool_], list[str]]:
    """Align by comparing images with each other and with reprojections.

    Returns the solution, the tilts that the others do not predict, and reasons to doubt the direction of the axis.
    """
    tracked = _track(series, None, band, max_shift)
    advance(1)
    direction = Direction(given_deg) if given_deg is not None else find_direction(series, tracked, band, near_deg)
    advance(2)
    solution = _solved(series, tracked, direction.angle_deg, band, max_shift, method)
    advance(3)
    solution = refine(method, series, solution, band, find_angle=given_deg is None)
    advance(4)
    unpredicted = unpredicted_tilts(solution)
    if unpredicted.any():  # once more, without them
        series, direction = replace(series, usable=series.usable & ~unpredicted), replace(direction, weights={})
        tracked = _track(series, None, band, max_shift)
        solution = _solved(series, tracked, solution.axis_angle_deg, band, max_shift, method)
        solution = refine(method, series, solution, band, find_angle=given_deg is None)
    doubts = []
    if given_deg is None:
        doubts = direction_warnings(series, tracked, band, direction, solution.axis_angle_deg)
    return solution, unpredicted, doubts


def can_show_axis(series: ReducedSeries) -> bool:
    """Return whether the tilts are enough, and range far enough, to find the tilt axis."""
    angles = series.angles_deg[series.usable]
    return len(angles) >= MIN_TILTS and bool(np.ptp(angles) >= MIN_RANGE_DEG)


def _levelled(solution: Solution, film: Film, corrections: ImageCorrections) -> tuple[Solution, ImageCorrections]:
    """Return the same alignment with tilt angles for which the film is not inclined.

    x cos(t) + z sin(t) does not change when the volume and all angles are turned by the same angle.
    """
    tilt = film.inclination_deg
    return (
        replace(solution, film=replace(film, inclination_deg=0.0, levelled_by_deg=-tilt)),
        replace(corrections, tilt_error_deg=corrections.tilt_error_deg - tilt),
    )


def _note_if_cut(solution: Solution, method: Method, where: str, notes: list[str], warnings: list[str]) -> None:
    """Add a note or warning where the sample extends beyond the frame or the patch."""
    if solution.whole:
        return
    if solution.film is not None:
        film = solution.film
        how = f"the tilt angles are changed by {film.levelled_by_deg:+.1f} degrees, so that it lies level in the volume"
        if not film.levelled_by_deg:
            how = "it lies so in the volume, in the middle of its depth"
        notes.append(
            f"the sample is a film that goes on beyond the {where}, inclined by {film.recorded_deg:.1f} degrees about "
            f"the tilt axis: {how}"
        )
        return
    if method in ABSOLUTE:
        warnings.append(
            f"the sample extends beyond the {where} across the tilt axis, so its centre of mass is unknown and method "
            f"{method} is unreliable; use method auto or reprojection"
        )
    elif method == "auto":
        notes.append(
            f"the sample extends beyond the {where} across the tilt axis: shifts and offset were found by comparing "
            "images with reprojections, which is less certain than the centre of mass"
        )


def _track(series: ReducedSeries, axis_angle_deg: float | None, band: Band, max_shift: float) -> NDArray[np.float64]:
    """Return shifts between neighbours in px of `series`, stretched across the axis if that makes them agree better."""
    small = series.reduced(TRACK_PX)
    reach = max_shift * max(small.images.shape[1:])
    shifts, scores = track_neighbours(small, None, band, reach)
    if axis_angle_deg is not None:
        stretched, better = track_neighbours(small, axis_angle_deg, band, reach)
        # Stretching is right for a film and wrong for a lump: the images say which the sample is.
        if np.nanmedian(better) > np.nanmedian(scores):
            shifts = stretched
    return shifts * small.factor / series.factor


def _without_axis(
    series: ReducedSeries, tracked: FloatArray, given_deg: float | None, near_deg: float | None, warnings: list[str]
) -> Solution:
    """Align by neighbours only, where there are too few tilts to find an axis."""
    angle = next((a for a in (given_deg, near_deg) if a is not None), 0.0)
    source = "given" if given_deg is not None else "nominal" if near_deg is not None else "assumed"
    warnings.append(
        f"{series.usable.sum()} usable tilts are too few, or cover too small a range, to find the tilt axis: its "
        f"direction is {angle:g} degrees ({source}), its offset 0 unless given, and shifts come from neighbouring "
        "images only"
    )
    moves = rotate_vectors(tracked, angle)
    return Solution(angle, moves - moves[series.usable].mean(axis=0), False)


def _solved(
    series: ReducedSeries, tracked: FloatArray, angle: float, band: Band, max_shift: float, method: Method
) -> Solution:
    """Solve at `angle` from the tracked shifts, and from stretched ones where those may be better."""
    solution = place(method, series, tracked, angle, band)
    if solution.whole or method in ABSOLUTE:
        return solution
    # Cut by the frame: the sample may well be a film, whose neighbours agree once stretched across the axis.
    stretched = _track(series, angle, band, max_shift)
    if np.array_equal(stretched, tracked):
        return solution
    if method == "xcorr":
        return place(method, series, stretched, angle, band)
    return min(solution, place(method, series, stretched, angle, band), key=lambda s: s.residual)


def _finish(
    series: ReducedSeries,
    view: View,
    solution: Solution,
    given_offset_px: float | None,
    method: str,
    notes: list[str],
    warnings: list[str],
    corrections: ImageCorrections | None = None,
    *,
    split: bool = True,
) -> tuple[Alignment, Placement]:
    """Split moves into shifts and offset, in raw pixels."""
    solution = view.back(solution, corrections)
    angle, factor = solution.axis_angle_deg, series.factor
    along = solution.moves_px[:, 0] - solution.moves_px[view.series.usable, 0].mean()
    across, offset_px = solution.moves_px[:, 1], given_offset_px or 0.0
    if split:
        width = aligned_shape(series.images.shape, angle)[1]
        room = (width / 2 - sample_reach(series.corrected(corrections), solution)) if solution.whole else np.inf
        across, offset = least_motion(
            across, series.angles_deg, view.series.usable, width, max(room, 0.0), level=solution.film is not None
        )
        offset_px = offset * factor
    if given_offset_px is not None:
        if abs(given_offset_px - offset_px) > 2:
            notes.append(
                f"the images suggest a tilt axis offset of {offset_px:.1f} px; {given_offset_px:g} px as given are used"
            )
        offset_px = given_offset_px
    shifts = unrotate_vectors(np.stack([along, across], axis=1), angle) * factor
    moves = rotate_vectors(shifts, angle) / factor - np.array([0.0, offset_px / factor])
    placement = Placement(
        view.series,
        view.moves(np.zeros_like(moves), angle),
        view.series.corrected(corrections),
        view.moves(moves, angle, corrections),
    )
    alignment = Alignment(
        shifts,
        angle,
        offset_px,
        solution.whole,
        method,
        notes,
        warnings,
        corrections=corrections,
        film=solution.film,
        tracks=solution.tracks,
    )
    return alignment, placement
