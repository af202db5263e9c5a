"""From the pixels of a file to one grey image."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array
from tomoseg.errors import InputError

COLOURED = 0.12  # difference of channels, as a part of the range, above which a pixel is an overlay
RIM_PX = 2  # around overlays, which are smoothed at their edges
TINTED = 0.5  # share of coloured pixels above which the image itself is tinted
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R BT.601)


def grey_and_overlay(image: Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return an image (y, x) f4, and where coloured marks were drawn over it, (y, x).

    `image` is (y, x), or (y, x, 3 or 4) with colours. In an image that is tinted as a whole nothing is a mark.

    Raises `InputError` for any other shape.
    """
    data = np.asarray(image)
    if data.ndim == 2:
        return data.astype(np.float32), np.zeros(data.shape, bool)
    if data.ndim != 3 or data.shape[-1] not in (3, 4):
        raise InputError(f"a micrograph is an image (y, x), or (y, x, 3) with colours; this has the shape {data.shape}")
    rgb = data[..., :3].astype(np.float32)
    spread = rgb.max(axis=-1) - rgb.min(axis=-1)
    span = float(rgb.max() - rgb.min())
    coloured = spread > COLOURED * span if span else np.zeros(spread.shape, bool)
    if coloured.mean() > TINTED:
        coloured[:] = False
    return rgb @ np.array(LUMINANCE, np.float32), np.asarray(ndimage.binary_dilation(coloured, iterations=RIM_PX))
