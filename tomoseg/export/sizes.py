"""Sizes of files, estimated before they are written."""

import math
import zlib

import numpy as np

from tomoseg.arrays import ArraySource

# Compressors differ, and so do planes: estimates are this much above what the sampled planes took.
MARGIN = 1.25
SAMPLED_PLANES = 3


def raw_bytes(data: ArraySource) -> int:
    """Return the bytes of an array without compression."""
    return math.prod(int(n) for n in data.shape) * data.dtype.itemsize


def compressed_bytes(data: ArraySource) -> int:
    """Estimate the bytes of a volume (z, y, x) compressed with shuffled bytes, from a few of its planes."""
    nz = data.shape[0]
    taken = sum(_compressed_share(data, (2 * i + 1) * nz // (2 * SAMPLED_PLANES)) for i in range(SAMPLED_PLANES))
    return int(min(1.0, MARGIN * taken / SAMPLED_PLANES) * raw_bytes(data))


def as_text(n_bytes: float) -> str:
    """Return a number of bytes with a fitting unit."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"


def _compressed_share(data: ArraySource, z: int) -> float:
    plane = np.ascontiguousarray(data[z : z + 1]).view(np.uint8).reshape(-1, data.dtype.itemsize)
    return len(zlib.compress(plane.T.tobytes(), 1)) / plane.size
