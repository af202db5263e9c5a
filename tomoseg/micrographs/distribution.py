"""The size distribution of particles of one micrograph or of many, each particle with its weight."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomoseg.arrays import FloatArray

NUMBERS = (
    *("mean", "std", "d10", "d50", "d90", "d32", "dv10", "dv50", "dv90"),
    *("lognormal_median", "lognormal_sigma"),
)
RESAMPLES, SEED = 1000, 0
FEWEST = 3  # particles, from which intervals are told
QUANTILES = np.array([0.1, 0.5, 0.9])


def weighted_sizes(diameters: ArrayLike, weights: ArrayLike | None = None) -> dict[str, float]:
    """Return the numbers `NUMBERS` of diameters (n,) with weights (n,), in their unit; NaN where there are none.

    Mean and standard deviation; d10, d50, d90 by number and dv10, dv50, dv90 by volume (the sum of d^3): each particle
    is centred on its diameter in the curve; d32 = sum w d^3 / sum w d^2; median exp(mu) and width sigma of the
    log-normal distribution of greatest likelihood, mu and sigma^2 being mean and variance of ln d (ISO 9276-5).
    """
    d, w = _sorted(diameters, weights)
    if d.size == 0:
        return dict.fromkeys(NUMBERS, float("nan"))
    return dict(zip(NUMBERS, map(float, _numbers(d, w[None])[0]), strict=True))


def confidence_intervals(diameters: ArrayLike, weights: ArrayLike | None = None) -> dict[str, tuple[float, float]]:
    """Return 95 % confidence intervals (low, high) of `weighted_sizes`, NaN for fewer than `FEWEST` particles.

    By the bootstrap's percentile method, as `tomoseg.measurement.particles.sizes.confidence_intervals`: particles are
    drawn again with their weights. It covers the scatter of a sample of particles alone.
    """
    d, w = _sorted(diameters, weights)
    if d.size < FEWEST:
        return dict.fromkeys(NUMBERS, (float("nan"), float("nan")))
    random = np.random.default_rng(SEED)
    drawn = []
    at_once = max(1, (1 << 20) // d.size)
    for start in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - start)
        chosen = random.integers(0, d.size, (rows, d.size)) + d.size * np.arange(rows)[:, None]
        times = np.bincount(chosen.ravel(), minlength=rows * d.size).reshape(rows, d.size)
        drawn.append(_numbers(d, times * w))
    low, high = np.quantile(np.concatenate(drawn), (0.025, 0.975), axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(NUMBERS, low, high, strict=True)}


def finite_weights(weights: ArrayLike) -> FloatArray:
    """Return weights (n,) in which infinite ones count as the largest, or as 1 where none is finite."""
    w = np.asarray(weights, np.float64)
    finite = np.isfinite(w)
    return np.where(finite, w, w[finite].max() if finite.any() else 1.0)


def _sorted(diameters: ArrayLike, weights: ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    """Return rising diameters and their finite weights."""
    d = np.asarray(diameters, np.float64)
    w = np.ones(d.shape) if weights is None else finite_weights(weights)
    order = np.argsort(d, kind="stable")
    return d[order], w[order]


def _numbers(d: FloatArray, w: FloatArray) -> NDArray[np.float64]:
    """Return `NUMBERS` (rows, k) of rising diameters (n,) with weights (rows, n)."""
    total = w.sum(axis=1)
    mean = w @ d / total
    n = (w > 0).sum(axis=1)
    spread = np.maximum(w @ d**2 / total - mean**2, 0) * n / np.maximum(n - 1, 1)
    std = np.where(n > 1, np.sqrt(spread), np.nan)
    logs = np.log(d)
    mu = w @ logs / total
    sigma = np.where(n > 1, np.sqrt(np.maximum(w @ logs**2 / total - mu**2, 0)), np.nan)
    by_number, by_volume = _percentiles(d, w), _percentiles(d, w * d**3)
    d32 = (w @ d**3) / (w @ d**2)
    return np.column_stack([mean, std, by_number, d32, by_volume, np.exp(mu), sigma])


def _percentiles(d: FloatArray, w: FloatArray) -> NDArray[np.float64]:
    """Return `QUANTILES` (rows, 3) of rising diameters (n,) with weights (rows, n)."""
    curves = (np.cumsum(w, axis=1) - w / 2) / w.sum(axis=1, keepdims=True)
    return np.stack([np.interp(QUANTILES, curve, d) for curve in curves])
