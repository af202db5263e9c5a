"""Compact bright particles in single images: detection at several sizes, and their centres to a fraction of a pixel.

A particle is a maximum, in place and in size, of the difference of two Gaussians whose widths differ by a factor of
1.4, which is nearly the Laplacian of a Gaussian (Lindeberg, Int. J. Computer Vision 30, 79; 1998). It counts if it
stands out of what the image holds of that size, film, noise and all, by its robust standard deviation.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.arrays import FloatArray

WIDTHS_PX = 1.2 * 1.4 ** np.arange(6)  # standard deviations of the smaller Gaussian: particles 3 to 18 px across
RATIO = 1.4
SIGNIFICANT = 5.0  # robust standard deviations
MOST_SPOTS = 250  # in an image
APART = 0.8  # of the sum of their widths: spots nearer to each other are one
FROM_BORDER = 1.5  # widths
MOST_RESPONSE = 60.0  # to keep: more says nothing more


@dataclass(frozen=True)
class Spots:
    """Spots of an image, the clearest first: `places_px` (n, 2) are (y, x) from its centre, `sizes` (n,) the widths."""

    places_px: NDArray[np.float64]
    sizes: NDArray[np.int_]

    def __len__(self) -> int:
        return len(self.sizes)


NO_SPOTS = Spots(np.zeros((0, 2)), np.zeros(0, int))


@dataclass(frozen=True)
class SpotSeries:
    """The spots of every image, and how much each pixel looks like one.

    `responses` (n_tilt, n_width, y, x) f2 are in robust standard deviations of the image at that width.
    """

    spots: list[Spots]
    responses: NDArray[np.float16]

    @property
    def centre_px(self) -> NDArray[np.float64]:
        """Centre (y, x) of an image."""
        return (np.array(self.responses.shape[2:]) - 1) / 2


def find_spots(series: ReducedSeries) -> SpotSeries:
    """Find the spots of all usable images of a series with background 0, in which mass is bright."""
    n, height, width = series.images.shape
    responses = np.zeros((n, len(WIDTHS_PX), height, width), np.float16)

    def one(i: int) -> Spots:
        if not series.usable[i]:
            return NO_SPOTS
        seen = None if series.seen is None else series.seen[i]
        found = response(series.images[i], seen)
        responses[i] = np.clip(found, -MOST_RESPONSE, MOST_RESPONSE)
        return _spots(found, seen)

    return SpotSeries(series.each(one), responses)


def response(image: FloatArray, seen: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Return how much each pixel looks like the centre of a particle, (n_width, y, x), in standard deviations.

    They are those of the pixels that are `seen`, by default all.
    """
    widths = np.append(WIDTHS_PX, WIDTHS_PX[-1] * RATIO)
    smooth = [ndimage.gaussian_filter(np.asarray(image, np.float32), w, mode="nearest") for w in widths]
    found = np.stack([a - b for a, b in pairwise(smooth)])
    known = found.reshape(len(found), -1) if seen is None or not seen.any() else found[:, seen]
    middle = np.median(known, axis=1, keepdims=True)
    scatter = 1.4826 * np.median(np.abs(known - middle), axis=1, keepdims=True)
    return np.asarray((found - middle[..., None]) / np.maximum(scatter[..., None], 1e-12), np.float32)


def _spots(found: NDArray[np.float32], seen: NDArray[np.bool_] | None) -> Spots:
    """Return the spots of an image, given its `response`."""
    is_top = (found > SIGNIFICANT) & (ndimage.maximum_filter(found, 3, mode="nearest") == found)
    size, y, x = np.nonzero(is_top)
    height, width = found.shape[1:]
    room = np.minimum(np.minimum(y, height - 1 - y), np.minimum(x, width - 1 - x)).astype(float)
    if seen is not None:
        room = np.minimum(room, ndimage.distance_transform_edt(seen)[y, x] - 1)
    kept = room >= np.maximum(FROM_BORDER * WIDTHS_PX[size], 1)
    size, y, x = size[kept], y[kept], x[kept]
    order = np.argsort(-found[size, y, x], kind="stable")
    chosen: list[int] = []
    places = np.stack([y, x], axis=1).astype(float)
    for k in order:
        distance = np.hypot(*(places[chosen] - places[k]).T)
        if (distance > APART * (WIDTHS_PX[size[chosen]] + WIDTHS_PX[size[k]])).all():
            chosen.append(int(k))
        if len(chosen) == MOST_SPOTS:
            break
    if not chosen:
        return NO_SPOTS
    size, y, x = size[chosen], y[chosen], x[chosen]
    around = np.stack([found[s, r - 1 : r + 2, c - 1 : c + 2] for s, r, c in zip(size, y, x, strict=True)])
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    return Spots(np.stack([y, x], axis=1) + tops(around) - centre, size)


def tops(around: FloatArray) -> NDArray[np.float64]:
    """Return where in (n, 3, 3) neighbourhoods their maximum lies, (n, 2) (dy, dx) from the middle.

    It is that of the paraboloid through the nine values, by least squares along the axes and with their mixed term;
    0 where there is no maximum.
    """
    p = np.asarray(around, np.float64)
    slope_y, slope_x = (p[:, 2, 1] - p[:, 0, 1]) / 2, (p[:, 1, 2] - p[:, 1, 0]) / 2
    yy, xx = (p[:, 2, 1] + p[:, 0, 1] - 2 * p[:, 1, 1]), (p[:, 1, 2] + p[:, 1, 0] - 2 * p[:, 1, 1])
    xy = (p[:, 2, 2] + p[:, 0, 0] - p[:, 2, 0] - p[:, 0, 2]) / 4
    determinant = yy * xx - xy**2
    is_maximum = (determinant > 1e-12) & (yy < 0)
    safe = np.where(is_maximum, determinant, 1.0)
    step = np.stack([xy * slope_x - xx * slope_y, xy * slope_y - yy * slope_x], axis=1) / safe[:, None]
    return np.clip(np.where(is_maximum[:, None], step, 0), -0.75, 0.75)
