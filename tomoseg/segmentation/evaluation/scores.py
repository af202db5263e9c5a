"""How well predicted labels agree with true ones, image by image and over a set of images."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.slices import IGNORE, Pair, load_pair, read_slice, slice_readers
from tomoseg.runtime import Runtime
from tomoseg.segmentation.data.histogram import histogram
from tomoseg.segmentation.data.intensity_scaling import Scale
from tomoseg.segmentation.data.neighbours import with_neighbours
from tomoseg.segmentation.evaluation.calibration import Calibration
from tomoseg.segmentation.evaluation.detection import Detection, ObjectRule, class_number, compare_objects
from tomoseg.segmentation.evaluation.surface_distances import PERCENTILES, hausdorff
from tomoseg.segmentation.networks.card import ModelCard
from tomoseg.segmentation.numbers import plain

METRICS = ("dice", "precision", "recall", "iou")
Values = NDArray[np.float64]


def confusion_matrix(truth: Array, prediction: Array, n_classes: int, ignore: int = IGNORE) -> NDArray[np.int64]:
    """Count pixels by true class (rows) and predicted class (columns), (C, C); pixels of truth `ignore` are left out.

    Raises
    ------
    InputError
        Where the shapes differ or a label is not a class.
    """
    if truth.shape != prediction.shape:
        raise InputError(f"truth {truth.shape} and prediction {prediction.shape} must have the same shape")
    known = truth != ignore
    true, predicted = truth[known].astype(np.int64), prediction[known].astype(np.int64)
    if true.size and max(true.max(), predicted.max()) >= n_classes:
        raise InputError(f"labels up to {max(true.max(), predicted.max())} for {n_classes} classes")
    return np.bincount(n_classes * true + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def scores(matrices: Array) -> dict[str, Values]:
    """Return Dice, precision, recall and intersection over union of each class.

    With true positives t, all predicted p and all true a of a class: dice = 2 t / (p + a), precision = t / p,
    recall = t / a, iou = t / (p + a - t). Where a class is in neither truth nor prediction all four are NaN. Where it
    is only predicted, recall is NaN and the others are 0; where it is only true, all four are 0: a class that was
    missed altogether counts as that.

    Parameters
    ----------
    matrices : (..., C, C) array, rows = truth

    Returns
    -------
    dict of (..., C) arrays
    """
    counts = np.asarray(matrices, float)
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    return {
        "dice": _ratio(2 * hit, true + predicted, true + predicted > 0),
        "precision": _ratio(hit, predicted, true + predicted > 0),
        "recall": _ratio(hit, true, true > 0),
        "iou": _ratio(hit, true + predicted - hit, true + predicted > 0),
    }


def _ratio(part: Values, whole: Values, defined: NDArray[np.bool_]) -> Values:
    """Return part / whole, 0 where both are 0, NaN where not `defined`."""
    value = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
    return np.where(defined, value, np.nan)


@dataclass(frozen=True)
class Statistic:
    """Mean over images, half width of its 95 % confidence interval, and number of images, per class (C,)."""

    mean: Values
    ci95: Values
    n: NDArray[np.int64]


def statistic(values: Array) -> Statistic:
    """Return mean and confidence interval over the images that have a value, of an (n_images, C) array.

    The interval is 1.96 s / sqrt(n) with the sample standard deviation s (n - 1 in the denominator). An image in which
    a class does not occur has NaN there and does not count.
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
    """Agreement of predictions with truth over a set of images.

    Attributes
    ----------
    classes, colors : one per class
    names : one per image
    matrices : (n_images, C, C) counts, rows = truth
    hausdorff_px : (n_images, C, len(percentiles)) distances in px, NaN where a class has no surface; None where the
        images themselves are not known (evaluation from confusion matrices)
    pixel_size_nm : None where unknown
    calibration : None where the probabilities are not known
    detection : the objects of one class, found or not; None where the images are not known
    """

    classes: list[str]
    colors: list[str]
    names: list[str]
    matrices: NDArray[np.int64]
    hausdorff_px: Values | None = None
    percentiles: tuple[int, ...] = PERCENTILES
    pixel_size_nm: float | None = None
    notes: list[str] = field(default_factory=list)
    calibration: Calibration | None = None
    detection: Detection | None = None

    def per_image(self) -> dict[str, Values]:
        """Return metrics (n_images, C)."""
        return scores(self.matrices)

    def summary(self) -> dict[str, Statistic]:
        """Return, per metric, mean and confidence interval over images."""
        return {metric: statistic(values) for metric, values in self.per_image().items()}

    def pooled(self) -> dict[str, Values]:
        """Return metrics (C,) of all pixels of all images together."""
        return scores(self.matrices.sum(axis=0))

    def hausdorff_statistic(self) -> Statistic | None:
        """Return mean and interval over images of the distances in px, each (C, len(percentiles))."""
        if self.hausdorff_px is None:
            return None
        shape = len(self.classes), len(self.percentiles)
        stat = statistic(self.hausdorff_px.reshape(len(self.names), -1))
        return Statistic(stat.mean.reshape(shape), stat.ci95.reshape(shape), stat.n.reshape(shape))

    def hausdorff_mean_px(self) -> Values | None:
        """Return the mean over images (C, len(percentiles)) in px."""
        stat = self.hausdorff_statistic()
        return None if stat is None else stat.mean

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types; NaN becomes null. See DESIGN for the keys that scripts rely on."""
        result: dict[str, Any] = {"classes": list(self.classes), "images": list(self.names)}
        for metric, stat in self.summary().items():
            result[metric] = {"mean": plain(stat.mean), "ci95": plain(stat.ci95), "n": stat.n.tolist()}
        result["pooled"] = {metric: plain(values) for metric, values in self.pooled().items()}
        per_image = self.per_image()
        result["per_image"] = [
            {
                "name": name,
                **{metric: plain(per_image[metric][i]) for metric in METRICS},
                "confusion": self.matrices[i].tolist(),
            }
            for i, name in enumerate(self.names)
        ]
        result["confusion"] = self.matrices.sum(axis=0).tolist()
        result["pixel_size_nm"] = self.pixel_size_nm
        result.update(self._hausdorff_dict())
        result["calibration"] = None if self.calibration is None else self.calibration.to_dict()
        result["detection"] = None if self.detection is None else self.detection.to_dict()
        result["notes"] = list(self.notes)
        return result

    def _hausdorff_dict(self) -> dict[str, Any]:
        """Return mean and per-image distances, in px and, where the pixel size is known, in nm.

        `undefined` counts the images that the mean leaves out although the class occurs in truth or prediction: it is
        missing in one of them, or fills the image.
        """
        stat = self.hausdorff_statistic()
        if stat is None or self.hausdorff_px is None:
            return {"hausdorff_nm": None, "hausdorff_px": None}

        each, occurs = self.hausdorff_px, self.summary()["dice"].n

        def table(scale: float) -> dict[str, Any]:
            return {
                "percentiles": list(self.percentiles),
                "mean": plain(stat.mean * scale),
                "ci95": plain(stat.ci95 * scale),
                "n": stat.n[:, 0].tolist(),
                "undefined": (occurs - stat.n[:, 0]).tolist(),
                "per_image": plain(each * scale),
            }

        return {
            "hausdorff_nm": table(self.pixel_size_nm) if self.pixel_size_nm else None,
            "hausdorff_px": table(1.0),
        }

    def write_json(self, path: Path) -> None:
        """Write `to_dict` to a file."""
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def write_csv(self, path: Path) -> None:
        """Write one row per image and class, and the mean, interval and pooled value of each class below."""
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
    percentiles: tuple[int, ...] = PERCENTILES,
) -> Evaluation:
    """Compare predicted with true labels, both 2D or 3D u1 arrays of equal shape; truth 255 is left out."""
    pairs = list(zip(truths, predictions, strict=True))
    if not pairs:
        raise InputError("there is no image to evaluate")
    n = len(classes)
    matrices = np.stack([confusion_matrix(t, p, n) for t, p in pairs])
    distances = np.stack([class_distances(t, p, n, percentiles) for t, p in pairs])
    return Evaluation(list(classes), list(colors), list(names), matrices, distances, percentiles, pixel_size_nm or None)


def class_distances(
    truth: Array, prediction: Array, n_classes: int, percentiles: tuple[int, ...] = PERCENTILES
) -> Values:
    """Return the Hausdorff distances (C, len(percentiles)) in px of each class; truth 255 counts for neither."""
    unknown = truth == IGNORE
    masked = unknown if unknown.any() else None
    return np.stack([hausdorff(truth == c, prediction == c, percentiles, masked) for c in range(n_classes)])


@dataclass(frozen=True)
class EvaluatedImage:
    """One image with its truth and prediction, as handed to `on_image`."""

    name: str
    image: Array
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]


def evaluate_model(
    model_path: Path,
    pairs: Sequence[Pair],
    *,
    runtime: Runtime | None = None,
    pixel_size_nm: float | None = None,
    patch: int | None = None,
    overlap: int = 2,
    objects: str = "",
    object_rule: ObjectRule | None = None,
    on_image: Callable[[EvaluatedImage], None] | None = None,
) -> Evaluation:
    """Predict labelled slices with a network and compare.

    Parameters
    ----------
    model_path : a `.keras` file
    pairs : see `tomoseg.io.slices.find_pairs`
    pixel_size_nm : of the images; the one stored with the model unless given
    patch, overlap : see `tomoseg.segmentation.inference.blending.predict_stack`; the patch of training unless given
    objects : name or number of the class whose objects are looked for one by one; the last one unless given
    object_rule : when an object counts and is found
    on_image : called with each image, its truth and its prediction, to draw error maps without holding all

    Raises
    ------
    InputError
        Where the model or an image cannot be used, labels do not fit the classes of the model, or `objects` is none of
        them.
    """
    from tomoseg.segmentation.inference.slice_prediction import SlicePredictor
    from tomoseg.segmentation.networks.keras_setup import prepare
    from tomoseg.segmentation.networks.model_file import load_model

    runtime = runtime or Runtime()
    if not pairs:
        raise InputError("there is no labelled image to evaluate")
    prepare(runtime)
    model, card = load_model(model_path)
    n_classes = len(card.class_names)
    object_class, rule = class_number(card.class_names, objects), object_rule or ObjectRule()
    scale = _scale_for(pairs, card)
    if scale != card.scaling.trained:
        runtime.say(
            f"intensity {scale.zero:.4g} is 0 and {scale.one:.4g} is 1 for the network, as these images have it"
        )
    predictor = SlicePredictor.of(model, card, scale, patch, overlap)
    matrices, distances, calibrations, found = [], [], [], []
    others = slice_readers(pairs[0].image.parent) if card.channels > 1 else {}
    for pair in runtime.track(list(pairs), "evaluate"):
        image, truth = load_pair(pair, n_classes)
        seen = with_neighbours([pair.name], [image], card.channels, others)[0] if others else image
        probabilities = predictor.probabilities(seen[None])[0]
        prediction = probabilities.argmax(axis=0).astype(np.uint8)
        calibrations.append(Calibration.of(probabilities, truth))
        matrices.append(confusion_matrix(truth, prediction, n_classes))
        distances.append(class_distances(truth, prediction, n_classes))
        found.append(compare_objects(truth, prediction, object_class, rule))
        if on_image is not None:
            on_image(EvaluatedImage(pair.name, image, truth, prediction))
    names, pixel_size = [pair.name for pair in pairs], pixel_size_nm or card.pixel_size_nm
    return Evaluation(
        card.class_names,
        card.class_colors,
        names,
        np.stack(matrices),
        np.stack(distances),
        PERCENTILES,
        pixel_size,
        _notes(pairs, card, runtime),
        reduce(add, calibrations),
        Detection(card.class_names[object_class], rule, names, found, 2, pixel_size),
    )


def _scale_for(pairs: Sequence[Pair], card: ModelCard) -> Scale:
    """Return the scale of intensities for a set of images, read one at a time."""
    dtype = read_slice(pairs[0].image).dtype
    low, high = np.inf, -np.inf
    for pair in pairs:
        image = read_slice(pair.image)
        if image.dtype != dtype:
            raise InputError(f"{pair.image} is {image.dtype}, {pairs[0].image} is {dtype}: save all in one type")
        low, high = min(low, float(image.min())), max(high, float(image.max()))
    if not high > low:
        raise InputError(f"all images hold nothing but the value {low:g}")
    values = histogram((read_slice(pair.image)[None] for pair in pairs), low, high)
    return card.scaling.for_slices(dtype, values, len(pairs))


def validation_pairs(pairs: Sequence[Pair], card: ModelCard) -> list[Pair]:
    """Return the pairs that the network was validated on and not trained on, going by their names."""
    held_out = set(card.training.get("validation_names", []))
    return [pair for pair in pairs if pair.name in held_out]


def _notes(pairs: Sequence[Pair], card: ModelCard, runtime: Runtime) -> list[str]:
    """Say what makes the scores less than they seem."""
    seen = set(card.training.get("training_names", []))
    known = [pair.name for pair in pairs if pair.name in seen]
    if not known:
        return []
    note = (
        f"{len(known)} of {len(pairs)} images have the names of images this network was trained on: their scores tell "
        "how well it remembers, not how well it segments"
    )
    runtime.warn(note)
    return [note]
