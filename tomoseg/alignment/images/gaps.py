"""Images with missing pixels, such as those of a mask, made fit for finding shifts.

A hole in the image, dark or bright, has an edge that stands still while the sample moves. It is filled smoothly from
its surroundings, so that it holds nothing to register.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.alignment.images.reduced_series import reduce
from tomoseg.arrays import FloatArray

ENOUGH = 0.3  # least weight of known pixels under a Gaussian whose mean is used


def reduce_with_gaps(image: FloatArray, factor: int) -> NDArray[np.float32]:
    """Average `factor` x `factor` pixels of an image (y, x) that is NaN where pixels are missing, and fill the gaps.

    Each gap is filled by the Gaussian mean of the known pixels around it, with the narrowest Gaussian that reaches it.
    """
    known = np.isfinite(image)
    weight = reduce(known, factor)
    total = reduce(np.where(known, image, 0), factor)
    out = total / np.maximum(weight, 1e-6)
    missing = weight < 0.5
    sigma = 1.0
    while missing.any() and not missing.all() and sigma < max(image.shape):
        part = ndimage.gaussian_filter(weight, sigma, mode="nearest")
        mean = ndimage.gaussian_filter(total, sigma, mode="nearest") / np.maximum(part, 1e-6)
        reached = missing & (part >= ENOUGH)
        out[reached] = mean[reached]
        missing &= ~reached
        sigma *= 1.5
    if known.any():
        out[missing] = np.median(image[known])
    return np.asarray(out, np.float32)
