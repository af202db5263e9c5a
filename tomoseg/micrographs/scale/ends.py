"""Where a bar begins and ends, to a fraction of a pixel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.micrographs.scale.bars import LEAST_CONTRAST, Bar, middle_colour
from tomoseg.micrographs.scale.picture import Box, Picture

_REACH = 6  # px beyond each end that are looked at
_BLUR = 2  # px an edge may be wide to each side
_COLOUR_BLUR = 4  # that of colours, which compression keeps for every other pixel only
_TICK_PX = 12  # widest of a tick at an end
_TICK_ROOM = 0.03  # of the bar's length: ticks that were not found are narrower
_BLENDS = 0.25  # of the contrast: as near to the bar's colour is what it cannot be told from
_SAME_AS_BAR = 0.4  # of the contrast: as far from the bar's colour is still bar


@dataclass(frozen=True)
class Ends:
    """Left and right end in px from the left edge of the image, and the width in px of ticks at the ends (0: none)."""

    left: float
    right: float
    tick: float

    @property
    def length(self) -> float:
        """Length in px: between the middles of the ticks, where a bar has them."""
        return self.right - self.left - self.tick


def bar_ends(picture: Picture, bar: Bar) -> Ends:
    """Measure the ends of a bar.

    The brightness along the bar, averaged over its rows, runs from 0 beyond an end to 1 within; the end is where a step
    of the same area would be, so that blur and antialiasing do not shift it.
    """
    if bar.kind == "ruler":
        return _outer_ticks(bar)
    # Of the parts that reach an end, the highest: others are its blurred edges.
    first = max((p for p in bar.parts if p[1] <= bar.box[1] + 2), key=lambda p: p[2] - p[0])
    last = max((p for p in bar.parts if p[3] >= bar.box[3] - 2), key=lambda p: p[2] - p[0])
    start, stop = _outermost(picture, bar, first, -1), _outermost(picture, bar, last, 1)
    left = start - _beyond(picture, first, start, -1)
    right = stop + _beyond(picture, last, stop, 1)
    widths = [*_tick_widths(picture, bar, first, start, 1), *_tick_widths(picture, bar, last, stop - 1, -1)]
    return Ends(left, right, _agreed_width(widths) if bar.kind != "framed" else 0.0)


def blends(picture: Picture, bar: Bar, ends: Ends) -> bool:
    """Return whether a bar looks like what is above or below it at one of its ends: that end may be another's.

    A tick does so too, but is not wide.
    """
    if bar.kind == "ruler":
        return False
    y0, x0, y1, x1 = bar.box
    height, colour = picture.shape[0], middle_colour(picture, bar.parts[0])
    reach = round(min(2 * ends.tick + _TICK_ROOM * bar.length + 3, bar.length / 2))
    for box in ((y0 - 3, x0, y0, x1), (y1, x0, y1 + 3, x1)):
        if box[0] < 0 or box[2] > height:
            continue
        like = picture.distance(box, colour).max(axis=0) < _BLENDS * bar.contrast
        if like[2:reach].all() or like[-reach:-2].all():
            return True
    return False


def _outermost(picture: Picture, bar: Bar, part: Box, step: int) -> int:
    """Return the edge of the last pixel of a bar's colour beyond a part: a tick may differ a little from the bar."""
    y0, x0, y1, x1 = part
    edge = x1 if step > 0 else x0
    for _ in range(_TICK_PX):
        column = edge if step > 0 else edge - 1
        if not 0 <= column < picture.shape[1]:
            break
        beyond = picture.values[y0:y1, column].mean(axis=0)
        if np.abs(beyond - bar.colour).max() > _SAME_AS_BAR * bar.contrast:
            break
        edge += step
    return edge


def _agreed_width(widths: list[float]) -> float:
    """Return the width of the ticks found above and below the two ends; 0 where fewer than two are alike."""
    middle = float(np.median(widths)) if len(widths) >= 2 else 0.0
    alike = [w for w in widths if abs(w - middle) <= 1 + 0.3 * middle]
    return float(np.mean(alike)) if len(alike) >= 2 else 0.0


def _outer_ticks(bar: Bar) -> Ends:
    """Return the middles of the first and the last tick of a ruler, from a line through those of all."""
    middles = np.array(sorted((x0 + x1) / 2 for _, x0, _, x1 in bar.parts))
    numbers = np.rint((middles - middles[0]) / np.median(np.diff(middles)))
    slope, start = np.polyfit(numbers, middles, 1)
    return Ends(float(start), float(start + slope * numbers[-1]), 0.0)


