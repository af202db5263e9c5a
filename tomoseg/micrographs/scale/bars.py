"""Find what may be a scale bar: rectangles of one colour, long and along the rows, that stand out from the image.

Rows are cut into runs of nearly one value. Runs of equal ends in neighbouring rows are a rectangle; rectangles of equal
ends and colour, one above the other, are a frame or a bar with its label within; equal ones in one row are the parts of
a bar that its label interrupts, or of a segmented one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tomoseg.arrays import Array, BoolArray
from tomoseg.micrographs.scale.picture import Box, Colour, Picture

# Differences in parts of the range between the dark and the bright end of the image.
_SAME = 0.06  # of neighbours within a bar: noise of compression
_NEAR_END = 0.1  # everything as near to the extreme as this is one colour, whatever the compression made of it
_DRIFT = 0.2  # over the length of a bar
_SAME_COLOUR = 0.15  # of two parts of one bar
LEAST_CONTRAST = 0.12  # of a bar to what is around it

_CLEAR = 0.5  # contrast from which on a bar is as good as any
_LONG = 0.1  # length, in widths of the image, from which on it is

_BLUR_PX = 4  # of the ends of a bar, in colour
_NOISE = 4.0  # of how far pixels of a bar are from its colour, at the middle: farther is something else
_INK = 0.45  # how far from an ink, in its contrast to the ground, a pixel is ink

_LEAST_PART = 5  # px: a segment
_LEAST_LENGTH = 16  # px
_MOST_LENGTH = 0.9  # of the image's width: longer ones are rims and strips
_MOST_HEIGHT = 0.12  # of the image's width
_FOUND_TWICE = 4  # rectangles of a row after one: both may be found by colour and by ink, a little different
_ENDS_PX = 2.5  # by which the ends of the parts of a bar may differ


@dataclass(frozen=True)
class Coloured:
    """A box, in whole px, of one colour (c,)."""

    box: Box
    colour: Colour

    @property
    def length(self) -> int:
        """Length in whole px."""
        return self.box[3] - self.box[1]

    @property
    def height(self) -> int:
        """Height in whole px."""
        return self.box[2] - self.box[0]


@dataclass(frozen=True)
class Bar(Coloured):
    """A rectangle that may be a scale bar.

    `contrast` as in a `Picture`; `parts` are their boxes, the bar itself if it has one only; `kind`: "solid", "framed"
    (rows above and below something else), "interrupted", "segmented", then with a `second` colour where its parts
    alternate between two, or "ruler" (ticks).
    """

    contrast: float
    kind: str
    parts: tuple[Box, ...]
    second: Colour | None = None


@dataclass(frozen=True)
class Ink:
    """The colour (c,) of letters and their contrast to the ground."""

    colour: Colour
    contrast: float


@dataclass(frozen=True)
class Rectangle(Coloured):
    """A rectangle of one colour, and whether it differs from what is above and below it."""

    above: bool
    below: bool


@dataclass(frozen=True)
class Runs:
    """Runs along the rows: row, first and last column + 1, each (n,), and colour (n, c)."""

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    colour: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.row)


def bars_between(picture: Picture, rows: tuple[int, int], ink: Ink | None = None) -> list[Bar]:
    """Return what may be scale bars between two rows of a picture, of any colour and of an ink, the clearest first."""
    top = max(0, rows[0])
    found = find_bars(Picture(picture.values[top : rows[1]]), ink)
    return [
        replace(bar, box=_lower(bar.box, top), parts=tuple(_lower(part, top) for part in bar.parts)) for bar in found
    ]


def _lower(box: Box, px: int) -> Box:
    return box[0] + px, box[1], box[2] + px, box[3]


def find_bars(picture: Picture, ink: Ink | None = None) -> list[Bar]:
    """Return what may be scale bars, of any colour and of an ink if there is one, the clearest first."""
    width = picture.shape[1]
    found = _bars_of_runs(picture, find_runs(picture.values))
    if ink:
        found += _bars_of_runs(picture, runs_of_ink(picture, ink), _without_strange_ends)
    return _without_doubles(found, width)


def _bars_of_runs(
    picture: Picture, runs: Runs, trim: Callable[[Picture, Rectangle], Rectangle] | None = None
) -> list[Bar]:
    parts = [p for p in find_rectangles(picture, runs) if p.length <= _MOST_LENGTH * picture.shape[1]]
    parts = [trim(picture, p) for p in parts] if trim else parts
    solid = _solid(picture, parts)
    found = [bar for bar in solid if bar.length >= _LEAST_LENGTH]
    found += _framed(picture, [p for p in parts if p.length >= _LEAST_LENGTH])
    found += _in_one_row(picture, solid)
    return found


def _without_strange_ends(picture: Picture, part: Rectangle) -> Rectangle:
    """Return a rectangle of ink without columns at its ends of another colour than its middle: what it runs into."""
    y0, x0, y1, x1 = part.box
    values = picture.values[y0:y1, x0:x1].mean(axis=0)
    off = np.abs(values - np.median(values, axis=0)).max(axis=1)
    like = off <= max(LEAST_CONTRAST, _NOISE * float(np.median(off)))
    inside = np.flatnonzero(like & (uniform_filter1d(like.astype(np.float32), _LEAST_PART, mode="nearest") > 0.7))
    if len(inside) < _LEAST_PART:
        return part
    left, right = (int(px) if px > _BLUR_PX else 0 for px in (inside[0], x1 - x0 - 1 - inside[-1]))
    return replace(part, box=(y0, x0 + left, y1, x1 - right))


def runs_of_ink(picture: Picture, ink: Ink, share: float = _INK) -> Runs:
    """Cut the rows of a picture into runs of an ink; `share` is how far from it, in its contrast, a pixel may be."""
    height, width = picture.shape
    is_ink = picture.distance((0, 0, height, width), ink.colour) < share * ink.contrast
    goes_on = np.zeros((height, width), bool)
    goes_on[:, :-1] = is_ink[:, 1:] & is_ink[:, :-1]
    starts, ends = _long_runs(goes_on)
    starts, ends = (v[is_ink.reshape(-1)[starts]] for v in (starts, ends))
    colour = np.broadcast_to(ink.colour, (len(starts), len(ink.colour)))
    return Runs(starts // width, starts % width, ends % width + 1, colour)


def _long_runs(goes_on: BoolArray) -> tuple[Array, Array]:
    """Return the first and last index (n,) of the runs in the rows (y, x) that are long enough for a part of a bar."""
    ends = np.flatnonzero(~goes_on.reshape(-1))
    starts = np.concatenate([[0], ends[:-1] + 1])
    long = ends - starts + 1 >= _LEAST_PART
    return starts[long], ends[long]


def find_runs(values: NDArray[np.float32]) -> Runs:
    """Cut the rows of an image (y, x, c) into runs of nearly one value, without the short ones."""
    height, width, _ = values.shape
    goes_on = np.zeros((height, width), bool)  # with the pixel to the right
    goes_on[:, :-1] = (np.abs(values[:, 1:] - values[:, :-1]) <= _SAME).all(axis=2)
    if values.shape[2] == 1:
        low, high = float(values.min()) + _NEAR_END, float(values.max()) - _NEAR_END
        for extreme in (values[..., 0] <= low, values[..., 0] >= high):
            goes_on[:, :-1] |= extreme[:, 1:] & extreme[:, :-1]
    starts, ends = _long_runs(goes_on)
    marked = _marked_ends(values.reshape(height * width, -1), width, starts, ends)
    starts, ends = starts[marked], ends[marked]
    row, start, stop = starts // width, starts % width, ends % width + 1
    # A bar does not change along its length: looked at in a few places, without the blurred ends.
    places = start[:, None] + ((stop - start - 1)[:, None] * np.linspace(0.1, 0.9, 9)).round().astype(np.int64)
    colours = values[row[:, None], places]
    steady = (np.ptp(colours, axis=1) <= _DRIFT).all(axis=1)
    return Runs(row[steady], start[steady], stop[steady], np.median(colours[steady], axis=1))


def _marked_ends(pixels: NDArray[np.float32], width: int, starts: Array, ends: Array) -> BoolArray:
    """Return which runs, first and last index (n,) into pixels (y x, c), differ at both ends from what follows."""
    inside = pixels[(starts + ends) // 2]
    marked = np.ones(len(starts), bool)
    for at, step, at_edge in ((starts, -1, starts % width == 0), (ends, 1, ends % width == width - 1)):
        differs = at_edge.copy()
        for i in (1, 2, 3):
            beyond = np.clip(at + i * step, 0, len(pixels) - 1)
            differs |= (np.abs(pixels[beyond] - inside) >= LEAST_CONTRAST).any(axis=1)
        marked &= differs
    return marked


def find_rectangles(picture: Picture, runs: Runs) -> list[Rectangle]:
    """Join runs of neighbouring rows with the same ends and colour into rectangles that something is around."""
    if not len(runs):
        return []
    upper, lower = _joined_below(runs)
    n = len(runs)
    links = coo_array((np.ones(len(upper), bool), (upper, lower)), shape=(n, n))
    _, group = connected_components(links, directed=False)
    order = np.argsort(group, kind="stable")
    first = np.flatnonzero(np.diff(group[order], prepend=-1))
    count = np.diff(np.append(first, n))
    top, bottom = (f.reduceat(runs.row[order], first) for f in (np.minimum, np.maximum))
    start, stop = (np.rint(np.add.reduceat(v[order], first) / count).astype(int) for v in (runs.start, runs.stop))
    colour = np.add.reduceat(runs.colour[order], first, axis=0) / count[:, None]
    fits = (bottom - top + 1 <= 3 * (stop - start)) & (stop - start >= _LEAST_PART)
    boxes, colour = np.stack([top, start, bottom + 1, stop], axis=1)[fits], colour[fits].astype(np.float32)
    above, below = _seen(picture, boxes, colour)
    seen = above | below
    return [
        Rectangle((y0, x0, y1, x1), c, one, other)
        for (y0, x0, y1, x1), c, one, other in zip(
            boxes[seen].tolist(), colour[seen], above[seen].tolist(), below[seen].tolist(), strict=True
        )
    ]


def _seen(picture: Picture, boxes: NDArray[np.int64], colours: NDArray[np.float32]) -> list[BoolArray]:
    """Return which boxes (n, 4) of colours (n, c) differ from what is above, and below, looked at in a few places."""
    height = picture.shape[0]
    y0, x0, y1, x1 = boxes.T
    places = x0[:, None] + ((x1 - x0 - 1)[:, None] * np.linspace(0.06, 0.94, 12)).round().astype(np.int64)
    sides = []
    for edge, step in ((y0 - 1, -1), (y1, 1)):
        differs = np.zeros(places.shape, np.float32)
        for i in range(3):
            row = np.clip(edge + i * step, 0, height - 1)
            beyond = picture.values[row[:, None], places]
            np.maximum(differs, np.abs(beyond - colours[:, None]).max(axis=2), out=differs)
        outside = (edge < 0) | (edge >= height)
        sides.append(((differs >= LEAST_CONTRAST).mean(axis=1) >= 0.5) | outside)
    return sides


def _joined_below(runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of runs, upper and lower, that are parts of one rectangle."""
    width = int(runs.stop.max()) + 8
    key = runs.row * width + runs.start  # ascending: runs come in order
    wanted = (runs.row + 1) * width + runs.start
    at = np.searchsorted(key, wanted - int(_ENDS_PX))
    upper, lower = [], []
    for step in range(3):
        below = np.minimum(at + step, len(runs) - 1)
        near = (np.abs(key[below] - wanted) <= _ENDS_PX) & (np.abs(runs.stop[below] - runs.stop) <= _ENDS_PX)
        near &= (np.abs(runs.colour[below] - runs.colour) <= _SAME_COLOUR).all(axis=1)
        upper.append(np.flatnonzero(near))
        lower.append(below[near])
    return np.concatenate(upper), np.concatenate(lower)


