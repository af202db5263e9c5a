"""True edges of particles: what blur and thickness do to the place where the image falls most steeply, undone.

The outline of a blurred disc is where it falls most steeply. That of a sphere is not: its projected thickness rises
from nothing, so that the steepest place lies inside, by about 0.8 of the blur's standard deviation, a tenth of a
particle of 15 px. So a model is fitted: a body of radius R that is part disc, part sphere, blurred by a Gaussian.
Blur and shape are common to an image, R and the contrast are each particle's own.

A particle that is not round is laid out by rank: the px of its neighbourhood in the order of their distance to its
first outline, so that the radius of a px is that of the circle of as many px.
"""

from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, BoolArray, Float32Array, FloatArray

BLURS = (0.4, 0.64, 1.0, 1.6, 2.5)  # standard deviations that are tried first, px
ROUNDNESS = (0.0, 0.33, 0.66, 1.0, 1.33, 1.66, 2.0)  # 0 a disc, 1 a sphere, 2 a paraboloid
MOST_FITTED = 100  # particles from which blur and shape are found
N_BINS = 48
FEWEST_BINS = 5
RATIOS = np.exp(np.linspace(np.log(0.4), np.log(60.0), 56))  # radius over blur of the tabled profiles
OFFSETS = np.linspace(-7.0, 6.0, 131)  # places of the tabled profiles: distance to the edge over blur


@lru_cache(maxsize=1)
def _tables() -> FloatArray:
    """Return the profiles (3, ratio, offset) of a blurred disc, sphere and paraboloid of height 1, at a blur of 1.

    The mean of f over a Gaussian around a point at distance p: the integral of f(r) r exp(-(p - r)^2 / 2) i0e(p r) dr,
    with i0e the modified Bessel function scaled by exp(-p r).
    """
    from scipy.special import i0e

    nodes, weights = np.polynomial.legendre.leggauss(24)
    discs, spheres, bowls = (np.zeros((len(RATIOS), len(OFFSETS))) for _ in range(3))
    for k, ratio in enumerate(RATIOS):
        places = np.maximum(ratio + OFFSETS, 0)
        # r = R sin(t): what the sphere's edge has of a root goes, and more nodes lie near the edge.
        cuts = np.linspace(0, np.pi / 2, max(2, int(ratio / 2) + 2))
        t = (cuts[:-1, None] + np.diff(cuts)[:, None] * (nodes + 1) / 2).ravel()
        dt = (np.diff(cuts)[:, None] * weights / 2).ravel()
        r = ratio * np.sin(t)
        kernel = np.exp(-((places[:, None] - r) ** 2) / 2) * i0e(places[:, None] * r) * r * ratio * np.cos(t) * dt
        discs[k] = kernel.sum(axis=1)
        spheres[k] = (kernel * np.cos(t)).sum(axis=1)
        bowls[k] = (kernel * np.cos(t) ** 2).sum(axis=1)
    return np.stack([discs, spheres, bowls])


def with_true_edges(labels: NDArray[np.int32], values: Float32Array, left_out: BoolArray) -> NDArray[np.int32]:
    """Return the labels (y, x) with each particle grown or shrunk to the edge of the body that fits best.

    `values` (y, x) is the image, particles bright. Particles without enough px around them stay as they are.
    """
    from scipy import ndimage

    boxes = ndimage.find_objects(labels)
    layouts = [_layout(labels, values, left_out, k, box) for k, box in enumerate(boxes, 1) if box is not None]
    if not layouts:
        return labels
    profiles = np.stack([one[2] for one in layouts])
    radii = np.array([one[3] for one in layouts])
    tables = _tables()
    usable = np.flatnonzero((profiles[:, :, 2] > 0).sum(axis=1) >= FEWEST_BINS)
    # Blur shows best on those of which the edge is known best: contrast over noise, times the root of the border.
    some = usable[np.argsort(-_strength(profiles[usable], radii[usable]), kind="stable")[:MOST_FITTED]]
    if len(some) == 0:
        return labels
    blur, roundness = _common(profiles[some], radii[some], tables)
    out = labels.copy()
    fitted = radii.copy()
    fitted[usable], _ = _fit(profiles[usable], radii[usable], blur, roundness, tables)
    for k in usable[np.argsort(-radii[usable], kind="stable")]:
        window, order, _, _, label = layouts[k]
        _relabel(out, window, order, label, round(np.pi * fitted[k] ** 2))
    return out


