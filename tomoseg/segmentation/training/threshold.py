"""The threshold of a network for two classes that labels validation images best."""

import numpy as np

from tomoseg.arrays import Array
from tomoseg.io.slices import IGNORE
from tomoseg.segmentation.evaluation.numbers import divided
from tomoseg.segmentation.networks.card import MIDDLE

STEPS = 100  # thresholds are multiples of 1 / STEPS


class ThresholdSweep:
    """Counts of the probabilities of a class in images, from which the best threshold follows.

    The intersection over union of pixels from a threshold on with those of the truth is computed over all images
    together, for each multiple of 0.01 between 0 and 1.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((2, STEPS), np.int64)  # pixels of the other class and of this one, by probability

    def add(self, probabilities: Array, truth: Array) -> None:
        """Count an image: probabilities (h, w) of class 1, truth (h, w) of 0, 1, and 255 where nobody annotated."""
        known = truth != IGNORE
        # A pixel counts from its threshold on just where `labels_of` gives it the class: >= on float32.
        limits = (np.arange(1, STEPS) / STEPS).astype(np.float32)
        steps = np.searchsorted(limits, probabilities[known].astype(np.float32), side="right")
        counts = np.bincount(STEPS * (truth[known] == 1) + steps, minlength=2 * STEPS)
        self._counts += counts.reshape(2, STEPS)

    def best(self) -> tuple[float, float]:
        """Return the threshold with the largest intersection over union, and that.

        Of equal ones it is the nearest to 0.5, which it also is where the class does not occur.
        """
        false, true = (np.cumsum(side[::-1])[::-1][1:] for side in self._counts)  # from each threshold on
        overlap = np.nan_to_num(divided(true, self._counts[1].sum() + false))
        thresholds = np.arange(1, STEPS) / STEPS
        order = np.lexsort((np.abs(thresholds - MIDDLE), -overlap))
        return float(thresholds[order[0]]), float(overlap[order[0]])
