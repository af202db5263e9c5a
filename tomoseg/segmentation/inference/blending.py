"""Smoothly blended predictions for images of any size from overlapping patches.

Weighting overlapping patches with a squared spline window is Guillaume Chevalier's idea (Vooban, 2017). Here the sum of
the weights at each pixel is divided out, so that every pixel, also at the edges, gets a weighted mean of predictions,
whatever the size of the image.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError

# (batch, h, w) f4 patches, or (batch, h, w, channels), to (batch, h, w, classes) f4 probabilities.
PredictBatch = Callable[[NDArray[np.float32]], Array]
# Sides of a patch in px: of a square one, or height and width.
Patch = int | tuple[int, int]


def no_check() -> None:
    """Do nothing between batches."""


def spline_window(patch: Patch) -> NDArray[np.float32]:
    """Return the 2D squared spline window of a patch: 1 in the middle, smooth, above 0 at the edge.

    Along each axis, with t from 0 at the edge to 1 in the middle, it is 2 t**2 for t < 1/2 and 1 - 2 (1 - t)**2 beyond.
    """
    rows, columns = (_spline(size) for size in sides(patch))
    return np.asarray(rows[:, None] * columns, np.float32)


def _spline(size: int) -> NDArray[np.float32]:
    t = 1 - np.abs(2 * (np.arange(size) + 0.5) / size - 1)
    return np.where(t < 0.5, 2 * t**2, 1 - 2 * (1 - t) ** 2).astype(np.float32)


def sides(patch: Patch) -> tuple[int, int]:
    """Return height and width of a patch."""
    return (patch, patch) if isinstance(patch, int) else patch


def patch_starts(size: int, patch: int, overlap: int) -> list[int]:
    """Return the starts of the patches along an axis of `size` >= `patch` px.

    Neighbours are at most patch / overlap apart, and the last one ends at the end of the axis.
    """
    stride = max(patch // overlap, 1)
    n = 1 + -(-(size - patch) // stride)
    return [int(i) for i in np.round(np.linspace(0, size - patch, n))]


@dataclass(frozen=True)
class Tiling:
    """Padding of images to the shape `padded`, and the `starts` (row, column) of their patches."""

    padding: tuple[tuple[int, int], tuple[int, int]]
    padded: tuple[int, int]
    starts: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, shape: tuple[int, int], patch: Patch, overlap: int) -> "Tiling":
        """Plan the tiling of images of `shape`."""
        height, width = sides(patch)
        padded = (max(shape[0], height), max(shape[1], width))
        missing = (padded[0] - shape[0], padded[1] - shape[1])
        padding = ((missing[0] // 2, missing[0] - missing[0] // 2), (missing[1] // 2, missing[1] - missing[1] // 2))
        rows, columns = patch_starts(padded[0], height, overlap), patch_starts(padded[1], width, overlap)
        return cls(padding, padded, [(r, c) for r in rows for c in columns])


def predict_stack(
    predict_batch: PredictBatch,
    images: Array,
    patch: Patch,
    overlap: int = 2,
    batch: int = 4,
    check: Callable[[], object] = no_check,
) -> NDArray[np.float32]:
    """Predict a stack of images of any size from overlapping patches.

    All patches of a batch come from one image, so that the result does not depend, in its last digits, on which images
    are predicted together.

    Parameters
    ----------
    predict_batch : callable
        From (n, h, w) f4 patches to (n, h, w, classes), with the same n in all calls.
    images : (n, h, w) or (n, h, w, channels) array
        A side smaller than the patch is padded by mirroring.
    patch : int or (int, int)
        Side of the patches in px, or height and width.
    overlap : int
        About overlap**2 patches cover a pixel away from the edges; 1 means no overlap.
    batch : int
        Largest number of patches per call; fewer where that makes all calls equally large.
    check : callable
        Called before each batch; may raise to stop.

    Returns
    -------
    (n, classes, h, w) f4 array
    """
    if images.ndim not in (3, 4) or min(images.shape) < 1 or min(sides(patch)) < 1 or overlap < 1 or batch < 1:
        raise InputError(
            f"images of shape {images.shape} cannot be cut into patches of {patch} px with overlap {overlap}: give "
            "(n, height, width) images, with channels last if there are any, and at least 1 for patch, overlap and "
            "batch"
        )
    weights = spline_window(patch)
    tiling = Tiling.of((images.shape[1], images.shape[2]), patch, overlap)
    height, width = sides(patch)
    padding = ((0, 0), *tiling.padding, *[(0, 0)] * (images.ndim - 3))
    padded = np.pad(np.asarray(images, np.float32), padding, mode="symmetric")
    total: NDArray[np.float32] | None = None
    for places, predictions in _predictions(predict_batch, padded, tiling, (height, width), batch, check):
        if total is None:
            total = np.zeros((len(images), predictions.shape[-1], *tiling.padded), np.float32)
        for (i, row, column), prediction in zip(places, predictions, strict=False):
            box = (slice(row, row + height), slice(column, column + width))
            total[i, :, box[0], box[1]] += weights * np.moveaxis(prediction, -1, 0)
    assert total is not None  # there is at least one patch
    total /= _summed(weights, tiling)
    (top, bottom), (left, right) = tiling.padding
    return total[:, :, top : tiling.padded[0] - bottom, left : tiling.padded[1] - right]


def _predictions(
    predict_batch: PredictBatch,
    padded: NDArray[np.float32],
    tiling: Tiling,
    patch: tuple[int, int],
    batch: int,
    check: Callable[[], object],
) -> Iterator[tuple[list[tuple[int, int, int]], Array]]:
    """Yield the places (image, row, column) of the patches of each batch, and their predictions."""
    n_calls = -(-len(tiling.starts) // batch)
    size = -(-len(tiling.starts) // n_calls)
    for i, image in enumerate(padded):
        for first in range(0, len(tiling.starts), size):
            check()
            part = tiling.starts[first : first + size]
            # Full batches: graphs are compiled per shape.
            patches = np.zeros((size, *patch, *image.shape[2:]), np.float32)
            for k, (row, column) in enumerate(part):
                patches[k] = image[row : row + patch[0], column : column + patch[1]]
            yield [(i, row, column) for row, column in part], np.asarray(predict_batch(patches))


def _summed(weights: Array, tiling: Tiling) -> NDArray[np.float32]:
    """Return the sum of the weights at each pixel of a padded image."""
    summed = np.zeros(tiling.padded, np.float32)
    for row, column in tiling.starts:
        summed[row : row + weights.shape[0], column : column + weights.shape[1]] += weights
    return summed
