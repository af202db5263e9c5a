"""Shifts between neighbouring tilts, outward from the lowest one.

Each image is correlated with what the images before it have shown: the mean of the last few, already in register, each
stretched across the tilt axis by the ratio of the cosines as a flat sample would be. An image that agrees far less than
others do is passed over if the next one agrees better with those before it: one bad image does not break the chain. The
chain needs nothing of the sample to be whole in the frame, but its errors add up;
`tomoseg.alignment.finding.consistency` and `tomoseg.alignment.finding.reproject` take them out.
"""

from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.alignment.images.correlation import band_pass, padded_shape, register, taper
from tomoseg.alignment.images.neighbours import least_score
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.arrays import FloatArray

MEMORY = 3  # images the reference is the mean of: fewer are noisier, more are blurred by the change of view
# Beyond this tilt no sample is flat enough for the stretch by 1 / cos to describe it.
STEEPEST_STRETCH_DEG = 80.0
BORDER = 0.3  # part of the frame that is tapered: the frame's own edge must not be what correlates
# Steps through the common window: a gradual sample follows the windows of the first search, and is still far off.
MOST_STEPS, LARGEST_STEP_PX, SMALL_STEP_PX = 8, 3.0, 0.5
# Cycles per frame and per pixel of the reduced image: structures of a third of the frame down to four pixels.
LOW_CYCLES_PER_FRAME, HIGH_CYCLES_PER_PX = 3.0, 0.25
FLAT_WITHIN = 1 / 12  # of the frame: standard deviation of the mean about a pixel that is taken off


@dataclass(frozen=True)
class Band:
    """Limits of the band-pass in cycles per raw pixel; None for those of this module."""

    low: float | None = None
    high: float | None = None

    def response(self, shape: tuple[int, ...], frame_px: int, factor: int) -> NDArray[np.float32]:
        """Return the filter for `register` on images padded to `shape`; a pixel is `factor` raw pixels wide."""
        low = LOW_CYCLES_PER_FRAME / frame_px if self.low is None else self.low * factor
        # A reduced image holds nothing beyond half a cycle per pixel, and little that is sharp beyond 0.35.
        high = HIGH_CYCLES_PER_PX if self.high is None else min(self.high * factor, 0.35)
        return band_pass(shape, min(low, 0.5 * high), high)


def stretch(from_deg: float, to_deg: float) -> float:
    """Return how much longer a flat sample appears across the axis at tilt `to_deg` than at `from_deg`."""
    if max(abs(from_deg), abs(to_deg)) > STEEPEST_STRETCH_DEG:
        return 1.0
    return float(np.clip(np.cos(np.deg2rad(to_deg)) / np.cos(np.deg2rad(from_deg)), 0.7, 1.4))


