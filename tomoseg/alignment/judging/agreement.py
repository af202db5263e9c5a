"""Agreement of neighbouring tilts, and of their projections onto the tilt axis."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.finding.consistency import profiles, row_window
from tomoseg.alignment.finding.track import moved, stretch
from tomoseg.alignment.images.correlation import taper
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import unrotate_vectors
from tomoseg.arrays import FloatArray

BORDER = 0.15


@dataclass(frozen=True)
class Agreement:
    """Agreement of the tilts of a series.

    `neighbours` (n_tilt,) are correlations (Pearson) of each image with its neighbour nearer to the lowest tilt,
    stretched by the ratio of the cosines, where both show something; of the lowest tilt with its best neighbour; NaN
    for unusable tilts. `common_line` is the median correlation of the projections onto the tilt axis, the same in all
    tilts of an aligned series, with their mean.
    """

    neighbours: NDArray[np.float64]
    common_line: float

    @property
    def median(self) -> float:
        """Median of `neighbours`; NaN where no two tilts could be compared."""
        known = self.neighbours[np.isfinite(self.neighbours)]
        return float(np.median(known)) if len(known) else float("nan")


def measure_agreement(series: ReducedSeries, moves_px: FloatArray, axis_angle_deg: float) -> Agreement:
    """Compare neighbouring tilts and common lines, for moves as of `ReducedSeries.warped` (0 for the raw series)."""
    neighbours = compare_neighbours(series, moves_px, axis_angle_deg)
    if series.usable.sum() < 2:
        return Agreement(neighbours, float("nan"))
    aligned, seen = series.warped(np.asarray(moves_px, float), axis_angle_deg)
    window = row_window(seen, series.usable).astype(float)
    lines = profiles(aligned, seen, series.angles_deg, whole=False)[series.usable]
    mean = lines.mean(axis=0)
    return Agreement(neighbours, float(np.median([pearson(line, mean, window) for line in lines])))


def compare_neighbours(
    series: ReducedSeries, moves_px: FloatArray, axis_angle_deg: float, passed_over: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return `Agreement.neighbours`; tilts `passed_over` (n_tilt,) are compared with others, but none with them."""
    neighbours = np.full(series.n_tilt, np.nan)
    if series.usable.sum() < 2:
        return neighbours
    skipped = np.zeros(series.n_tilt, bool) if passed_over is None else passed_over
    shifts = unrotate_vectors(np.asarray(moves_px, float), axis_angle_deg)
    pairs: dict[int, int] = {}
    for chain in series.outward:
        inner = int(chain[0])
        for i in map(int, chain[1:]):
            pairs[i] = inner
            inner = inner if skipped[i] else i
    border = taper(series.images.shape[1:], BORDER)
    matrices = [None] * series.n_tilt if series.correction_matrices is None else series.correction_matrices

    def one(i: int) -> float:
        j = pairs.get(i)
        if j is None:
            return np.nan
        ratio = stretch(series.angles_deg[j], series.angles_deg[i])
        other, w_other = moved(series.images[j], border, shifts[j], ratio, axis_angle_deg, matrices[j])
        image, w = moved(series.images[i], border, shifts[i], 1.0, axis_angle_deg, matrices[i])
        return pearson(image, other, w * w_other)

    neighbours[:] = series.each(one)
    neighbours[series.outward[0][0]] = max(neighbours[chain[1]] for chain in series.outward if len(chain) > 1)
    return neighbours


def pearson(a: FloatArray, b: FloatArray, weight: FloatArray) -> float:
    """Return the weighted correlation coefficient of two arrays; 0 where one of them is constant."""
    total = float(weight.sum())
    if total <= 0:
        return 0.0
    da = a - float((a * weight).sum()) / total
    db = b - float((b * weight).sum()) / total
    power = float((da * da * weight).sum()) * float((db * db * weight).sum())
    return float((da * db * weight).sum() / np.sqrt(power)) if power > 0 else 0.0
