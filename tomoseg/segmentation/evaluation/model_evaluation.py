"""Scores of a network on labelled slices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.image_files import composed
from tomoseg.io.label_values import counts_of, mask_problem
from tomoseg.io.pairing import Pair
from tomoseg.io.slices import load_pair, read_labels, read_slice, slice_readers
from tomoseg.runtime import Runtime
from tomoseg.segmentation.data.histogram import evenly_spread, histogram
from tomoseg.segmentation.data.intensity_scaling import Scale
from tomoseg.segmentation.data.neighbours import with_neighbours
from tomoseg.segmentation.evaluation.calibration import Calibration
from tomoseg.segmentation.evaluation.detection import Detection, ObjectRule, class_number, compare_objects
from tomoseg.segmentation.evaluation.scores import Evaluation, class_distances, confusion_matrix
from tomoseg.segmentation.networks.card import ModelCard

SCALE_SLICES = 48  # at most, that tell the levels of a set of images


@dataclass(frozen=True)
class EvaluatedImage:
    """One image with its true and predicted labels, as handed to `on_image`."""

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
    objects: str = "",
    object_rule: ObjectRule | None = None,
    on_image: Callable[[EvaluatedImage], None] | None = None,
) -> Evaluation:
    """Predict labelled slices with a network, and compare the prediction with the labels.

    Raises `InputError`: the network or an image cannot be used, or both need more memory than allowed, labels do not
    fit the classes of the network, or `objects` is not one of them.

    For the other parameters see `tomoseg.segmentation.evaluation.api.evaluate`. `on_image` is called with each image
    and its labels, so that error maps can be drawn without holding all images.
    """
    from tomoseg.segmentation.inference.slice_prediction import SlicePredictor, fitted, labels_of
    from tomoseg.segmentation.networks.keras_setup import prepare
    from tomoseg.segmentation.networks.model_file import load_model

    runtime = runtime or Runtime()
    if not pairs:
        raise InputError("there is no labelled image to evaluate")
    prepare(runtime)
    model, card = load_model(model_path)
    n_classes = len(card.class_names)
    object_class, rule = class_number(card.class_names, objects), object_rule or ObjectRule()
    _require_labels(pairs, n_classes)
    scale = _scale_for(pairs, card)
    if scale != card.scaling.trained:
        runtime.say(
            f"intensity scale of these images: {scale.zero:.4g} (background) is 0 for the network, {scale.one:.4g} "
            "(support) is 1"
        )
    predictor = SlicePredictor.of(model, card, scale)
    matrices, distances, calibrations, found = [], [], [], []
    others = slice_readers(_source_of(pairs), pairs) if card.channels > 1 else {}
    fitting: dict[tuple[int, ...], SlicePredictor] = {}  # by the shape of slices
    for pair in runtime.track(list(pairs), "evaluate"):
        image, truth = load_pair(pair, n_classes)
        seen = with_neighbours([pair.name], [image], card.channels, others)[0] if others else image
        if image.shape not in fitting:
            fitting[image.shape] = fitted(predictor, model, [image.shape], runtime.max_memory)
        probabilities = fitting[image.shape].probabilities(seen[None])[0]
        prediction = labels_of(probabilities, card.threshold)
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
        pixel_size,
        _notes(pairs, card, runtime),
        reduce(add, calibrations),
        Detection(card.class_names[object_class], rule, names, found, 2, pixel_size),
    )


def _source_of(pairs: Sequence[Pair]) -> Path:
    """Return the folder, or the one stack, that neighbours of the slices are in."""
    files = {pair.image.path for pair in pairs}
    first = next(iter(files))
    return first if len(files) == 1 and pairs[0].image.page is not None else first.parent


def _require_labels(pairs: Sequence[Pair], n_classes: int) -> None:
    """Raise `InputError` where labels do not fit the classes, or are masks whose 255 would count as not annotated."""
    counts = sum(counts_of([read_labels(pair.labels, n_classes, pair.label_map)]) for pair in pairs)
    if problem := mask_problem(np.asarray(counts)) if pairs[0].label_map is None else "":
        raise InputError(problem)


def _scale_for(pairs: Sequence[Pair], card: ModelCard) -> Scale:
    """Return the intensity scale of a set of images, read one at a time."""
    dtype = read_slice(pairs[0].image).dtype
    low, high = np.inf, -np.inf
    for pair in pairs:
        image = read_slice(pair.image)
        if image.dtype != dtype:
            raise InputError(f"{pair.image} is {image.dtype}, {pairs[0].image} is {dtype}: save all in one type")
        low, high = min(low, float(image.min())), max(high, float(image.max()))
    if not high > low:
        raise InputError(f"every pixel of the images has the same value, {low:g}")
    if card.scaling.kind == "labelled" and dtype != np.dtype(card.scaling.dtype):
        some = evenly_spread(len(pairs), SCALE_SLICES)
        return card.scaling.for_foreground([read_slice(pairs[i].image) for i in some])
    values = histogram((read_slice(pair.image)[None] for pair in pairs), low, high)
    return card.scaling.for_slices(dtype, values, len(pairs))


def validation_pairs(pairs: Sequence[Pair], card: ModelCard) -> list[Pair]:
    """Return the pairs that the network was validated on, by their names."""
    held_out = set(map(composed, card.training.get("validation_names", [])))
    return [pair for pair in pairs if pair.name in held_out]


def _notes(pairs: Sequence[Pair], card: ModelCard, runtime: Runtime) -> list[str]:
    """Warn, and return the warning, if the network was trained on some of the images."""
    seen = set(map(composed, card.training.get("training_names", [])))
    known = [pair.name for pair in pairs if pair.name in seen]
    if not known:
        return []
    note = (
        f"{len(known)} of {len(pairs)} images have the names of images that this network was trained on: their scores "
        "tell how well it remembers, not how well it segments"
    )
    runtime.warn(note)
    return [note]
