"""What the network of micrographs sees, and what it is to say: the same in training and in use."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tomoseg.arrays import Array, Float32Array

LOCAL_PX = 32.0  # standard deviation of the surroundings by which the second channel is scaled
LEAST_LOCAL = 0.05  # of the scatter of the whole image
BLOCK_PX = 8
CHANNELS = 2


def network_input(image: Array) -> Float32Array:
    """Return what the network sees of an image (y, x) whose particles are bright: (y, x, 2) f4.

    The first channel is the image with mean 0 and scatter 1; the second is scaled so at each place, by its
    surroundings, so that faint particles on a thin support are as plain as bright ones on a thick support.

    Examples
    --------
    >>> out = network_input(np.random.default_rng(0).normal(100, 5, (64, 64)))
    >>> out.shape, bool(abs(out.mean()) < 0.05)
    ((64, 64, 2), True)
    """
    values = np.asarray(image, np.float32)
    scatter = max(float(values.std()), 1e-12)
    plain = (values - values.mean()) / scatter
    beside = plain - _surroundings(plain)
    local = np.sqrt(np.maximum(_surroundings(beside**2), 0))
    return np.stack([plain, beside / np.maximum(local, LEAST_LOCAL)], axis=-1)


def _surroundings(image: Float32Array) -> Float32Array:
    """Return the mean around each px (y, x), weighted by a Gaussian of `LOCAL_PX`, from means of blocks."""
    height, width = image.shape
    padded = np.pad(image, [(0, -n % BLOCK_PX) for n in image.shape], "edge")
    rows, columns = (n // BLOCK_PX for n in padded.shape)
    blocks = padded.reshape(rows, BLOCK_PX, columns, BLOCK_PX).mean(axis=(1, 3), dtype=np.float32)
    smooth = ndimage.gaussian_filter(blocks, LOCAL_PX / BLOCK_PX, truncate=2)
    large = Image.fromarray(smooth).resize((columns * BLOCK_PX, rows * BLOCK_PX), Image.Resampling.BILINEAR)
    return np.asarray(large)[:height, :width]


def network_target(labels: NDArray[np.int32]) -> Float32Array:
    """Return what the network is to say of labels (y, x): (y, x, 2) f4 from 0 to 1.

    The first channel tells whether a px belongs to a particle; the second is its distance from the edge of that
    particle, as a part of the largest in it, so that touching particles have a valley between them.

    Examples
    --------
    >>> labels = np.zeros((5, 5), np.int32)
    >>> labels[1:4, 1:4] = 1
    >>> network_target(labels)[2, 2].tolist(), network_target(labels)[1, 1].tolist()
    ([1.0, 1.0], [1.0, 0.5])
    """
    out = np.zeros((*labels.shape, CHANNELS), np.float32)
    out[..., 0] = labels > 0
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        around = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
        inside = labels[around] == label
        distance = ndimage.distance_transform_edt(inside)
        out[..., 1][around][inside] = distance[inside] / max(float(distance.max()), 1.0)
    return out