def _solid(picture: Picture, parts: list[Rectangle]) -> list[Bar]:
    """Return the rectangles that stand out from what is around them."""
    most = _MOST_HEIGHT * picture.shape[1]
    flat = [p for p in parts if p.above and p.below and p.height <= min(most, max(3.0, 3 * p.length))]
    judged = (Bar(p.box, p.colour, _contrast(picture, p.box, p.colour), "solid", (p.box,)) for p in flat)
    return [bar for bar in judged if bar.contrast >= LEAST_CONTRAST]


def _framed(picture: Picture, parts: list[Rectangle]) -> list[Bar]:
    """Return pairs of rectangles one above the other: frames, and bars with a label within."""
    most = _MOST_HEIGHT * picture.shape[1]
    by_ends: dict[int, list[Rectangle]] = {}
    for part in parts:
        if part.below:
            by_ends.setdefault(part.box[1] // 4, []).append(part)
    found = []
    for upper in parts:
        key = upper.box[1] // 4
        near = [p for k in (key - 1, key, key + 1) for p in by_ends.get(k, [])] if upper.above else []
        for lower in (p for p in near if _is_below(upper, p, most)):
            box = (upper.box[0], upper.box[1], lower.box[2], upper.box[3])
            contrast = _contrast(picture, box, upper.colour)
            if contrast >= LEAST_CONTRAST:
                found.append(Bar(box, upper.colour, contrast, "framed", (upper.box, lower.box)))
    return [bar for bar in found if not _is_blurred(picture, bar)]


def _is_blurred(picture: Picture, bar: Bar) -> bool:
    """Return whether two rectangles are the blurred edges of a bar: what is between them is farther from the ground."""
    (_, x0, y0, x1), (y1, _, _, _) = bar.parts
    ground, inside = ground_colour(picture, bar), np.median(picture.values[y0:y1, x0:x1], axis=(0, 1))
    return bool(np.abs(inside - ground).max() > np.abs(bar.colour - ground).max() + 0.5 * LEAST_CONTRAST)


def _is_below(upper: Rectangle, lower: Rectangle, most_px: float) -> bool:
    (y0, x0, y1, x1), (v0, u0, v1, u1) = upper.box, lower.box
    return (
        y1 < v0
        and v1 - y0 <= min(most_px, x1 - x0)
        and abs(u0 - x0) <= _ENDS_PX
        and abs(u1 - x1) <= _ENDS_PX
        and bool(np.abs(upper.colour - lower.colour).max() <= _SAME_COLOUR)
    )


def _in_one_row(picture: Picture, parts: list[Bar]) -> list[Bar]:
    """Return bars made of several equal rectangles in the same rows."""
    rows: list[list[Bar]] = []
    for part in sorted(parts, key=lambda p: p.box[:2]):
        fitting = [row for row in rows if _in_row(row[0], part)]
        if fitting:
            fitting[0].append(part)
        else:
            rows.append([part])
    found, segmented = list[Bar](), list[Bar]()
    for row in rows:
        row.sort(key=lambda p: p.box[1])
        segmented += _segmented(row)
        found += _interrupted(row)
    found += [_completed(picture, bar) for bar in _united(segmented)]
    return [bar for bar in found if _LEAST_LENGTH <= bar.length <= _MOST_LENGTH * picture.shape[1]]


def _in_row(one: Bar, other: Bar) -> bool:
    same = abs(one.box[0] - other.box[0]) <= 1 and abs(one.box[2] - other.box[2]) <= 1
    return same and bool(np.abs(one.colour - other.colour).max() <= _SAME_COLOUR)


def _segmented(row: list[Bar]) -> list[Bar]:
    """Return the chains of three or more rectangles with gaps as long as themselves."""
    found, chain = list[Bar](), row[:1]
    for before, part in pairwise(row):
        step = part.box[1] - before.box[1]
        equal = abs(part.length - before.length) <= 3 and 1.5 * part.length <= step <= 2.8 * part.length
        same_step = len(chain) < 2 or abs(step - (chain[1].box[1] - chain[0].box[1])) <= 3
        chain = [*chain, part] if equal and same_step else [before, part] if equal else [part]
        if len(chain) >= 3:
            found = [bar for bar in found if bar.box[1] != chain[0].box[1]] + [_joined(chain, "segmented")]
    return found


def _united(bars: list[Bar]) -> list[Bar]:
    """Join segmented bars that lie in each other's gaps, in the same rows or in touching ones."""
    whole: list[Bar] = []
    for bar in bars:
        y0, x0, y1, x1 = bar.box
        for i, other in enumerate(whole):
            v0, u0, v1, u1 = other.box
            if _alternate(bar, other):
                box = (min(y0, v0), min(x0, u0), max(y1, v1), max(x1, u1))
                less, clearer = sorted((bar, other), key=lambda b: b.contrast * min(b.height, 3))
                second = less.colour if less.height > 0.4 * clearer.height else clearer.second
                whole[i] = replace(clearer, box=box, parts=clearer.parts + less.parts, second=second)
                break
        else:
            whole.append(bar)
    return whole


def _completed(picture: Picture, bar: Bar) -> Bar:
    """Add the last segment at each end, where bars of two rows have one above or below that was not found."""
    _, x0, _, x1 = bar.box
    (v0, u0, v1, u1) = max(bar.parts, key=lambda p: p[2] - p[0])
    long, high = u1 - u0, v1 - v0
    if high < 3:
        return bar
    added: list[Box] = []
    colour = middle_colour(picture, bar.parts[0])  # the letters' ink is a guess where they are small
    for left, right in ((x0 - long, x0), (x1, x1 + long)):
        for top in (v0 - high, v1):
            box = (top, left, top + high, right)
            if picture.clipped(box) == box and (picture.distance(box, colour) < _SAME_COLOUR).mean() > 0.7:
                added.append(box)
    boxes = [bar.box, *added]
    whole = (min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes))
    return replace(bar, box=whole, parts=bar.parts + tuple(added))


