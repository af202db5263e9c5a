"""A checked data set for training, and the random views that each epoch takes of it."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.classes import (
    default_colors,
    default_names,
    problems_with_colors,
    problems_with_names,
)
from tomoseg.errors import InputError
from tomoseg.io.slices import IGNORE, data_digest
from tomoseg.segmentation.data.augmentation import sample_patch, vary_intensity
from tomoseg.segmentation.data.folds import Split, split
from tomoseg.segmentation.data.histogram import histogram
from tomoseg.segmentation.data.intensity_scaling import Scaling, scaling_of
from tomoseg.segmentation.data.neighbours import middle
from tomoseg.segmentation.training.parameters import TrainSettings

PAPER_WEIGHTS = (0.2, 0.3, 0.5)


@dataclass(frozen=True)
class TrainData:
    """The checked data set; images are (h, w), or (h, w, channels) where there are neighbours."""

    images: Sequence[Array]
    labels: Sequence[NDArray[np.uint8]]
    names: list[str]
    class_names: list[str]
    class_colors: list[str]
    weights: list[float]
    split: Split
    scaling: Scaling
    digest: str

    @classmethod
    def checked(
        cls,
        images: Sequence[Array],
        labels: Sequence[Array],
        names: Sequence[str] | None,
        class_names: Sequence[str] | None,
        class_colors: Sequence[str] | None,
        settings: TrainSettings,
        group_of: Callable[[str], str] | None,
    ) -> "TrainData":
        """Check everything that can be wrong with the data; all problems are reported at once."""
        given = [f"{i:04d}" for i in range(len(images))] if names is None else list(names)
        channels = settings.channels if settings.channels % 2 else 1  # an even number is a problem of its own
        problems = settings.problems() + _problems_with_slices(images, labels, given, channels)
        if problems:
            raise InputError.of(problems)
        counts = _label_counts(labels)
        present = int(np.flatnonzero(counts).max(initial=0)) + 1
        chosen = list(class_names) if class_names else default_names(max(present, 2))
        colors = list(class_colors) if class_colors else default_colors(len(chosen))
        problems = problems_with_names(chosen) + problems_with_colors(colors, len(chosen))
        if present > len(chosen):
            problems.append(f"the labels go up to {present - 1}, but {len(chosen)} classes are named: name every class")
        weights = _class_weights(settings, counts[: len(chosen)])
        if len(weights) != len(chosen):
            problems.append(f"class_weights has {len(weights)} values for {len(chosen)} classes: give one per class")
        if problems:
            raise InputError.of(problems)
        parts = split(given, settings.folds, settings.fold, settings.reach(), group_of)
        if problem := _problem_with_monitor(settings, chosen, labels, parts):
            raise InputError(problem)
        training = [middle(images[i]) for i in parts.training]
        low, high = min(float(i.min()) for i in training), max(float(i.max()) for i in training)
        if not high > low:
            raise InputError(f"all training images hold nothing but the value {low:g}")
        scaling = scaling_of(histogram((i[None] for i in training), low, high), training[0].dtype)
        classes = [np.asarray(label, np.uint8) for label in labels]
        return cls(images, classes, given, chosen, colors, weights, parts, scaling, data_digest(given, images, classes))


def _problems_with_slices(
    images: Sequence[Array], labels: Sequence[Array], names: Sequence[str], channels: int
) -> list[str]:
    """Say what is wrong with images and labels as such."""
    if not images or len(images) != len(labels) or len(images) != len(names):
        return [
            f"{len(images)} images, {len(labels)} labels and {len(names)} names: there must be one of each per slice"
        ]
    problems = []
    for name, image, label in zip(names, images, labels, strict=True):
        if image.shape != (label.shape if channels == 1 else (*label.shape, channels)) or label.ndim != 2:
            problems.append(
                f"slice {name}: image {image.shape} and labels {label.shape} must be 2D and of equal shape"
                + f", the image with {channels} channels" * (channels > 1)
            )
        elif label.dtype.kind not in "uib" or label.min() < 0 or label.max() > IGNORE:
            problems.append(f"slice {name}: labels must be whole numbers from 0 to {IGNORE}")
    if len({image.dtype for image in images}) > 1:
        problems.append(f"images are of different types: {', '.join(sorted({str(i.dtype) for i in images}))}")
    if len(set(names)) < len(names):
        problems.append("two slices have the same name")
    return problems


def _problem_with_monitor(
    settings: TrainSettings, class_names: Sequence[str], labels: Sequence[Array], parts: Split
) -> str:
    """Say so if the class that validation is judged by is not among the classes or the validation slices."""
    name = settings.monitored_class()
    if not name:
        return ""
    if name not in class_names:
        return f"monitor is {settings.monitor}: the classes are {', '.join(class_names)}"
    number = list(class_names).index(name)
    if not any((labels[i] == number).any() for i in parts.validation):
        return f"monitor is {settings.monitor}: no slice of fold {settings.fold}, to validate on, shows that class"
    return ""


def _label_counts(labels: Sequence[Array]) -> NDArray[np.int64]:
    """Return how many pixels of all slices have each label below the ignored one."""
    total = np.zeros(256, np.int64)
    for label in labels:
        total += np.bincount(np.asarray(label, np.uint8).ravel(), minlength=256)
    return total[:IGNORE]


def _class_weights(settings: TrainSettings, counts: NDArray[np.int64]) -> list[float]:
    """Return the weight of each class in the loss."""
    if settings.class_weights is not None:
        return [float(w) for w in settings.class_weights]
    if len(counts) == len(PAPER_WEIGHTS):
        return list(PAPER_WEIGHTS)
    weights = 1 / np.sqrt(np.maximum(counts / max(counts.sum(), 1), 1e-4))
    return [float(w) for w in weights / weights.sum()]


def epoch_plan(data: TrainData, settings: TrainSettings, epoch: int) -> list[int]:
    """Return the order in which slices give views: as many as patches cover each, or as many as are asked for."""
    every = [i for i in data.split.training for _ in range(_views_of(data.images[i].shape, settings.patch))]
    wanted = settings.patches or len(every)
    rng = np.random.default_rng((settings.seed, epoch))
    rounds = [rng.permutation(every) for _ in range(-(-wanted // len(every)))]
    return [int(i) for i in np.concatenate(rounds)[:wanted]]


def _views_of(shape: tuple[int, ...], patch: int) -> int:
    """Return how many patches it takes to cover a slice."""
    return max(1, -(-shape[0] // patch)) * max(1, -(-shape[1] // patch))


def rare_places(data: TrainData) -> list[list[tuple[int, NDArray[np.int64]]]]:
    """Return where each rare class is in the training slices: (slice, flat indices of pixels) for each that has it.

    Rare is a class with less than half an equal share of the annotated pixels.
    """
    n_classes = len(data.class_names)
    counts = _label_counts([data.labels[i] for i in data.split.training])[:n_classes]
    rare = [c for c in range(n_classes) if 0 < counts[c] < counts.sum() / (2 * n_classes)]
    found = [[(i, np.flatnonzero(data.labels[i] == c)) for i in data.split.training] for c in rare]
    return [[(i, pixels) for i, pixels in places if len(pixels)] for places in found]


def batches(
    data: TrainData, settings: TrainSettings, epoch: int, plan: Sequence[int], workers: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """Yield scaled images (batch, patch, patch, channels) and labels (batch, patch, patch), made ahead in threads."""
    rare = rare_places(data) if settings.sampling else []

    def view(k: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        rng = np.random.default_rng((settings.seed, epoch, k))
        i, around = plan[k % len(plan)], None
        if rare and rng.random() < settings.sampling:
            i, around = _random_place(rare, data, rng)
        image, labels = sample_patch(data.images[i], data.labels[i], settings.patch, settings.augmentation, rng, around)
        return vary_intensity(data.scaling.trained(image), settings.augmentation, rng), labels

    size = settings.batch
    # The last batch is filled up from the start of the plan, with views of its own: graphs are compiled per shape.
    starts = list(range(0, len(plan), size))
    with ThreadPoolExecutor(max(1, min(workers, 4))) as pool:

        def submit(start: int) -> list[Future[tuple[NDArray[np.float32], NDArray[np.uint8]]]]:
            return [pool.submit(view, k) for k in range(start, start + size)]

        waiting = [submit(start) for start in starts[:2]]
        for n in range(len(starts)):
            views = [future.result() for future in waiting.pop(0)]
            if n + 2 < len(starts):
                waiting.append(submit(starts[n + 2]))
            x = np.stack([v[0] for v in views])
            yield x.reshape(*x.shape[:3], settings.channels), np.stack([v[1] for v in views])


def _random_place(
    rare: Sequence[Sequence[tuple[int, NDArray[np.int64]]]], data: TrainData, rng: np.random.Generator
) -> tuple[int, tuple[int, int]]:
    """Draw a rare class, a slice that has it and a pixel (y, x) of it there."""
    places = rare[int(rng.integers(len(rare)))]
    i, pixels = places[int(rng.integers(len(places)))]
    y, x = divmod(int(rng.choice(pixels)), data.labels[i].shape[1])
    return i, (y, x)
