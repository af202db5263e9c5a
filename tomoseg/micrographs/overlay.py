"""The picture of an image with what was found in it, to be looked at."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tomoseg.arrays import Array
from tomoseg.palette import GREEN, ORANGE, SKY_BLUE, VERMILLION, rgb

LARGEST_PX = 1536  # longest side of the picture
LEAST_PX = 768  # smaller images are shown magnified
DARKER = 0.45  # of what is left out
COLOURS = {"counted": ORANGE, "cut": SKY_BLUE, "added": GREEN, "deleted": VERMILLION}


def overlay_picture(
    grey: Array,
    labels: NDArray[np.int32],
    cut: NDArray[np.bool_],
    left_out: NDArray[np.bool_],
    added: NDArray[np.bool_],
) -> Image.Image:
    """Return the image with the outlines of its particles.

    `cut` and `added` say of each label, from 0, whether the border of the frame cuts it and whether it was added by
    hand. What is `left_out` (y, x) is darkened.
    """
    height, width = grey.shape
    longest = max(height, width)
    zoom = LARGEST_PX / longest if longest > LARGEST_PX else max(1, LEAST_PX // longest)
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    shown = np.asarray(Image.fromarray(_stretched(grey)).resize(size, Image.Resampling.BILINEAR))
    rows = np.minimum((np.arange(size[1]) + 0.5) / zoom, height - 1).astype(int)
    columns = np.minimum((np.arange(size[0]) + 0.5) / zoom, width - 1).astype(int)
    there, hidden = labels[np.ix_(rows, columns)], left_out[np.ix_(rows, columns)]
    picture = np.repeat(np.where(hidden, DARKER * shown, shown)[..., None], 3, axis=-1).astype(np.uint8)
    outline = _outline(there)
    for which, name in ((~cut & ~added, "counted"), (cut & ~added, "cut"), (added, "added")):
        picture[outline & which[there]] = rgb(COLOURS[name])
    return Image.fromarray(picture)


def _stretched(grey: Array) -> NDArray[np.uint8]:
    low, high = np.percentile(grey, (0.2, 99.8))
    return np.asarray(np.rint(255 * np.clip((grey - low) / max(high - low, 1e-30), 0, 1)), np.uint8)


def _outline(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return the pixels of particles that touch another label."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis) != 0
        before = [slice(None)] * 2
        after = [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        edge[tuple(before)] |= differs
        edge[tuple(after)] |= differs
    return edge & (labels > 0)
