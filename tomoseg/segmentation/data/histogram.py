"""Histograms of whole volumes, slab by slab, and their partition into classes of intensity."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, ArraySource
from tomoseg.errors import StageFailed

N_BINS = 1 << 16
AT_ONCE = 1 << 20  # voxels
SAMPLED_SLICES = 64
ROWS, ROWS_BYTES = 16, 64 << 20  # along y that are read at once: as many as a chunk has, in so many bytes
# A histogram with all but a few voxels in such a part of its range is counted again in that part.
NARROWED, FEW_VOXELS, MOST_NARROWINGS = 64, 3, 5
OUTLIERS = 1e-5  # fraction of the brightest voxels that is ignored: hot spots of reconstructions
MAX_STEPS = 50
CLEARLY = 0.25  # deeper by a quarter of a peak
Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """Counts in equal bins; the end bins include all values beyond them."""

    counts: Counts
    centres: Counts

    def percentile(self, q: float) -> float:
        """Return the value below which `q` per cent of the counts lie."""
        return self.median_between(0, len(self.counts), q / 100)

    def median_between(self, first: int, stop: int, fraction: float = 0.5) -> float:
        """Return the median (or another fraction) of the values in bins `first` to `stop`; the middle bin if empty."""
        part = np.cumsum(self.counts[first:stop])
        if part.size == 0 or part[-1] == 0:
            return float(self.centres[min((first + stop) // 2, len(self.centres) - 1)])
        return float(self.centres[first + int(np.searchsorted(part, fraction * part[-1]))])


def sampled_range(volume: ArraySource, max_slices: int = 48) -> tuple[float, float]:
    """Return the smallest and largest value of at most `max_slices` slices, evenly spread over the first axis.

    Raises `StageFailed` where they hold NaN or infinity, or all have the same value.
    """
    low, high = np.inf, -np.inf
    for part in _sampled(volume, max_slices):
        require_finite(part)
        low, high = min(low, float(part.min())), max(high, float(part.max()))
    if not high > low:
        raise StageFailed(
            f"the volume holds nothing but the value {low:g}: there is nothing to segment. Check the reconstruction "
            "and the aligned series."
        )
    return low, high


def _sampled(volume: ArraySource, most: int) -> Iterator[Array]:
    """Yield parts of at most `most` planes of a volume (z, y, x), evenly spread, row by row of the chunks in the file.

    Plane by plane, every chunk would be read for each of the planes in it.
    """
    nz, ny, nx = volume.shape
    chosen = evenly_spread(nz, most)
    rows = max(1, min(ROWS, ROWS_BYTES // (nz * nx * volume.dtype.itemsize)))
    for start in range(0, ny, rows):
        yield np.asarray(volume[:, start : start + rows])[chosen]


def evenly_spread(n: int, most: int) -> list[int]:
    """Return at most `most` indices into n slices, evenly spread."""
    return [int(i) for i in np.unique(np.linspace(0, n - 1, most).round().astype(int))]


def sampled_histogram(volume: ArraySource) -> Histogram:
    """Return the histogram of evenly spread planes of a volume (z, y, x).

    A few voxels far beyond all others would leave too few bins for these, so these are then counted again alone.
    """
    low, high = sampled_range(volume, SAMPLED_SLICES)
    found = histogram(_sampled(volume, SAMPLED_SLICES), low, high)
    for _ in range(MOST_NARROWINGS):
        width, apart = (high - low) / len(found.counts), 100 * max(OUTLIERS, FEW_VOXELS / found.counts.sum())
        inner_low, inner_high = found.percentile(apart) - width, found.percentile(100 - apart) + width
        if inner_high - inner_low > (high - low) / NARROWED:
            break
        low, high = inner_low, inner_high
        found = histogram(_sampled(volume, SAMPLED_SLICES), low, high)
        found.counts[[0, -1]] = 0  # those far beyond
    return found


def histogram(blocks: Iterable[Array], low: float, high: float, n_bins: int = N_BINS) -> Histogram:
    """Count the values of `blocks` in `n_bins` equal bins from `low` to `high`; values beyond count in the end bins."""
    counts = np.zeros(n_bins, np.int64)
    scale = n_bins / (high - low)
    for block in blocks:
        values = np.asarray(block).reshape(-1)
        for start in range(0, values.size, AT_ONCE):  # in parts: the 8-byte copies stay small
            part = values[start : start + AT_ONCE]
            require_finite(part)
            bins = np.clip((np.asarray(part, np.float64) - low) * scale, 0, n_bins - 1).astype(np.int64)
            counts += np.bincount(bins, minlength=n_bins)
    return Histogram(counts.astype(np.float64), np.asarray(low + (np.arange(n_bins) + 0.5) / scale, np.float64))


def require_finite(values: Array) -> None:
    """Raise `StageFailed` where values of the volume are NaN or infinite."""
    if not np.isfinite(values).all():
        raise StageFailed("the volume holds NaN or infinite values: reconstruct it again before segmenting it")


@dataclass(frozen=True)
class Partition:
    """Classes of intensity: `thresholds` (n - 1,) half-way between their medians `levels` (n,), and counts `sizes`."""

    thresholds: Counts
    levels: Counts
    sizes: Counts


def partition(values: Histogram, n_classes: int) -> Partition:
    """Cut a histogram into `n_classes` classes of intensity, however rare the brightest of them.

    Reconstructed volumes are mostly vacuum, and bright particles are often less than 0.1 % of the voxels. Otsu's
    criterion weighs classes by their size, so on the plain histogram it splits the big classes and never finds the
    rare one. Three steps instead:

    1. multi-Otsu (Otsu, IEEE Trans. SMC 9, 1979; found by dynamic programming) on a histogram with 256 bins equal in
       the square root of the intensity, where the noise of counts is the same everywhere, of the logarithm of the
       counts, so that every intensity that occurs counts. Two classes are cut by the plain counts: neither of them is
       rare.
    2. each threshold moves half way between the medians of its two classes. An edge blurred by a symmetric point spread
       function then stays at the boundary of the object, on which sizes depend.
    3. step 2 is repeated until nothing moves. That helps where classes are distinct peaks, like the layers of a needle;
       where they are not, it drifts until it splits the largest class. Its result is therefore taken only if the
       thresholds lie in deeper valleys of the histogram than after step 2.
    """
    root = np.sqrt(values.centres - values.centres[0])
    top = root[np.searchsorted(values.centres, values.percentile(100 * (1 - OUTLIERS)))]
    edges = np.linspace(0.0, max(top, root[1]), 257)
    counts, _ = np.histogram(np.minimum(root, edges[-1]), bins=edges, weights=values.counts)
    # As if there were 10 million voxels, so that the result does not depend on the size of the volume.
    evened = np.log1p(counts * (1e7 / max(values.counts.sum(), 1.0)))
    cuts = multi_otsu(counts if n_classes == 2 else evened, (edges[:-1] + edges[1:]) / 2, n_classes)
    first = settled = _halfway(values, np.searchsorted(root, edges[cuts]))
    for _ in range(MAX_STEPS):
        before, settled = settled, _halfway(values, np.searchsorted(values.centres, settled.thresholds))
        if np.array_equal(before.thresholds, settled.thresholds):
            break
    places = [np.searchsorted(edges[:-1], np.sqrt(p.thresholds - values.centres[0])) - 1 for p in (first, settled)]
    depths = [_mean_valley(counts, cuts) for cuts in places]
    return settled if depths[1] < depths[0] - CLEARLY else first


def _halfway(values: Histogram, bounds: NDArray[np.int64]) -> Partition:
    """Return the partition half-way between the medians of the classes that bin numbers `bounds` separate."""
    ends = [0, *bounds.tolist(), len(values.counts)]
    levels = np.array([values.median_between(a, b) for a, b in pairwise(ends)])
    sizes = np.array([values.counts[a:b].sum() for a, b in pairwise(ends)])
    return Partition((levels[1:] + levels[:-1]) / 2, levels, sizes)


def _mean_valley(counts: Counts, cuts: NDArray[np.int64]) -> float:
    """Return the mean over cuts of the count at the cut over the lower of the peaks of the classes beside it.

    It is near 0 for cuts between distinct peaks, and 1 for a cut on the slope of a peak.
    """
    smooth = np.convolve(np.pad(counts, 2, mode="edge"), np.array([1, 2, 3, 2, 1]) / 9, mode="valid")
    ends = [0, *cuts.tolist(), len(smooth) - 1]
    peaks = np.array([smooth[a : b + 1].max(initial=0.0) for a, b in pairwise(ends)])
    lower = np.minimum(peaks[1:], peaks[:-1])
    return float(np.mean(np.divide(smooth[cuts], lower, out=np.ones(len(cuts)), where=lower > 0)))


def multi_otsu(counts: Counts, values: Counts, n_classes: int) -> NDArray[np.int64]:
    """Return the `n_classes` - 1 bin numbers at which to cut so that the variance between classes is largest.

    Otsu's criterion for several classes is a sum over classes of (sum of values)**2 / (sum of counts), which dynamic
    programming maximises exactly in O(n_classes n_bins**2).
    """
    n = len(counts)
    weight, moment = (np.concatenate([[0.0], np.cumsum(each)]) for each in (counts, counts * values))
    weights, moments = weight[None, :] - weight[:, None], moment[None, :] - moment[:, None]
    gain = np.divide(moments**2, weights, out=np.zeros((n + 1, n + 1)), where=weights > 0)
    gain[np.tril_indices(n + 1)] = -np.inf  # a class holds at least one bin
    best, origins = gain[0], []
    for _ in range(n_classes - 1):
        total = best[:, None] + gain
        origin = total.argmax(axis=0)
        origins.append(origin)
        best = total[origin, np.arange(n + 1)]
    cuts, end = [], n
    for origin in reversed(origins):
        end = int(origin[end])
        cuts.append(end)
    return np.array(cuts[::-1], np.int64)
