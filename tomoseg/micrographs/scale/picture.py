"""A micrograph of any depth, grey or in colour, on one scale of brightness."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.micrographs.pixels import LUMINANCE

Box = tuple[int, int, int, int]  # y0, x0, y1, x1: rows y0 to y1 - 1, columns x0 to x1 - 1
Colour = NDArray[np.float32]  # (c,)

_LEAST_SIDE = 32  # px: no bar and label fit into less
# What is burnt in may lie far outside the range of the micrograph; so much of it is kept, in parts of that range.
_BEYOND = 0.5
_SAMPLES = 1_000_000


@dataclass(frozen=True)
class Picture:
    """Values (y, x, c) float32; 0 and 1 are the dark and the bright end of the image.

    c is 1 for grey. In colour it is 3: luminance and two differences of colour, -0.5 to 0.5, in which compression
    leaves less noise than in red, green and blue.
    """

    values: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.values.shape[0], self.values.shape[1]

    def distance(self, box: Box, colour: Colour) -> NDArray[np.float32]:
        """Return how far each pixel (y, x) of a box is from a colour: the largest difference of any channel."""
        y0, x0, y1, x1 = box
        return np.asarray(np.abs(self.values[y0:y1, x0:x1] - colour).max(axis=2))

    def smoothed(self, width: int) -> "Picture":
        """Return the picture averaged along the rows over an odd number of px."""
        return Picture(uniform_filter1d(self.values, width, axis=1))

    def clipped(self, box: tuple[float, float, float, float]) -> Box:
        """Return the box in whole px within the image."""
        height, width = self.shape
        y0, x0, y1, x1 = box
        return max(0, int(y0)), max(0, int(x0)), min(height, int(np.ceil(y1))), min(width, int(np.ceil(x1)))


def as_picture(image: Array) -> Picture:
    """Bring an image (y, x), (y, x, 3) or (y, x, 4) of any real dtype to one scale; opacity is left out.

    Raises
    ------
    InputError
        if the array is no image
    """
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[2] in (1, 2, 3, 4):
        array = array[..., : 3 if array.shape[2] >= 3 else 1]
    elif array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or np.iscomplexobj(array):
        raise InputError(
            f"An array of shape {np.shape(image)} and type {array.dtype} is not a micrograph. Give a grey image (y, x) "
            f"or one in colour (y, x, 3 or 4)."
        )
    if min(array.shape[:2]) < _LEAST_SIDE:
        raise InputError(
            f"An image of {array.shape[1]} x {array.shape[0]} px is too small to hold a scale bar: the least is "
            f"{_LEAST_SIDE} x {_LEAST_SIDE} px."
        )
    if array.shape[2] == 3 and all(np.array_equal(array[..., 0], array[..., i]) for i in (1, 2)):
        array = array[..., :1]
    values = array.astype(np.float32)
    if not np.isfinite(values).all():
        finite = values[np.isfinite(values)]
        values = np.nan_to_num(values, nan=float(finite.min()) if finite.size else 0.0, posinf=None, neginf=None)
    dark, bright = _ends(values)
    values -= dark
    values /= bright - dark
    np.clip(values, -_BEYOND, 1 + _BEYOND, out=values)
    return Picture(_luminance_first(values) if values.shape[2] == 3 else values)


def _luminance_first(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return luminance and the differences of blue and red to it, (y, x, 3), as JPEG files hold them (ITU-R BT.601)."""
    blue, red = (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)
    return np.asarray(rgb @ np.column_stack([LUMINANCE, blue, red]).astype(np.float32))


def _ends(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return the dark and the bright end of an image (y, x, c), without its rarest pixels."""
    step = max(1, int(np.sqrt(values[..., 0].size / _SAMPLES)))
    some = values[::step, ::step]
    dark, bright = (float(v) for v in np.percentile(some, [0.1, 99.9]))
    lowest, highest = float(values.min()), float(values.max())
    # Where nearly all pixels have one value, that of what is drawn on it counts.
    if bright - dark < 0.02 * (highest - lowest):
        dark, bright = lowest, highest
    return dark, bright if bright > dark else dark + 1.0
