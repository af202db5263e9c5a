"""A film that the frame cuts on all sides: images and film are brought together patch by patch.

The film is reconstructed within its own thickness and as wide as any tilt shows it
(`tomoseg.alignment.finding.joint.Film`), and its projections are compared with the images. The displacement of every
patch in every image goes into one bundle adjustment (`tomoseg.alignment.markers.bundle`), in which each patch may lie
at any place, and moves and, where it is not known better, the direction of the axis are those that fit all patches.

The film follows the images, so that an error which changes slowly with tilt is seen at a part of its size, and would be
undone slowly. What a round does is a function of moves and axis, whose fixed point is sought with Anderson's mixing
(J. ACM 12, 547; 1965), which learns these slow directions from the last rounds.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.alignment.finding.joint import Film, Run, align_jointly
from tomoseg.alignment.finding.patch import TRACK_PX
from tomoseg.alignment.finding.solve import Solution, fill_between
from tomoseg.alignment.finding.track import Band, track_neighbours
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import rotate_vectors, unrotate_vectors, wrap_axis_angle
from tomoseg.alignment.markers.bundle import Bundle, adjust
from tomoseg.arrays import FloatArray
from tomoseg.reconstruction.operators import Floats

PASSES = 5  # of expectation maximisation in a round
PATCH = 0.075  # of the longer side: standard deviation of the window of a patch
SPACING = 1.2  # of patches, in such
LEAST_SHOWN = 0.6  # of a patch
LEAST_DETAIL = 0.05  # of the usual, in the poorer direction: a patch with less tells nothing
FEWEST_TILTS = 10
STEEPEST_DEG = 75.0  # tilt up to which the film's width is covered with patches
MEMORY = 5  # rounds that the mixing looks back
DAMPING = 1e-3
LARGEST_PX = 2.0  # change of a move in a round
STILL_PX = 0.003  # change, rms over tilts, at which to stop
FIT_PX = 96  # longest side of the images that are compared
JUDGE_PX, JUDGE_PASSES = 64, 5  # longest side and passes by which a film is told from other samples
SCAN_PX, SCAN_DEG, FINEST_DEG = 64, 12.0, 1.5  # longest side and steps of the search for the direction of the axis
ROUNDS = 14  # most rounds without markers: what changes slowly with tilt takes them
USUAL_DEPTH = 0.14  # of a film, as a part of the width of the frame


def by_film(
    series: ReducedSeries, band: Band, max_shift: float, *, axis_angle_deg: float | None = None
) -> Solution | None:
    """Align a film without markers; None if the sample is none.

    Neighbouring images of a film agree best when they are stretched across the true axis. So the direction for which
    they do is where to begin. `max_shift` is the largest step between neighbouring tilts, as a part of the longer side.
    """
    angle = _stretched_best(series, band, max_shift) if axis_angle_deg is None else axis_angle_deg
    small = series.reduced(TRACK_PX)
    shifts, _ = track_neighbours(small, angle, band, max_shift * max(small.images.shape[1:]))
    moves = rotate_vectors(shifts * small.factor / series.factor, angle)
    solution = Solution(angle, moves - moves[series.usable].mean(axis=0), False)
    return as_film(series, solution, Film(0.0, USUAL_DEPTH), turning=axis_angle_deg is None, rounds=ROUNDS)


def _stretched_best(series: ReducedSeries, band: Band, max_shift: float) -> float:
    """Return the direction of the axis across which images must be stretched to agree best with their neighbours."""
    small = series.reduced(SCAN_PX)
    reach = max_shift * max(small.images.shape[1:])

    def agreement(angle: float) -> float:
        return float(np.nanmean(track_neighbours(small, angle, band, reach)[1]))

    step = SCAN_DEG
    trials = np.arange(-90 + step, 90 + step / 2, step).tolist()
    with ThreadPoolExecutor(max(1, series.workers)) as pool:
        found = dict(zip(trials, pool.map(agreement, trials), strict=True))
        while step > FINEST_DEG:
            step /= 2
            best = max(found, key=found.__getitem__)
            beside = [best - step, best + step]
            found |= dict(zip(beside, pool.map(agreement, beside), strict=True))
    return wrap_axis_angle(max(found, key=found.__getitem__))


def as_film(series: ReducedSeries, solution: Solution, film: Film, *, turning: bool, rounds: int) -> Solution | None:
    """Return a solution improved as that of a film; None if the sample is explained better by other shapes.

    The parameters are those of `fit_film`.
    """
    small = series.reduced(JUDGE_PX)
    moves = solution.moves_px * series.factor / small.factor
    residuals = [
        align_jointly(
            small, moves, solution.axis_angle_deg, whole=False, film=one, passes=JUDGE_PASSES, moving=False
        ).residual
        for one in (film, None)
    ]
    if residuals[0] >= residuals[1]:
        return None
    small = series.reduced(FIT_PX)
    scale = series.factor / small.factor
    fit = fit_film(small, solution.axis_angle_deg, solution.moves_px * scale, film, turning=turning, rounds=rounds)
    judged = align_jointly(
        small, fit.moves_px, fit.axis_angle_deg, whole=False, film=fit.film, passes=PASSES, moving=False
    )
    angle, found = upright(fit.axis_angle_deg, fit.moves_px / scale)
    return replace(
        solution,
        axis_angle_deg=angle,
        moves_px=fill_between(found, series.usable),
        residual=judged.residual,
        residuals=judged.residuals,
        film=fit.film,
    )


def upright(axis_angle_deg: float, moves_px: FloatArray) -> tuple[float, NDArray[np.float64]]:
    """Return the same axis with its direction in (-90, 90], and the moves (n_tilt, 2) that go with it."""
    angle = wrap_axis_angle(axis_angle_deg)
    turned = round((axis_angle_deg - angle) / 180) % 2
    return angle, np.array(moves_px, float) * (-1 if turned else 1)


@dataclass(frozen=True)
class FilmFit:
    """Where the images of a film lie: direction of the axis, moves (n_tilt, 2) in px of the series, and the film.

    `change_px` is what the last round would have changed, rms over tilts; `bundle` that of the patches.
    """

    axis_angle_deg: float
    moves_px: NDArray[np.float64]
    film: Film
    change_px: float
    bundle: Bundle


def fit_film(
    series: ReducedSeries, axis_angle_deg: float, moves_px: FloatArray, film: Film, *, turning: bool, rounds: int
) -> FilmFit:
    """Improve the alignment of a film.

    Parameters
    ----------
    series : images with background 0
    axis_angle_deg, moves_px : to begin with, right to a few degrees and px; (n_tilt, 2) px of the series
    film : its depth, and inclination as far as known
    turning : bool
        Whether the direction of the axis may change.
    rounds : int
        Most rounds.
    """
    t = np.deg2rad(series.angles_deg)
    lever = max(series.images.shape[1:]) / 2  # px that the rim moves by when the axis turns by a radian
    point = np.concatenate([[np.deg2rad(axis_angle_deg) * lever], np.ravel(moves_px)])
    points: list[NDArray[np.float64]] = []
    steps: list[NDArray[np.float64]] = []
    for _ in range(max(rounds, 1)):
        angle, moves = float(np.rad2deg(point[0] / lever)), point[1:].reshape(-1, 2)
        bundle = _round(series, angle, moves, film, turning=turning)
        film, depth = _level(bundle, film)
        better = bundle.moves_px - depth * np.stack([np.zeros_like(t), np.sin(t)], axis=1)
        better = better - _translation(better - moves, t, series.usable)
        step = np.concatenate([[np.deg2rad(bundle.axis_angle_deg) * lever], better.ravel()]) - point
        change = float(np.sqrt(np.square(step[1:].reshape(-1, 2)[series.usable]).mean()))
        points, steps = [*points, point][-MEMORY:], [*steps, step][-MEMORY:]
        point = point + np.clip(_mixed(points, steps), -LARGEST_PX, LARGEST_PX)
        if change < STILL_PX:
            break
    angle, moves = float(np.rad2deg(point[0] / lever)), point[1:].reshape(-1, 2)
    return FilmFit(angle, moves, film, change, bundle)


def _mixed(points: list[NDArray[np.float64]], steps: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the next step from those of the last rounds (Anderson's mixing, by regularised least squares)."""
    if len(steps) == 1:
        return steps[0]
    d_steps, d_points = np.diff(np.array(steps), axis=0), np.diff(np.array(points), axis=0)
    normal = d_steps @ d_steps.T
    normal += DAMPING * np.trace(normal) / len(normal) * np.eye(len(normal)) + 1e-30 * np.eye(len(normal))
    part = np.linalg.solve(normal, d_steps @ steps[-1])
    return np.asarray(steps[-1] - part @ (d_points + d_steps))


