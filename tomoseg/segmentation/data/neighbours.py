"""Slices with their neighbours on either side as channels ('2.5D').

A network that also sees the neighbours can tell noise from an object that continues through them. The slice to label is
the middle channel. Where a neighbour does not exist, at an end of the series or beside a gap, the next one towards the
middle takes its place.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.label_values import LabelMap
from tomoseg.io.slices import LabelledSlices, find_pairs, load_pairs, slice_readers
from tomoseg.runtime import Runtime
from tomoseg.segmentation.data.folds import slice_parts


def neighbour_names(names: Sequence[str], every: Sequence[str], channels: int) -> list[list[str]]:
    """Return, for each name, the names of the slice and its neighbours in the order of their numbers.

    These are an odd number, `channels`, of `every` slice there is; neighbours differ in the slice number alone, see
    `tomoseg.segmentation.data.folds.slice_parts`.
    """
    parts = dict(zip(every, slice_parts(every), strict=True))
    name_of = {part: name for name, part in parts.items()}
    found = []
    for name in names:
        series, number, rest = parts[name]
        row = [name]
        for k in range(1, channels // 2 + 1):
            before, after = (name_of.get((series, number + step, rest)) for step in (-k, k))
            row = [before or row[0], *row, after or row[-1]]
        found.append(row)
    return found


def with_neighbours(
    names: Sequence[str],
    images: Sequence[Array],
    channels: int,
    others: Mapping[str, Callable[[], Array]] | None = None,
) -> list[Array]:
    """Return images (h, w, channels) of slices (h, w) and their neighbours, in the type of the slices.

    `others` are functions that read the slices that are only neighbours, by name. Raises `InputError`: a neighbour is
    of another size or type than its slice.
    """
    known, others = dict(zip(names, images, strict=True)), others or {}
    rows = neighbour_names(names, [*names, *(name for name in others if name not in known)], channels)
    for name in {name for row in rows for name in row}:
        if name not in known:
            known[name] = others[name]()
    for name, row in zip(names, rows, strict=True):
        for other in row:
            if known[other].shape != known[name].shape or known[other].dtype != known[name].dtype:
                raise InputError(
                    f"slice {name} is {known[name].shape} {known[name].dtype}, its neighbour {other} is "
                    f"{known[other].shape} {known[other].dtype}: neighbours must have the same size and type"
                )
    return [np.stack([known[name] for name in row], axis=-1) for row in rows]


def with_named_neighbours(names: Sequence[str], images: Sequence[Array], channels: int) -> Sequence[Array]:
    """Add to (h, w) images the neighbours that are among them; images with channels stay as they are."""
    distinct = len(names) == len(images) == len(set(names))
    wanted = channels > 1 and distinct and all(image.ndim == 2 for image in images)
    return with_neighbours(names, images, channels) if wanted else images


def load_slices(
    images_dir: Path,
    labels_dir: Path,
    channels: int,
    label_map: LabelMap | None,
    runtime: Runtime,
    *,
    class_names: Sequence[str] | None = None,
    label_pattern: str = "",
) -> LabelledSlices:
    """Read the labelled slices of two folders or stacks, with neighbours from all images, labelled or not.

    Raises `InputError`: see `tomoseg.io.slices.find_pairs`, `tomoseg.io.slices.load_pairs` and `with_neighbours`.
    """
    pairs = find_pairs(images_dir, labels_dir, runtime, label_map, class_names=class_names, label_pattern=label_pattern)
    slices = load_pairs(pairs, None, runtime, class_names)
    if channels == 1:
        return slices
    return replace(
        slices, images=with_neighbours(slices.names, slices.images, channels, slice_readers(images_dir, pairs))
    )


def middle(image: Array) -> Array:
    """Return the slice to label, (h, w), of an image (h, w) or (h, w, channels)."""
    return image if image.ndim == 2 else image[..., image.shape[-1] // 2]