def _layout(
    labels: NDArray[np.int32], values: Float32Array, left_out: BoolArray, label: int, box: tuple[slice, slice]
) -> tuple[tuple[slice, slice], NDArray[np.int64], FloatArray, float, int]:
    """Return a particle's window, its px by rank, its profile (`N_BINS`, 3), its radius and its label.

    Of each bin of the profile: the mean radius, the mean value, and how many px count: not those of other particles,
    nor those beside them.
    """
    import edt
    from scipy import ndimage

    area = int(np.count_nonzero(labels[box] == label))
    radius = float(np.sqrt(area / np.pi))
    margin = int(np.ceil(4 + 0.5 * radius))
    y, x = (slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(box, labels.shape, strict=True))
    here = labels[y, x]
    mine = np.pad(here == label, margin, mode="constant")  # beyond the frame, so that ranks are those of a whole one
    distance = edt.edt(~mine) - edt.edt(mine)
    smooth = ndimage.gaussian_filter(distance, 0.7, mode="nearest")
    ranks = np.empty(smooth.size, np.int64)
    ranks[np.argsort(smooth, axis=None, kind="stable")] = np.arange(smooth.size)
    inner = ranks.reshape(smooth.shape)[margin:-margin, margin:-margin]
    others = (here > 0) & (here != label)
    counted = ~left_out[y, x]
    if others.any():
        counted &= edt.edt(~others) > 2.5
    profile = _profile(np.sqrt((inner + 0.5) / np.pi), values[y, x], counted, radius, radius + margin - 1)
    return (y, x), inner, profile, radius, label


def _profile(radii: FloatArray, values: Array, counted: BoolArray, radius: float, most: float) -> FloatArray:
    """Return mean radius, mean value and number (`N_BINS`, 3) of the px that count, in bins of half a px or wider."""
    width = max(0.5, most / N_BINS)
    bins = np.minimum((radii / width).astype(np.int64), N_BINS)[counted & (radii < most)]
    chosen = counted & (radii < most)
    n = np.bincount(bins, minlength=N_BINS + 1)[:N_BINS]
    sums = [np.bincount(bins, v[chosen], minlength=N_BINS + 1)[:N_BINS] for v in (radii, values)]
    return np.stack([sums[0] / np.maximum(n, 1), sums[1] / np.maximum(n, 1), n], axis=1)


def _strength(profiles: FloatArray, radii: FloatArray) -> FloatArray:
    """Return the contrast of each profile over the scatter of its outer bins, times the root of the radius."""
    inside = profiles[:, :, 0] < radii[:, None]
    weight = profiles[:, :, 2]
    means = [
        (np.where(m, profiles[:, :, 1], 0) * weight).sum(1) / np.maximum((weight * m).sum(1), 1)
        for m in (inside, ~inside)
    ]
    return np.asarray((means[0] - means[1]) * np.sqrt(radii))


