"""Size distributions of micrographs: particles that the frame cuts are left out, and the others stand for them.

A large particle meets the border more often than a small one, so that what is left is biased to small ones. Each counts
by one over the chance that it was not cut: for a bounding box h x w in a frame H x W, H W / ((H - h) (W - w)) (R. Miles,
1974; C. Lantuejoul, 1980; J. Russ, The Image Processing Handbook).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomoseg.arrays import BoolArray, FloatArray
from tomoseg.errors import InputError
from tomoseg.measurement.particles.sizes import confidence_intervals, size_summary

MOST_CELLS = 256  # along an axis, at which places are tried where a part of the frame is left out
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Sizes:
    """Diameters (n,) of whole particles with the weight of each, and how many were cut by the border.

    `unit` is nm, or px where the pixel size is not known.
    """

    diameters: FloatArray
    weights: FloatArray
    n_cut: int
    unit: str


@dataclass(frozen=True)
class LogNormal:
    """A log-normal distribution by number: mean and standard deviation of ln(diameter), each with its 95% interval.

    `median` is exp(mu), in the unit of the diameters. Particles of different weights count as fewer equal ones, (sum
    w)^2 / sum w^2 of them (L. Kish, Survey Sampling, 1965). NaN for fewer than two.
    """

    mu: float
    sigma: float
    mu_interval: tuple[float, float]
    sigma_interval: tuple[float, float]

    @property
    def median(self) -> float:
        """Median diameter."""
        return float(np.exp(self.mu))


@dataclass(frozen=True)
class SizeDistribution:
    """What a set of sizes says: numbers of `size_summary`, their 95% intervals, and the log-normal fit."""

    n: int
    n_cut: int
    unit: str
    summary: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    log_normal: LogNormal


def whole_sizes(
    table: NDArray[np.void], shape: tuple[int, int], pixel_size_nm: float = float("nan"), mask: BoolArray | None = None
) -> Sizes:
    """Return the sizes of the particles of a table of `SHAPE` that neither the frame nor what is left out cuts.

    `shape` is that of the image (y, x); `mask` (y, x) is true where it was left out.
    """
    whole = ~table["touches_border"]
    weights = frame_weights(table["height_px"][whole], table["width_px"][whole], shape, mask)
    diameters = np.asarray(table["diameter_px"][whole], np.float64)
    known = bool(np.isfinite(pixel_size_nm))
    scaled = diameters * pixel_size_nm if known else diameters
    return Sizes(scaled, weights, int((~whole).sum()), "nm" if known else "px")


def frame_weights(
    heights: ArrayLike, widths: ArrayLike, shape: tuple[int, int], mask: BoolArray | None = None
) -> FloatArray:
    """Return the weight (n,) of whole particles: the area of the frame over that of the places where they are whole.

    With a mask (y, x), true where the frame is left out, the places are counted where the bounding box meets none of
    it, on a grid of `MOST_CELLS` per axis.

    Raises
    ------
    InputError
        A bounding box is as large as the frame.
    """
    boxes = np.stack([np.asarray(heights, np.float64), np.asarray(widths, np.float64)], axis=1)
    if (boxes >= shape).any():
        raise InputError(
            f"A particle is as large as its image of {shape[0]} x {shape[1]} px: no image of this size can tell how "
            "large such particles are. Take one of a larger field."
        )
    if mask is None or not mask.any():
        return np.asarray(np.prod(np.array(shape) / (shape - boxes), axis=1))
    places: dict[tuple[float, float], float] = {}
    free = float((~mask).sum())
    sums = np.pad(np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1), ((1, 0), (1, 0)))
    for h, w in {(float(h), float(w)) for h, w in boxes}:
        places[h, w] = _places(sums, int(h), int(w))
    found = np.array([places[float(h), float(w)] for h, w in boxes])
    return np.asarray(free / np.maximum(found, 1))


def _places(sums: NDArray[np.int64], h: int, w: int) -> float:
    """Return how many places a box has in the frame where it meets nothing masked, given the mask's summed table."""
    rows, columns = sums.shape[0] - 1 - h, sums.shape[1] - 1 - w
    y, x = (np.arange(0, n, max(1, n // MOST_CELLS)) for n in (rows, columns))
    inside = sums[y[:, None] + h, x + w] - sums[y[:, None], x + w] - sums[y[:, None] + h, x] + sums[y[:, None], x]
    return float((inside == 0).mean() * rows * columns)


def pooled(parts: Sequence[Sizes]) -> Sizes:
    """Return the sizes of several micrographs together.

    Raises
    ------
    InputError
        Some are in nm and others in px, or there are none.
    """
    units = {part.unit for part in parts}
    if len(units) != 1:
        raise InputError(
            "Sizes of several images can be put together where all have a pixel size, or none has; give the missing "
            "ones." if parts else "There are no sizes to put together."
        )
    diameters, weights = (np.concatenate([getattr(p, name) for p in parts]) for name in ("diameters", "weights"))
    return Sizes(diameters, weights, sum(p.n_cut for p in parts), units.pop())


def size_distribution(sizes: Sizes) -> SizeDistribution:
    """Return the numbers that describe sizes, weighted by number (d10 to d90), surface (d32) and volume (dv10 to dv90).

    See `tomoseg.measurement.particles.sizes`, also for the intervals.
    """
    return SizeDistribution(
        n=len(sizes.diameters),
        n_cut=sizes.n_cut,
        unit=sizes.unit,
        summary=size_summary(sizes.diameters, sizes.weights),
        intervals=confidence_intervals(sizes.diameters, weights=sizes.weights),
        log_normal=log_normal_fit(sizes.diameters, sizes.weights),
    )


def log_normal_fit(diameters: ArrayLike, weights: ArrayLike) -> LogNormal:
    """Return the log-normal distribution of greatest likelihood of weighted diameters (n,), with 95% intervals.

    The intervals are those of a normal sample, by Student's t for the mean and by chi^2 for the standard deviation.
    """
    from scipy import stats

    logs, w = np.log(np.asarray(diameters, np.float64)), np.asarray(weights, np.float64)
    nan = float("nan")
    if logs.size < 2:
        return LogNormal(float(logs[0]) if logs.size else nan, nan, (nan, nan), (nan, nan))
    n = float(w.sum() ** 2 / (w**2).sum())
    mu = float((w * logs).sum() / w.sum())
    sigma = float(np.sqrt((w * (logs - mu) ** 2).sum() / w.sum() * n / (n - 1)))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * sigma / np.sqrt(n)
    low, high = (sigma * float(np.sqrt((n - 1) / stats.chi2.ppf(q, n - 1))) for q in (0.975, 0.025))
    return LogNormal(mu, sigma, (mu - half, mu + half), (low, high))


__all__ = ["LogNormal", "SizeDistribution", "Sizes", "frame_weights", "log_normal_fit", "pooled", "size_distribution"]