def _beyond(picture: Picture, part: Box, end: int, step: int) -> float:
    """Return how far in px the end of a bar is beyond the edge of its last pixel.

    In colour, what is beyond is looked at where none of the bar's colour is left; next to it where that is elsewhere.
    """
    if picture.values.shape[2] == 1 or _is_narrow(picture, part, end, step):
        return _step_position(_profile(picture, part, end, step, 1), _BLUR)
    return _step_position(_profile(picture, part, end, step, _COLOUR_BLUR), _COLOUR_BLUR)


def _is_narrow(picture: Picture, part: Box, end: int, step: int) -> bool:
    """Return whether the ground beyond a bar ends soon: its colour is no mixture of the bar's and of what follows."""
    y0, x0, y1, x1 = part
    rows = picture.values[y0:y1].mean(axis=0)
    columns = end + step * np.arange(_COLOUR_BLUR + 2) - (1 if step < 0 else 0)
    values = rows[np.clip(columns, 0, len(rows) - 1)] - np.median(rows[x0:x1], axis=0)
    follows = values[_COLOUR_BLUR:].mean(axis=0)
    share = np.clip(values @ follows / max(float(follows @ follows), 1e-9), 0, 1)
    return bool(np.abs(values - share[:, None] * follows)[:_COLOUR_BLUR].max() > 2 * LEAST_CONTRAST)


def _profile(picture: Picture, part: Box, end: int, step: int, off: int) -> NDArray[np.float64]:
    """Return the share of the bar (2 reach,) across an end, from within to beyond, 1 within and about 0 beyond.

    `end` is the edge of the part's last pixel, `step` 1 for a right end and -1 for a left one; what is `off` px from it
    is beyond the bar. Beyond the image there is nothing.
    """
    y0, x0, y1, x1 = part
    trim = 1 if y1 - y0 >= 4 else 0
    rows = picture.values[y0 + trim : y1 - trim].mean(axis=0, dtype=np.float64)
    reach = min(_REACH, max(3, (x1 - x0) // 2))
    columns = end + step * np.arange(-reach, _REACH) - (1 if step < 0 else 0)
    exists = (columns >= 0) & (columns < len(rows))
    values = rows[np.clip(columns, 0, len(rows) - 1)]
    inside = np.median(values[: max(1, reach - 1)], axis=0)
    beyond = reach + off
    outside = values[beyond : beyond + 2][exists[beyond : beyond + 2]]
    if not len(outside):
        return np.where(exists, 1.0, 0.0)[reach - min(reach, _REACH) :]
    difference = outside.mean(axis=0) - inside
    size = float(difference @ difference)
    share = 1 - (values - inside) @ difference / size if size > 1e-9 else np.ones(len(values))
    share[~exists] = 0.0
    return np.asarray(np.concatenate([np.ones(_REACH - reach), share]))


def _step_position(share: NDArray[np.float64], blur: int) -> float:
    """Return where the step, `blur` px wide to each side, is in px from the middle of a profile, positive beyond."""
    below = np.flatnonzero(share < 0.5)
    crossing = int(below[below >= _REACH - 3][0]) if (below >= _REACH - 3).any() else _REACH
    low, high = max(0, crossing - blur), min(len(share), crossing + blur)
    return low - _REACH + float(np.clip(share[low:high], 0, 1).sum())


def _tick_widths(picture: Picture, bar: Bar, part: Box, column: int, inward: int) -> list[float]:
    """Return the widths in px of ticks that stand out above and below the bar at one end, of those that do.

    `column` is the bar's outermost; `inward` 1 from the left end and -1 from the right one.
    """
    y0, _, y1, _ = part
    reach = max(3, min(6, (y1 - y0) // 2 + 2))
    columns = column + inward * np.arange(-2, min(_TICK_PX, max(3, bar.length // 6)) + 1)
    columns = columns[(columns >= 0) & (columns < picture.shape[1])]
    widths = []
    for rows in (np.arange(y0 - 2 - reach, y0 - 2), np.arange(y1 + 2, y1 + 2 + reach)):
        if rows.min() < 0 or rows.max() >= picture.shape[0]:
            continue
        near = np.abs(picture.values[rows][:, columns] - bar.colour).max(axis=2)
        inked = np.clip(1 - near / bar.contrast, 0, 1).mean(axis=0)
        inked /= max(float(inked.max()), _SAME_AS_BAR)
        clear = np.flatnonzero(inked[2:] < _SAME_AS_BAR)  # where the tick ends, inward
        beyond = inked[0] < 1 - _SAME_AS_BAR  # else it is no tick that is seen, but a ground like it
        if (
            beyond
            and inked[2:4].max() > 1 - _SAME_AS_BAR
            and len(clear)
            and (stop := int(clear[clear > 0].min(initial=99))) < 99
        ):
            widths.append(float(inked[2 : 2 + stop + 1].sum()))
    return widths
