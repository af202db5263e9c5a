"""Agreement of predicted labels with true ones: metrics by image, and over a set of images."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.slices import IGNORE
from tomoseg.segmentation.evaluation.calibration import Calibration
from tomoseg.segmentation.evaluation.detection import Detection
from tomoseg.segmentation.evaluation.numbers import plain
from tomoseg.segmentation.evaluation.surface_distances import PERCENTILES, hausdorff

Values = NDArray[np.float64]


def confusion_matrix(truth: Array, prediction: Array, n_classes: int) -> NDArray[np.int64]:
    """Count pixels by true class (rows) and predicted class (columns), (C, C), without those of truth 255.

    Raises `InputError`: the shapes differ, or a label is not a class.
    """
    if truth.shape != prediction.shape:
        raise InputError(f"truth {truth.shape} and prediction {prediction.shape} must have the same shape")
    known = truth != IGNORE
    true, predicted = truth[known].astype(np.int64), prediction[known].astype(np.int64)
    if true.size and max(true.max(), predicted.max()) >= n_classes:
        raise InputError(f"there are labels up to {max(true.max(), predicted.max())} for {n_classes} classes")
    return np.bincount(n_classes * true + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def _ratio(part: Values, whole: Values, defined: NDArray[np.bool_]) -> Values:
    """Return part / whole, 0 where both are 0, NaN where not `defined`."""
    value = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
    return np.where(defined, value, np.nan)


# Each metric from the pixels of a class: truly positive t, predicted p, and true a in all.
METRICS: dict[str, Callable[[Values, Values, Values], Values]] = {
    "dice": lambda t, p, a: _ratio(2 * t, a + p, a + p > 0),
    "precision": lambda t, p, a: _ratio(t, p, a + p > 0),
    "recall": lambda t, _, a: _ratio(t, a, a > 0),
    "iou": lambda t, p, a: _ratio(t, a + p - t, a + p > 0),
}


def scores(matrices: Array) -> dict[str, Values]:
    """Return Dice, precision, recall and intersection over union of each class.

    With true positives t, all predicted p and all true a of a class: dice = 2 t / (p + a), precision = t / p,
    recall = t / a, iou = t / (p + a - t). A class in neither truth nor prediction has NaN for all four. A class that is
    only predicted has NaN for recall and 0 for the others; one that is only true, and was missed altogether, has 0 for
    all four. From matrices (..., C, C), rows = truth, to (..., C) for each row of `METRICS`.
    """
    counts = np.asarray(matrices, float)
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    return {name: metric(hit, predicted, true) for name, metric in METRICS.items()}


@dataclass(frozen=True)
class Statistic:
    """Mean over images, half width of its 95 % confidence interval, and number of images, by class (C,)."""

    mean: Values
    ci95: Values
    n: NDArray[np.int64]


def statistic(values: Array) -> Statistic:
    """Return mean and 95 % confidence interval over images of an (n_images, ...) array.

    The interval is 1.96 s / sqrt(n) with the sample standard deviation s (n - 1 in the denominator). NaN, for an image
    without the class, does not count.
    """
    present = np.isfinite(values)
    n = present.sum(axis=0)
    total = np.where(present, values, 0.0).sum(axis=0)
    mean = np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0)
    squares = np.where(present, (values - mean) ** 2, 0.0).sum(axis=0)
    variance = np.divide(squares, n - 1, out=np.full(n.shape, np.nan), where=n > 1)
    return Statistic(mean, 1.96 * np.sqrt(variance / np.maximum(n, 1)), n)


@dataclass(frozen=True)
class Evaluation:
    """Agreement of predictions with truth over a set of images."""

    classes: list[str]  # one per class
    colors: list[str]  # one per class
    names: list[str]  # one per image
    matrices: NDArray[np.int64]  # (n_images, C, C) counts, rows = truth
    # (n_images, C, len(PERCENTILES)) distances in px, NaN where a class has no surface; None if only matrices are known
    hausdorff_px: Values | None = None
    pixel_size_nm: float | None = None  # None if unknown
    notes: list[str] = field(default_factory=list)
    calibration: Calibration | None = None  # None if the probabilities are unknown
    detection: Detection | None = None  # objects of one class, found or not; None if the images are unknown

    def per_image(self) -> dict[str, Values]:
        """Return metrics (n_images, C)."""
        return scores(self.matrices)

    def summary(self) -> dict[str, Statistic]:
        """Return, per metric, mean and confidence interval over images."""
        return {metric: statistic(values) for metric, values in self.per_image().items()}

    def pooled(self) -> dict[str, Values]:
        """Return metrics (C,) over all pixels of all images."""
        return scores(self.matrices.sum(axis=0))

    def hausdorff_statistic(self) -> Statistic | None:
        """Return mean and interval over images of the distances in px, each (C, len(PERCENTILES))."""
        if self.hausdorff_px is None:
            return None
        return statistic(self.hausdorff_px)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types; NaN becomes null."""
        per_image = self.per_image()
        facts: dict[str, Any] = plain(
            {
                "classes": self.classes,
                "images": self.names,
                **{metric: vars(stat) for metric, stat in self.summary().items()},
                "pooled": self.pooled(),
                "per_image": [
                    {"name": name, **{m: per_image[m][i] for m in METRICS}, "confusion": self.matrices[i]}
                    for i, name in enumerate(self.names)
                ],
                "confusion": self.matrices.sum(axis=0),
                "pixel_size_nm": self.pixel_size_nm,
                **self._hausdorff_tables(),
                "calibration": None if self.calibration is None else self.calibration.to_dict(),
                "detection": None if self.detection is None else self.detection.to_dict(),
                "notes": self.notes,
            }
        )
        return facts

    def _hausdorff_tables(self) -> dict[str, Any]:
        """Return mean and per-image distances, in px and, where the pixel size is known, in nm.

        `undefined` counts the images that the mean leaves out although the class occurs in truth or prediction: it is
        missing in one of them, or fills the image.
        """
        stat, each = self.hausdorff_statistic(), self.hausdorff_px
        if stat is None or each is None:
            return {"hausdorff_nm": None, "hausdorff_px": None}
        n, occurs = stat.n[:, 0], self.summary()["dice"].n

        def table(scale: float) -> dict[str, Any]:
            return {
                "percentiles": PERCENTILES,
                "mean": stat.mean * scale,
                "ci95": stat.ci95 * scale,
                "n": n,
                "undefined": occurs - n,
                "per_image": each * scale,
            }

        in_nm = table(self.pixel_size_nm) if self.pixel_size_nm else None
        return {"hausdorff_nm": in_nm, "hausdorff_px": table(1.0)}

    def write_csv(self, path: Path) -> None:
        """Write one row per image and class, followed by mean, interval, count and pooled value of each class."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "class", *METRICS])
            per_image, summary, pooled = self.per_image(), self.summary(), self.pooled()
            for i, name in enumerate(self.names):
                for c, label in enumerate(self.classes):
                    writer.writerow([name, label, *(_cell(per_image[m][i, c]) for m in METRICS)])
            for c, label in enumerate(self.classes):
                writer.writerow(["mean", label, *(_cell(summary[m].mean[c]) for m in METRICS)])
                writer.writerow(["ci95", label, *(_cell(summary[m].ci95[c]) for m in METRICS)])
                writer.writerow(["n", label, *(int(summary[m].n[c]) for m in METRICS)])
                writer.writerow(["pooled", label, *(_cell(pooled[m][c]) for m in METRICS)])


def _cell(value: float) -> str:
    """Return a number for a table, empty for NaN."""
    return "" if np.isnan(value) else f"{value:.6f}"


def evaluate_labels(
    truths: Sequence[Array],
    predictions: Sequence[Array],
    names: Sequence[str],
    classes: Sequence[str],
    colors: Sequence[str],
    pixel_size_nm: float | None = None,
) -> Evaluation:
    """Compare predicted with true labels, both 2D or 3D u1 arrays of equal shape; truth 255 does not count."""
    pairs = list(zip(truths, predictions, strict=True))
    if not pairs:
        raise InputError("there is no image to evaluate")
    n = len(classes)
    matrices = np.stack([confusion_matrix(t, p, n) for t, p in pairs])
    distances = np.stack([class_distances(t, p, n) for t, p in pairs])
    return Evaluation(list(classes), list(colors), list(names), matrices, distances, pixel_size_nm or None)


def class_distances(truth: Array, prediction: Array, n_classes: int) -> Values:
    """Return the Hausdorff distances (C, len(PERCENTILES)) of each class in px; truth 255 does not count."""
    unknown = truth == IGNORE
    masked = unknown if unknown.any() else None
    return np.stack([hausdorff(truth == c, prediction == c, unknown=masked) for c in range(n_classes)])
