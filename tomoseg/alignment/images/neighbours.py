"""Where the images of a series roughly lie, before anything is known of the sample, the axis or their brightness."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from tomoseg.alignment.extent import reduction_factor
from tomoseg.alignment.images.correlation import band_pass, padded_shape, register, taper
from tomoseg.alignment.images.reduced_series import reduce
from tomoseg.arrays import FloatArray

LONGEST_PX = 96
LOW_CYCLES, HIGH = 3.0, 0.25  # per frame, per px
LEAST_SCORE = 0.2  # correlation of neighbours that are registered
DROP, SCATTERS = 0.08, 4  # below the usual score, and scatters below it


@dataclass(frozen=True)
class RoughPlaces:
    """Rough register of a series: (n_tilt, 2) (dy, dx) in raw px to add to coordinates.

    `sure` (n_tilt,) says whether an image was registered, and `before` (n_tilt,) with which: the one before it or,
    where that is a bad one, the one before that. `error_px` is that of one step.
    """

    places_px: NDArray[np.float64]
    sure: NDArray[np.bool_]
    before: NDArray[np.int_]
    error_px: float

    @property
    def passed_over(self) -> NDArray[np.bool_]:
        """The bad images that others were not registered with, (n_tilt,)."""
        return np.append(np.diff(self.before) == 0, False)


def small_image(image: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Return an image (y, x) averaged over `factor` pixels, freed of spikes, NaN where most of it is unknown."""
    known = np.isfinite(image)
    if known.all():
        small, weight = reduce(image, factor), None
    else:
        weight = reduce(known, factor)
        small = np.asarray(reduce(np.where(known, image, 0), factor) / np.maximum(weight, 1e-6), np.float32)
        small[weight < 0.5] = np.median(image[known]) if known.any() else 0
    small = ndimage.median_filter(small, 3, mode="nearest")
    if weight is not None:
        small[weight < 0.5] = np.nan
    return np.asarray(small, np.float32)


def rough_places(
    images: NDArray[np.float32], factor: int, workers: int = 1, check: Callable[[], None] = lambda: None
) -> RoughPlaces:
    """Register neighbours among `small_image`s (n_tilt, y, x), of `factor` raw px, by cross-correlation."""
    k = reduction_factor(images.shape, LONGEST_PX)
    shape = reduce(images[0], k).shape
    padded = padded_shape(shape, 1.5)
    response = band_pass(padded, LOW_CYCLES / max(shape), HIGH)
    window = taper(shape, 0.5)

    def prepared(i: int) -> NDArray[np.float32]:
        image = images[i]
        known = np.isfinite(image)
        filled = np.where(known, image, np.median(image[known]) if known.any() else 0)
        small = reduce(filled, k)
        return np.asarray((small - small.mean()) * window, np.float32)

    def step(i: int, j: int) -> tuple[FloatArray, float]:
        check()
        return register(prepared(i), prepared(j), response, max(shape) / 3)

    n = len(images)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = [(np.zeros(2), 1.0), *pool.map(step, range(n - 1), range(1, n))]
    before, scores = np.arange(n) - 1, np.array([score for _, score in found])
    low = scores < least_score(scores)
    for i in map(int, np.flatnonzero(low[1:-1] & low[2:]) + 1):
        past = step(i - 1, i + 1)
        if past[1] > max(scores[i], scores[i + 1]) and before[i] == i - 1:  # they agree without the one between them
            found[i], found[i + 1] = (np.zeros(2), 0.0), past
            before[i + 1] = i - 1
    steps = np.array([shift for shift, _ in found]) * factor * k
    sure = np.array([score >= LEAST_SCORE for _, score in found])
    return RoughPlaces(np.cumsum(steps, axis=0), sure, before, 1.5 * factor * k)


def least_score(scores: ArrayLike) -> float:
    """Return the least of usual scores (n,) of registered images: where it is less, one of the two may be a bad one."""
    values = np.asarray(scores)
    usual = float(np.median(values))
    return usual - max(DROP, SCATTERS * 1.4826 * float(np.median(np.abs(values - usual))))
