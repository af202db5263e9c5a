"""What lies behind a scale bar: nothing, a box, or a strip along the edge of the image."""

import numpy as np
from scipy import ndimage

from tomoseg.micrographs.scale.bars import Bar
from tomoseg.micrographs.scale.lines import Line
from tomoseg.micrographs.scale.picture import Box, Picture


def grounds(picture: Picture, bar: Bar, line: Line | None) -> tuple[Box, ...]:
    """Return the boxes of a bar, its label, and the box or strip behind them."""
    pad = 2 + round(0.1 * bar.height)
    boxes = [bar.box] + ([line.box] if line else [])
    return tuple(picture.clipped((y0 - pad, x0 - pad, y1 + pad, x1 + pad)) for y0, x0, y1, x1 in boxes)
