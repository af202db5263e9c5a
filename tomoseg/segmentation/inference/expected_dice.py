"""How well a network has labelled a volume, by its own probabilities."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array

UNIT = 2.0**-20  # sums are whole numbers of it: exact, however slices are grouped in slabs


class ExpectedDice:
    """The Dice of each class that the probabilities of its voxels let expect, without any truth.

    With p the probability that a voxel is of a class, and s that it is labelled so, it is 2 sum(p s) / (sum(p) +
    sum(s)), the ratio of the expected numbers. It is as good as the probabilities are: right on average for data like
    those of training, and too high where a network is sure of what is wrong.
    """

    def __init__(self, n_classes: int, sums: Sequence[Sequence[float]] | None = None) -> None:
        # For each class: of voxels labelled so, the number and the sum of p; of all voxels, the sum of p.
        self.sums = np.zeros((n_classes, 3)) if sums is None else np.array(sums, float)

    def add(self, probabilities: NDArray[np.float32], labels: Array) -> None:
        """Count voxels: probabilities (classes, ...) and labels (...)."""
        for k, p in enumerate(probabilities):
            of_class = labels == k
            found = np.array([np.count_nonzero(of_class), p[of_class].sum(dtype=float), p.sum(dtype=float)])
            self.sums[k] += np.rint(found / UNIT) * UNIT

    def add_sums(self, sums: NDArray[np.float64]) -> None:
        """Count what was counted elsewhere."""
        self.sums += sums

    def add_certain(self, n: int) -> None:
        """Count voxels that are of the first class for certain."""
        self.sums[0] += n

    @property
    def of_each(self) -> list[float]:
        """The expected Dice of each class; NaN for one without any probability."""
        labelled, hit, likely = self.sums.T
        total = labelled + likely
        return [float(2 * h / t) if t > 0 else float("nan") for h, t in zip(hit, total, strict=True)]
