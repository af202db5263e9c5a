"""What the shapes of a label's letters say, to check what an engine read: how many, a decimal point, the unit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import BoolArray

_HEIGHT = 48  # px: letters are looked at this large
_CLEAR_PX = 9  # least height of a letter, in px of the image, whose shape is clear
_LETTER = 0.45  # least height of a letter, in heights of the tallest
_POINT = 0.36  # tallest and widest of a point, in heights of a digit


@dataclass(frozen=True)
class Letters:
    """Letters of a line, left to right.

    `boxes` (n, 4) in px of `ink` (y, x); `points` how many letters stand before each decimal point; `bottom` and
    `height` of the digits, in px; `zoom` of `ink`.
    """

    ink: BoolArray
    boxes: NDArray[np.int64]
    points: tuple[int, ...]
    bottom: float
    height: float
    zoom: float

    def __len__(self) -> int:
        return len(self.boxes) + len(self.points)


def find_letters(ink: NDArray[np.float32]) -> Letters:
    """Find the letters in the ink (y, x) of a line, 0 to 1; parts one above the other are one letter."""
    zoom = max(1.0, _HEIGHT / ink.shape[0])
    mask = (ndimage.zoom(ink, zoom, order=1 if zoom < 2 else 3) if zoom > 1 else ink) > 0.5
    labels, n = ndimage.label(mask, np.ones((3, 3), bool))
    found = [(y.start, x.start, y.stop, x.stop) for y, x in ndimage.find_objects(labels, n)]
    boxes = np.array(found, np.int64).reshape(-1, 4)
    tall = boxes[:, 2] - boxes[:, 0]
    if not len(boxes) or tall.max() < 4:
        return Letters(mask, boxes[:0], (), 0.0, 0.0, zoom)
    whole = boxes[tall >= _LETTER * tall.max()]
    # Most letters stand on the line, and digits reach higher than the letters of the unit.
    bottom = float(np.median(whole[:, 2]))
    height = bottom - float(np.percentile(whole[:, 0], 25))
    are_points = _are_points(boxes, bottom, height)
    whole = boxes[~are_points & (tall >= _LETTER * tall.max())]
    points = np.array([p for p in boxes[are_points] if not _is_under(p, whole)], np.int64).reshape(-1, 4)
    groups = _one_above_another(whole)
    before = tuple(int((groups[:, 3] <= (point[1] + point[3]) / 2 + 0.2 * height).sum()) for point in points)
    between = tuple(sorted({n for n in before if 0 < n < len(groups)}))
    return Letters(mask, groups, between, bottom, height, zoom)


def _are_points(boxes: NDArray[np.int64], bottom: float, height: float) -> BoolArray:
    """Return which boxes (n, 4) are small and stand on the line, or hang from it as commas do."""
    tall, wide = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    small = (tall <= (_POINT + 0.1) * height) & (wide <= _POINT * height) & (tall >= 0.06 * height)
    low = (boxes[:, 2] >= bottom - 0.12 * height) & (boxes[:, 0] >= bottom - 0.4 * height)
    return np.asarray(small & low & (boxes[:, 2] <= bottom + 0.35 * height) & (boxes[:, 0] <= bottom))


def _is_under(point: NDArray[np.int64], letters: NDArray[np.int64]) -> bool:
    """Return whether most of a point's columns are those of one letter: it is a part of that."""
    shared = np.minimum(letters[:, 3], point[3]) - np.maximum(letters[:, 1], point[1])
    return bool((shared > 0.5 * (point[3] - point[1])).any())


def _one_above_another(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Join boxes that share more than half of their columns; return them from left to right."""
    groups: list[list[int]] = []
    for y0, x0, y1, x1 in sorted(boxes.tolist(), key=lambda box: box[1]):
        if groups and min(x1, groups[-1][3]) - x0 > 0.5 * min(x1 - x0, groups[-1][3] - groups[-1][1]):
            last = groups[-1]
            groups[-1] = [min(y0, last[0]), last[1], max(y1, last[2]), max(x1, last[3])]
        else:
            groups.append([y0, x0, y1, x1])
    return np.array(groups, np.int64).reshape(-1, 4)


def unit_letter(letters: Letters, index: int) -> str:
    """Return which of n, µ (or u) and p the letter at an index looks like; "" where none is clear.

    In the middle third of its columns, n has ink near the top of the small letters and none near the line, µ the other
    way round, and p both.
    """
    y0, x0, y1, x1 = letters.boxes[index]
    bottom = int(min(letters.bottom, y1))
    wide, tall = x1 - x0, bottom - y0
    if tall < _CLEAR_PX * letters.zoom or wide < 0.4 * tall or wide > 1.6 * tall:
        return ""
    middle = letters.ink[y0:bottom, x0 + wide // 3 : x1 - wide // 3]
    band = max(2, round(0.3 * tall))
    top, low = middle[:band].any(axis=0).mean(), middle[-band:].any(axis=0).mean()
    below = y1 - letters.bottom > 0.1 * letters.height
    if top >= 0.7 and low <= 0.35 and not below:
        return "n"
    if low >= 0.7 and top <= 0.35:
        return "µ"
    return "p" if top >= 0.7 and low >= 0.7 and below else ""
