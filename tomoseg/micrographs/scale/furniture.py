"""What lies behind a scale bar: nothing, a box, or a strip along the edge of the image. None of it is micrograph."""

import numpy as np
from scipy import ndimage

from tomoseg.arrays import BoolArray
from tomoseg.micrographs.scale.bars import Bar, ground_colour
from tomoseg.micrographs.scale.picture import Box, Picture

_SAME = 0.06  # difference of colour within a box
_BORDER = 0.9  # part of a box's border that has its colour
_MOST_OF_IMAGE = 0.4  # larger ones are the micrograph's own ground
_STRIP = (0.015, 0.25)  # height of a footer strip, in heights of the image
_GROUND = 0.35  # part of a strip's row that is not text, at least


def grounds(picture: Picture, bar: Bar, line: Box) -> tuple[Box, ...]:
    """Return the boxes of a bar and its label, with their outlines, and of the box or strip behind them."""
    marks = [(bar.box, 0.2 * bar.height), (line, 0.3 * (line[2] - line[0]))]
    boxes = []
    for (y0, x0, y1, x1), around in marks:
        pad = 2 + around
        boxes.append(picture.clipped((y0 - pad, x0 - pad, y1 + pad, x1 + pad)))
    behind = _box_behind(picture, bar)
    return tuple(dict.fromkeys(boxes + ([behind] if behind else [])))


def _box_behind(picture: Picture, bar: Bar) -> Box | None:
    """Return the rectangle of one colour a bar lies on, if it does, the whole strip where that is one."""
    height, width = picture.shape
    colour = ground_colour(picture, bar)
    y0, x0, y1, x1 = bar.box
    around = picture.distance(picture.clipped((y0 - 4, x0 - 4, y1 + 4, x1 + 4)), colour) <= _SAME
    if around.mean() < 0.3:
        return None
    same = picture.distance((0, 0, height, width), colour) <= _SAME
    labels, _ = ndimage.label(same)
    rows = [y for y in (y0 - 4, y0 - 3, y1 + 2, y1 + 3) if 0 <= y < height]
    numbers = labels[rows, x0:x1]
    numbers = numbers[numbers > 0]
    if not len(numbers):
        return None
    place = ndimage.find_objects((labels == np.bincount(numbers).argmax()).view(np.int8))[0]
    box = (place[0].start, place[1].start, place[0].stop, place[1].stop)
    if not _is_filled(same, box):
        return None
    strip = (box[0], 0, height, width)
    on_edge = height - box[2] <= 0.02 * height and (same[box[0] : box[2]].mean(axis=1) >= _GROUND).mean() > 0.9
    return strip if on_edge and height - box[0] <= _STRIP[1] * height else box


def _is_filled(same: BoolArray, box: Box) -> bool:
    """Return whether the border of a box has the colour of its inside, and it is a small part of the image."""
    y0, x0, y1, x1 = box
    border = np.concatenate([same[y0, x0:x1], same[y1 - 1, x0:x1], same[y0:y1, x0], same[y0:y1, x1 - 1]])
    return bool(border.mean() >= _BORDER) and (y1 - y0) * (x1 - x0) <= _MOST_OF_IMAGE * same.size


def footer_strip(picture: Picture, texts: list[Box]) -> Box | None:
    """Return the strip of one colour with text along the lower edge of an image, if there is one."""
    height, width = picture.shape
    colour = np.median(picture.values[-2:], axis=(0, 1)).astype(np.float32)
    most = round(_STRIP[1] * height)
    same = picture.distance((height - most, 0, height, width), colour) <= _SAME
    share = same.mean(axis=1)[::-1]  # from below
    ends = np.flatnonzero(share < _GROUND)
    tall = int(ends[0]) if len(ends) else most
    if tall < _STRIP[0] * height or tall >= most or share[tall : tall + 3].min() > 0.2:
        return None
    return (height - tall, 0, height, width) if any(box[0] >= height - tall - 2 for box in texts) else None
