"""Which bar a label belongs to: where it stands, and what else it might be, a stroke of a letter or a box around."""

from dataclasses import dataclass, replace

import numpy as np

from tomoseg.micrographs.scale.bars import LEAST_CONTRAST, Bar, Ink, ground_colour, side_colours
from tomoseg.micrographs.scale.picture import Box, Colour, Picture

_BESIDE = 3.5  # farthest beside a bar, in heights of the letters
_LEAST_LENGTH = 1.5  # of a bar, in heights of the letters
_MOST_FILLED = 0.85  # of a bar's length by a label within it
_AS_LONG = 0.8  # of a label, from which on a segmented bar within its box is no feet of its letters
_SAME_INK = 0.5  # of a bar's contrast: as near to its colour is what goes on behind the label
_HALF = 0.5  # of a bar's length, from which on what is in its rows may be its other part
_MOST_IN_GAP = 0.75  # of a label that lies in the gap of an interrupted bar, at least
_LEAST_FILLED = 0.35  # of the gap of an interrupted bar by its label
_INTERVALS = (5, 10, 20)  # of rulers
_AS_LIKELY = 0.05  # difference of likelihood within which two bars are as likely
_CLEAR = 0.5  # contrast from which on a bar is as clear as any
_APART = 3.0  # farthest above or below
_AS_CLEAR = 0.6  # contrast of a bar on a box, in that of the box, at least
_STRIP_PX = 4  # between a bar and what is left of its box beside it, where the edge is blurred
_OUTLINE_PX = 3  # by which the margins of a bar within its outline may differ from how thick that is
_IN_LETTERS = 0.03  # part of a label's box that has the colour of its bar, where letters are drawn as that is


@dataclass(frozen=True)
class Pair:
    """A bar and a line of text where its label may stand.

    `line` is the box of the letters; `distance`: how far that is from where a label stands by the bar, in heights of
    the letters, 0 best; `place`: "above", "below", "beside" or "inside".
    """

    bar: Bar
    line: Box
    distance: float
    place: str
    rivalled: bool = False


def pairs(picture: Picture, bars: list[Bar], line: Box, ink: Ink) -> list[Pair]:
    """Return the bars a line of text may belong to, the likeliest first; those of the letters' ink are likelier.

    The first is `rivalled` if another one of another length is about as likely, or if its like stands beside it: then
    it is a part of a segmented bar of which the rest was not found.
    """
    placed = [Pair(bar, line, *at) for bar in bars if (at := placing(line, bar)) is not None]
    fitting = [pair for pair in placed if _fits(picture, pair)]
    whole = [p for p in fitting if not any(_is_half(p.bar, o.bar) or _is_row(p.bar, o.bar) for o in fitting)]
    outlined = {id(p): [o for o in whole if _is_outline(picture, o.bar, p.bar)] for p in whole}
    outlines = [o.bar for found in outlined.values() for o in found]
    whole = [p for p in whole if not any(p.bar is o or _is_part(p.bar, o) for o in outlines)]
    bare = [p for p in whole if not any(_is_ground(picture, p, other, ink) for other in whole)]
    if not bare:
        return []
    longest = max(p.bar.length for p in bare)
    likely = {id(p): _likelihood(p, longest, ink) for p in bare}
    first, *others = sorted(bare, key=lambda p: -likely[id(p)])
    rivals = [p for p in others if likely[id(p)] > likely[id(first)] - _AS_LIKELY and _is_other(p.bar, first.bar)]
    is_part = any(_is_sibling(first.bar, bar) for bar in bars) or _is_cut_ruler(first.bar)
    outside = bool(outlined[id(first)]) and not _is_in_letters(picture, first)
    in_doubt = bool(rivals) or is_part or outside or _is_filled(picture, first) or _goes_on(picture, first)
    return [replace(first, rivalled=in_doubt), *others]


def _is_outline(picture: Picture, one: Bar, other: Bar) -> bool:
    """Return whether a framed bar is the outline of another one, which is not of the colour of the ground."""
    if one.kind != "framed" or other.kind == "framed":
        return False
    thick = max(y1 - y0 for y0, _, y1, _ in one.parts)
    margins = np.array([1, 1, -1, -1]) * np.subtract(other.box, one.box)
    around = bool((margins >= 1).all() and (margins <= thick + _OUTLINE_PX).all())
    return around and _stands_out(picture, one, other.colour)


def _is_filled(picture: Picture, pair: Pair) -> bool:
    """Return whether a frame without a label in it is filled with a colour of its own: it may be an outline."""
    if pair.bar.kind != "framed" or pair.place == "inside":
        return False
    (_, x0, y0, x1), (y1, _, _, _) = pair.bar.parts
    inside = picture.values[y0:y1, x0:x1]
    colour = np.median(inside, axis=(0, 1)).astype(np.float32)
    return _stands_out(picture, pair.bar, colour) and bool(np.abs(colour - pair.bar.colour).max() >= LEAST_CONTRAST)


