"""Find the lines of text near a bar: letters are connected parts of one colour and of similar height, side by side."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tomoseg.arrays import BoolArray
from tomoseg.micrographs.scale.bars import Bar, ground_colour
from tomoseg.micrographs.scale.picture import Box, Colour, Picture

# From how much ink on a pixel is a part of a letter, in the order they are tried: a busy ground has much that comes
# near the colour of the letters, and thin letters never reach it.
INK = (0.5, 0.75, 0.3, 0.87)
_LEAST_TEXT_PX = 5  # height of a letter
_MOST_TEXT = 0.2  # of the image's height
_MOST_LETTERS = 500  # looked at: the ones nearest to the bar
_LETTERS_PX = 8.0  # widest of what hangs together, in heights: whole words, where blurred
_LEAST_LIGHT = 0.2  # contrast of luminance that letters in colour can be found by
_WORD_GAPS = (1.6, 0.8)  # between letters of a line, in heights: of typewriter letters, and of others
_ABOVE = 0.27  # how far above or below a label may reach, in heights of the image
_BESIDE = 0.3  # how far to the side a label may reach, in widths of the image
_POINT_GAP = 0.8  # between a letter and a point


@dataclass(frozen=True)
class Line:
    """A line of text.

    `colour` of its ink and signed `contrast` of the ground to it, see `Picture.ink`; `distance`: how far it is from
    where a label stands by the bar, 0 best; `place`: "above", "below", "beside" or "inside".
    """

    box: Box
    colour: Colour
    contrast: float
    distance: float
    place: str

    @property
    def height(self) -> int:
        """Height in px."""
        return self.box[2] - self.box[0]


def lines_near(picture: Picture, bar: Bar, least: float) -> list[Line]:
    """Return the lines of text where a label may stand: above, below, beside or in a bar; the best placed first.

    `least` is the ink from which on a pixel is a part of a letter.
    """
    found: list[Line] = []
    window = _window(picture, bar)
    for colour, contrast, within in _inks(picture, bar):
        mask = picture.ink(window, colour, contrast) >= least
        _blank(mask, bar, window)
        for y0, x0, y1, x1 in text_lines(mask, picture.shape[0]):
            box = (y0 + window[0], x0 + window[1], y1 + window[0], x1 + window[1])
            at = placing(box, bar)
            if at is not None and (at[1] == "inside" or not within):
                found.append(Line(box, colour, contrast, *at))
    found.sort(key=lambda line: (round(line.distance), line.box[1] - line.box[3]))
    return _different(found)


def _window(picture: Picture, bar: Bar) -> Box:
    height, width = picture.shape
    y0, x0, y1, x1 = bar.box
    up, side = _ABOVE * height, max(_BESIDE * width, bar.length)
    return picture.clipped((y0 - up, x0 - side, y1 + up, x1 + side))


def _inks(picture: Picture, bar: Bar) -> list[tuple[Colour, float, bool]]:
    """Return the colours letters may have, their contrast, and whether they are searched for inside the bar only."""
    inks = [(bar.colour, _signed(picture, bar, bar.colour, bar.contrast), False)]
    if len(bar.colour) == 3:  # compression blurs the colour of thin letters, but not their luminance
        light = _signed(picture, bar, bar.colour, float(abs(ground_colour(picture, bar)[0] - bar.colour[0])))
        inks += [(bar.colour[:1], light, False)] if abs(light) >= _LEAST_LIGHT else []
    if bar.second is not None:
        inks.append((bar.second, _signed(picture, bar, bar.second, bar.contrast), False))
    if bar.kind == "framed" and bar.height >= 8:
        y0, x0, y1, x1 = bar.box
        inside = picture.values[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].reshape(-1, len(bar.colour))
        far = np.abs(inside - bar.colour).max(axis=1)
        most = float(np.percentile(far, 97)) if len(far) else 0.0
        if most >= 0.15:
            ink = np.median(inside[far >= 0.8 * most], axis=0).astype(np.float32)
            inks.append((ink, most if bar.colour[0] > ink[0] else -most, True))
    return inks


def _signed(picture: Picture, bar: Bar, ink: Colour, contrast: float) -> float:
    """Return the contrast, negative where what is above and below a bar is darker than an ink."""
    return contrast if ground_colour(picture, bar)[0] >= ink[0] else -contrast


def _blank(mask: BoolArray, bar: Bar, window: Box) -> None:
    """Take the bar's parts out of the ink of a window, with a pixel of blur where no label may touch them."""
    pad = 0 if bar.kind == "framed" else 1
    for y0, x0, y1, x1 in bar.parts:
        top, left = max(0, y0 - pad - window[0]), max(0, x0 - pad - window[1])
        mask[top : max(0, y1 + pad - window[0]), left : max(0, x1 + pad - window[1])] = False


def text_lines(mask: BoolArray, image_height: int) -> list[Box]:
    """Return the boxes of what looks like lines of text in a mask (y, x) of ink: two or more letters side by side."""
    boxes = _component_boxes(mask)
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    small = (height < _MOST_TEXT * image_height) & (width <= _LETTERS_PX * np.maximum(height, _LEAST_TEXT_PX))
    letters = boxes[small & (height >= 2)][:_MOST_LETTERS]
    if not len(letters):
        return []
    groups = (_side_by_side(letters, gap) for gap in _WORD_GAPS)
    lines = (letters[group == i] for group in groups for i in range(group.max() + 1))
    return list(dict.fromkeys(_line_box(line, boxes[small]) for line in lines if _is_text(line)))


