"""Where the images of a series roughly lie, before anything is known of the sample, the axis or their brightness."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.alignment.images.correlation import band_pass, padded_shape, register, taper
from tomoseg.alignment.images.reduced_series import reduce, reduction_factor
from tomoseg.arrays import FloatArray

LONGEST_PX = 96
LOW_CYCLES, HIGH = 3.0, 0.25  # per frame, per px
LEAST_SCORE = 0.2  # correlation of neighbours that are registered


@dataclass(frozen=True)
class RoughPlaces:
    """Rough register of a series: (n_tilt, 2) (dy, dx) in raw px to add to coordinates.

    `sure` (n_tilt,) says whether an image was registered with the one before; `error_px` is that of one step.
    """

    places_px: NDArray[np.float64]
    sure: NDArray[np.bool_]
    error_px: float


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

    def step(i: int) -> tuple[FloatArray, float]:
        check()
        return register(prepared(i - 1), prepared(i), response, max(shape) / 3)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = list(pool.map(step, range(1, len(images))))
    steps = np.array([np.zeros(2), *(shift for shift, _ in found)]) * factor * k
    sure = np.array([True, *(score >= LEAST_SCORE for _, score in found)])
    return RoughPlaces(np.cumsum(steps, axis=0), sure, 1.5 * factor * k)
