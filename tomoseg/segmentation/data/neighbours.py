"""Slices with their neighbours on either side, as the channels of an image.

A network that sees them, too ('2.5D'), can tell an object that goes on from noise. The slice to be labelled is the
middle channel. Where a neighbour does not exist, at an end of the series or beside a gap, the one next to it towards
the middle takes its place.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.segmentation.data.folds import slice_parts


def neighbour_names(names: Sequence[str], every: Sequence[str], channels: int) -> list[list[str]]:
    """Return, for each name, the names of its slice and of its neighbours in the order of their numbers.

    Parameters
    ----------
    names : of the slices to be labelled
    every : of all slices there are, these among them; neighbours differ in the slice number alone, see
        `tomoseg.segmentation.data.folds.slice_parts`
    channels : how many for each name, odd
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
    """Return images (h, w, channels) of slices and their neighbours, in the type of the slices.

    Parameters
    ----------
    names, images : of the slices to be labelled, (h, w) each
    others : what reads each slice that is a neighbour only, by name

    Raises
    ------
    InputError
        A neighbour is of another size or type than its slice.
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
                    f"{known[other].shape} {known[other].dtype}: neighbours must be of one size and type"
                )
    return [np.stack([known[name] for name in row], axis=-1) for row in rows]


def with_named_neighbours(names: Sequence[str], images: Sequence[Array], channels: int) -> Sequence[Array]:
    """Return images with the neighbours that are among them, if these are wanted and not there yet."""
    wanted = channels > 1 and channels % 2 and len(names) == len(images) == len(set(names))
    return with_neighbours(names, images, channels) if wanted and all(i.ndim == 2 for i in images) else images


def middle(image: Array) -> Array:
    """Return the slice to be labelled, (h, w), of an image (h, w) or (h, w, channels)."""
    return image if image.ndim == 2 else image[..., image.shape[-1] // 2]