def middle_colour(picture: Picture, box: Box) -> Colour:
    """Return the median colour (c,) of a box."""
    y0, x0, y1, x1 = box
    return np.asarray(np.median(picture.values[y0:y1, x0:x1], axis=(0, 1)), np.float32)


def _alternate(one: Bar, other: Bar) -> bool:
    """Return whether the segments of one bar fill the gaps of the other, in the same rows or in the next ones."""
    (y0, x0, y1, x1), (v0, u0, v1, u1) = one.box, other.box
    apart = max(y0, v0) - min(y1, v1)
    if apart > one.parts[0][3] - one.parts[0][1] or min(x1, u1) - max(x0, u0) < 0.5 * min(one.length, other.length):
        return False
    period, other_period = (bar.parts[1][1] - bar.parts[0][1] for bar in (one, other))
    if abs(period - other_period) > 3:
        return False
    shift = (u0 - x0) % period / period
    return apart <= 1 or 0.35 <= shift <= 0.65


def _interrupted(row: list[Bar]) -> list[Bar]:
    """Return the pairs of rectangles of one length with a gap that may hold a label."""
    found = []
    near = [(i, j) for i in range(len(row)) for j in range(i + 1, min(i + 1 + _FOUND_TWICE, len(row)))]
    for one, other in ((row[i], row[j]) for i, j in near if all(_is_no_part(row, i, j, k) for k in range(i + 1, j))):
        gap = other.box[1] - one.box[3]
        if abs(one.length - other.length) <= 3 and gap > 3 * one.height and gap < 15 * one.length and one.length >= 8:
            found.append(_joined([one, other], "interrupted"))
    return found


