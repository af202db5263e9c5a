"""Blobs of all sizes in an image: extrema over place and scale of differences of Gaussians.

A disc of radius r answers most strongly to the scale sigma = r / sqrt(2) (T. Lindeberg, Int. J. Comput. Vis. 30, 1998,
79-116). Three scales per octave; each octave is filtered on an image reduced twofold, so that all scales together cost
little more than the finest ones.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array, BoolArray, Float32Array, FloatArray

PER_OCTAVE = 3
INNER = range(1, PER_OCTAVE + 1)  # of the responses of an octave, those that have neighbours on both sides
FINEST_SIGMA = 1.0  # px: discs of 2.8 px
REFERENCE = 1  # the response of the first octave from which the noise is taken
# Standard deviation of each response of the first octave to white noise, over that of the reference; those of later
# octaves halve each time.
WHITE = (1.257, 1.0, 0.794, 0.630, 0.500)
SMOOTHED = 1.130  # and that of the smoothed image of an octave, over that of the reference response there
BLOCK = 16  # px of an octave: the scatter is taken in blocks of that side
FEWEST = 12  # px of a block from which its scatter is known
MAD_TO_SIGMA = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
BLOB = np.dtype([("y", "f8"), ("x", "f8"), ("radius", "f8"), ("octave", "i8"), ("scale", "i8"), ("response", "f8")])


@dataclass(frozen=True)
class Octave:
    """An image reduced by `step` (px per px), and its responses at the scales of the octave.

    `image` (y, x) f4 is smoothed by a Gaussian of `FINEST_SIGMA` of its own px over the original; px (0, 0) lies on px
    (0, 0) of the original. `responses`: (y, x) f4 each, positive on bright blobs.
    """

    image: Float32Array
    step: int
    responses: tuple[Float32Array, ...]


def octaves(image: Float32Array, largest_px: float) -> list[Octave]:
    """Return the octaves of an image (y, x) that answer to blobs of diameters up to `largest_px`."""
    found, step = [], 1
    base = ndimage.gaussian_filter(image, FINEST_SIGMA, mode="nearest", truncate=3.5)
    while True:
        responses, following = _responses(base)
        found.append(Octave(base, step, tuple(responses)))
        step *= 2
        if radius_at(0, step) * 2 > largest_px or min(following.shape) < 2 * BLOCK:
            return found
        base = np.ascontiguousarray(following[::2, ::2])


def radius_at(scale: int, step: int) -> float:
    """Return the radius, px, of the disc that answers most strongly: between the two Gaussians of the difference."""
    return float(np.sqrt(2) * FINEST_SIGMA * 2 ** ((scale + 0.5) / PER_OCTAVE) * step)


def _responses(base: Float32Array) -> tuple[list[Float32Array], Float32Array]:
    """Return the responses at the scales of an octave and one beyond on either side, and the image at twice its scale.

    The response is the difference of two neighbouring Gaussians over the relative step between them: sigma^2 times the
    negative Laplacian, the depth of a blob in grey values.
    """
    ratio = 2 ** (1 / PER_OCTAVE)
    smooth, sigma = [base], FINEST_SIGMA
    for _ in range(PER_OCTAVE + 2):
        extra = sigma * np.sqrt(ratio**2 - 1)
        smooth.append(ndimage.gaussian_filter(smooth[-1], extra, mode="nearest", truncate=3.5))
        sigma *= ratio
    responses = [(a - b) / np.float32(ratio - 1) for a, b in itertools.pairwise(smooth)]
    return responses, smooth[PER_OCTAVE]


def scatter(response: Float32Array, left_out: BoolArray) -> FloatArray:
    """Return the robust local standard deviation of a response, one value per block of `BLOCK` px.

    The median absolute value, as its local median is near 0, of the px (y, x) that are not `left_out`; blocks that have
    few of them take it from those around, or else from further away.
    """
    medians, counts = _block_medians(response, left_out)
    known = np.where(counts >= FEWEST, counts, 0.0)
    if not known.any():
        return np.full(medians.shape, MAD_TO_SIGMA * float(np.median(np.abs(response))))
    out = np.full(medians.shape, np.nan)
    for width in (1.0, 3.0, 10.0, 1e3):
        weight = ndimage.gaussian_filter(known, width, mode="nearest", truncate=3.0) if width < 1e3 else known.mean()
        total = known * medians
        total = ndimage.gaussian_filter(total, width, mode="nearest", truncate=3.0) if width < 1e3 else total.mean()
        enough = np.isnan(out) & (np.broadcast_to(weight, out.shape) > (FEWEST / 2 if width < 1e3 else 0))
        out[enough] = np.broadcast_to(total / np.maximum(weight, 1e-12), out.shape)[enough]
    return np.asarray(MAD_TO_SIGMA * out)


def blobs(found: Sequence[Octave], noise: FloatArray, least: float, sign: int) -> NDArray[np.void]:
    """Return the blobs (n,) of `BLOB`: maxima over place and scale, at least `least` times the scatter of the noise.

    `noise` is the `scatter` of the reference response of the first octave, `sign` 1 for bright blobs and -1 for dark
    ones. At larger scales the scatter of white noise falls as 1 / sigma.
    """
    parts = []
    for octave, one in enumerate(found):
        limits = noise * least / one.step
        maxima = _maxima(one.responses, limits, np.array(WHITE), np.float32(sign), octave)
        out = np.zeros(len(maxima), BLOB)
        out["scale"], out["y"], out["x"] = maxima[:, 0], maxima[:, 1] * one.step, maxima[:, 2] * one.step
        out["radius"] = [radius_at(int(k), one.step) for k in maxima[:, 0]]
        out["response"], out["octave"] = maxima[:, 3], octave
        parts.append(out)
    return np.concatenate(parts)


@numba.njit(nogil=True, cache=True)
def _block_medians(response: Array, left_out: Array) -> tuple[Array, Array]:
    n_y, n_x = response.shape
    n, m = max(1, -(-n_y // BLOCK)), max(1, -(-n_x // BLOCK))
    medians, counts = np.zeros((n, m)), np.zeros((n, m))
    values = np.empty(BLOCK * BLOCK, np.float32)
    for i in range(n):
        for j in range(m):
            k = 0
            for y in range(i * BLOCK, min(n_y, (i + 1) * BLOCK), 2):  # neighbours hardly differ
                for x in range(j * BLOCK + y // 2 % 2, min(n_x, (j + 1) * BLOCK), 2):
                    if not left_out[y, x]:
                        values[k] = abs(response[y, x])
                        k += 1
            counts[i, j] = k
            if k > 0:
                medians[i, j] = np.median(values[:k])
    return medians, counts


@numba.njit(nogil=True, cache=True)
def _maxima(responses: tuple[Array, ...], limits: Array, white: Array, sign: np.float32, octave: int) -> Array:
    """Return scale, y, x and response (n, 4) of the maxima over 3 x 3 x 3 neighbours at the inner scales."""
    n_y, n_x = responses[0].shape
    found = []
    for k in range(1, len(responses) - 1):
        for y in range(n_y):
            row = min((y << octave) // BLOCK, limits.shape[0] - 1)
            for x in range(n_x):
                value = sign * responses[k][y, x]
                if value <= 0:
                    continue
                column = min((x << octave) // BLOCK, limits.shape[1] - 1)
                if value < limits[row, column] * white[k]:
                    continue
                highest = True
                for a in range(k - 1, k + 2):
                    for b in range(max(0, y - 1), min(n_y, y + 2)):
                        for c in range(max(0, x - 1), min(n_x, x + 2)):
                            if sign * responses[a][b, c] > value:
                                highest = False
                if highest:
                    found.append((np.float64(k), np.float64(y), np.float64(x), np.float64(value)))
    out = np.zeros((len(found), 4))
    for i in range(len(found)):
        for j in range(4):
            out[i, j] = found[i][j]
    return out
