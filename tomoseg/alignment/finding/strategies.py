"""The ways to place images from tracked shifts, about a given direction of the tilt axis, by the names users give."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.finding import solve as solver
from tomoseg.alignment.finding.consistency import centre_of_mass, is_whole, profiles, register_profiles, row_window
from tomoseg.alignment.finding.refine import follow_angle, refine_angle, refine_moves
from tomoseg.alignment.finding.solve import Solution
from tomoseg.alignment.finding.track import Band
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import rotate_vectors, unrotate_vectors
from tomoseg.arrays import FloatArray

Method = Literal["auto", "xcorr", "com", "common-line", "reprojection"]
PASSES = 4  # of centre of mass and common line: what the frame cuts off changes as the images move
ABSOLUTE = ("com", "common-line")  # right only for a sample that is whole in the frame


def place(method: Method, series: ReducedSeries, shifts_px: FloatArray, axis_angle_deg: float, band: Band) -> Solution:
    """Find moves from tracked shifts, for a given direction of the axis.

    Parameters
    ----------
    method : str
        auto: whichever of the next two suits the sample; common-line: common line along the axis and centre of mass
        across it; reprojection: comparison with what a quick reconstruction predicts; com: centre of mass in both
        directions; xcorr: the tracked shifts as they are.
    series : images with background 0
    shifts_px : (n_tilt, 2) array
        (dy, dx) of `track_neighbours`, in pixels of the reduced series.
    axis_angle_deg : float
    band : limits of the band-pass
    """
    moves = rotate_vectors(np.asarray(shifts_px, float), axis_angle_deg)
    if method == "auto":
        return solver.solve(series, shifts_px, axis_angle_deg, band)
    if method == "reprojection":
        return solver.solve_cut(series, moves, axis_angle_deg, band, passes=3)
    if method == "xcorr":
        return _as_tracked(series, moves, axis_angle_deg)
    return _absolute(method, series, moves, axis_angle_deg, band)


def refine(method: Method, series: ReducedSeries, solution: Solution, band: Band, *, find_angle: bool) -> Solution:
    """Return `solution` improved as far as its method goes, and for a better direction of the axis if asked."""
    if method == "xcorr":
        return solution
    if find_angle:
        angle = refine_angle(series, solution, band)
        if method in ABSOLUTE:
            shifts = unrotate_vectors(solution.moves_px, solution.axis_angle_deg)
            return place(method, series, shifts, angle, band)
        solution = follow_angle(series, solution, angle, band)
    return solution if method in ABSOLUTE else refine_moves(series, solution)


def _as_tracked(series: ReducedSeries, moves: NDArray[np.float64], axis_angle_deg: float) -> Solution:
    """Leave the tracked shifts as they are; what was tracked stands still, so the axis goes through its middle."""
    moves = moves - moves[series.usable].mean(axis=0)
    aligned, seen = series.warped(moves, axis_angle_deg)
    window = row_window(seen, series.usable)
    whole = is_whole(aligned, seen, window, series.usable)
    if whole:
        moves[:, 1] -= centre_of_mass(aligned, window)[series.usable].mean()
    return Solution(axis_angle_deg, moves, whole, float("nan"))


def _absolute(
    method: Method, series: ReducedSeries, moves: NDArray[np.float64], axis_angle_deg: float, band: Band
) -> Solution:
    """Bring the centre of mass of each image onto the axis, and along it to one height or the profiles together."""
    reach = series.images.shape[1] / 6
    for _ in range(PASSES):
        aligned, seen = series.warped(moves, axis_angle_deg)
        window = row_window(seen, series.usable)
        if method == "com":
            along = -centre_of_mass(aligned.transpose(0, 2, 1), np.ones(aligned.shape[2], np.float32))
        else:
            lines = profiles(aligned, seen, series.angles_deg, whole=True)
            along, _ = register_profiles(lines, window, series.usable, band, series.factor, reach)
        moves = moves + np.stack([along, -centre_of_mass(aligned, window)], axis=1)
        moves = solver.fill_between(moves, series.usable)
        reach = 5.0
    return Solution(axis_angle_deg, moves, solver.looks_whole(series, moves, axis_angle_deg), float("nan"))
