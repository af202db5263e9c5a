"""Filtering before back projection: the ramp filter, and the weight of each tilt."""

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from tomoseg.reconstruction.geometry import FloatArray
from tomoseg.reconstruction.parameters import Filter

WEDGE = 3.0  # a gap between tilts of more than this many times the median gap counts as missing wedge


def window(name: Filter, frequency: FloatArray) -> NDArray[np.float64]:
    """Return the window that `name` multiplies the ramp with, at `frequency` in cycles per pixel, at most 0.5."""
    f = np.asarray(frequency, np.float64)
    windows = {
        "ramp": np.ones_like(f),
        "shepp-logan": np.sinc(f),
        "cosine": np.cos(np.pi * f),
        "hamming": 0.54 + 0.46 * np.cos(2 * np.pi * f),
        "hann": 0.5 + 0.5 * np.cos(2 * np.pi * f),
    }
    return np.asarray(windows[name])


def ramp(n: int, name: Filter = "ramp") -> NDArray[np.float64]:
    """Return the filter's transfer function at the ``n//2 + 1`` frequencies of a real transform of even length n.

    It is the transform of the band-limited ramp sampled in space (Kak & Slaney, Principles of Computerized
    Tomographic Imaging, 1988, eq. 61), which keeps the mean; |f| itself sampled in frequency would lose it.
    """
    distance = np.concatenate((np.arange(n // 2 + 1), np.arange(n // 2 - 1, 0, -1)))
    kernel = np.zeros(n)
    kernel[0] = 0.25
    odd = distance % 2 == 1
    kernel[odd] = -1 / (np.pi * distance[odd]) ** 2
    return np.asarray(np.fft.rfft(kernel).real * window(name, np.fft.rfftfreq(n)))


def tilt_weights(angles_deg: FloatArray) -> NDArray[np.float64]:
    """Return the angle each tilt stands for, in radians: half the way to its neighbours on either side.

    Directions repeat after 180 degrees, so -90 and +90 are the same tilt; tilts at the same direction share its angle.
    A gap wider than `WEDGE` times the median is the missing wedge (or tilts left out). Sharing it between the tilts at
    its rims would smear these over the image; they get half a median gap on that side instead.
    """
    direction = np.round(np.mod(np.asarray(angles_deg, np.float64), 180), 6) % 180
    unique, inverse, count = np.unique(direction, return_inverse=True, return_counts=True)
    gap = np.diff(unique, append=unique[0] + 180)  # from each direction to the next, round the half circle
    if len(unique) > 2:
        median = np.median(gap)
        gap = np.where(gap > WEDGE * median, median, gap)
    width = (gap + np.roll(gap, 1)) / 2
    return np.asarray(np.deg2rad(width / count)[inverse])


def filtered(projections: NDArray[np.float32], angles_deg: FloatArray, name: Filter = "ramp") -> NDArray[np.float32]:
    """Return projections, shape (n_tilt, n, n_detector), filtered along the detector and weighted per tilt."""
    n_detector = projections.shape[-1]
    length = 2 * scipy.fft.next_fast_len(n_detector, real=True)  # twice as long, to prevent wrap-around
    spectrum = scipy.fft.rfft(projections, length, axis=-1)
    weights = tilt_weights(angles_deg)[:, None, None]
    spectrum *= (weights * ramp(length, name)).astype(np.float32)
    result = scipy.fft.irfft(spectrum, length, axis=-1)[..., :n_detector]
    return np.asarray(result, np.float32)
