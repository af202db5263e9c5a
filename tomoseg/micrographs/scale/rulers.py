"""Find scale bars that are rulers: a row of ticks at equal distances, with no bar along them."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from tomoseg.micrographs.scale.bars import Bar, Ink, Rectangle, find_rectangles, runs_of_ink
from tomoseg.micrographs.scale.picture import Box, Picture

_LEAST_TICKS = 6
_TICK_PX = 8  # widest
_STEP_PX = 1.5  # by which distances between ticks may differ
_INK = 0.65  # how far from the ink, in its contrast, a tick may be: thin ones between two columns are half ink
_MOST_OF_TICK = 0.8  # part of a column that is ink where there is a tick
_IN_GAPS = 0.15  # part of the gaps that may be ink
_MOST_HEIGHT = 0.08  # of a tick, of the image's width


def rulers_between(picture: Picture, rows: tuple[int, int], ink: Ink, least_px: float) -> list[Bar]:
    """Return rows of six or more ticks of an ink, between two rows of a picture, with heads or feet on one line.

    `least_px` is the least length of a tick.
    """
    top = max(0, rows[0])
    turned = Picture(np.ascontiguousarray(picture.values[top : rows[1]].transpose(1, 0, 2)))
    columns = find_rectangles(turned, runs_of_ink(turned, ink, _INK))
    ticks = _whole([t for t in columns if least_px <= t.length <= _MOST_HEIGHT * picture.shape[1]])
    ticks = [replace(t, box=(t.box[0], t.box[1] + top, t.box[2], t.box[3] + top)) for t in ticks]
    found: list[Bar] = []
    for end in (3, 1):  # of the turned boxes: feet, then heads
        lines: dict[int, list[Rectangle]] = {}
        for tick in ticks:
            lines.setdefault(tick.box[end] // 2, []).append(tick)
        for key, line in lines.items():
            found += [_completed(picture, ruler, ink) for ruler in _rulers(line + lines.get(key + 1, []), ink)]
    found = [ruler for ruler in found if _is_clear_between(picture, ruler, ink)]
    found.sort(key=lambda bar: -len(bar.parts))
    return [bar for i, bar in enumerate(found) if not any(_same_place(bar, other) for other in found[:i])]


def _whole(columns: list[Rectangle]) -> list[Rectangle]:
    """Join columns that touch to ticks, and leave out what is wider than those."""
    whole: list[Rectangle] = []
    for column in sorted(columns, key=lambda c: c.box[:2]):
        at = next((i for i in range(len(whole) - 1, -1, -1)[:8] if _side_by_side(whole[i], column)), None)
        if at is None:
            whole.append(column)
            continue
        (x0, y0, x1, y1), (u0, v0, u1, v1) = whole[at].box, column.box
        whole[at] = replace(column, box=(min(x0, u0), min(y0, v0), max(x1, u1), max(y1, v1)))
    return [tick for tick in whole if tick.height <= min(_TICK_PX, tick.length)]


def _side_by_side(one: Rectangle, other: Rectangle) -> bool:
    shared = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
    return other.box[0] <= one.box[2] and shared > 0.6 * min(one.length, other.length)


def _rulers(ticks: list[Rectangle], ink: Ink) -> list[Bar]:
    """Return the chains of ticks at equal distances."""
    ticks = sorted(ticks, key=lambda t: t.box[0])
    found, chain = list[Bar](), ticks[:1]
    for tick in ticks[1:]:
        step = _middle(tick) - _middle(chain[-1])
        if step < 2:
            continue
        first = _middle(chain[1]) - _middle(chain[0]) if len(chain) > 1 else step
        chain = [*chain, tick] if abs(step - first) <= _STEP_PX else [chain[-1], tick]
        if len(chain) >= _LEAST_TICKS:
            found = [bar for bar in found if bar.parts[0] != _turned(chain[0].box)] + [_ruler(chain, ink)]
    return found


def _middle(tick: Rectangle) -> float:
    return (tick.box[0] + tick.box[2]) / 2


def _turned(box: Box) -> Box:
    x0, y0, x1, y1 = box
    return y0, x0, y1, x1


def _ruler(ticks: list[Rectangle], ink: Ink) -> Bar:
    parts = tuple(_turned(t.box) for t in ticks)
    box = (min(p[0] for p in parts), parts[0][1], max(p[2] for p in parts), parts[-1][3])
    return Bar(box, ink.colour, ink.contrast, "ruler", parts)


def _completed(picture: Picture, ruler: Bar, ink: Ink) -> Bar:
    """Add the ticks beyond the ends that were not found: columns of ink as far from the last tick as others are."""
    parts = sorted(ruler.parts, key=lambda p: p[1])
    step = (sum(parts[-1][1::2]) - sum(parts[0][1::2])) / 2 / (len(parts) - 1)
    y0, y1 = max(p[0] for p in parts), min(p[2] for p in parts)
    for at, sign in ((0, -1), (-1, 1)):
        while y1 > y0:
            last = sum(parts[at][1::2]) / 2
            left = round(last + sign * step) - 2
            box = (y0, left, y1, left + 4)
            if picture.clipped(box) != box:
                break
            share = (picture.distance(box, ink.colour) < _INK * ink.contrast).mean(axis=0)
            best = int(share.argmax())
            goes_on = sign * (left + best + 0.5 - last) > step / 2  # where ticks are close, the last one is seen again
            if share[best] < _MOST_OF_TICK or share.min() > 1 - _MOST_OF_TICK or not goes_on:
                break
            tick = (y0, left + best, y1, left + best + 1)
            parts = [tick, *parts] if sign < 0 else [*parts, tick]
    box = (ruler.box[0], parts[0][1], ruler.box[2], parts[-1][3])
    return replace(ruler, box=box, parts=tuple(parts))


def _is_clear_between(picture: Picture, ruler: Bar, ink: Ink) -> bool:
    """Return whether there is hardly any ink in the gaps between the ticks."""
    y0, y1 = max(p[0] for p in ruler.parts), min(p[2] for p in ruler.parts)
    gaps = [(y0, one[3] + 1, y1, other[1] - 1) for one, other in pairwise(sorted(ruler.parts, key=lambda p: p[1]))]
    inked = [
        (picture.distance(gap, ink.colour) < _INK * ink.contrast).mean() for gap in gaps if gap[1] < gap[3] and y0 < y1
    ]
    return bool(inked) and float(np.mean(inked)) < _IN_GAPS


def _same_place(one: Bar, other: Bar) -> bool:
    (y0, x0, y1, x1), (v0, u0, v1, u1) = one.box, other.box
    return min(y1, v1) > max(y0, v0) and min(x1, u1) > max(x0, u0)
