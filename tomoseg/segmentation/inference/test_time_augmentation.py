"""Symmetric views of images, whose predictions are averaged (test-time augmentation)."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.segmentation.inference.blending import PredictBatch

Views = Literal["none", "flips", "dihedral"]
N_VIEWS: dict[Views, int] = {"none": 1, "flips": 4, "dihedral": 8}
# Turned over up-down and left-right, and transposed before that.
_FLIPS = [(), (1,), (2,), (1, 2)]


def averaged_over(views: Views, predict_batch: PredictBatch) -> PredictBatch:
    """Return a function that predicts the mean over symmetric views, each prediction turned back.

    Parameters
    ----------
    views : 'none'; 'flips': as it is, up-down, left-right and both; 'dihedral': these four, and these four transposed
    predict_batch : from (n, h, w) to (n, h, w, classes)
    """
    if views == "none":
        return predict_batch
    transpositions = (False, True) if views == "dihedral" else (False,)

    def mean(patches: NDArray[np.float32]) -> Array:
        total: Array = np.float32(0)  # type: ignore[assignment]
        for transposed in transpositions:
            turned = patches.swapaxes(1, 2) if transposed else patches
            for axes in _FLIPS:
                predicted = np.flip(np.asarray(predict_batch(np.ascontiguousarray(np.flip(turned, axes)))), axes)
                total = total + (predicted.swapaxes(1, 2) if transposed else predicted)
        return np.asarray(total / np.float32(N_VIEWS[views]))

    return mean