def track_neighbours(
    series: ReducedSeries,
    axis_angle_deg: float | None,
    band: Band,
    max_shift_px: float,
    patch: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Register each image with its neighbours nearer to the lowest tilt.

    Parameters
    ----------
    axis_angle_deg : direction to stretch across; None where it is not known yet: no stretch
    max_shift_px : largest step between neighbours, in pixels of the reduced series
    patch : two (y, x) arrays, optional
        Weights of the frame of the lowest tilt: what is followed, and where it is looked for at first. Default: all.

    Returns
    -------
    shifts : (n_tilt, 2) array
        (dy, dx) to add to the coordinates of each reduced image, 0 for the lowest usable tilt. Unusable tilts get what
        lies between their neighbours.
    scores : (n_tilt,) array
        Normalised correlation with the reference; NaN for unusable tilts, 1 for the lowest.
    """
    n = series.n_tilt
    shifts, scores = np.zeros((n, 2)), np.full(n, np.nan)
    usable = np.flatnonzero(series.usable)
    if len(usable) == 0:
        return shifts, scores
    scores[series.outward[0][0]] = 1.0
    border = taper(series.images.shape[1:], BORDER)
    usual: list[float] = []
    series = replace(series, images=flattened(series.images))

    def joined(i: int, known: list[int]) -> tuple[NDArray[np.float64], float]:
        reference, weight = _reference(series, np.array(known), i, shifts, axis_angle_deg, border)
        return _join(series, i, reference, weight, shifts[known[-1]], border, band, max_shift_px, patch)

    for chain in series.outward:
        trusted, doubted = [int(chain[0])], None
        for i in map(int, chain[1:]):
            series.checkpoint()
            shifts[i], scores[i] = joined(i, trusted[-MEMORY:])
            # Whether this one agrees with those before as usual, or goes on from the doubted one, tells which is bad.
            if doubted is not None and scores[i] < least_score(usual):
                by_doubted = joined(i, [doubted])
                if by_doubted[1] > scores[i]:
                    trusted.append(doubted)
                    shifts[i], scores[i] = by_doubted
            doubted = i if len(usual) >= MEMORY and scores[i] < least_score(usual) else None
            if doubted is None:
                trusted.append(i)
                usual.append(float(scores[i]))
    index = np.arange(n)
    for axis in (0, 1):
        shifts[:, axis] = np.interp(index, usable, shifts[usable, axis])
    return shifts, scores


def flattened(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return images (n, y, x) less the mean about each pixel.

    Where brightness grows towards a border of the frame, as along a needle that leaves it, the window would make an
    edge of it that stands still: neighbours of such a series were 3 px off in half of all pairs.
    """
    sigma = FLAT_WITHIN * max(images.shape[1:])
    side = max(round(np.sqrt(6 * sigma**2 + 1)), 1)  # two boxes have the variance of the Gaussian: 2 (n^2 - 1) / 12
    means = (ndimage.uniform_filter(ndimage.uniform_filter(image, side), side) for image in images)
    return np.stack([image - mean for image, mean in zip(images, means, strict=True)])


def _reference(
    series: ReducedSeries,
    known: NDArray[np.int_],
    i: int,
    shifts: FloatArray,
    axis_angle_deg: float | None,
    border: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean of the `known` images as tilt `i` would show them in register, and where it is known (0..1)."""
    total = np.zeros(series.images.shape[1:], np.float32)
    weight = np.zeros_like(total)
    for j in known:
        ratio = 1.0 if axis_angle_deg is None else stretch(series.angles_deg[j], series.angles_deg[i])
        image, w = moved(series.images[j], border, shifts[j], ratio, axis_angle_deg or 0.0)
        total += image * w
        weight += w
    return np.asarray(total / np.maximum(weight, 1e-6), np.float32), np.asarray(weight / len(known), np.float32)


def moved(
    image: NDArray[np.float32],
    border: NDArray[np.float32],
    shift: FloatArray,
    ratio: float,
    axis_angle_deg: float,
    correction: FloatArray | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return an image and its border weight in register, stretched by `ratio` across the axis about the centre.

    `correction` is the rotation and magnification of this image, one of `correction_matrices`.
    """
    phi = np.deg2rad(axis_angle_deg)
    across = np.array([-np.sin(phi), np.cos(phi)])  # (y, x) of the rotated x'
    inverse = np.eye(2) + (1 / ratio - 1) * np.outer(across, across)
    centre = (np.array(image.shape) - 1) / 2
    shift = np.asarray(shift)
    if correction is not None:
        back = np.linalg.inv(correction)
        inverse, shift = back @ inverse, back @ shift
    start = centre - inverse @ centre - shift
    there, weight = np.empty(image.shape, np.float32), np.empty(image.shape, np.float32)
    _resample_linear(image, border, inverse, start, there, weight)
    return there, weight


@numba.njit(nogil=True, cache=True)
def _resample_linear(image, border, matrix, start, there, weight):  # type: ignore[no-untyped-def]
    """Interpolate image and border linearly at matrix @ (row, column) + start.

    Outside the frame the image goes on as it is at its sides, and the border is 0.
    """
    height, width = image.shape
    for row in range(height):
        for column in range(width):
            y = matrix[0, 0] * row + matrix[0, 1] * column + start[0]
            x = matrix[1, 0] * row + matrix[1, 1] * column + start[1]
            inside = 0 <= y <= height - 1 and 0 <= x <= width - 1
            y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
            up, left = int(y), int(x)
            down, right = min(up + 1, height - 1), min(left + 1, width - 1)
            v, h = y - up, x - left
            there[row, column] = (1 - v) * ((1 - h) * image[up, left] + h * image[up, right]) + v * (
                (1 - h) * image[down, left] + h * image[down, right]
            )
            weight[row, column] = 0.0
            if inside:
                weight[row, column] = (1 - v) * ((1 - h) * border[up, left] + h * border[up, right]) + v * (
                    (1 - h) * border[down, left] + h * border[down, right]
                )


def _join(
    series: ReducedSeries,
    i: int,
    reference: NDArray[np.float32],
    weight: NDArray[np.float32],
    expected: NDArray[np.float64],
    border: NDArray[np.float32],
    band: Band,
    max_shift_px: float,
    patch: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
) -> tuple[NDArray[np.float64], float]:
    """Return shift and score of image `i`: a full search first, then twice again through one and the same window.

    In the first search each image has its own window; both windows move with the images only afterwards, which takes
    out the pull of the windows towards no shift.
    """
    image = series.images[i]
    shape, frame = image.shape, max(image.shape)
    padded = padded_shape(shape, 2.0)
    response = band.response(padded, frame, series.factor)
    here, w = moved(image, border, expected, 1.0, 0.0)
    if patch is not None:
        weight, w = weight * patch[0], w * patch[1]
    step, score = register(_windowed(reference, weight), _windowed(here, w), response, max_shift_px)
    shift = expected + step
    padded = padded_shape(shape, 1.0)
    response = band.response(padded, frame, series.factor)
    for number in range(MOST_STEPS):
        here, w = moved(image, border, shift, 1.0, 0.0)
        both = weight * w
        step, score = register(_windowed(reference, both), _windowed(here, both), response, LARGEST_STEP_PX)
        shift = shift + step
        is_far = np.abs(shift - expected).max() > max_shift_px
        if number > 0 and (is_far or np.abs(step).max() < SMALL_STEP_PX):
            break
    return shift, score


def _windowed(image: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an image times a window, its weighted mean taken off first so that the window itself leaves no edge."""
    total = float(weight.sum())
    mean = float((image * weight).sum()) / total if total > 0 else 0.0
    return np.asarray((image - mean) * weight, np.float32)
