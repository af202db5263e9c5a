"""Absolute constraints that all tilts must meet, so that errors do not add up along the series.

A parallel projection keeps, row by row along the tilt axis, the total of the sample (the common line: the same profile
in every tilt) and moves the centre of mass of what those rows hold as x0 cos(t) + z0 sin(t) (the Helgason-Ludwig
conditions of order 0 and 1). The first gives the position along the axis, the second the position across it, of a
sample that is whole in the frame across the axis.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.alignment.finding.track import Band
from tomoseg.alignment.images.brightness import SIDE, TREND_TILTS, VACUUM_MEDIAN, VACUUM_MOST
from tomoseg.alignment.images.correlation import padded_shape, register_lines, taper
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.arrays import FloatArray

EXPECTED = 0.05  # part of the width by which axis and sample usually lie off the centre


def row_window(seen: NDArray[np.bool_], usable: NDArray[np.bool_], edge: float = 0.4) -> NDArray[np.float32]:
    """Return a weight for each row along the axis: tapered over the rows that nine tenths of the tilts show.

    `seen` is (n_tilt, y, x), whether a pixel lies inside the raw frame. The window lies in the aligned frame and is the
    same for all tilts, as the conditions demand.
    """
    shown = np.asarray(seen.any(axis=2))
    covered = shown[usable].mean(axis=0) >= 0.9
    rows = np.flatnonzero(covered)
    window = np.zeros(seen.shape[1], np.float32)
    if len(rows) < 4:
        return np.asarray(taper(window.shape, edge), np.float32)
    window[rows[0] : rows[-1] + 1] = taper((rows[-1] + 1 - rows[0],), edge)
    return window


def profiles(
    aligned: FloatArray, seen: NDArray[np.bool_], angles_deg: FloatArray, *, whole: bool
) -> NDArray[np.float64]:
    """Return (n_tilt, y) projections of the aligned images onto the tilt axis.

    Where the sample extends beyond the frame, the projection takes the same part of a flat sample in all tilts: a
    tapered window as wide as the frame at zero tilt, narrowed by cos(tilt), and the mean instead of the sum.
    """
    if whole:
        return np.asarray(aligned.sum(axis=2, dtype=float))
    width = aligned.shape[2]
    x = (np.arange(width) - (width - 1) / 2) / (width / 2)
    narrowed = np.maximum(np.abs(np.cos(np.deg2rad(angles_deg))), 0.3)
    window = np.cos(np.pi / 2 * np.clip(x / narrowed[:, None], -1, 1)) ** 2  # (n_tilt, x)
    # Tilt by tilt: all of them in f8 would be several times the images.
    total = np.stack([np.where(s, image * w, 0).sum(axis=1) for image, s, w in zip(aligned, seen, window, strict=True)])
    weight = np.stack([(s * w).sum(axis=1) for s, w in zip(seen, window, strict=True)])
    return np.asarray(total / np.maximum(weight, 1e-3 * weight.max()))


def register_profiles(
    lines: FloatArray, window: FloatArray, usable: NDArray[np.bool_], band: Band, factor: int, max_shift_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the moves that bring `profiles` (n_tilt, y) into register with their mean, through `row_window`.

    Returns
    -------
    moves : (n_tilt,) px to add to y', median 0 over the usable tilts; 0 for the others
    scores : (n_tilt,) normalised correlation with the mean; NaN for unusable tilts
    """
    n = lines.shape[1]
    padded = padded_shape((n,), 2.0)
    response = band.response(padded, n, factor)
    normal = lines / np.maximum(np.linalg.norm(lines * window, axis=1, keepdims=True), 1e-12)
    mean = normal[usable].mean(axis=0)
    moves, scores = np.zeros(len(lines)), np.full(len(lines), np.nan)
    moves[usable], scores[usable] = register_lines(
        _windowed(mean, window), _windowed(normal[usable], window), response, max_shift_px
    )
    moves[usable] -= np.median(moves[usable])
    return moves, scores


def _windowed(lines: FloatArray, window: FloatArray) -> FloatArray:
    """Return lines (..., y) less their means through the window, in it."""
    return np.asarray((lines - np.average(lines, axis=-1, weights=window, keepdims=True)) * window)


def centre_of_mass(aligned: FloatArray, window: FloatArray) -> NDArray[np.float64]:
    """Return the (n_tilt,) centre of mass across the axis, in px from the middle, of the rows that `window` weighs."""
    line = np.einsum("tyx,y->tx", aligned, window, dtype=float)
    x = np.arange(aligned.shape[2]) - (aligned.shape[2] - 1) / 2
    mass = line.sum(axis=1)
    safe = np.where(np.abs(mass) > 1e-9 * np.abs(line).sum(axis=1).max(initial=1e-30), mass, np.inf)
    return np.asarray((line @ x) / safe)


