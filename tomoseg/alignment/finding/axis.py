"""The direction of the tilt axis, from the images alone.

For each direction tried, the images are placed (`tomoseg.alignment.finding.solve`) and a quick reconstruction without
negative densities is projected back: only about the true axis can one object explain all tilts. The half circle is
scanned on small images, so that no direction is missed, then the best is refined on larger ones.
"""

from collections.abc import Callable
from dataclasses import dataclass

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
# A sample that may go on outside the frame explains more with less: it must do so much better to be preferred.
CUT_HANDICAP = 1.5
RIVAL = 1.05  # a direction explaining the images within this factor of the best one is a rival


@dataclass(frozen=True)
class AxisSearch:
    """The direction found, and what else might have been.

    Attributes
    ----------
    angle_deg : float in (-90, 90]
    residual : float
        Of the refined direction, see `tomoseg.alignment.finding.reproject.Prediction`.
    rival_deg : float or None
        Another direction, more than 15 degrees away, that explains the images nearly as well.
    """

    angle_deg: float
    residual: float
    rival_deg: float | None


def search_axis(
    series: ReducedSeries,
    shifts_px: FloatArray,
    band: Band,
    near_deg: float | None = None,
    reach_deg: float = 20.0,
) -> AxisSearch:
    """Find the direction of the tilt axis.

    Parameters
    ----------
    series : images with background 0
    shifts_px : (n_tilt, 2) array
        (dy, dx) of `track_neighbours`, in pixels of the reduced series.
    band : limits of the band-pass
    near_deg : float, optional
        Nominal direction; only directions within `reach_deg` of it are tried. Default: all.
    """
    if near_deg is None:
        trials = np.arange(-90 + SCAN_STEP_DEG, 90 + SCAN_STEP_DEG / 2, SCAN_STEP_DEG)
    else:
        n = int(np.ceil(reach_deg / SCAN_STEP_DEG))
        trials = near_deg + np.linspace(-reach_deg, reach_deg, 2 * n + 1)
    measure = _measure(series, shifts_px, band, SCAN_PX)
    scan = [measure(angle) for angle in trials]
    costs = np.array([s.residual * (1.0 if s.whole else CUT_HANDICAP) for s in scan])
    best = int(np.argmin(costs))
    step = trials[1] - trials[0]
    angle = _descend(_measure(series, shifts_px, band, COARSE_PX), trials[best], step, 0.3, scan[best].whole)
    fine = _measure(series, shifts_px, band, FINE_PX)
    angle = _descend(fine, angle, 1.0, 0.05, scan[best].whole)
    return AxisSearch(wrap_axis_angle(angle), fine(angle).residual, _rival(trials, costs, best))


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
