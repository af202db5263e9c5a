"""Find scale bars that are rulers: a row of ticks at equal distances, with no bar along them."""

from dataclasses import replace

import numpy as np

from tomoseg.micrographs.scale.bars import LEAST_CONTRAST, Bar, Rectangle, find_rectangles, find_runs
from tomoseg.micrographs.scale.picture import Box, Picture

_LEAST_TICKS = 6
_TICK_PX = 8  # widest
_MOST_OF_TICK = 0.8  # part of a column that is ink where there is a tick
_STEP_PX = 1.5  # by which distances between ticks may differ
_MOST_HEIGHT = 0.08  # of a tick, of the image's width


def rulers_between(picture: Picture, rows: tuple[int, int]) -> list[Bar]:
    """Return rows of six or more ticks that stand on, or hang from, one line at equal distances, between two rows."""
    top = max(0, rows[0])
    turned = Picture(np.ascontiguousarray(picture.values[top : rows[1]].transpose(1, 0, 2)))
    ticks = [t for t in find_rectangles(turned, find_runs(turned.values)) if _is_tick(t, picture.shape[1])]
    ticks = [replace(t, box=(t.box[0], t.box[1] + top, t.box[2], t.box[3] + top)) for t in ticks]
    found: list[Bar] = []
    ticks = _whole(ticks)
    for end in (3, 1):  # of the turned boxes: feet, then heads
        ends: dict[int, list[Rectangle]] = {}
        for tick in ticks:
            ends.setdefault(tick.box[end] // 2, []).append(tick)
        for key, row in ends.items():
            found += [_completed(picture, ruler) for ruler in _rulers(row + ends.get(key + 1, []))]
    found.sort(key=lambda bar: -len(bar.parts))
    return [bar for i, bar in enumerate(found) if not any(_same_place(bar, other) for other in found[:i])]


def _whole(ticks: list[Rectangle]) -> list[Rectangle]:
    """Join columns that touch: the blurred edges of one tick have colours of their own."""
    whole: list[Rectangle] = []
    for tick in sorted(ticks, key=lambda t: t.box[:2]):
        last = next((t for t in reversed(whole[-8:]) if tick.box[0] <= t.box[2] and _side_by_side(t, tick)), None)
        if last is None:
            whole.append(tick)
            continue
        (x0, y0, x1, y1), (u0, v0, u1, v1) = last.box, tick.box
        clearer = max(last, tick, key=lambda t: t.length)
        whole[next(i for i, t in enumerate(whole) if t is last)] = replace(
            clearer, box=(min(x0, u0), min(y0, v0), max(x1, u1), max(y1, v1))
        )
    return [tick for tick in whole if tick.height <= _TICK_PX]


def _side_by_side(one: Rectangle, other: Rectangle) -> bool:
    shared = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
    return shared > 0.6 * min(one.length, other.length)


def _is_tick(tick: Rectangle, image_width: int) -> bool:
    """Return whether a rectangle of the turned picture is thin; a blurred edge of one stands out on one side only."""
    return (
        tick.above
        and tick.below
        and tick.height <= min(_TICK_PX, tick.length)
        and tick.length <= _MOST_HEIGHT * image_width
    )


def _rulers(ticks: list[Rectangle]) -> list[Bar]:
    """Return the chains of ticks at equal distances."""
    ticks = sorted(ticks, key=lambda t: t.box[0])
    found, chain = list[Bar](), ticks[:1]
    for tick in ticks[1:]:
        step = _middle(tick) - _middle(chain[-1])
        if step < 2:
            continue
        first = _middle(chain[1]) - _middle(chain[0]) if len(chain) > 1 else step
        if abs(step - first) <= _STEP_PX and np.abs(tick.colour - chain[0].colour).max() <= 3 * LEAST_CONTRAST:
            chain = [*chain, tick]
        else:
            chain = [chain[-1], tick]
        if len(chain) >= _LEAST_TICKS:
            found = [bar for bar in found if bar.parts[0] != _turned(chain[0].box)] + [_ruler(chain)]
    return found


def _middle(tick: Rectangle) -> float:
    return (tick.box[0] + tick.box[2]) / 2


def _turned(box: Box) -> Box:
    x0, y0, x1, y1 = box
    return y0, x0, y1, x1


def _ruler(ticks: list[Rectangle]) -> Bar:
    parts = tuple(_turned(t.box) for t in ticks)
    box = (min(p[0] for p in parts), parts[0][1], max(p[2] for p in parts), parts[-1][3])
    colour = ticks[int(np.argmax([t.length for t in ticks]))].colour
    return Bar(box, colour, max(3 * LEAST_CONTRAST, 0.5), "ruler", parts)


def _completed(picture: Picture, ruler: Bar) -> Bar:
    """Add the ticks beyond the ends that were not found: columns nearer to the ticks' colour than to the gaps'."""
    parts = sorted(ruler.parts, key=lambda p: p[1])
    step = (sum(parts[-1][1::2]) - sum(parts[0][1::2])) / 2 / (len(parts) - 1)
    y0, y1 = max(p[0] for p in parts), min(p[2] for p in parts)
    first_gap = round((sum(parts[0][1::2]) + step) / 2)
    gap = picture.values[y0:y1, first_gap : first_gap + 1]
    for at, sign in ((0, -1), (-1, 1)):
        for _ in range(20):
            middle = round(sum(parts[at][1::2]) / 2 + sign * step)
            box = (y0, middle - 2, y1, middle + 2)
            if y1 <= y0 or picture.clipped(box) != box:
                break
            near = picture.values[y0:y1, middle - 2 : middle + 2]
            is_tick = np.abs(near - ruler.colour).max(axis=2) < np.abs(near - gap).max(axis=2)
            best = int(is_tick.mean(axis=0).argmax())
            if is_tick[:, best].mean() < _MOST_OF_TICK:
                break
            tick = (y0, middle - 2 + best, y1, middle - 1 + best)
            parts = [tick, *parts] if sign < 0 else [*parts, tick]
    box = (ruler.box[0], parts[0][1], ruler.box[2], parts[-1][3])
    return replace(ruler, box=box, parts=tuple(parts))


def _same_place(one: Bar, other: Bar) -> bool:
    (y0, x0, y1, x1), (v0, u0, v1, u1) = one.box, other.box
    return min(y1, v1) > max(y0, v0) and min(x1, u1) > max(x0, u0)
