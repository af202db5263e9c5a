"""Test-time augmentation: the mean of the predictions of mirrored and transposed copies of an image."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.segmentation.inference.blending import PredictBatch

Symmetries = Literal["none", "flips", "dihedral"]
N_COPIES: dict[Symmetries, int] = {"none": 1, "flips": 4, "dihedral": 8}
# Axes to flip, of patches that are transposed first or not.
_FLIPS = [(), (1,), (2,), (1, 2)]


def augmented(predict_batch: PredictBatch, symmetries: Symmetries) -> PredictBatch:
    """Return a function that averages the predictions of symmetric copies, each turned back.

    With 'flips' they are the patch, flipped up-down, left-right and both, with 'dihedral' these four and their
    transposes.
    """
    if symmetries == "none":
        return predict_batch
    transpositions = (False, True) if symmetries == "dihedral" else (False,)

    def mean(patches: NDArray[np.float32]) -> Array:
        total: Array = np.float32(0)  # type: ignore[assignment]
        for transposed in transpositions:
            turned = patches.swapaxes(1, 2) if transposed else patches
            for axes in _FLIPS:
                predicted = np.flip(np.asarray(predict_batch(np.ascontiguousarray(np.flip(turned, axes)))), axes)
                total = total + (predicted.swapaxes(1, 2) if transposed else predicted)
        return np.asarray(total / np.float32(N_COPIES[symmetries]))

    return mean
