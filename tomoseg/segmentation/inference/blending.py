"""Smoothly blended predictions for images of any size from overlapping patches.

Weighting overlapping patches with a squared spline window is Guillaume Chevalier's idea (Vooban, 2017). Here the sum of
the weights at each pixel is divided out, so that every pixel, also at the edges, gets a weighted mean of predictions,
whatever the size of the image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError

# (batch, h, w) f4 patches, or (batch, h, w, channels), to (batch, h, w, classes) f4 probabilities.
PredictBatch = Callable[[NDArray[np.float32]], Array]


def spline_window(patch: tuple[int, int]) -> NDArray[np.float32]:
    """Return the 2D squared spline window of a patch: 1 in the middle, smooth, above 0 at the edge.

    Along each axis, with t from 0 at the edge to 1 in the middle, it is 2 t**2 for t < 1/2 and 1 - 2 (1 - t)**2 beyond.
    """
    ramps = [1 - np.abs(2 * (np.arange(size) + 0.5) / size - 1) for size in patch]
    rows, columns = (np.where(t < 0.5, 2 * t**2, 1 - 2 * (1 - t) ** 2).astype(np.float32) for t in ramps)
    return np.asarray(rows[:, None] * columns, np.float32)


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
    def of(cls, shape: tuple[int, int], patch: tuple[int, int], overlap: int) -> "Tiling":
        """Plan the tiling of images of `shape`."""
        padded = (max(shape[0], patch[0]), max(shape[1], patch[1]))
        missing = (padded[0] - shape[0], padded[1] - shape[1])
        padding = ((missing[0] // 2, missing[0] - missing[0] // 2), (missing[1] // 2, missing[1] - missing[1] // 2))
        rows, columns = (patch_starts(n, side, overlap) for n, side in zip(padded, patch, strict=True))
        return cls(padding, padded, [(r, c) for r in rows for c in columns])


def predict_stack(
    predict_batch: PredictBatch,
    images: Array,
    patch: tuple[int, int],
    overlap: int = 2,
    batch: int = 4,
    check: Callable[[], object] = str,
) -> NDArray[np.float32]:
    """Predict a stack of images of any size from overlapping patches; return (n, classes, h, w) f4.

    All patches of a batch come from one image, so that the result does not depend, in its last digits, on which images
    are predicted together.

    Parameters
    ----------
    predict_batch : called with the same n in all calls
    images : (n, h, w) or (n, h, w, channels); a side smaller than the patch is padded by mirroring
    patch : height and width of the patches, px
    overlap : about overlap**2 patches cover a pixel away from the edges; 1 means no overlap
    batch : largest number of patches per call; fewer where that makes all calls equally large
    check : called before each batch; may raise to stop
    """
    if images.ndim not in (3, 4) or min(images.shape) < 1 or min(patch) < 1 or overlap < 1 or batch < 1:
        raise InputError(
            f"images of shape {images.shape} cannot be cut into patches of {patch} px with overlap {overlap}: give "
            "(n, height, width) images, with channels last if there are any, and at least 1 for patch, overlap and "
            "batch"
        )
    tiling = Tiling.of((images.shape[1], images.shape[2]), patch, overlap)
    padding = ((0, 0), *tiling.padding, *[(0, 0)] * (images.ndim - 3))
    padded = np.pad(np.asarray(images, np.float32), padding, mode="symmetric")
    boxes = [(slice(row, row + patch[0]), slice(column, column + patch[1])) for row, column in tiling.starts]
    size = -(-len(boxes) // -(-len(boxes) // batch))
    weights = spline_window(patch)
    summed = np.zeros(tiling.padded, np.float32)
    for box in boxes:
        summed[box] += weights
    total: NDArray[np.float32] | None = None
    for i, image in enumerate(padded):
        for part in (boxes[first : first + size] for first in range(0, len(boxes), size)):
            check()
            patches = np.zeros((size, *patch, *image.shape[2:]), np.float32)  # full batches: a graph fits one shape
            for k, box in enumerate(part):
                patches[k] = image[box]
            predictions = np.asarray(predict_batch(patches))
            if total is None:
                total = np.zeros((len(images), predictions.shape[-1], *tiling.padded), np.float32)
            for box, prediction in zip(part, predictions, strict=False):
                total[i, :, *box] += weights * np.moveaxis(prediction, -1, 0)
    assert total is not None  # there is at least one patch
    total /= summed
    (top, bottom), (left, right) = tiling.padding
    return total[:, :, top : tiling.padded[0] - bottom, left : tiling.padded[1] - right]
