"""Which order of the tilts the images themselves support.

Images of neighbouring tilts look most alike, and less so the further apart the tilts are. `similarity` compares all
images pairwise, wherever the sample lies in the frame; `order_score` says how well a list of angles explains what it
finds, and `prefers` which of several lists does so best. No direction of the tilt axis is needed. What cannot be told:
the sign of the angles, their offset and scale.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomoseg.arrays import ArraySource, FloatArray

LONGEST_PX = 64  # of the images that are compared
# Details kept, in px of an image of 64: coarse ones are alike at all tilts of a needle, fine ones are noise.
FINE_PX, COARSE_PX = 1.0, 1.6
# A pixel differs from the median around it by at most so many times what all but 2 % of them do; others are spikes.
SPIKE, USUAL = 4.0, 0.98
REACH = 0.5  # part of the frame within which the best shift is sought; images overlap by at least as much of its area
# Variance in the overlap of two images, as a part of that of an image: vacuum alone must not correlate.
LEAST_VARIANCE = 0.35
FEWEST = 5  # images from which an order can be told
STRAY = 0.5  # an image less like its best partner than this, as a part of what is usual, shows something else
BINS, PAIRS_PER_BIN, ROUNDS = 16, 6, 4  # of the fit of similarities
LEAST_COS = 0.15  # foreshortening at steeper tilts is that of no sample
# One score is clearly better than another by this difference, or where what it leaves unexplained is less than this
# part of what the other does: see docs/alignment.md for how often that errs.
MARGIN, LESS_LEFT = 0.1, 0.7


def thumbnails(images: ArraySource, longest_px: int = LONGEST_PX) -> NDArray[np.float32]:
    """Return images (n, y, x) of any real dtype averaged to at most `longest_px` on a side, read one by one.

    Pixels that are not finite become the mean of the others; an image without any finite pixel becomes 0.
    """
    n, height, width = images.shape
    k = max(1, -(-max(height, width) // longest_px))
    rows, columns = max(1, height // k), max(1, width // k)
    out = np.zeros((n, rows, columns), np.float32)
    for i in range(n):
        image = np.asarray(images[i], np.float64)[: rows * k, : columns * k]
        known = np.isfinite(image)
        if known.any():
            image = np.where(known, image, image[known].mean())
            k_y, k_x = image.shape[0] // rows, image.shape[1] // columns
            out[i] = image.reshape(rows, k_y, columns, k_x).mean(axis=(1, 3))
    return out


def similarity(images: FloatArray) -> NDArray[np.float64]:
    """Return how alike the images are, pairwise: (n, n), symmetric, 1 on the diagonal, -1..1 elsewhere.

    The highest normalised correlation of two images over all shifts, computed over their overlap only, so that neither
    drift nor the border of the frame counts. Background, brightness and contrast do not matter. An image that is
    uniform is like no other (0).

    Parameters
    ----------
    images : (n, y, x), finite, small: see `thumbnails`. Pairs take about 50 us each at 64 x 64 px.
    """
    from scipy import fft

    details = _details(np.asarray(images, np.float32))
    n, *shape = details.shape
    padded = [fft.next_fast_len(int(np.ceil((1 + REACH) * size)), real=True) for size in shape]
    shifts = [np.abs(np.fft.fftfreq(p, 1 / p)) for p in padded]
    pixels = np.multiply.outer(*(np.clip(size - shift, 0, None) for size, shift in zip(shape, shifts, strict=True)))
    allowed = pixels >= REACH * shape[0] * shape[1]
    for axis, size in enumerate(shape):
        allowed &= np.expand_dims(shifts[axis] <= REACH * size, 1 - axis)
    overlap = pixels[allowed].astype(np.float32)

    def correlated(spectra: NDArray[np.complexfloating]) -> NDArray[np.float32]:
        return np.asarray(fft.irfft2(spectra, padded)[..., allowed], np.float32)

    frame = fft.rfft2(np.ones(shape, np.float32), padded)
    spectra, squares = fft.rfft2(details, padded), fft.rfft2(np.square(details), padded)
    # Of each image, over its overlap with a frame that is shifted either way: sum, and root of the sum of squares.
    sums = [correlated(spectra * frame.conj()), correlated(frame * spectra.conj())]
    powers = [correlated(squares * frame.conj()), correlated(frame * squares.conj())]
    sizes = [
        np.sqrt(np.maximum(p - s**2 / overlap, LEAST_VARIANCE * overlap)) for p, s in zip(powers, sums, strict=True)
    ]
    found = np.eye(n)
    for i in range(n - 1):
        rest = slice(i + 1, None)
        surface = correlated(spectra[rest] * spectra[i].conj()) - sums[0][rest] * (sums[1][i] / overlap)
        found[i, rest] = found[rest, i] = (surface / (sizes[0][rest] * sizes[1][i])).max(axis=1)
    return found


def _details(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the details of (n, y, x) images, with a variance of 1 in each; 0 where an image has none."""
    from scipy import ndimage

    unit = max(images.shape[1:]) / LONGEST_PX
    out = np.zeros_like(images)
    for image, detail in zip(images, out, strict=True):
        around = ndimage.median_filter(image, 3, mode="nearest")
        sticks_out = np.abs(image - around)
        smooth = np.where(sticks_out > SPIKE * np.quantile(sticks_out, USUAL), around, image)
        fine, coarse = (ndimage.gaussian_filter(smooth, unit * px, mode="nearest") for px in (FINE_PX, COARSE_PX))
        size = float(np.sqrt(np.mean(np.square(fine - coarse), dtype=float)))
        if size > 1e-6 * float(np.abs(smooth).max()):
            detail[:] = (fine - coarse) / size
    return out


