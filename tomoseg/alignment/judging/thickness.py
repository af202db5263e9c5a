"""The thickness of a film, from where a volume much deeper than it shows detail."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.alignment.finding.joint import Film, Run
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.arrays import FloatArray

LONGEST_PX = 96  # side of the reduced images
DEPTH = 0.5  # of the volume, as a part of the width of the frame
PASSES = 8  # of expectation maximisation
DETAIL = 0.2  # of the width: what is larger is no detail
MIDDLE = 2 / 3  # of the width, that all tilts show
LEAST_DETAIL = 0.2  # of the most there is, above what streaks show outside the film
OUTER = 0.25  # of the depth, on either side: if the film reaches there, it is no film


def film_thickness(
    series: ReducedSeries, moves_px: FloatArray, axis_angle_deg: float, film: Film, used: NDArray[np.bool_]
) -> float:
    """Return the thickness of a film in px of the series, particles on it included; NaN where it cannot be told.

    It is twice the larger distance of its faces from the tilt axis, which lies in its middle. How much mass lies at a
    depth, no tilt shows: the film is where the volume has detail.

    Parameters
    ----------
    series : images with background 0
    moves_px, axis_angle_deg : their alignment, (n_tilt, 2) px of the series
    used : (n_tilt,) tilts to reconstruct it from
    """
    small = series.reduced(LONGEST_PX)
    moves = np.asarray(moves_px) * series.factor / small.factor
    deep = replace(film, depth=DEPTH)
    run = Run(small, np.flatnonzero(used), moves, axis_angle_deg, False, deep)
    with ThreadPoolExecutor(max(1, small.workers)) as pool:
        run.reconstruct(pool, PASSES)
    faces = _faces(_detail(run))
    return float("nan") if faces is None else faces * small.factor / series.factor


def _detail(run: Run) -> NDArray[np.float64]:
    """Return the standard deviation of the detail at each depth, (z,)."""
    width = run.shape[1]
    size = (round(DETAIL * width), 0, round(DETAIL * width))
    volume = run.volume.transpose(1, 0, 2)  # (y, z, x)
    left = round((volume.shape[2] - MIDDLE * width) / 2)
    middle = volume[:, :, left : volume.shape[2] - left]
    return np.asarray((middle - ndimage.uniform_filter(middle, size)).std(axis=(0, 2)), np.float64)


def _faces(detail: NDArray[np.float64]) -> float | None:
    """Return twice the larger distance of a film's faces from the middle, in voxels; None if it fills the depth."""
    n = len(detail)
    margin = round(OUTER * n)
    outside = float(np.median(np.concatenate([detail[1:margin], detail[-margin:-1]])))
    is_film = detail > outside + LEAST_DETAIL * (float(detail[margin:-margin].max()) - outside)
    is_film[[0, -1]] = False  # the faces of the volume
    places = np.flatnonzero(is_film) - (n - 1) / 2
    reach = float(np.abs(places).max()) + 0.5 if len(places) else n
    return 2 * reach if reach < n / 2 - margin / 2 else None