def _component_boxes(mask: BoolArray) -> NDArray[np.int64]:
    """Return the boxes (n, 4) of the connected parts of a mask, the larger first."""
    labels, n = ndimage.label(mask, np.ones((3, 3), bool))
    found = [(y.start, x.start, y.stop, x.stop) for y, x in ndimage.find_objects(labels, n)]
    boxes = np.array(found, np.int64).reshape(-1, 4)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return boxes[np.argsort(-area, kind="stable")]


def _side_by_side(boxes: NDArray[np.int64], most: float) -> NDArray[np.int64]:
    """Return the line (n,) each letter belongs to: neighbours overlap in height, and are about as tall."""
    y0, x0, y1, x1 = (v[:, None] for v in boxes.T)
    height = y1 - y0
    lower, taller = np.minimum(height, height.T), np.maximum(height, height.T)
    overlap = np.minimum(y1, y1.T) - np.maximum(y0, y0.T)
    gap = np.maximum(x0, x0.T) - np.minimum(x1, x1.T)
    alike = (overlap >= 0.6 * lower) & (gap <= most * taller) & (taller <= 2.3 * lower)
    alike &= lower >= _LEAST_TEXT_PX
    # A point or comma is much lower than its neighbours, and stands on the line they stand on, or hangs from it.
    at_foot = (np.abs(y1 - y1.T) <= 0.35 * taller) & (np.maximum(y0, y0.T) >= np.minimum(y0, y0.T) + 0.5 * taller)
    point = at_foot & (gap <= _POINT_GAP * taller) & (taller >= _LEAST_TEXT_PX) & (taller > 2.3 * lower)
    joined = alike | point
    _, group = connected_components(coo_array(joined), directed=False)
    return np.asarray(group)


def _is_text(letters: NDArray[np.int64]) -> bool:
    """Return whether boxes are two letters or more, or one that is as wide as a word."""
    letters = letters[letters[:, 2] - letters[:, 0] >= _LEAST_TEXT_PX]
    if not len(letters):
        return False
    y0, x0, y1, x1 = letters[:, 0].min(), letters[:, 1].min(), letters[:, 2].max(), letters[:, 3].max()
    return bool(x1 - x0 >= 1.1 * (y1 - y0)) and (len(letters) >= 2 or bool(x1 - x0 >= 2 * (y1 - y0)))


def _line_box(letters: NDArray[np.int64], specks: NDArray[np.int64]) -> Box:
    """Return the box of a line, with what is too small for a letter in it: points, parts of broken letters."""
    y0, x0, y1, x1 = letters[:, 0].min(), letters[:, 1].min(), letters[:, 2].max(), letters[:, 3].max()
    height = y1 - y0
    near = (specks[:, 0] >= y0 - 1) & (specks[:, 2] <= y1 + 0.3 * height)
    near &= (specks[:, 1] >= x0 - 0.4 * height) & (specks[:, 3] <= x1 + 0.4 * height)
    both = np.concatenate([letters, specks[near]])
    return int(both[:, 0].min()), int(both[:, 1].min()), int(both[:, 2].max()), int(both[:, 3].max())


def placing(line: Box, bar: Bar) -> tuple[float, str] | None:
    """Return how far, in heights of a line, it is from where a label stands by a bar, and on which side; or None."""
    y0, x0, y1, x1 = line
    v0, u0, v1, u1 = bar.box
    height = y1 - y0
    if bar.kind == "interrupted":
        if y0 >= v1 or y1 <= v0:
            return None
        gap = bar.parts[0][3], bar.parts[-1][1]
        off = abs((x0 + x1) - (u0 + u1)) / (2 * height)
        return (0.3 * off, "inside") if x0 >= gap[0] - 0.1 * height and x1 <= gap[1] + 0.1 * height else None
    if y0 >= v0 and y1 <= v1 and x0 >= u0 and x1 <= u1:
        return abs((x0 + x1) - (u0 + u1)) / (2 * height) * 0.3, "inside"
    beside = max(u0 - x1, x0 - u1)
    if beside >= 0:
        off = abs((y0 + y1) - (v0 + v1)) / 2
        return (beside / height + off / height, "beside") if off <= 0.8 * height and beside <= 3 * height else None
    apart = max(v0 - y1, y0 - v1)
    shared = min(x1, u1) - max(x0, u0)
    if apart < -0.2 * height or apart > 2.5 * height or shared < 0.5 * min(x1 - x0, u1 - u0):
        return None
    middle = abs((x0 + x1) - (u0 + u1)) / 2
    flush = min(abs(x0 - u0), abs(x1 - u1), middle)
    return max(0.0, apart) / height + 0.3 * flush / height, "above" if y1 <= (v0 + v1) / 2 else "below"


def _different(lines: list[Line]) -> list[Line]:
    """Leave out lines that were found twice: nearly the same box and colour."""
    kept: list[Line] = []
    for line in lines:
        same = (
            np.abs(np.subtract(line.box, other.box)).max() <= 0.15 * line.height + 1
            and np.abs(line.colour - other.colour).max() < 0.1
            for other in kept
        )
        if not any(same):
            kept.append(line)
    return kept
