"""Resampling of images to another pixel size."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array


def resized(images: Array, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return images (..., h, w) resampled to `shape`, over the same field of view; see `linear_weights`."""
    rows, columns = (linear_weights(n, m) for n, m in zip(images.shape[-2:], shape, strict=True))
    return np.asarray(rows @ np.asarray(images, np.float32) @ columns.T, np.float32)


@cache
def linear_weights(n: int, m: int) -> NDArray[np.float32]:
    """Return the (m, n) matrix that resamples n pixels to m over the same length.

    Interpolation is linear between pixel centres; for m < n the triangle is as wide as two of the larger pixels, which
    removes all finer detail. Each row sums to 1, also at the edges.
    """
    step = n / m
    centres = (np.arange(m) + 0.5) * step - 0.5
    distance = np.abs(np.clip(centres, 0, n - 1)[:, None] - np.arange(n)) / max(step, 1.0)
    weights = np.maximum(0.0, 1 - distance)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
