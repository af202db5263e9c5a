"""The last digits of an alignment: direction of the axis and moves for which the tilts predict each other best."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from tomoseg.alignment.finding.axis import walk_to_minima
from tomoseg.alignment.finding.consistency import profiles, register_profiles, row_window
from tomoseg.alignment.finding.joint import STRAY, align_jointly
from tomoseg.alignment.finding.solve import ABSOLUTE, Method, Solution, fill_between, place, solve
from tomoseg.alignment.finding.track import Band
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import rotate_vectors, unrotate_vectors, wrap_axis_angle

# Longest sides of the reduced images on which a sample is refined together with its volume, and most passes. A sample
# that is placed absolutely needs the finest images only.
LEVELS = ((64, 30), (128, 16), (10_000, 12))
# Directions of the axis are compared in steps of so many degrees, on images of at most so many px on a side; passes of
# each comparison, and most steps of a kind.
DIRECTION_STEPS = ((2.0, 64), (0.4, 96))
DIRECTION_PASSES, MOST_STEPS = 10, 7
LINES_DEG = 0.1  # how far from there the common lines are believed
CHECK_PX, CHECK_PASSES = 128, 4  # longest side and passes by which moves are compared with those they came from


def refine(method: Method, series: ReducedSeries, solution: Solution, band: Band, *, find_angle: bool) -> Solution:
    """Return `solution` improved as far as its method goes, and for a better direction of the axis if asked."""
    if method == "xcorr":
        return solution
    if find_angle:
        angle = refine_angle(series, solution, band)
        shifts = unrotate_vectors(solution.moves_px, solution.axis_angle_deg)
        if method in ABSOLUTE:
            return place(method, series, shifts, angle, band)
        if solution.whole:
            solution = solve(series, shifts, angle, band, passes=2)
        else:
            solution = replace(solution, axis_angle_deg=angle, moves_px=rotate_vectors(shifts, angle))
    return solution if method in ABSOLUTE else refine_moves(series, solution)


def refine_angle(series: ReducedSeries, solution: Solution, band: Band) -> float:
    """Return the direction of the axis, near that of `solution`, for which images are best predicted by the others.

    About the minimum the residual is a parabola in the angle: its vertex through three points is the direction. Near
    it, common lines of a whole sample tell it still more precisely, if they tell it at all: those of a needle along the
    axis do not.
    """
    angle = solution.axis_angle_deg
    for step, longest in DIRECTION_STEPS:
        angle = _direction(series, solution, angle, step, longest)
    return _aligned_lines(series, solution, angle, band) if solution.whole else angle


def refine_moves(series: ReducedSeries, solution: Solution) -> Solution:
    """Improve moves together with a reconstruction, on finer and finer images.

    The new moves are taken only if the others then predict the images better.
    """
    found = solution
    for longest, passes in LEVELS[2 if solution.whole else 0 :]:
        small = series.reduced(longest)
        scale = series.factor / small.factor
        joint = align_jointly(small, found.moves_px * scale, found.axis_angle_deg, whole=found.whole, passes=passes)
        moves = fill_between(joint.moves_px / scale, small.usable)
        found = replace(found, moves_px=moves, residuals=joint.residuals)
    small = series.reduced(CHECK_PX)
    before, after = (held_out(small, series.factor, s) for s in (solution, found))
    return replace(found, residual=after) if after <= before else replace(solution, residual=before)


def unpredicted_tilts(solution: Solution) -> NDArray[np.bool_]:
    """Return which tilts the others do not predict, (n_tilt,): of something else, damaged, or at a wrong angle."""
    found = np.nan_to_num(np.array([]) if solution.residuals is None else solution.residuals)
    if not found.any():
        return np.zeros(len(solution.moves_px), bool)
    return np.asarray(found > STRAY * np.median(found[found > 0]))


def _direction(series: ReducedSeries, solution: Solution, start_deg: float, step: float, longest_px: int) -> float:
    """Return the direction near `start_deg` for which images are best predicted, from values `step` degrees apart."""
    small = series.reduced(longest_px)
    shifts = unrotate_vectors(solution.moves_px, solution.axis_angle_deg) * series.factor / small.factor

    def residual(one: ReducedSeries, angle: float) -> float:
        moves = rotate_vectors(shifts, angle)
        return align_jointly(one, moves, angle, whole=solution.whole, passes=DIRECTION_PASSES).residual

    (found,) = walk_to_minima(lambda angles: small.shared_out(residual, angles), [start_deg], step, MOST_STEPS)
    return found


def _aligned_lines(series: ReducedSeries, solution: Solution, near_deg: float, band: Band) -> float:
    """Return the direction of the axis for which common lines are most alike; `near_deg` if that is not near it."""
    shifts = unrotate_vectors(solution.moves_px, solution.axis_angle_deg)

    def cost(angle_deg: float) -> float:
        aligned, seen = series.warped(rotate_vectors(shifts, angle_deg), angle_deg)
        lines = profiles(aligned, seen, series.angles_deg, whole=True)
        window = row_window(seen, series.usable)
        _, scores = register_profiles(lines, window, series.usable, band, series.factor, 5.0)
        return 1 - float(np.nanmean(scores))

    bounds = (near_deg - LINES_DEG, near_deg + LINES_DEG)
    # A change by this much moves the ends of the frame by a tenth of a pixel of the reduced image.
    tolerance = float(np.clip(np.rad2deg(0.2 / max(series.images.shape[1:])), 0.005, LINES_DEG / 8))
    found = float(optimize.minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": tolerance}).x)
    return wrap_axis_angle(found) if abs(found - near_deg) < 0.9 * LINES_DEG else near_deg


def held_out(small: ReducedSeries, factor: int, solution: Solution) -> float:
    """Return the residual of images predicted by the others; moves are those of a series reduced by `factor`."""
    moves, angle = solution.moves_px * factor / small.factor, solution.axis_angle_deg
    return align_jointly(small, moves, angle, whole=solution.whole, passes=CHECK_PASSES, moving=False).residual
