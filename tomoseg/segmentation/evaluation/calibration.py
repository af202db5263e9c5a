"""Calibration: how far the probabilities of a network agree with how often it is right."""

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.slices import IGNORE
from tomoseg.segmentation.evaluation.numbers import divided, plain

N_BINS = 15  # as in Guo et al.
AT_ONCE = 1 << 18  # pixels: about 40 bytes are held for each and each class
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Bins:
    """Pixels counted by their predicted probability, in bins of equal width from 0 to 1."""

    n: Values  # (..., n_bins) number of pixels
    predicted: Values  # (..., n_bins) sum of the predicted probabilities
    observed: Values  # (..., n_bins) number of pixels whose prediction is true

    @classmethod
    def count(cls, group: Array, probability: Array, came_true: Array, n_groups: int, n_bins: int) -> "Bins":
        """Count pixels, all (n,), by group and probability, into (n_groups, n_bins).

        Bin m of M holds the probabilities in ((m - 1)/M, m/M]; the first one also 0.
        """
        edges = np.arange(1, n_bins) / n_bins
        place = group * n_bins + np.searchsorted(edges, probability, side="left")
        size = n_groups * n_bins

        def total(weights: Array | None) -> Values:
            return np.bincount(place, weights, size).astype(float).reshape(n_groups, n_bins)

        return cls(total(None), total(probability), total(came_true))

    def __add__(self, other: "Bins") -> "Bins":
        """Count the pixels of both."""
        return Bins(self.n + other.n, self.predicted + other.predicted, self.observed + other.observed)

    def group(self, k: int) -> "Bins":
        """Return the bins (n_bins,) of one group."""
        return Bins(self.n[k], self.predicted[k], self.observed[k])

    def over_groups(self) -> "Bins":
        """Return the bins (n_bins,) of all groups together."""
        return Bins(self.n.sum(axis=0), self.predicted.sum(axis=0), self.observed.sum(axis=0))

    def reliability(self) -> tuple[Values, Values]:
        """Return the mean probability in each bin, and how often the prediction is true; NaN in an empty one."""
        return divided(self.predicted, self.n), divided(self.observed, self.n)

    def calibration_error(self) -> Values:
        """Return the expected calibration error: the mean over pixels of |frequency - mean probability| of their bin.

        Equation 3 of Guo, Pleiss, Sun & Weinberger, "On calibration of modern neural networks", ICML 2017. NaN without
        pixels.
        """
        return divided(np.abs(self.observed - self.predicted).sum(axis=-1), self.n.sum(axis=-1))

    def excess(self) -> Values:
        """Return mean probability minus frequency over all pixels: above 0 if the network is overconfident."""
        return divided((self.predicted - self.observed).sum(axis=-1), self.n.sum(axis=-1))


@dataclass(frozen=True)
class Calibration:
    """Counts of how often a network is right at each confidence; those of several images can be added.

    Confidence is the largest of a pixel's probabilities, and the prediction is the class with that probability.
    """

    confidence: Bins  # (C, n_bins) by the confidence of the pixels predicted as each class
    by_class: Bins  # (C, n_bins) by the probability of each class, over all pixels
    squares: Values  # (C,) sums over pixels of (p - y)^2; y is 1 for pixels of the class, else 0
    n_undefined: int = 0  # annotated pixels left out because a probability is NaN or infinite

    @classmethod
    def of(cls, probabilities: Array, truth: Array, n_bins: int = N_BINS) -> "Calibration":
        """Count the pixels of one image or volume.

        Rounding errors of the probabilities (C, ...) below 0 and above 1 are clipped; pixels of truth (...) 255, which
        nobody annotated, do not count. Raises `InputError`: the shapes differ, a label is not a class, or there is no
        bin.
        """
        n_classes = len(probabilities)
        if probabilities.shape[1:] != truth.shape:
            raise InputError(f"probabilities {probabilities.shape} must have one map of shape {truth.shape} per class")
        if n_bins < 1:
            raise InputError(f"{n_bins} bins: give at least 1")
        flat, labels = probabilities.reshape(n_classes, -1), truth.reshape(-1)
        parts = [slice(start, start + AT_ONCE) for start in range(0, max(labels.size, 1), AT_ONCE)]
        return reduce(add, (cls._of_pixels(flat[:, part], labels[part], n_bins) for part in parts))

    @classmethod
    def _of_pixels(cls, probabilities: Array, truth: Array, n_bins: int) -> "Calibration":
        """Count pixels (n,) with probabilities (C, n)."""
        n_classes, known = len(probabilities), truth != IGNORE
        p, y = np.asarray(probabilities[:, known], float), truth[known].astype(np.int64)
        if y.size and y.max() >= n_classes:
            raise InputError(f"there are labels up to {y.max()} for {n_classes} classes")
        finite = np.isfinite(p).all(axis=0)
        p, y = np.clip(p[:, finite], 0, 1), y[finite]
        predicted = p.argmax(axis=0)
        classes = np.arange(n_classes)[:, None]
        is_class = y == classes
        confidence = Bins.count(predicted, p.max(axis=0), predicted == y, n_classes, n_bins)
        group = np.broadcast_to(classes, p.shape)
        by_class = Bins.count(group.ravel(), p.ravel(), is_class.ravel(), n_classes, n_bins)
        squares = ((p - is_class) ** 2).sum(axis=1)
        return cls(confidence, by_class, squares, int(finite.size - finite.sum()))

    def __add__(self, other: "Calibration") -> "Calibration":
        """Count the pixels of both."""
        return Calibration(
            self.confidence + other.confidence,
            self.by_class + other.by_class,
            self.squares + other.squares,
            self.n_undefined + other.n_undefined,
        )

    @property
    def n_pixels(self) -> int:
        """Number of pixels counted."""
        return int(self.confidence.n.sum())

    def brier(self) -> Values:
        """Return the Brier score (C,) of each class, the mean of (p - y)^2 over pixels; their sum is the overall score.

        Brier, Monthly Weather Review 78, 1950: 0 is perfect, 2 is certain and wrong everywhere.
        """
        return divided(self.squares, np.full(len(self.squares), float(self.n_pixels)))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types; NaN becomes null."""
        overall = self.confidence.over_groups()
        brier = self.brier()
        facts: dict[str, Any] = plain(
            {
                "bins": len(overall.n),
                "pixels": self.n_pixels,
                "undefined_pixels": self.n_undefined,
                "ece": overall.calibration_error(),
                "overconfidence": overall.excess(),
                "brier": brier.sum(),
                "reliability": _bins_dict(overall),
                "per_class": {
                    "ece": self.confidence.calibration_error(),
                    "overconfidence": self.confidence.excess(),
                    "classwise_ece": self.by_class.calibration_error(),
                    "brier": brier,
                    "reliability": [_bins_dict(self.confidence.group(c)) for c in range(len(brier))],
                    "classwise_reliability": [_bins_dict(self.by_class.group(c)) for c in range(len(brier))],
                },
            }
        )
        return facts


def _bins_dict(bins: Bins) -> dict[str, Any]:
    """Return bins (n_bins,) by the names they have in files."""
    return dict(zip(("n", "confidence", "accuracy"), (bins.n.astype(int), *bins.reliability()), strict=True))
