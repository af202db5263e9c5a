"""The place of every image, for a given direction of the tilt axis.

Moves are what shifts and axis offset amount to together: (dy', dx') to add to coordinates after rotation, so that the
axis comes to the middle of the frame.

A sample that is whole across the axis is placed absolutely: along the axis by the common line, across it by the centre
of mass, which follows a sinusoid about the axis; nothing can add up. A sample that extends beyond the frame has no
centre of mass: its shifts come from the chain of neighbours, and the axis offset is the one for which a quick
reconstruction explains the images best.

Both are then improved together with a reconstruction (`tomoseg.alignment.finding.refine`).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from tomoseg.alignment.finding.consistency import (
    brightness_at_sides,
    centre_of_mass,
    is_whole,
    profiles,
    register_profiles,
    row_window,
)
from tomoseg.alignment.finding.joint import Film
from tomoseg.alignment.finding.reproject import Prediction, predict, register_with
from tomoseg.alignment.finding.track import Band
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import rotate_vectors
from tomoseg.alignment.markers.tracks import Tracks
from tomoseg.arrays import FloatArray

Method = Literal["auto", "xcorr", "com", "common-line", "reprojection", "markers"]
ABSOLUTE = ("com", "common-line")  # right only for a sample that is whole in the frame
PASSES = 4  # of centre of mass and common line: what the frame cuts off changes as the images move
OFFSET_REACH = 0.12  # part of the width within which the offset is searched
OFFSET_PX = 128  # longest side of the reduced images on which it is searched
TOUCHING = 0.03  # brightness at a side of the frame, as a part of the sample's, that a cut sample has at least
STRAY_PX = 0.75  # least disagreement of an image with its prediction that makes it a stray, in px of the reduced images


@dataclass(frozen=True)
class Solution:
    """Moves for one direction of the axis.

    `moves_px` (n_tilt, 2) are (dy', dx') in pixels of the reduced series, `whole` says whether the sample is whole
    across the axis, so that the centre of mass was used. The smaller the `residual`, the better the tilts agree, see
    `Prediction`; `residuals` (n_tilt,) are those of each tilt refined together with a reconstruction, NaN for unusable
    ones. `film` is the shape of the sample, where it turned out to be one, and `tracks` are the markers that moves were
    found from.
    """

    axis_angle_deg: float
    moves_px: NDArray[np.float64]
    whole: bool
    residual: float = math.nan
    residuals: NDArray[np.float64] | None = None
    film: Film | None = None
    tracks: Tracks | None = None


def place(method: Method, series: ReducedSeries, shifts_px: FloatArray, axis_angle_deg: float, band: Band) -> Solution:
    """Find moves from tracked shifts (n_tilt, 2) in px of `series`, for a given direction of the axis.

    Methods: auto: whichever of the next two suits the sample; common-line: common line along the axis and centre of
    mass across it; reprojection: comparison with what a quick reconstruction predicts; com: centre of mass in both
    directions; xcorr: the tracked shifts as they are.
    """
    if method == "auto":
        return solve(series, shifts_px, axis_angle_deg, band)
    moves = rotate_vectors(np.asarray(shifts_px, float), axis_angle_deg)
    if method == "reprojection":
        return _solve_cut(series, moves, axis_angle_deg, passes=3)
    if method == "xcorr":
        return _as_tracked(series, moves, axis_angle_deg)
    reach = series.images.shape[1] / 6
    for _ in range(PASSES):
        moves = moves + _absolute_step(series, moves, axis_angle_deg, band, reach, by_lines=method == "common-line")
        moves = fill_between(moves, series.usable)
        reach = 5.0
    return Solution(axis_angle_deg, moves, looks_whole(series, moves, axis_angle_deg))


def _as_tracked(series: ReducedSeries, moves: NDArray[np.float64], axis_angle_deg: float) -> Solution:
    """Leave the tracked shifts as they are; what was tracked stands still, so the axis goes through its middle."""
    moves = moves - moves[series.usable].mean(axis=0)
    aligned, seen = series.warped(moves, axis_angle_deg)
    window = row_window(seen, series.usable)
    whole = is_whole(aligned, seen, window, series.usable)
    if whole:
        moves[:, 1] -= centre_of_mass(aligned, window)[series.usable].mean()
    return Solution(axis_angle_deg, moves, whole)


def solve(
    series: ReducedSeries, shifts_px: FloatArray, axis_angle_deg: float, band: Band, *, passes: int = 3
) -> Solution:
    """Find moves from tracked shifts by the method that suits the sample, refined `passes` times.

    One pass is enough to compare directions of the axis.
    """
    moves = rotate_vectors(np.asarray(shifts_px, float), axis_angle_deg)
    if looks_whole(series, moves, axis_angle_deg):
        solution = _solve_whole(series, moves, axis_angle_deg, band, passes)
        if solution is not None:
            return solution
    return _solve_cut(series, moves, axis_angle_deg, passes)


def looks_whole(series: ReducedSeries, moves: NDArray[np.float64], axis_angle_deg: float) -> bool:
    """Return whether the sample, placed like this, lies inside the frame across the axis."""
    aligned, seen = series.warped(moves, axis_angle_deg)
    return is_whole(aligned, seen, row_window(seen, series.usable), series.usable)


def _solve_whole(
    series: ReducedSeries, moves: NDArray[np.float64], axis_angle_deg: float, band: Band, passes: int
) -> Solution | None:
    """Place a whole sample by common line and centre of mass; None where too many tilts contradict that."""
    moves = moves.copy()
    reach = series.images.shape[1] / 6
    for _ in range(max(2, passes)):
        moves += _absolute_step(series, moves, axis_angle_deg, band, reach)
        reach = 5.0
    if passes == 1:
        residual = _residual(series, moves, axis_angle_deg, whole=True)
        return Solution(axis_angle_deg, fill_between(moves, series.usable), True, residual)
    for _ in range(passes):
        aligned, seen = series.warped(moves, axis_angle_deg)
        prediction = _predicted(series, aligned, seen, whole=True)
        steps = register_with(series, prediction, aligned, seen, band, reach)
        stray = _strays(steps, series.usable)
        if stray.sum() > 0.3 * series.usable.sum():
            return None
        # An image whose sample drifted partly out of the frame has a wrong centre of mass; its prediction is right.
        # Elsewhere it is the other way round: predictions from tilts far apart are the less certain of the two.
        stray &= brightness_at_sides(aligned, seen, row_window(seen, series.usable)) > TOUCHING
        if not stray.any():
            break
        moves[stray] += steps[stray]
    return Solution(axis_angle_deg, fill_between(moves, series.usable), True, prediction.residual)


def _absolute_step(
    series: ReducedSeries,
    moves: NDArray[np.float64],
    axis_angle_deg: float,
    band: Band,
    reach: float,
    *,
    by_lines: bool = True,
) -> NDArray[np.float64]:
    """Return further moves by centre of mass, but along the axis by common line if asked."""
    aligned, seen = series.warped(moves, axis_angle_deg)
    window = row_window(seen, series.usable)
    if by_lines:
        lines = profiles(aligned, seen, series.angles_deg, whole=True)
        along, _ = register_profiles(lines, window, series.usable, band, series.factor, reach)
    else:
        along = -centre_of_mass(aligned.transpose(0, 2, 1), np.ones(aligned.shape[2], np.float32))
    return np.stack([along, -centre_of_mass(aligned, window)], axis=1)


def _residual(series: ReducedSeries, moves: NDArray[np.float64], axis_angle_deg: float, *, whole: bool) -> float:
    """Return the residual of the predicted tilts; a sample that extends beyond the frame is continued there."""
    aligned, seen = series.warped(moves, axis_angle_deg, extend=not whole)
    return _predicted(series, aligned, seen, whole=whole).residual


def _strays(steps: NDArray[np.float64], usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which tilts disagree with their prediction far more than most."""
    size = np.abs(steps - np.median(steps[usable], axis=0))
    limit = np.maximum(STRAY_PX, 8 * np.median(size[usable], axis=0))
    return np.asarray(usable & (size > limit).any(axis=1))


