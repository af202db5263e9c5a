"""The direction of the tilt axis, from the images.

For each direction tried, the images are placed (`tomoseg.alignment.finding.solve`) and a quick reconstruction without
negative densities is projected back: only about the true axis can one object explain all tilts. The half circle is
scanned on small images, so that no direction is missed. Directions that explain them about as well are weighed by some
passes of joint alignment (`tomoseg.alignment.finding.joint`): each is followed to where these explain the images best,
and then compared by how well one half of the tilts predicts the other, which tells them apart far better.

A nominal direction, from the file's metadata, is a hint: another direction is taken if it explains the images clearly
better.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from tomoseg.alignment.finding.joint import Joint, align_jointly, predicted_by_halves
from tomoseg.alignment.finding.solve import Solution, looks_whole, solve
from tomoseg.alignment.finding.track import Band
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import wrap_axis_angle
from tomoseg.arrays import FloatArray

SCAN_STEP_DEG = 6.0  # basins measured on needles and catalysts are 8 degrees wide and more
SCAN_PX, COARSE_PX, FINE_PX = 48, 64, 128
SAFE_RANGE_DEG = 80.0
# A sample that may go on outside the frame explains more with less: it must do so much better to be preferred.
CUT_HANDICAP = 1.5
APART_DEG = 15.0  # directions nearer to each other than this count as one
NEAR_DEG = 20.0  # about a nominal direction: its best direction is sought from here
MOST_CANDIDATES = 4
SIMILAR = 1.25  # residual in the scan, as a multiple of that of the best direction, at which one is weighed
SCAN_PASSES, WEIGH_PASSES = 6, 10
EVERY = 2  # of the directions of the scan
MOST_STEPS = 6  # of the scan, that a direction is followed
# A direction explains the images clearly better where its residual is less than this part of the other one's. Measured
# on 48 simulated series: a direction 90 degrees off has at least 1 / 0.71 times the residual of the true one (whole
# samples, needles, samples cut by the frame), while on films wrong ones may have 0.89 times that of the true one.
CLEAR = 0.85
HALF_PREDICTED = 0.5**0.5  # residual at which half of the power of the images is explained; beyond, it says nothing
OTHER_AXIS_DEG = 45.0  # from the nominal direction: nearer to the other side of the images
AT_EDGE, MOST_RANGES = 0.9, 8  # part of a range beyond which a minimum is at its edge, and most ranges in a row


@dataclass(frozen=True)
class Weight:
    """How well half of the tilts predict the others about an axis: residual of the median tilt.

    `whole` says whether the sample, placed about that axis, ends inside the frame across it.
    """

    residual: float
    whole: bool


@dataclass(frozen=True)
class Direction:
    """The direction of the tilt axis in (-90, 90], degrees from the raw image's vertical.

    `nominal_deg` is that of the metadata, if any, and `others_deg` are directions that were weighed and not taken;
    `weights` are those of all that were weighed.
    """

    angle_deg: float
    nominal_deg: float | None = None
    others_deg: tuple[float, ...] = ()
    weights: Mapping[float, Weight] = field(default_factory=dict)


def find_direction(
    series: ReducedSeries, shifts_px: FloatArray, band: Band, nominal_deg: float | None = None
) -> Direction:
    """Find the direction of the tilt axis.

    `shifts_px` (n_tilt, 2) are (dy, dx) of `track_neighbours`. A direction that is not near the nominal one, where it
    is known, must explain the images clearly better.
    """
    trials = np.arange(-90 + SCAN_STEP_DEG, 90 + SCAN_STEP_DEG / 2, SCAN_STEP_DEG)
    small = series.reduced(SCAN_PX)
    shifts = np.asarray(shifts_px) * series.factor
    scan = small.shared_out(lambda one, angle: _placed(one, shifts / one.factor, band, angle), trials)
    starts = _candidates(trials, scan, nominal_deg)
    first = scan[starts[0]]
    if len(starts) == 1 and first.whole:
        coarse, fine = (_measure(series.reduced(longest), shifts, band) for longest in (COARSE_PX, FINE_PX))
        angle = _descend(coarse, first.axis_angle_deg, SCAN_STEP_DEG, 0.3)
        return Direction(wrap_axis_angle(_descend(fine, angle, 1.0, 0.05)), nominal_deg)
    jointly = small.shared_out(lambda one, solution: _joined(one, solution, SCAN_PASSES), scan[::EVERY])
    starting = _minima(np.array([joint.median for joint in jointly]))[:MOST_CANDIDATES]
    near = [first.axis_angle_deg] + [scan[::EVERY][k].axis_angle_deg for k in starting]
    if nominal_deg is not None:
        near.insert(1, nominal_deg)  # on films the scan has minima beside the true direction
    angles = _apart(_followed(series.reduced(COARSE_PX), shifts, band, _apart(near)))
    weights = _weights(series, shifts, band, angles)
    best = _chosen([weights[angle] for angle in angles], _hinted(angles, nominal_deg))
    others = tuple(angle for k, angle in enumerate(angles) if k != best)
    return Direction(angles[best], nominal_deg, others, weights)


def _minima(residuals: NDArray[np.float64]) -> list[int]:
    """Return where residuals around the half circle are less than at either side, the least first."""
    lower = (residuals <= np.roll(residuals, 1)) & (residuals < np.roll(residuals, -1))
    return sorted(map(int, np.flatnonzero(lower)), key=lambda k: residuals[k])


def _apart(angles_deg: list[float]) -> list[float]:
    """Return directions in (-90, 90] without those that are near to an earlier one."""
    kept: list[float] = []
    for angle in map(wrap_axis_angle, angles_deg):
        if all(distance_deg(angle, other) > APART_DEG for other in kept):
            kept.append(angle)
    return kept


def distance_deg(a: FloatArray | float, b: float) -> NDArray[np.float64]:
    """Return the angle between directions of an axis, 0 to 90 degrees."""
    return np.asarray(np.abs((np.asarray(a) - b + 90) % 180 - 90))


def weigh(small: ReducedSeries, raw_shifts_px: FloatArray, band: Band, angle_deg: float) -> Weight:
    """Return how well the tilts predict each other about an axis of this direction, after some passes together."""
    placed = _placed(small, raw_shifts_px / small.factor, band, angle_deg)
    moves = _joined(small, placed, WEIGH_PASSES).moves_px
    return _weight(small, moves, placed.axis_angle_deg, whole=placed.whole)


def _weights(
    series: ReducedSeries, raw_shifts_px: FloatArray, band: Band, angles_deg: Sequence[float]
) -> dict[float, Weight]:
    """Return the weights of directions, on all threads."""
    small = series.reduced(COARSE_PX)
    found = small.shared_out(lambda one, angle: weigh(one, raw_shifts_px, band, angle), angles_deg)
    return dict(zip(angles_deg, found, strict=True))


def prefer(series: ReducedSeries, preferred: Solution, other: Solution) -> Solution:
    """Return the solution with which the tilts predict each other: `preferred`, unless `other` is clearly better.

    It is as well where the sample ends inside the frame with it alone, unless `preferred` is clearly better.
    """
    solutions = [preferred, other]
    small = series.reduced(COARSE_PX)
    weights = []
    for one in solutions:
        moves = one.moves_px * series.factor / small.factor
        whole = looks_whole(small, moves, one.axis_angle_deg)
        weights.append(_weight(small, moves, one.axis_angle_deg, whole=whole))
    first = np.array([weights[0].whole == weights[1].whole, False])
    return solutions[_chosen(weights, first)]


def _weight(small: ReducedSeries, moves_px: FloatArray, axis_angle_deg: float, *, whole: bool) -> Weight:
    residuals = predicted_by_halves(small, moves_px, axis_angle_deg, whole=whole)
    return Weight(float(np.nanmedian(residuals)), whole)


def _joined(small: ReducedSeries, placed: Solution, passes: int) -> Joint:
    """Return what some passes of joint alignment make of a solution for `small`."""
    return align_jointly(small, placed.moves_px, placed.axis_angle_deg, whole=placed.whole, passes=passes)


def _followed(small: ReducedSeries, raw_shifts_px: FloatArray, band: Band, starts_deg: Sequence[float]) -> list[float]:
    """Return the directions near `starts_deg` about which joint alignment explains the images best.

    The residual of the scan is flat for a needle; that of joint alignment falls towards the direction from far away.
    """

    def residual(one: ReducedSeries, angle_deg: float) -> float:
        placed = _placed(one, raw_shifts_px / one.factor, band, angle_deg)
        return _joined(one, placed, WEIGH_PASSES).median

    return walk_to_minima(lambda angles: small.shared_out(residual, angles), starts_deg, SCAN_STEP_DEG, MOST_STEPS)


def _candidates(trials: NDArray[np.float64], scan: list[Solution], nominal_deg: float | None) -> list[int]:
    """Return indices of directions worth weighing, far from each other: first the one to beat, then the best others."""
    raw = np.array([s.residual for s in scan])
    costs = raw * np.array([1.0 if s.whole else CUT_HANDICAP for s in scan])
    allowed = np.ones(len(trials), bool) if nominal_deg is None else distance_deg(trials, nominal_deg) <= NEAR_DEG
    chosen = [int(np.flatnonzero(allowed)[np.argmin(costs[allowed])])]
    first = chosen[0]
    # Residuals of whole and cut samples are hardly comparable: either way of comparing them admits a direction.
    similar = (raw <= SIMILAR * raw[first]) | (costs <= SIMILAR * costs[first])
    for k in np.argsort(costs, kind="stable"):
        apart = all(distance_deg(trials[k], trials[other]) > APART_DEG for other in chosen)
        if similar[k] and apart and len(chosen) < MOST_CANDIDATES:
            chosen.append(int(k))
    return chosen


def _hinted(angles_deg: list[float], nominal_deg: float | None) -> NDArray[np.bool_]:
    """Return which directions are near the nominal one: the first, which was sought there, and others; none without."""
    if nominal_deg is None:
        return np.zeros(len(angles_deg), bool)
    near = distance_deg(np.array(angles_deg), nominal_deg) <= NEAR_DEG
    near[0] = True
    return near


def _chosen(weights: list[Weight], hinted: NDArray[np.bool_]) -> int:
    """Return the index of the best direction.

    A `hinted` direction is preferred, or without one a sample that ends inside the frame, unless others are clearly
    better.
    """
    residuals, whole = np.array([w.residual for w in weights]), np.array([w.whole for w in weights])
    return _unless_clear(residuals, hinted if hinted.any() else whole)


def _unless_clear(residuals: NDArray[np.float64], preferred: NDArray[np.bool_]) -> int:
    """Return the index of the least residual; of the least `preferred` one unless another is clearly less."""
    best = int(np.argmin(residuals))
    if not preferred.any():
        return best
    near = int(np.flatnonzero(preferred)[np.argmin(residuals[preferred])])
    is_clear = residuals[best] < CLEAR * residuals[near] and residuals[best] < HALF_PREDICTED
    return best if is_clear else near


def direction_warnings(
    series: ReducedSeries, shifts_px: FloatArray, band: Band, direction: Direction, used_deg: float
) -> list[str]:
    """Return a sentence for each reason to doubt the direction that is finally used.

    All figures are of that direction and its rivals as they are named. The `weights` of the direction found, if it has
    any, are those of this series.
    """
    warnings = []
    nominal = direction.nominal_deg
    contradicted = nominal is not None and distance_deg(used_deg, nominal) > OTHER_AXIS_DEG
    weighed = [*direction.others_deg, *([nominal] if nominal is not None and contradicted else [])]
    weighed += [used_deg] if weighed else []
    unknown = [angle for angle in weighed if angle not in direction.weights]
    weights = {**direction.weights, **_weights(series, np.asarray(shifts_px) * series.factor, band, unknown)}

    def residual(angle_deg: float) -> float:
        return weights[angle_deg].residual

    if nominal is not None and contradicted:
        beside = [angle for angle in direction.others_deg if distance_deg(angle, nominal) <= OTHER_AXIS_DEG]
        closest = min(beside, key=residual, default=nominal)
        warnings.append(
            f"the metadata say that the tilt axis lies along {axis_name(nominal)} ({nominal:g} degrees from the "
            f"vertical), but the images show it at {used_deg:.1f} degrees: they explain each other with a residual of "
            f"{residual(used_deg):.3f} there, of {residual(closest):.3f} at {closest:.0f} degrees. The metadata must "
            "be wrong and are not used; if they are right, give tilt_axis_angle"
        )
    for rival in direction.others_deg:
        if distance_deg(used_deg, rival) <= APART_DEG:
            continue
        # A sample that may go on outside the frame explains more with less.
        stricter = weights[rival].whole and not weights[used_deg].whole
        if residual(rival) > residual(used_deg) * (CUT_HANDICAP if stricter else 1 / CLEAR):
            continue
        reason = ""
        if nominal is not None and not contradicted:
            reason = f", which are nearer to the nominal direction, {nominal:g} degrees"
        warnings.append(
            f"the direction of the tilt axis is uncertain: {rival:.0f} degrees explains the images about as well "
            f"(residual {residual(rival):.3f}) as the {used_deg:.1f} degrees used (residual {residual(used_deg):.3f})"
            f"{reason}; give tilt_axis_angle if it is known"
        )
    covered = float(np.ptp(series.angles_deg[series.usable]))
    if covered < SAFE_RANGE_DEG:
        warnings.append(
            f"the tilts cover only {covered:g} degrees: the direction and offset of the tilt axis found from them are "
            "uncertain"
        )
    return warnings


def axis_name(angle_deg: float) -> str:
    """Return which side of the images an axis is nearer to: 'x' or 'y'."""
    return "x" if abs(wrap_axis_angle(angle_deg)) > OTHER_AXIS_DEG else "y"


def _placed(small: ReducedSeries, shifts_px: FloatArray, band: Band, angle_deg: float) -> Solution:
    """Return the places of small images about an axis of this direction; shifts (n_tilt, 2) are in their px."""
    return solve(small, shifts_px, wrap_axis_angle(angle_deg), band, passes=1)


def _measure(small: ReducedSeries, raw_shifts_px: FloatArray, band: Band) -> Callable[[float], Solution]:
    """Return `_placed` as a function of the angle."""
    return partial(_placed, small, raw_shifts_px / small.factor, band)


def _descend(measure: Callable[[float], Solution], start: float, reach: float, tolerance: float) -> float:
    """Return the angle about `start` with the smallest residual, to `tolerance` degrees, for a whole sample.

    It is sought within `reach` degrees; a minimum at the edge of that range is none, and the next range is about it.
    """

    def cost(angle_deg: float) -> float:
        solution = measure(angle_deg)
        return solution.residual * (1.0 if solution.whole else CUT_HANDICAP)

    centre = float(start)
    for _ in range(MOST_RANGES):
        bounds = (centre - reach, centre + reach)
        found = optimize.minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": tolerance})
        at_edge = abs(found.x - centre) > AT_EDGE * reach
        centre = float(found.x)
        if not at_edge:
            break
    return centre


def walk_to_minima(
    costs: Callable[[Sequence[float]], list[float]], starts_deg: Sequence[float], step_deg: float, most_steps: int
) -> list[float]:
    """Return where a cost is least near each of `starts_deg`, from values `step_deg` apart.

    It is the vertex of a parabola in three. Still falling after so many steps, the cost is a slope, not a minimum, and
    says nothing: the start is returned. `costs` returns those of several angles; it is asked for all walks together.
    """
    walks = [_walk(start, step_deg, most_steps) for start in starts_deg]
    asked = {k: next(walk) for k, walk in enumerate(walks)}
    found: dict[int, float] = {}
    while asked:
        values = iter(costs([angle for angles in asked.values() for angle in angles]))
        for k, angles in list(asked.items()):
            try:
                asked[k] = walks[k].send([next(values) for _ in angles])
            except StopIteration as end:
                found[k] = end.value
                del asked[k]
    return [found[k] for k in range(len(walks))]


def _walk(start_deg: float, step_deg: float, most_steps: int) -> Generator[list[float], list[float], float]:
    """Walk to a minimum: yield angles, take their costs, return where it is; see `walk_to_minima`."""
    known: dict[float, float] = {}
    angle = start_deg
    for _ in range(most_steps):
        three = [angle + k * step_deg for k in (-1, 0, 1)]
        new = [one for one in three if one not in known]
        known |= dict(zip(new, (yield new), strict=True))
        low, middle, high = (known[one] for one in three)
        if middle <= min(low, high):
            curvature = low - 2 * middle + high
            return wrap_axis_angle(angle + (step_deg * 0.5 * (low - high) / curvature if curvature > 0 else 0.0))
        angle += step_deg if high < low else -step_deg
    return wrap_axis_angle(start_deg)