def _is_no_part(row: list[Bar], i: int, j: int, k: int) -> bool:
    """Return whether a rectangle of a row shares columns with one of two others, or is a stroke between them."""
    _, x0, _, x1 = row[k].box
    return x0 < row[i].box[3] or row[j].box[1] < x1 or row[k].length < 0.5 * row[i].length


def _joined(parts: list[Bar], kind: str) -> Bar:
    first, last = parts[0], parts[-1]
    box = (first.box[0], first.box[1], first.box[2], last.box[3])
    contrast = float(np.median([p.contrast for p in parts]))  # one of them may lie on something as bright
    return Bar(box, first.colour, contrast, kind, tuple(p.box for p in parts))


def _contrast(picture: Picture, box: Box, colour: Colour, share: float = 0.7) -> float:
    """Return by how much a rectangle stands out: on each side a `share` of the pixels next to it differ by more.

    Next to it is the one of the first three pixels that differs most: edges may be blurred, or outlined. Sides that
    lie on the edge of the image do not count, but no more than one of them.
    """
    height, width = picture.shape
    y0, x0, y1, x1 = box
    sides = []
    for band, axis in (
        ((y0 - 3, x0, y0, x1), 0),
        ((y1, x0, y1 + 3, x1), 0),
        ((y0, x0 - 3, y1, x0), 1),
        ((y0, x1, y1, x1 + 3), 1),
    ):
        b0, a0, b1, a1 = max(0, band[0]), max(0, band[1]), min(height, band[2]), min(width, band[3])
        if b0 < b1 and a0 < a1:
            near = picture.distance((b0, a0, b1, a1), colour).max(axis=axis)
            sides.append(float(np.sort(near)[int((1 - share) * len(near))]))
    return min(sides) if len(sides) >= 3 else 0.0


