"""A checked set of labelled slices, ready to train on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.classes import default_colors, default_names, problems_with_colors, problems_with_names
from tomoseg.errors import InputError
from tomoseg.io.label_values import counts_of, label_problems
from tomoseg.io.slices import IGNORE, data_digest
from tomoseg.segmentation.data.folds import Split, split, split_at_random
from tomoseg.segmentation.data.histogram import Histogram, histogram
from tomoseg.segmentation.data.intensity_scaling import (
    Scale,
    Scaling,
    already_scaled,
    scale_of_image,
    scaling_by_image,
    scaling_of,
    scaling_of_labelled,
)
from tomoseg.segmentation.data.neighbours import middle
from tomoseg.segmentation.training.parameters import TrainParameters, check

PAPER_WEIGHTS = (0.2, 0.3, 0.5)


@dataclass(frozen=True)
class TrainingSet:
    """Labelled slices, their classes, split and scale of intensities.

    Images are (h, w), or (h, w, channels) where the network sees neighbouring slices.
    """

    images: Sequence[Array]
    labels: Sequence[NDArray[np.uint8]]
    names: list[str]
    class_names: list[str]
    class_colors: list[str]
    weights: list[float]
    split: Split
    scaling: Scaling
    scales: list[Scale]  # one per slice
    digest: str

    @classmethod
    def checked(
        cls,
        images: Sequence[Array],
        labels: Sequence[Array],
        names: Sequence[str] | None,
        class_names: Sequence[str] | None,
        class_colors: Sequence[str] | None,
        params: TrainParameters,
        group_of: Callable[[str], str] | None,
    ) -> "TrainingSet":
        """Check images, labels, classes and parameters.

        Raises `InputError`: something does not fit; all problems found are named at once.
        """
        given = [f"{i:04d}" for i in range(len(images))] if names is None else list(names)
        if problems := [*check(params), *_problems_with_slices(images, labels, given, params.channels)]:
            raise InputError.of(problems)
        of_each = counts_of(labels)
        if problems := label_problems(of_each, len(class_names) if class_names else None):
            raise InputError.of(problems)
        counts = of_each.sum(axis=0)[:IGNORE]
        present = int(np.flatnonzero(counts).max(initial=0)) + 1
        chosen = list(class_names) if class_names else default_names(max(present, 2))
        colors = list(class_colors) if class_colors else default_colors(len(chosen))
        weights = _class_weights(params.class_weights, counts[: len(chosen)])
        problems = problems_with_names(chosen) + problems_with_colors(colors, len(chosen))
        if len(weights) != len(chosen):
            problems.append(f"class_weights has {len(weights)} values for {len(chosen)} classes: give one per class")
        if params.sweep_threshold and len(chosen) != 2:
            problems.append(f"sweep_threshold is for two classes, and there are {len(chosen)}: {', '.join(chosen)}")
        if problems:
            raise InputError.of(problems)
        parts = _parts(given, params, group_of)
        if problem := _problem_with_monitor(params, chosen, labels, parts):
            raise InputError(problem)
        training = [middle(images[i]) for i in parts.training]
        low, high = min(float(i.min()) for i in training), max(float(i.max()) for i in training)
        if not high > low:
            raise InputError(f"every pixel of the training images has the same value, {low:g}")
        if params.intensity == "image":
            scaling, scales = scaling_by_image(training[0].dtype), [scale_of_image(image) for image in images]
        else:
            values = histogram((i[None] for i in training), low, high)
            of_training = [images[i] for i in parts.training], [labels[i] for i in parts.training]
            scaling = _scaling(params.intensity, values, *of_training)
            scales = [scaling.trained] * len(images)
        classes = [np.asarray(label, np.uint8) for label in labels]
        digest = data_digest(given, images, classes)
        return cls(images, classes, given, chosen, colors, weights, parts, scaling, scales, digest)


def _scaling(kind: str, values: Histogram, images: Sequence[Array], labels: Sequence[Array]) -> Scaling:
    """Return the scale of intensities of training slices, (h, w) or (h, w, channels), with the histogram `values`."""
    if kind == "scaled":
        return already_scaled(values, images[0].dtype)
    if kind == "labels":
        return scaling_of_labelled(images, labels)
    return scaling_of(values, images[0].dtype)


def _parts(names: Sequence[str], params: TrainParameters, group_of: Callable[[str], str] | None) -> Split:
    """Return the slices to train and to validate on."""
    if params.validation_fraction:
        return split_at_random(names, params.validation_fraction, params.seed, group_of)
    return split(names, params.folds, params.fold, params.reach, group_of)


def _problems_with_slices(
    images: Sequence[Array], labels: Sequence[Array], names: Sequence[str], channels: int
) -> Iterator[str]:
    if not images or len(images) != len(labels) or len(images) != len(names):
        yield f"{len(images)} images, {len(labels)} labels and {len(names)} names: there must be one of each per slice"
        return
    for name, image, label in zip(names, images, labels, strict=True):
        if image.shape != (label.shape if channels == 1 else (*label.shape, channels)) or label.ndim != 2:
            yield (
                f"slice {name}: image {image.shape} and labels {label.shape} must be 2D and of equal shape"
                + f", the image with {channels} channels" * (channels > 1)
            )
        elif label.dtype.kind not in "uib" or label.min() < 0 or label.max() > IGNORE:
            yield f"slice {name}: labels must be whole numbers from 0 to {IGNORE}"
    if len({image.dtype for image in images}) > 1:
        yield f"images are of different types: {', '.join(sorted({str(i.dtype) for i in images}))}"
    if len(set(names)) < len(names):
        yield "two slices have the same name"


def _problem_with_monitor(
    params: TrainParameters, class_names: Sequence[str], labels: Sequence[Array], parts: Split
) -> str:
    """Say so if the monitored class is not among the classes, or in no validation slice."""
    name = params.monitored_class
    if not name:
        return ""
    if name not in class_names:
        return f"monitor is {params.monitor}: the classes are {', '.join(class_names)}"
    number = list(class_names).index(name)
    if not any((labels[i] == number).any() for i in parts.validation):
        of_fold = "" if params.validation_fraction else f" of fold {params.fold}"
        return f"monitor is {params.monitor}: no validation slice{of_fold} shows that class"
    return ""


def label_counts(labels: Sequence[Array]) -> NDArray[np.int64]:
    """Count the pixels of each class over all slices, (255,)."""
    total = np.zeros(256, np.int64)
    for label in labels:
        total += np.bincount(np.asarray(label, np.uint8).ravel(), minlength=256)
    return total[:IGNORE]


def _class_weights(given: Sequence[float] | None, counts: NDArray[np.int64]) -> list[float]:
    """Return the weight of each class in the loss."""
    if given is not None:
        return list(given)
    if len(counts) == len(PAPER_WEIGHTS):
        return list(PAPER_WEIGHTS)
    weights = 1 / np.sqrt(np.maximum(counts / max(counts.sum(), 1), 1e-4))
    return [float(w) for w in weights / weights.sum()]
