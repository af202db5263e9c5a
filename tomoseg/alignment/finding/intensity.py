"""Brightness of the tilts relative to each other."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.alignment.finding.consistency import row_window
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.arrays import FloatArray

TREND_TILTS = 9  # a sample that is cut by the frame changes its total slowly; what differs from this median flickers


def intensity_scales(
    series: ReducedSeries, moves_px: FloatArray, axis_angle_deg: float, *, whole: bool
) -> NDArray[np.float64]:
    """Return the factor for each tilt that evens out changes of beam current or gain.

    The HAADF signal of a `whole` sample adds up to the same in every tilt, so its total is made equal. The total of a
    sample that the frame cuts follows the path through it: only what differs from the trend over neighbouring
    tilts is taken out.

    Parameters
    ----------
    series, moves_px, axis_angle_deg : as for `ReducedSeries.warped`
    whole : bool

    Returns
    -------
    (n_tilt,) factors, 1 for unusable tilts
    """
    aligned, seen = series.warped(moves_px, axis_angle_deg)
    window = row_window(seen, series.usable)
    totals = np.einsum("tyx,y->t", aligned, window, dtype=float)
    scales = np.ones(series.n_tilt)
    usable = series.usable & (totals > 0)
    if not usable.any():
        return scales
    known = totals[usable]
    trend = np.median(known) if whole else ndimage.median_filter(known, min(TREND_TILTS, len(known)), mode="nearest")
    scales[usable] = trend / known
    return scales