def _stands_out(picture: Picture, bar: Bar, colour: Colour) -> bool:
    """Return whether a colour differs from that of the ground around a bar."""
    return bool(np.abs(colour - ground_colour(picture, bar)).max() >= LEAST_CONTRAST)


def _is_in_letters(picture: Picture, pair: Pair) -> bool:
    """Return whether the letters of a label have the colour of its bar, besides that of an outline."""
    y0, x0, y1, x1 = pair.line
    same = picture.distance(picture.clipped((y0, x0, y1, x1)), pair.bar.colour) < LEAST_CONTRAST
    return bool(same.mean() >= _IN_LETTERS)


def _is_half(one: Bar, other: Bar) -> bool:
    """Return whether a bar is one of the two parts of another one that is interrupted by the label."""
    return one.kind != "interrupted" and other.kind == "interrupted" and _is_part(one, other)


def _is_part(one: Bar, other: Bar) -> bool:
    """Return whether a bar is one of the parts of another one."""
    return any(np.abs(np.subtract(one.box, part)).max() <= 3 for part in other.parts)


def _is_row(one: Bar, other: Bar) -> bool:
    """Return whether a bar is a cut row of another one, of its colour, in the next row: something shines through."""
    (y0, x0, y1, x1), (v0, u0, v1, u1) = one.box, other.box
    within = u0 - 3 <= x0 and x1 <= u1 + 3 and one.length < other.length
    next_to = max(y0, v0) - min(y1, v1) == 0 and one.height <= min(2, other.height)
    alike = (one.kind, other.kind) == ("solid", "solid") and bool(np.abs(one.colour - other.colour).max() < 0.2)
    return within and next_to and alike


def _is_cut_ruler(bar: Bar) -> bool:
    """Return whether a ruler has a number of intervals that rulers do not have: some of its ticks were not found."""
    return bar.kind == "ruler" and len(bar.parts) - 1 not in _INTERVALS


def _goes_on(picture: Picture, pair: Pair) -> bool:
    """Return whether a bar beside a label goes on behind it: it may be one part of one that the label interrupts."""
    if pair.place != "beside":
        return False
    (y0, x0, y1, x1), (_, u0, _, u1) = pair.bar.box, pair.line
    far = 2 * pair.bar.length
    left, right = (x1 + 1, u1 + far) if x1 < u1 else (u0 - far, x0 - 1)
    same = picture.distance(picture.clipped((y0, left, y1, right)), pair.bar.colour) < _SAME_INK * pair.bar.contrast
    edges = np.flatnonzero(np.diff(same.all(axis=0).astype(np.int8), prepend=0, append=0))
    return bool(len(edges)) and int((edges[1::2] - edges[::2]).max()) >= _HALF * pair.bar.length


def _is_sibling(one: Bar, other: Bar) -> bool:
    """Return whether two bars are of one size and colour, in the same rows, with a gap of that size between them."""
    (y0, x0, y1, x1), (v0, u0, v1, u1) = one.box, other.box
    gap = max(x0, u0) - min(x1, u1)
    alike = abs(y0 - v0) <= 1 and abs(y1 - v1) <= 1 and abs(one.length - other.length) <= 3
    return (
        alike and abs(gap - one.length) <= 2 + 0.15 * one.length and bool(np.abs(one.colour - other.colour).max() < 0.2)
    )


def _is_other(one: Bar, other: Bar) -> bool:
    """Return whether a bar is about as clear as another, of another length, and not its outline."""
    margin = max(3, one.height, other.height)
    outline = abs(one.box[1] - other.box[1]) <= margin and abs(one.box[3] - other.box[3]) <= margin
    return (
        one.contrast > 0.6 * other.contrast and abs(one.length - other.length) > 3 + 0.03 * other.length and not outline
    )


