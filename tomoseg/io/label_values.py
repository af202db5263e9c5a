"""The values of label images: what cannot be class numbers, and translation of other values and of colours."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError, shown

UNPAINTED = 255  # the class number of pixels that nobody annotated
MOST_NAMED = 8  # values in a message
MOST_UNNAMED = 16  # classes that nobody named; more values are grey values, or numbers of objects


def few(items: Iterable[object], most: int = 5) -> str:
    """Return the first items as text, and the number of the others."""
    texts = [str(item) for item in items]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def counts_of(labels: Sequence[Array]) -> NDArray[np.int64]:
    """Return the pixels of each value in each label image, (images, 256)."""
    counts = [np.bincount(np.asarray(label, np.uint8).ravel(), minlength=256) for label in labels]
    return np.array(counts, np.int64).reshape(-1, 256)


def present_classes(counts: NDArray[np.int64]) -> list[int]:
    """Return the class numbers that occur, given the pixels of each value in each label image, (images, 256)."""
    return [int(value) for value in np.flatnonzero(counts[:, :UNPAINTED].sum(axis=0))]


def label_problems(counts: NDArray[np.int64], n_classes: int | None, *, mapped: bool = False) -> list[str]:
    """Return why label images cannot be trained on, a sentence each; an empty list if they can.

    `counts` are the pixels of each value in each image, (images, 256). Without `n_classes` nobody has named the
    classes, and their number is guessed. `mapped` labels come from a label map, which says what 255 is.
    """
    if not len(counts):
        return []
    present = present_classes(counts)
    if n_classes is not None and (outside := [value for value in present if value >= n_classes]):
        n = int((counts[:, outside].sum(axis=1) > 0).sum())
        return [
            f"{n} of {len(counts)} label images hold {few(outside)}, but there are {n_classes} classes: labels are 0 "
            f"to {n_classes - 1}. Name every class, or translate values with --label-map"
        ]
    if masks := "" if mapped else mask_problem(counts):
        return [masks]
    if len(present) < 2:
        only = f" (every annotated pixel is {present[0]})" if present else ""
        return [f"the labels hold {len(present)} class{'' if present else 'es'}: there is nothing to tell apart{only}"]
    return _problems_of_unnamed(present, white=bool(counts[:, UNPAINTED].any())) if n_classes is None else []


def _problems_of_unnamed(present: Sequence[int], *, white: bool) -> list[str]:
    """Return why values that nobody named are no class numbers; `white` tells whether 255 occurs besides."""
    if len(present) > MOST_UNNAMED:
        return [
            f"the labels hold {len(present)} values from {present[0]} to {present[-1]}, as images do and labels do "
            "not: were images and labels exchanged? If each object has a number of its own, number the classes "
            "instead; if these are classes, name every one with --class-names"
        ]
    if 2 * len(present) < present[-1] + 1:
        guess = ",".join(f"{value}={number}" for number, value in enumerate(present))
        and_white = f" (and {UNPAINTED} for pixels that nobody annotated)" if white else ""
        return [
            f"the labels hold {few(present)}{and_white}, which look like grey values and not like class numbers: say "
            f"which is which class, for example --label-map {guess}" + f",{UNPAINTED}={len(present)}" * white
        ]
    return []


def mask_problem(counts: NDArray[np.int64]) -> str:
    """Say so if label images hold only 0 and 255, given the pixels of each value, (images, 256); else empty."""
    if not _are_masks(counts.sum(axis=0)):
        return ""
    return (
        f"all label images hold only 0 and {UNPAINTED}, and {UNPAINTED} means that nobody annotated: if they are "
        f"masks, give --label-map 0=0,{UNPAINTED}=1"
    )


def label_doubts(counts: NDArray[np.int64], names: Sequence[str]) -> Iterator[str]:
    """Yield what may be wrong with label images that can be trained on, given their names."""
    masks = [name for name, row in zip(names, counts, strict=True) if _are_masks(row)]
    if masks and len(masks) < len(counts):
        yield (
            f"{len(masks)} of {len(counts)} label images hold only 0 and {UNPAINTED}, which means that nobody "
            f"annotated: {few(masks)}. If these are masks, their objects are lost"
        )


def _are_masks(counts: NDArray[np.int64]) -> bool:
    return np.flatnonzero(counts).tolist() == [0, UNPAINTED]


@dataclass(frozen=True)
class UsedColors:
    """The colours of the indices that occur in a palette image."""

    name: str
    colors: Mapping[int, tuple[int, ...]]  # red, green, blue by index

    @classmethod
    def of(cls, name: str, palette: NDArray[np.uint8], indices: Array) -> "UsedColors":
        """Return the colours that an image uses of its palette (n, 3)."""
        used = [int(i) for i in np.unique(indices) if i < len(palette)]
        return cls(name, {i: tuple(palette[i].tolist()) for i in used})


def palette_doubts(images: Sequence[UsedColors], what: str) -> Iterator[str]:
    """Yield the first contradiction between palettes: an index of two colours, or a colour of two indices."""
    color_of: dict[int, tuple[tuple[int, ...], str]] = {}
    indices_of: dict[tuple[int, ...], dict[int, str]] = {}
    for image in images:
        for index, color in image.colors.items():
            other, first = color_of.get(index, (color, ""))
            others = indices_of.get(color, {index: ""})
            if other != color:
                told = f"{index} is {_hex(other)} in {first} and {_hex(color)} in {image.name}"
            elif index not in others:
                other_index, first = next(iter(others.items()))
                told = f"{_hex(color)} is {other_index} in {first} and {index} in {image.name}"
            else:
                continue
            yield (
                f"the palettes of the {what} differ: {told}. Numbers are taken as they are stored; where colours tell "
                "the classes, give --label-map with colours"
            )
            return
        for index, color in image.colors.items():
            color_of.setdefault(index, (color, image.name))
            indices_of.setdefault(color, {}).setdefault(index, image.name)


def _hex(color: tuple[int, ...]) -> str:
    return "#" + "".join(f"{part:02x}" for part in color)


@dataclass(frozen=True)
class LabelMap:
    """The class of each value or colour in label images."""

    classes: Mapping[float, int]  # class number (255: not annotated) by grey value, or by colour as 0xrrggbb
    by_color: bool  # the keys are colours
    text: str  # the option as given
    others: int | None = None  # the class of all other values, if they have one

    @classmethod
    def parse(cls, text: str) -> "LabelMap":
        """Parse '0=0,128=1,255=2' or '#000000=0,#ff0000=1'; a class is a number, or 'ignore' for not annotated.

        'other' stands for all values that are not named, such as the numbers of objects: '0=0,other=1'.

        Raises `InputError` if the text is malformed, names a value twice, or mixes grey values and colours.
        """
        problems, classes, kinds, others = [], {}, set(), None
        for entry in text.split(","):
            match = re.fullmatch(r"\s*(#[0-9a-fA-F]{6}|[-+]?\d+(?:\.\d+)?|other)\s*=\s*(\d{1,3}|ignore)\s*", entry)
            number = -1 if match is None else UNPAINTED if match[2] == "ignore" else int(match[2])
            if match is None or number > UNPAINTED:
                problems.append(f"'{shown(entry)}' is not of the form VALUE=CLASS or #rrggbb=CLASS")
                continue
            if match[1] == "other":
                problems += [] if others is None else ["other is named twice"]
                others = number
                continue
            is_color = match[1].startswith("#")
            value = float(int(match[1][1:], 16)) if is_color else float(match[1])
            if value in classes:
                problems.append(f"{match[1]} is named twice")
            classes[value] = number
            kinds.add(is_color)
        if len(kinds) > 1:
            problems.append("grey values and colours are mixed")
        if problems:
            raise InputError(
                f"--label-map {shown(text, 200)}: {'; '.join(problems)}. Write for example 0=0,128=1,255=2 or "
                f"#000000=0,#ff0000=1; classes are 0 to {UNPAINTED - 1}, and 'ignore' is for pixels nobody annotated."
            )
        return cls(classes, kinds == {True}, text, others)

    @property
    def n_classes(self) -> int:
        """Number of classes the map leads to, from 0 to the largest."""
        every = [*self.classes.values(), *([] if self.others is None else [self.others])]
        return 1 + max((c for c in every if c != UNPAINTED), default=0)

    def apply(self, path: object, data: Array) -> NDArray[np.uint8]:
        """Translate grey values (h, w), or 8-bit colours (h, w, 3 or more), to class numbers (h, w).

        Raises `InputError` if the image, read from `path`, holds values that are not in the map.
        """
        values, where = np.unique(self._packed(path, data), return_inverse=True)
        unknown = np.array([float(v) not in self.classes for v in values])
        if self.others is None and unknown.any():
            share = float(unknown[where].mean())
            raise InputError(
                f"{path} holds {self._named(values[unknown])}, which --label-map {shown(self.text, 200)} does not name "
                f"({share:.2g} of its pixels): add each as VALUE=CLASS, or as VALUE=ignore where nobody annotated. "
                "Many values in few pixels are a sign that the image was blurred or resized after painting."
            )
        classes = np.array([self.classes.get(float(v), self.others) for v in values], np.uint8)
        return classes[where].reshape(data.shape[:2])

    def _packed(self, path: object, data: Array) -> Array:
        """Return one number per pixel: the value, or the colour as 0xrrggbb."""
        if not self.by_color:
            return data
        if data.dtype != np.uint8 or data.ndim not in (2, 3):
            raise InputError(
                f"{path} is not an 8-bit image (shape {data.shape}, {data.dtype}), but --label-map "
                f"{shown(self.text, 200)} names colours: save the labels as 8-bit RGB, or name grey values"
            )
        grey = data.ndim == 2 or data.shape[2] < 3
        channels = np.broadcast_to(np.atleast_3d(data)[..., :1], (*data.shape[:2], 3)) if grey else data[..., :3]
        return channels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)

    def _named(self, values: Array) -> str:
        """Return the first of some values in the notation of the map."""
        texts = [f"#{int(v):06x}" if self.by_color else f"{v:g}" for v in values[:MOST_NAMED]]
        what = "colour" if self.by_color else "value"
        more = f" and {len(values) - MOST_NAMED} more" if len(values) > MOST_NAMED else ""
        return f"the {what}{'s' if len(values) > 1 else ''} {', '.join(texts)}{more}"
