"""Translation of label images whose values or colours are not class numbers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError, shown

UNPAINTED = 255  # the class number of pixels that nobody annotated
MOST_NAMED = 8  # values in a message


@dataclass(frozen=True)
class LabelMap:
    """The class of each value or colour in label images."""

    classes: Mapping[float, int]  # class number (255: not annotated) by grey value, or by colour as 0xrrggbb
    by_color: bool  # the keys are colours
    text: str  # the option as given

    @classmethod
    def parse(cls, text: str) -> "LabelMap":
        """Parse '0=0,128=1,255=2' or '#000000=0,#ff0000=1'; a class is a number, or 'ignore' for not annotated.

        Raises `InputError` if the text is malformed, names a value twice, or mixes grey values and colours.
        """
        problems, classes, kinds = [], {}, set()
        for entry in text.split(","):
            match = re.fullmatch(r"\s*(#[0-9a-fA-F]{6}|[-+]?\d+(?:\.\d+)?)\s*=\s*(\d{1,3}|ignore)\s*", entry)
            number = -1 if match is None else UNPAINTED if match[2] == "ignore" else int(match[2])
            if match is None or number > UNPAINTED:
                problems.append(f"'{shown(entry)}' is not of the form VALUE=CLASS or #rrggbb=CLASS")
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
        return cls(classes, kinds == {True}, text)

    @property
    def n_classes(self) -> int:
        """Number of classes the map leads to, from 0 to the largest."""
        return 1 + max((c for c in self.classes.values() if c != UNPAINTED), default=0)

    def apply(self, path: Path, data: Array) -> NDArray[np.uint8]:
        """Translate grey values (h, w), or 8-bit colours (h, w, 3 or more), to class numbers (h, w).

        Raises `InputError` if the image, read from `path`, holds values that are not in the map.
        """
        values, where = np.unique(self._packed(path, data), return_inverse=True)
        unknown = np.array([float(v) not in self.classes for v in values])
        if unknown.any():
            share = float(unknown[where].mean())
            raise InputError(
                f"{path} holds {self._named(values[unknown])}, which --label-map {shown(self.text, 200)} does not name "
                f"({share:.2g} of its pixels): add each as VALUE=CLASS, or as VALUE=ignore where nobody annotated. "
                "Many values in few pixels are a sign that the image was blurred or resized after painting."
            )
        classes = np.array([self.classes[float(v)] for v in values], np.uint8)
        return classes[where].reshape(data.shape[:2])

    def _packed(self, path: Path, data: Array) -> Array:
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