def placing(line: Box, bar: Bar) -> tuple[float, str] | None:
    """Return how far, in heights of a line, it is from where a label stands by a bar, and on which side; or None."""
    y0, x0, y1, x1 = line
    v0, u0, v1, u1 = bar.box
    height = max(1, y1 - y0)
    off_middle = abs((x0 + x1) - (u0 + u1)) / 2
    if bar.kind == "interrupted":
        # The box of the text may hold pieces of the bar, which look like dashes.
        in_gap = min(x1, bar.parts[-1][1]) - max(x0, bar.parts[0][3])
        level = abs((y0 + y1) - (v0 + v1)) / 2 <= 0.35 * height
        gap = bar.parts[-1][1] - bar.parts[0][3]
        within = level and in_gap >= max(_MOST_IN_GAP * (x1 - x0), _LEAST_FILLED * gap)
        return (0.0, "inside") if within else None
    slack = 0.2 * height
    if y0 >= v0 - slack and y1 <= v1 + slack and x0 >= u0 and x1 <= u1:
        return (0.3 * off_middle / height, "inside") if bar.kind == "framed" else None
    beside = max(u0 - x1, x0 - u1)
    if beside >= -2.5 * slack:  # the box of the text may reach over a tick
        off = abs((y0 + y1) - (v0 + v1)) / 2
        near = off <= 0.8 * height and beside <= _BESIDE * height
        return ((max(0.0, beside) + off) / height, "beside") if near else None
    apart = max(v0 - y1, y0 - v1)
    shared = min(x1, u1) - max(x0, u0)
    if apart < -1.5 * slack or apart > _APART * height or shared < 0.5 * min(x1 - x0, u1 - u0):
        return None
    flush = min(abs(x0 - u0), abs(x1 - u1), off_middle)
    return max(0.0, apart) / height + 0.3 * flush / height, "above" if y1 <= (v0 + v1) / 2 else "below"


def _fits(picture: Picture, pair: Pair) -> bool:
    return not _is_stroke(pair) and (pair.place != "inside" or pair.bar.kind != "framed" or _alone(picture, pair))


def _is_stroke(pair: Pair) -> bool:
    """Return whether a bar is a stroke of a letter of its label: within the line, or too short for it."""
    y0, x0, y1, x1 = pair.bar.box
    v0, u0, v1, u1 = pair.line
    pad = 0.25 * (v1 - v0)
    within = v0 - pad <= y0 and y1 <= v1 + pad and u0 - pad <= x0 and x1 <= u1 + pad
    within &= pair.bar.kind != "segmented" or pair.bar.length < _AS_LONG * (u1 - u0)
    return within or pair.bar.length < _LEAST_LENGTH * (v1 - v0)


def _alone(picture: Picture, pair: Pair) -> bool:
    """Return whether a label is all there is inside a bar, in its middle: a box holds a bar besides."""
    y0, x0, y1, _ = pair.bar.box
    v0, u0, v1, u1 = pair.line
    pad = max(2, round(0.35 * (v1 - v0)))
    inside = picture.distance(pair.bar.box, pair.bar.colour) > 0.2
    inside[max(0, v0 - pad - y0) : v1 + pad - y0, max(0, u0 - pad - x0) : u1 + pad - x0] = False
    middle = abs((v0 + v1) - (y0 + y1)) / 2 <= 0.35 * (v1 - v0)
    narrow = u1 - u0 <= _MOST_FILLED * pair.bar.length
    return middle and narrow and bool(inside[3:-3, 3:-3].mean() < 0.002)


def _is_ground(picture: Picture, one: Pair, other: Pair, ink: Ink) -> bool:
    """Return whether one bar is the box, or a part of the box, that the other bar and the same label lie on."""
    (y0, x0, y1, x1), (v0, u0, v1, u1) = one.bar.box, other.bar.box
    if not (x0 < u0 and u1 < x1) or (_is_of(one.bar, ink) and not _is_of(other.bar, ink)):
        return False
    if other.bar.contrast < _AS_CLEAR * one.bar.contrast:  # a blurred row at its edge
        return False
    reach = 3 + 0.3 * (y1 - y0)
    pad = 0.3 * (one.line[2] - one.line[0])
    under_label = min(y1 + pad, one.line[2]) > max(y0 - pad, one.line[0])
    if under_label and y0 - reach < v0 and v1 < y1 + reach:
        return any(np.abs(c - one.bar.colour).max() < 0.2 for c in side_colours(picture, other.bar))
    beside_bar = one.bar.kind == "solid" and (0 <= v0 - y1 <= _STRIP_PX or 0 <= y0 - v1 <= _STRIP_PX)
    return beside_bar and bool(np.abs(ground_colour(picture, other.bar) - one.bar.colour).max() < 0.2)


def _is_of(bar: Bar, ink: Ink) -> bool:
    """Return whether a bar has the colour of an ink."""
    return bool(np.abs(bar.colour - ink.colour).max() < 0.4 * ink.contrast)


def _likelihood(pair: Pair, longest: int, ink: Ink) -> float:
    likely = {"segmented": 0.1, "interrupted": 0.2, "framed": 0.1, "ruler": 0.2}.get(pair.bar.kind, 0.0)
    # A bar around its label is of another colour than that, but nothing else has a label in its middle.
    likely += 0.25 if _is_of(pair.bar, ink) or (pair.place, pair.bar.kind) == ("inside", "framed") else 0.0
    return likely + min(_CLEAR, pair.bar.contrast) + 0.15 * pair.bar.length / longest - 0.1 * pair.distance