def _predicted(
    series: ReducedSeries, aligned: NDArray[np.float32], seen: NDArray[np.bool_], *, whole: bool
) -> Prediction:
    """Predict all tilts, brought to one brightness first where the sample is whole: its total is the same in all."""
    scales = None
    if whole:
        total = np.einsum("tyx,y->t", aligned, row_window(seen, series.usable), dtype=float)
        usual = np.median(total[series.usable])
        scales = np.where(total > 0.2 * usual, usual / np.maximum(total, 1e-30), 1.0)
    return predict(series, aligned, seen, whole=whole, scales=scales)


def _solve_cut(series: ReducedSeries, moves: NDArray[np.float64], axis_angle_deg: float, passes: int) -> Solution:
    """Place a sample that extends beyond the frame by its predictions and the best axis offset."""
    moves = moves - moves[series.usable].mean(axis=0)
    if passes == 1:
        trials = [_shifted(moves, o) for o in _offsets(series, axis_angle_deg)]
        found = [Solution(axis_angle_deg, t, False, _residual(series, t, axis_angle_deg, whole=False)) for t in trials]
        return min(found, key=lambda s: s.residual)
    small = series.reduced(OFFSET_PX)
    scale = series.factor / small.factor
    moves = _shifted(moves, best_offset(small, moves * scale, axis_angle_deg) / scale)
    residual = _residual(small, moves * scale, axis_angle_deg, whole=False)
    return Solution(axis_angle_deg, fill_between(moves, series.usable), False, residual)