def _common(profiles: FloatArray, radii: FloatArray, tables: FloatArray) -> tuple[float, float]:
    """Return the blur, px, and the roundness with which the profiles of all particles are fitted best.

    By a walk from the best of some: steps that halve, in the logarithm of the blur and in the roundness. What is made
    least is the sum of n log(variance) over the particles, n the bins of each: the likelihood of normal errors that
    are as large as they turn out to be.
    """
    bins = (profiles[:, :, 2] > 0).sum(axis=1)
    known: dict[tuple[float, float], float] = {}

    def misfit(log_blur: float, roundness: float) -> float:
        key = (log_blur, roundness)
        if key not in known:
            _, variances = _fit(profiles, radii, float(np.exp(log_blur)), roundness, tables)
            known[key] = float((bins * np.log(variances)).sum())
        return known[key]

    best = min(((float(np.log(b)), r) for b in BLURS for r in ROUNDNESS), key=lambda at: misfit(*at))
    steps = [float(np.log(BLURS[1] / BLURS[0])) / 2, (ROUNDNESS[1] - ROUNDNESS[0]) / 2]
    for _ in range(3):
        around = [(best[0] + i * steps[0], best[1] + j * steps[1]) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        best = min((at for at in around if 0 <= at[1] <= ROUNDNESS[-1]), key=lambda at: misfit(*at))
        steps = [step / 2 for step in steps]
    return float(np.exp(best[0])), best[1]


@numba.njit(nogil=True, cache=True)
def _height(offset: float, ratio: float, tables: Array, kind: int) -> float:
    """Return a tabled profile at a distance from the edge, both in blurs; deep inside what no blur reaches."""
    last_ratio = np.log(RATIOS[-1] / RATIOS[0])
    position = np.log(ratio / RATIOS[0]) / last_ratio * (len(RATIOS) - 1)
    if offset < OFFSETS[0] or position > len(RATIOS) - 1:
        s = (ratio + offset) / ratio
        return (1 - s * s) ** (0.5 * kind) if s < 1 else 0.0
    if offset >= OFFSETS[-1]:
        return 0.0
    position = max(0.0, position)
    i = min(int(position), len(RATIOS) - 2)
    ti = position - i
    place = (offset - OFFSETS[0]) / (OFFSETS[1] - OFFSETS[0])
    j = min(int(place), len(OFFSETS) - 2)
    tj = place - j
    low = (1 - tj) * tables[kind, i, j] + tj * tables[kind, i, j + 1]
    high = (1 - tj) * tables[kind, i + 1, j] + tj * tables[kind, i + 1, j + 1]
    return float((1 - ti) * low + ti * high)


@numba.njit(nogil=True, cache=True)
def _misfit(profile: Array, radius: float, blur: float, roundness: float, tables: Array) -> float:
    """Return the weighted variance that the body of this radius leaves, with the best contrast and background."""
    n = sm = sv = smm = smv = svv = 0.0
    for k in range(len(profile)):
        w = profile[k, 2]
        if w == 0:
            continue
        offset, ratio = (profile[k, 0] - radius) / blur, radius / blur
        kind = min(int(roundness), 1)
        part = roundness - kind
        m = (1 - part) * _height(offset, ratio, tables, kind)
        if part > 0:
            m += part * _height(offset, ratio, tables, kind + 1)
        v = profile[k, 1]
        n += w
        sm += w * m
        sv += w * v
        smm += w * m * m
        smv += w * m * v
        svv += w * v * v
    variance = smm - sm * sm / n
    covariance = smv - sm * sv / n
    left = svv - sv * sv / n
    if variance > 0 and covariance > 0:
        left -= covariance * covariance / variance
    return max(left / n, 1e-12)


@numba.njit(nogil=True, cache=True)
def _fit(profiles: Array, radii: Array, blur: float, roundness: float, tables: Array) -> tuple[Array, Array]:
    """Return the radius (n,), px, with the least misfit for each profile, and that misfit; to a hundredth of a px."""
    out, misfits = np.empty(len(radii)), np.empty(len(radii))
    for i in range(len(radii)):
        low, high = 0.8 * radii[i], radii[i] + max(2.0, 0.4 * radii[i])
        step = (high - low) / 24
        best, found = np.inf, radii[i]
        for k in range(25):
            value = _misfit(profiles[i], low + k * step, blur, roundness, tables)
            if value < best:
                best, found = value, low + k * step
        while step > 0.01:
            step *= 0.5
            for candidate in (found - step, found + step):
                if low <= candidate <= high:
                    value = _misfit(profiles[i], candidate, blur, roundness, tables)
                    if value < best:
                        best, found = value, candidate
        out[i], misfits[i] = found, best
    return out, misfits


def _relabel(out: NDArray[np.int32], window: tuple[slice, slice], ranks: NDArray[np.int64], label: int, n: int) -> None:
    """Give a particle the first n px by rank, of those that are its own or free."""
    here = out[window]
    here[(here == label) & (ranks >= n)] = 0
    here[(here == 0) & (ranks < n)] = label