def brightness_at_sides(aligned: FloatArray, seen: NDArray[np.bool_], window: FloatArray) -> NDArray[np.float64]:
    """Return for each tilt how bright the brighter side of the frame across the axis is, as a part of the sample.

    0 is vacuum on both sides; 1 where that cannot be told.
    """
    lines = np.einsum("tyx,y->tx", aligned, window)
    inside = np.einsum("tyx,y->tx", seen, window) > 0.5 * window.sum()
    n_side = max(1, round(SIDE * aligned.shape[2]))
    found = np.ones(len(lines))
    for i, (line, known) in enumerate(zip(lines, inside, strict=True)):
        columns = np.flatnonzero(known)
        bright = np.quantile(line, 0.95)
        if len(columns) >= 4 * n_side and bright > 0:
            found[i] = max(line[columns[:n_side]].mean(), line[columns[-n_side:]].mean()) / bright
    return found


def is_whole(aligned: FloatArray, seen: NDArray[np.bool_], window: FloatArray, usable: NDArray[np.bool_]) -> bool:
    """Return whether the sample lies inside the frame across the axis in (nearly) all tilts: vacuum on both sides."""
    sides = brightness_at_sides(aligned, seen, window)[usable]
    return bool(np.median(sides) < VACUUM_MEDIAN and np.quantile(sides, 0.9) < VACUUM_MOST)


def intensity_scales(
    series: ReducedSeries, moves_px: FloatArray, axis_angle_deg: float, *, whole: bool
) -> NDArray[np.float64]:
    """Return the factor for each tilt that evens out changes of beam current or gain, 1 for unusable tilts.

    The HAADF signal of a `whole` sample adds up to the same in every tilt, so its total is made equal. The total of a
    sample that the frame cuts follows the path through it: only what differs from the trend over neighbouring
    tilts is taken out. `moves_px` are those of `ReducedSeries.warped`.
    """
    aligned, seen = series.warped(moves_px, axis_angle_deg)
    totals = np.einsum("tyx,y->t", aligned, row_window(seen, series.usable), dtype=float)
    scales = np.ones(series.n_tilt)
    usable = series.usable & (totals > 0)
    if usable.any():
        known = totals[usable]
        trend = (
            np.median(known) if whole else ndimage.median_filter(known, min(TREND_TILTS, len(known)), mode="nearest")
        )
        scales[usable] = trend / known
    return scales


def least_motion(
    moves_across: FloatArray,
    angles_deg: FloatArray,
    usable: NDArray[np.bool_],
    width_px: float,
    room_px: float = np.inf,
    *,
    level: bool = False,
) -> tuple[NDArray[np.float64], float]:
    """Split moves across the axis into shifts, which move the images as little as possible, and the axis offset.

    Moves are known up to x0 cos(t) + z0 sin(t), a translation of the sample. With
    moves = shifts - offset + x0 cos(t) + z0 sin(t), least squares gives the offset, x0 and z0 that leave the smallest
    shifts: the centre-of-mass sinusoid with a constant. A series that is aligned already stays where it is. The more
    the stage wandered, the less its mean position says about the axis: offset, x0 and z0 are drawn towards 0 as the
    standard deviation of the fit demands, with `EXPECTED` of the width of the frame as their own. The sample is moved
    by `room_px` at most, which keep it inside the frame. Where it lies `level` with the tilt axis already, z0 is 0.

    Returns
    -------
    shifts : (n_tilt,) px, across the axis
    offset : px
    """
    t = np.deg2rad(np.asarray(angles_deg, float))
    moves = np.asarray(moves_across, float)
    terms = np.stack([-np.ones(len(t)), np.cos(t), np.zeros(len(t)) if level else np.sin(t)], axis=1)
    free = np.linalg.lstsq(terms[usable], moves[usable], rcond=None)[0]
    rest = moves[usable] - terms[usable] @ free
    # Drift goes on from tilt to tilt: neighbouring residuals are not independent witnesses (AR(1) sample size).
    power = float(rest @ rest)
    alike = float(np.clip(rest[1:] @ rest[:-1] / power, 0, 0.95)) if power > 0 and len(rest) > 3 else 0.0
    variance = power / max(len(rest) - 3, 1) * (1 + alike) / (1 - alike)
    prior = np.sqrt(variance) / (EXPECTED * width_px) * np.eye(3)
    tiny = 1e-6 * np.eye(3)  # few tilts leave the three terms dependent
    matrix = np.vstack([terms[usable], prior, tiny])
    fit = np.linalg.lstsq(matrix, np.concatenate([moves[usable], np.zeros(6)]), rcond=None)[0]
    translation = terms[:, 1:] @ fit[1:]
    furthest = float(np.abs(translation[usable]).max(initial=0))
    if furthest > room_px:
        translation *= max(room_px, 0) / furthest
    return np.asarray(moves + fit[0] - translation), float(fit[0])
