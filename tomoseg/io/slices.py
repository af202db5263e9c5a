"""Labelled slices: images, and label images or masks, in folders or stacks."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.classes import default_names
from tomoseg.errors import InputError
from tomoseg.io.image_files import ImageFile, display_of, read_image
from tomoseg.io.label_values import (
    UNPAINTED,
    LabelMap,
    UsedColors,
    counts_of,
    few,
    label_doubts,
    label_problems,
    palette_doubts,
    present_classes,
)
from tomoseg.io.pairing import MaskFiles, Pair, images_by_name, paired
from tomoseg.runtime import Runtime

IGNORE = UNPAINTED  # label of pixels that nobody annotated


def find_pairs(
    images: Path,
    labels: Path,
    runtime: Runtime | None = None,
    label_map: LabelMap | None = None,
    *,
    class_names: Sequence[str] | None = None,
    label_pattern: str = "",
) -> list[Pair]:
    """Return the slices of a folder or stack with their labels, sorted by name; see `tomoseg.io.pairing.paired`.

    Raises `InputError` if a folder is missing or holds no images, labels have no image, or a name is ambiguous.
    """
    found = paired(images, labels, label_map=label_map, class_names=class_names, label_pattern=label_pattern)
    if found.problems:
        raise InputError.of(found.problems)
    if runtime is not None:
        for text in [*found.left_out, *found.notes]:
            runtime.say(text)
    return found.pairs


def slice_readers(source: Path, pairs: Sequence[Pair]) -> dict[str, Callable[[], Array]]:
    """Return a function that reads each image of a folder or stack, by name, but the labels of `pairs`."""
    labels = {file.path for pair in pairs for file in pair.label_files}
    files = {name: file for name, file in images_by_name(source).items() if file.path not in labels}
    return {name: partial(read_slice, file) for name, file in files.items()}


def read_slice(file: Path | ImageFile) -> Array:
    """Read a grey image as a 2D array in the type of the file; a colour image must have equal channels."""
    file = file if isinstance(file, ImageFile) else ImageFile(file)
    data = read_image(file)
    if data.ndim == 3 and data.shape[-1] in (2, 3, 4):
        color = data[..., : 1 if data.shape[-1] == 2 else 3]
        if (color == color[..., :1]).all():
            data = color[..., 0]
    if data.ndim != 2 or min(data.shape) < 1 or data.dtype.kind not in "uifb":
        raise InputError(
            f"{file} is not a single grey image (shape {data.shape}, {data.dtype}): save each slice as one grey file"
        )
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise InputError(f"{file} holds NaN or infinite values")
    return data.astype(np.uint8) if data.dtype.kind == "b" else data


def read_labels(
    source: Path | ImageFile | MaskFiles, n_classes: int | None = None, label_map: LabelMap | None = None
) -> NDArray[np.uint8]:
    """Read a label image (h, w), or one mask per class, as u1: class numbers from 0, and 255 where nobody annotated.

    A `label_map` translates other values; if it names colours, a palette image gives its colours. Raises `InputError`
    if a value is not a class number, not below `n_classes` if that is given, or not in the map.
    """
    if isinstance(source, MaskFiles):
        return _combined(source)
    file = source if isinstance(source, ImageFile) else ImageFile(source)
    if label_map is None:
        data = read_slice(file)
    else:
        data = label_map.apply(file, read_image(file, in_color=True) if label_map.by_color else read_slice(file))
    values = np.unique(data)
    if values[0] < 0 or values[-1] > IGNORE or (values != np.round(values)).any():
        raise InputError(f"{file} holds {few(values)}: labels are whole numbers from 0 to {IGNORE - 1}")
    classes = values[values != IGNORE]
    if n_classes is not None and classes.size and classes[-1] >= n_classes:
        raise InputError(
            f"{file} holds the labels {few(values)}, but there are {n_classes} classes: labels must be 0 to "
            f"{n_classes - 1}, and {IGNORE} where nobody annotated. Name every class, and save class numbers or "
            "translate values with --label-map."
        )
    return data.astype(np.uint8)


def _combined(masks: MaskFiles) -> NDArray[np.uint8]:
    """Return the labels (h, w) that masks give: pixels in none are class 0, or not annotated if class 0 has a mask.

    Raises `InputError`: a mask holds more than 0 and one other value, or masks differ in size or overlap.
    """
    inside: dict[int, NDArray[np.bool_]] = {}
    for number, file in masks.files:
        data = read_slice(file)
        values = np.unique(data)
        if len(values) > 2 or (len(values) == 2 and 0 not in values):
            raise InputError(f"{file} holds {few(values)}: the mask of a class holds 0 and one other value")
        inside[number] = data != 0
        first_file, first = masks.files[0][1], inside[masks.files[0][0]]
        if first.shape != data.shape:
            sizes = [f"{shape[1]} x {shape[0]} px" for shape in (first.shape, data.shape)]
            raise InputError(f"{first_file} is {sizes[0]}, {file} is {sizes[1]}: they must be masks of one slice")
    labels = np.full(first.shape, IGNORE if 0 in inside else 0, np.uint8)
    for number, mask in inside.items():
        labels[mask] = number
    _refuse_overlap(masks, inside)
    return labels


def _refuse_overlap(masks: MaskFiles, inside: dict[int, NDArray[np.bool_]]) -> None:
    """Raise `InputError` where two masks hold the same pixels."""
    files = dict(masks.files)
    overlaps = [(int((inside[a] & inside[b]).sum()), a, b) for a in inside for b in inside if a < b]
    n, a, b = max(overlaps, default=(0, 0, 0))
    if n:
        share = n / min(int(inside[a].sum()), int(inside[b].sum()))
        raise InputError(
            f"{files[a]} and {files[b]} overlap in {n} pixels, {100 * share:.3g}% of the smaller one: a pixel is of "
            "one class. Subtract one mask from the other, or save one label image"
        )


@dataclass(frozen=True)
class LabelledSlices:
    """Labelled slices in memory; class names, colours and pixel size are None where unknown."""

    names: list[str]  # tell neighbouring slices by their numbers
    images: list[Array]  # (h, w) of any size in one type, or (h, w, channels) with neighbouring slices
    labels: list[NDArray[np.uint8]]  # (h, w) u1, 255 where nobody annotated
    class_names: list[str] | None = None
    class_colors: list[str] | None = None
    pixel_size_nm: float | None = None


def load_pairs(
    pairs: Sequence[Pair],
    n_classes: int | None = None,
    runtime: Runtime | None = None,
    class_names: Sequence[str] | None = None,
) -> LabelledSlices:
    """Read all pairs but blank pages of stacks, see `is_blank`, and warn of what may be wrong with their labels.

    Raises `InputError`: images and labels differ in size, images differ in type, or the labels are nothing to train on,
    see `tomoseg.io.label_values.label_problems`. All problems are reported at once.
    """
    data, problems = LabelledSlices([], [], [], list(class_names) if class_names else None), []
    displays, blank = DisplayCheck(), []
    for pair in pairs:
        try:
            image, labels = load_pair(pair, n_classes)
            displays.look(pair)
        except InputError as error:
            problems.append(str(error))
            continue
        if is_blank(pair, labels):
            blank.append(pair.name)
            continue
        if data.images and image.dtype != data.images[0].dtype:
            problems.append(
                f"{pair.image} is {image.dtype}, the images before it are {data.images[0].dtype}: save all in one type"
            )
        data.names.append(pair.name)
        data.images.append(image)
        data.labels.append(labels)
    counts = counts_of(data.labels)
    mapped_to = n_classes_of(counts, pairs, class_names)
    if data.labels:
        problems += label_problems(counts, n_classes or mapped_to, mapped=any(pair.label_map for pair in pairs))
    elif blank:
        problems.append(f"nothing is annotated in the {len(blank)} pages: all labels are {IGNORE}")
    if problems:
        raise InputError.of(_first(problems))
    if runtime is not None:
        if blank:
            runtime.say(blank_pages(blank))
        for text in [*label_doubts(counts, data.names), *displays.doubts()]:
            runtime.warn(text)
    if mapped_to and not data.class_names:  # a class of the map that does not occur counts, too
        return LabelledSlices(data.names, data.images, data.labels, default_names(mapped_to))
    return data


def is_blank(pair: Pair, labels: NDArray[np.uint8]) -> bool:
    """Tell whether a slice is a page of a stack in which nobody annotated anything; often a few pages are annotated."""
    return pair.image.page is not None and bool((labels == IGNORE).all())


def blank_pages(names: Sequence[str]) -> str:
    """Say that pages are left out."""
    return f"{len(names)} pages without any annotated pixel are left out: {few(names)}"


def n_classes_of(counts: NDArray[np.int64], pairs: Sequence[Pair], class_names: Sequence[str] | None) -> int | None:
    """Return the number of classes that names or a label map tell; None where nobody told any."""
    if class_names:
        return len(class_names)
    maps = [pair.label_map for pair in pairs if pair.label_map is not None]
    return max(2, *(m.n_classes for m in maps), 1 + max(present_classes(counts), default=0)) if maps else None


def _first(problems: list[str], most: int = 20) -> list[str]:
    """Return the first problems, and the number of the others."""
    more = len(problems) - most
    return problems[:most] + ([f"and {more} more; `tomoseg check-data --json` lists all"] if more > 0 else [])


class DisplayCheck:
    """Gathers how label images and images are meant to be shown, which may contradict the numbers in them."""

    def __init__(self) -> None:
        self._colors: dict[str, list[UsedColors]] = {"label images": [], "images": []}
        self._inverted: dict[str, list[str]] = {"label images": [], "images": []}
        self._n_images = 0

    def look(self, pair: Pair) -> None:
        """Keep how the files of a slice are shown; raises `InputError` as `read_image`."""
        if not (pair.label_map and pair.label_map.by_color):
            for file in pair.label_files:
                self._keep("label images", file, of_class=isinstance(pair.labels, MaskFiles))
        self._keep("images", pair.image)
        self._n_images += 1

    def _keep(self, what: str, file: ImageFile, *, of_class: bool = False) -> None:
        display = display_of(file)
        if display.palette is not None and not of_class:
            self._colors[what].append(UsedColors.of(file.name, display.palette, read_image(file)))
        if display.zero_is_white:
            self._inverted[what].append(file.name)

    def doubts(self) -> list[str]:
        """Return what colours and brightness contradict, a sentence each."""
        found = [text for what, colors in self._colors.items() for text in palette_doubts(colors, what)]
        if labels := self._inverted["label images"]:
            found.append(
                f"{len(labels)} label images are shown with 0 as white: {few(labels)}. Numbers are taken as they are "
                "stored, not as they look: what is bright is 0"
            )
        images = self._inverted["images"]
        if 0 < len(images) < self._n_images:
            found.append(
                f"{len(images)} of {self._n_images} images are shown with 0 as white: {few(images)}. Numbers are taken "
                "as they are stored: where these are bright, they look dark"
            )
        return found


def load_pair(pair: Pair, n_classes: int | None = None) -> tuple[Array, NDArray[np.uint8]]:
    """Read one slice and its labels, of equal size."""
    image, labels = read_slice(pair.image), read_labels(pair.labels, n_classes, pair.label_map)
    if image.shape != labels.shape:
        raise InputError(
            f"{pair.image} is {image.shape[1]} x {image.shape[0]} px, its labels {pair.labels} are "
            f"{labels.shape[1]} x {labels.shape[0]} px: they must be the same slice"
        )
    return image, labels


def pixel_digest(data: Array) -> str:
    """Return the SHA-256 of the values of an image of whole numbers, whatever type they were stored in."""
    digest = hashlib.sha256(f"{data.shape} ".encode())
    digest.update(np.ascontiguousarray(data, "<i8" if data.dtype.kind in "uib" else "<f8").data)
    return digest.hexdigest()


def data_digest(names: Sequence[str], images: Sequence[Array], labels: Sequence[Array]) -> str:
    """Return the SHA-256 of labelled slices, by which a network knows what it was trained on."""
    digest = hashlib.sha256()
    for name, image, label in zip(names, images, labels, strict=True):
        digest.update(f"{name} {image.shape} {image.dtype} ".encode())
        digest.update(np.ascontiguousarray(image).data)
        digest.update(np.ascontiguousarray(label, np.uint8).data)
    return digest.hexdigest()