def ground_colour(picture: Picture, bar: Bar) -> Colour:
    """Return the colour (c,) a little above and below a bar."""
    y0, x0, y1, x1 = bar.box
    rows = [y for y in (y0 - 4, y0 - 3, y1 + 2, y1 + 3) if 0 <= y < picture.shape[0]]
    return np.asarray(np.median(picture.values[rows, x0:x1], axis=(0, 1)) if rows else bar.colour, np.float32)


def side_colours(picture: Picture, bar: Bar) -> list[Colour]:
    """Return the colours (c,) a little above and a little below a bar, within the image."""
    y0, x0, y1, x1 = bar.box
    boxes = ((y0 - 4, x0, y0 - 2, x1), (y1 + 2, x0, y1 + 4, x1))
    return [middle_colour(picture, box) for box in boxes if picture.clipped(box) == box]


def _without_doubles(bars: list[Bar], width: int) -> list[Bar]:
    """Return the bars, the clearest first, without the parts of larger ones and those found twice."""
    order = {"segmented": 0, "interrupted": 1, "framed": 2, "solid": 2}
    kept: list[Bar] = []
    for bar in sorted(bars, key=lambda b: (order[b.kind], -b.contrast * min(b.height, 3), -b.length)):
        if not any(_is_part(bar, other) for other in kept):
            kept.append(bar)
    return sorted(kept, key=lambda b: -min(b.contrast, _CLEAR) * min(_inked(b), _LONG * width))


def _inked(bar: Bar) -> int:
    """Return the length in px of a bar without its gaps, more than once where rows are."""
    return bar.length if bar.kind in ("framed", "segmented") else sum(x1 - x0 for _, x0, _, x1 in bar.parts)


def _is_part(one: Bar, other: Bar) -> bool:
    """Return whether one bar is a part of a segmented one, or a blurred row at the edge of another."""
    (y0, x0, y1, x1), (v0, u0, v1, u1) = one.box, other.box
    if max(y0, v0) - min(y1, v1) > 1:
        return False
    if other.kind == "segmented" and u0 - 3 <= x0 and x1 <= u1 + 3:
        return True
    if other.kind == "framed" and other.parts[0][2] <= y0 + 1 and y1 - 1 <= other.parts[1][0]:
        return bool(np.abs(one.colour - other.colour).max() < LEAST_CONTRAST)  # else it may be what is outlined
    thinner = y1 - y0 <= v1 - v0 + 4 and one.contrast <= other.contrast
    return one.kind != "interrupted" and thinner and abs(x0 - u0) <= 3 and abs(x1 - u1) <= 3
