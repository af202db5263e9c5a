"""The direction of the tilt axis, from the images alone.

For each direction tried, the images are placed (`tomoseg.alignment.finding.solve`) and a quick reconstruction without
negative densities is projected back: only about the true axis can one object explain all tilts. The half circle is
scanned on small images, so that no direction is missed, then the best is refined on larger ones.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from tomoseg.alignment.finding.solve import Solution, solve
from tomoseg.alignment.finding.track import Band
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import wrap_axis_angle
from tomoseg.arrays import FloatArray

SCAN_STEP_DEG = 6.0  # basins measured on needles and catalysts are 8 degrees wide and more
SCAN_PX, COARSE_PX, FINE_PX = 48, 64, 128
REACH_DEG = 20.0  # from the nominal direction
SAFE_RANGE_DEG = 80.0
# A sample that may go on outside the frame explains more with less: it must do so much better to be preferred.
CUT_HANDICAP = 1.5
RIVAL = 1.05  # a direction explaining the images within this factor of the best one is a rival


def find_direction(
    series: ReducedSeries, shifts_px: FloatArray, band: Band, near_deg: float | None, warnings: list[str]
) -> float:
    """Find the direction of the tilt axis in (-90, 90], and warn where it is uncertain.

    `shifts_px` (n_tilt, 2) are (dy, dx) of `track_neighbours`. Only directions within 20 degrees of the nominal one,
    `near_deg`, are tried where it is known.
    """
    if near_deg is None:
        trials = np.arange(-90 + SCAN_STEP_DEG, 90 + SCAN_STEP_DEG / 2, SCAN_STEP_DEG)
    else:
        trials = near_deg + np.linspace(-REACH_DEG, REACH_DEG, 2 * int(np.ceil(REACH_DEG / SCAN_STEP_DEG)) + 1)
    measure = _measure(series, shifts_px, band, SCAN_PX)
    scan = [measure(angle) for angle in trials]
    costs = np.array([s.residual * (1.0 if s.whole else CUT_HANDICAP) for s in scan])
    best = int(np.argmin(costs))
    angle = trials[best]
    for longest, reach, tolerance in ((COARSE_PX, trials[1] - trials[0], 0.3), (FINE_PX, 1.0, 0.05)):
        angle = _descend(_measure(series, shifts_px, band, longest), angle, reach, tolerance, scan[best].whole)
    angle = wrap_axis_angle(angle)
    rival = _rival(trials, costs, best)
    if rival is not None:
        warnings.append(
            f"the direction of the tilt axis is uncertain: {rival:.0f} degrees explains the images nearly as well as "
            f"the {angle:.1f} degrees used; give tilt_axis_angle if it is known"
        )
    covered = float(np.ptp(series.angles_deg[series.usable]))
    if covered < SAFE_RANGE_DEG:
        warnings.append(
            f"the tilts cover only {covered:g} degrees: the direction and offset of the tilt axis found from them are "
            "uncertain"
        )
    return angle


def _measure(series: ReducedSeries, shifts_px: FloatArray, band: Band, longest_px: int) -> Callable[[float], Solution]:
    """Return a function of the angle that solves on reduced images of at most `longest_px`."""
    small = series.reduced(longest_px)
    shifts = np.asarray(shifts_px) * series.factor / small.factor

    def measure(angle_deg: float) -> Solution:
        return solve(small, shifts, wrap_axis_angle(angle_deg), band, passes=1)

    return measure


def _descend(measure: Callable[[float], Solution], start: float, reach: float, tolerance: float, whole: bool) -> float:
    """Return the angle within `reach` of `start` with the smallest residual, to `tolerance` degrees."""

    def cost(angle_deg: float) -> float:
        solution = measure(angle_deg)
        # Residuals of whole and cut samples are not comparable: stay on the side where the search began.
        return solution.residual * (1.0 if solution.whole == whole else CUT_HANDICAP)

    found = optimize.minimize_scalar(
        cost, bounds=(start - reach, start + reach), method="bounded", options={"xatol": tolerance}
    )
    return float(found.x)


def _rival(trials: NDArray[np.float64], costs: NDArray[np.float64], best: int) -> float | None:
    """Return the best direction more than 15 degrees from `best`, if it is nearly as good."""
    distance = np.abs((trials - trials[best] + 90) % 180 - 90)
    far = distance > 15
    if not far.any():
        return None
    rival = int(np.flatnonzero(far)[np.argmin(costs[far])])
    return wrap_axis_angle(float(trials[rival])) if costs[rival] < RIVAL * costs[best] else None