def _translation(moves: FloatArray, t: FloatArray, usable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the part (n_tilt, 2) of moves that shifts the film along itself, which no image tells of."""
    along = np.full(len(t), moves[usable, 0].mean())
    cosines = np.cos(t)
    across = cosines * (cosines[usable] @ moves[usable, 1]) / max(float(cosines[usable] @ cosines[usable]), 1e-12)
    return np.stack([along, across], axis=1)


def _level(bundle: Bundle, film: Film) -> tuple[Film, float]:
    """Return the film with the inclination of its patches, and the depth (px) of its middle from the tilt axis."""
    slope, depth = plane_of(bundle.markers_px)
    return replace(film, inclination_deg=float(np.rad2deg(np.arctan(slope)))), depth


def plane_of(markers_px: FloatArray) -> tuple[float, float]:
    """Return slope dZ/dX and depth Z at the middle of the plane through markers (n, 3) (Y, X, Z), by least squares.

    Markers far off the plane do not count.
    """
    y, x, z = np.asarray(markers_px, float).T
    terms = np.stack([y, x, np.ones_like(x)], axis=1)
    kept = np.ones(len(z), bool)
    fit = np.zeros(3)
    for _ in range(3):
        fit = np.linalg.lstsq(terms[kept], z[kept], rcond=None)[0]
        rest = np.abs(z - terms @ fit)
        kept = rest <= 3 * max(1.4826 * float(np.median(rest)), 1e-6)
    return float(fit[1]), float(fit[2])


def _round(series: ReducedSeries, angle_deg: float, moves: FloatArray, film: Film, *, turning: bool) -> Bundle:
    """Reconstruct the film from either half of the tilts, and fit axis and moves to the patches of the other half.

    An image is compared with a film that it had no part in: its own noise in it would hold it where it is.
    """
    chosen = np.flatnonzero(series.usable)
    observed = []
    with ThreadPoolExecutor(max(1, series.workers)) as pool:
        for own, others in ((chosen[::2], chosen[1::2]), (chosen[1::2], chosen[::2])):
            run = Run(series, own, np.array(moves, np.float64), angle_deg, False, film)
            run.reconstruct(pool, PASSES)
            observed.append(_observed(run, pool, others))
    both = np.where(np.isfinite(observed[0]), observed[0], observed[1])
    often = np.isfinite(both[..., 0]).sum(axis=1) >= min(FEWEST_TILTS, len(chosen) // 2)
    width = float(max(series.images.shape[1:]))
    return adjust(both[often], series.angles_deg, angle_deg, moves, turning=turning, steps=20, width_px=width)


def _observed(run: Run, pool: ThreadPoolExecutor, tilts: NDArray[np.int_]) -> NDArray[np.float64]:
    """Return where some images of the series show the patches of a film, (n_patch, n_tilt, 2) (y, x)."""
    series, film = run.series, run.film
    assert film is not None
    predicted = run.predicted(pool, tilts)
    images, seen = run.resampled(pool, tilts)
    patches = _patches(run.shape, series.angles_deg, film)
    places = _places(patches, series.angles_deg[tilts], film)  # (n_patch, n, 2)
    sigma = PATCH * max(run.shape)
    found = list(pool.map(_displacements, images, predicted, seen, places.transpose(1, 0, 2), [sigma] * len(tilts)))
    steps = np.stack([step for step, _ in found], axis=1)  # (n_patch, n, 2), to ADD to moves
    detail = np.stack([one for _, one in found], axis=1)
    told = np.isfinite(detail)
    usual = float(np.median(detail[told])) if told.any() else 0.0
    steps[~told | (np.nan_to_num(detail) < LEAST_DETAIL * usual)] = np.nan
    observed = np.full((len(patches), series.n_tilt, 2), np.nan)
    observed[:, tilts] = unrotate_vectors(places - steps - run.moves[tilts], run.angle_deg)
    return observed


def _patches(shape: tuple[int, ...], angles_deg: FloatArray, film: Film) -> NDArray[np.float64]:
    """Return places (n, 2) (Y, X along the film) of patches that cover all of the film that is ever seen."""
    height, width = shape
    sigma = PATCH * max(shape)
    steepest = min(float(np.abs(np.asarray(angles_deg) - film.inclination_deg).max()), STEEPEST_DEG)
    reach = width / 2 / np.cos(np.deg2rad(steepest))
    rows = np.arange(-height / 2 + sigma / 2, height / 2, SPACING * sigma)
    columns = np.arange(-reach, reach, SPACING * sigma)
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def _places(patches: FloatArray, angles_deg: FloatArray, film: Film) -> NDArray[np.float64]:
    """Return where patches are seen, (n_patch, n_tilt, 2) (y', x') from the middle of the aligned frame."""
    seen_at = np.cos(np.deg2rad(np.asarray(angles_deg) - film.inclination_deg))
    along = np.broadcast_to(patches[:, :1], (len(patches), len(seen_at)))
    return np.stack([along, patches[:, 1:] * seen_at], axis=-1)


def _displacements(
    image: Floats, predicted: Floats, seen: NDArray[np.bool_], places: FloatArray, sigma: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the step (n, 2) to add to the move of an image at each place, and how much detail (n,) there is.

    Least squares in a Gaussian window: image - predicted = -(gradient of predicted) . displacement + constant.
    """
    shape = np.array(image.shape)
    known = ndimage.binary_erosion(seen, iterations=2)
    slope_y, slope_x = (np.asarray(slope, np.float32) for slope in np.gradient(predicted))
    at = np.asarray(places + (shape - 1) / 2, np.float64)
    sums = patch_sums(slope_y, slope_x, image - predicted, known, at, sigma)
    shown = sums[:, 5] >= LEAST_SHOWN * 2 * np.pi * sigma**2
    normal = sums[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    normal += 1e-9 * np.maximum(np.trace(normal, axis1=1, axis2=2), 1e-30)[:, None, None] * np.eye(3)
    steps, detail = np.full((len(at), 2), np.nan), np.full(len(at), np.nan)
    steps[shown] = np.linalg.solve(normal[shown], sums[shown, 6:, None])[:, :2, 0]
    constant = normal[:, :2, 2]
    slopes = normal[:, :2, :2] - constant[:, :, None] * constant[:, None] / normal[:, 2:, 2:]
    detail[shown] = np.linalg.eigvalsh(slopes[shown])[:, 0]
    return steps, detail


def _patch_sums(slope_y, slope_x, rest, known, at, sigma):  # type: ignore[no-untyped-def]
    """Return sums in Gaussian windows about places `at` (n, 2): 6 of the matrix for (y, x, 1), 3 of the right side.

    Pixels that are not `known` have no weight; all sums are 0 about places outside the image.
    """
    height, width = rest.shape
    sums = np.zeros((len(at), 9))
    reach = int(np.ceil(2.5 * sigma))
    for k in range(len(at)):
        y, x = at[k]
        if not (0 <= y <= height - 1 and 0 <= x <= width - 1):
            continue
        middle_y, middle_x = int(np.rint(y)), int(np.rint(x))
        for row in range(max(middle_y - reach, 0), min(middle_y + reach + 1, height)):
            along = np.exp(-0.5 * ((row - y) / sigma) ** 2)
            for column in range(max(middle_x - reach, 0), min(middle_x + reach + 1, width)):
                if not known[row, column]:
                    continue
                w = along * np.exp(-0.5 * ((column - x) / sigma) ** 2)
                gy, gx, r = slope_y[row, column], slope_x[row, column], rest[row, column]
                sums[k, 0] += w * gy * gy
                sums[k, 1] += w * gy * gx
                sums[k, 2] += w * gy
                sums[k, 3] += w * gx * gx
                sums[k, 4] += w * gx
                sums[k, 5] += w
                sums[k, 6] += w * gy * r
                sums[k, 7] += w * gx * r
                sums[k, 8] += w * r
    return sums


patch_sums: Callable[..., NDArray[np.float64]] = numba.njit(nogil=True, cache=True, fastmath=True)(_patch_sums)