def _shifted(moves: NDArray[np.float64], across_px: float) -> NDArray[np.float64]:
    """Return all moves with a constant added across the axis."""
    return np.asarray(moves + np.array([0.0, across_px]))


def _offsets(series: ReducedSeries, axis_angle_deg: float) -> NDArray[np.float64]:
    """Return trial offsets in px, in both directions."""
    width = series.images.shape[1 if abs(axis_angle_deg) > 45 else 2]
    return np.asarray(np.linspace(-1, 1, 5) * OFFSET_REACH * width)


def best_offset(series: ReducedSeries, moves: NDArray[np.float64], axis_angle_deg: float) -> float:
    """Return the constant move across the axis for which a quick reconstruction explains the images best."""

    def residual(offset: float) -> float:
        return _residual(series, _shifted(moves, offset), axis_angle_deg, whole=False)

    trials = _offsets(series, axis_angle_deg)
    values = [residual(o) for o in trials]
    centre, step = trials[int(np.argmin(values))], trials[1] - trials[0]
    found = optimize.minimize_scalar(
        residual, bounds=(centre - step, centre + step), method="bounded", options={"xatol": 0.1}
    )
    return float(found.x)


def fill_between(moves: NDArray[np.float64], usable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give unusable tilts the moves that lie between their neighbours'."""
    out, index = moves.copy(), np.arange(len(moves))
    for axis in (0, 1):
        out[~usable, axis] = np.interp(index[~usable], index[usable], moves[usable, axis])
    return out


def sample_reach(series: ReducedSeries, solution: Solution) -> float:
    """Return how far from the axis, in px of the reduced series, the sample reaches in nearly all tilts."""
    aligned, seen = series.warped(solution.moves_px, solution.axis_angle_deg)
    line = np.einsum("tyx,y->tx", aligned, row_window(seen, series.usable))[series.usable]
    bright = np.quantile(line, 0.95, axis=1, keepdims=True)
    x = np.abs(np.arange(line.shape[1]) - (line.shape[1] - 1) / 2)
    return float(np.quantile(np.where(line > 0.05 * bright, x, 0).max(axis=1), 0.9))