def comparable(similarity: FloatArray) -> NDArray[np.bool_]:
    """Return which images (n,) resemble others about as much as most do: not empty, damaged or of something else."""
    others = np.array(similarity, float)
    np.fill_diagonal(others, -np.inf)
    best = others.max(axis=1, initial=-1)
    return np.asarray(best > STRAY * np.median(best))


def order_score(similarity: FloatArray, angles_deg: ArrayLike) -> float:
    """Return how well angles explain the similarity of the images: about 0 for angles at random, 1 at best.

    The part of the variance of the similarities (n, n) that is explained by a function of the angular distance which
    falls, or, the sample being flat, by the sum of two such functions, of the distance and of the difference in
    foreshortening, |log(cos a / cos b)|: the mean of both parts. Each alone favours a wrong order, the first for films
    (tilts a and -a look alike), the second where 0, -2, 2, -4 ... degrees were given to images in ascending order.

    `angles_deg` (n,) are in the order of the images. NaN where there are fewer than five images to compare.
    """
    return _explained(np.asarray(similarity, float), np.asarray(angles_deg, float), comparable(similarity))


def _explained(similarity: FloatArray, angles: FloatArray, used: NDArray[np.bool_]) -> float:
    if used.sum() < FEWEST:
        return float("nan")
    angles, alike = angles[used], similarity[np.ix_(used, used)]
    i, j = np.triu_indices(len(angles), 1)
    values = alike[i, j] - alike[i, j].mean()
    total = float(values @ values)
    if not total > 0:
        return 0.0
    shortened = np.log(np.maximum(np.abs(np.cos(np.deg2rad(angles))), LEAST_COS))
    apart, stretched = _Falling(np.abs(angles[i] - angles[j])), _Falling(np.abs(shortened[i] - shortened[j]))
    by_distance = apart.fitted(values)
    alone = 1 - float(np.square(values - by_distance).sum()) / total
    for _ in range(ROUNDS):
        by_stretch = stretched.fitted(values - by_distance)
        by_distance = apart.fitted(values - by_stretch)
    both = 1 - float(np.square(values - by_distance - by_stretch).sum()) / total
    return 0.5 * (alone + both)


class _Falling:
    """Fit of values by a function of `x` (pairs,) that never rises, constant in bins with equal numbers of pairs."""

    def __init__(self, x: FloatArray) -> None:
        n_bins = max(1, min(BINS, len(x) // PAIRS_PER_BIN))
        edges = np.unique(np.quantile(x, np.arange(1, n_bins) / n_bins))
        self.bins = np.searchsorted(edges, x, side="right")
        self.counts = np.bincount(self.bins, minlength=len(edges) + 1).astype(float)

    def fitted(self, values: FloatArray) -> NDArray[np.float64]:
        """Return the fit at each pair."""
        sums = np.bincount(self.bins, values, minlength=len(self.counts))
        levels: list[list[float]] = []  # sum, count, bins: pooled until they fall
        for total, count in zip(sums, self.counts, strict=True):
            levels.append([total, count, 1])
            while len(levels) > 1 and levels[-2][0] * levels[-1][1] <= levels[-1][0] * levels[-2][1]:
                last = levels.pop()
                levels[-1] = [a + b for a, b in zip(levels[-1], last, strict=True)]
        means = np.repeat([s / max(c, 1) for s, c, _ in levels], [int(m) for *_, m in levels])
        return np.asarray(means[self.bins])


def prefers(similarity: FloatArray, candidates: Sequence[ArrayLike]) -> int | None:
    """Return the index of the list of angles that the images support, None where none is clearly better than the rest.

    `similarity` (n, n) is that of the images, `candidates` lists of n angles in degrees in the order of the images.
    Lists that differ in sign, offset or scale only are not told apart.
    """
    used = comparable(similarity)
    scores = np.array([_explained(np.asarray(similarity, float), np.asarray(c, float), used) for c in candidates])
    if len(scores) < 2 or not np.isfinite(scores).all():
        return None
    first, second = np.argsort(-scores, kind="stable")[:2]
    return int(first) if clearly_better(scores[first], scores[second]) else None


def clearly_better(score: float, other: float) -> bool:
    """Return whether the images support the list of angles with this `order_score` rather than the other."""
    return bool(score - other >= MARGIN or 1 - score < LESS_LEFT * (1 - other))
