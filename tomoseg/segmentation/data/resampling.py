"""Resampling of images to another pixel size."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array


@dataclass(frozen=True)
class Resampling:
    """Resampling of images of `shape` (h, w) to another pixel size and back, over the same field of view."""

    shape: tuple[int, int]
    resampled: tuple[int, int]

    @classmethod
    def of(cls, shape: tuple[int, int], zoom: float) -> "Resampling":
        """Plan images of `zoom` times as many pixels along each side, to the nearest whole number."""
        height, width = (max(1, math.floor(n * zoom + 0.5)) for n in shape)
        return cls(shape, (height, width))

    def forth(self, images: Array) -> NDArray[np.float32]:
        """Return (..., h, w) images resampled."""
        return _resized(images, self.shape, self.resampled)

    def back(self, images: Array) -> NDArray[np.float32]:
        """Return resampled (..., h', w') images at their original pixel size."""
        return _resized(images, self.resampled, self.shape)


def _resized(images: Array, before: tuple[int, int], after: tuple[int, int]) -> NDArray[np.float32]:
    rows, columns = linear_weights(before[0], after[0]), linear_weights(before[1], after[1])
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
