"""How large files will be, said before they are written."""

import math
import zlib

import numpy as np

from tomoseg.arrays import ArraySource

# Of each triangle: measured on smoothed surfaces of 10^5 to 10^6 triangles; STL by its definition.
TRIANGLE_BYTES = {"vtp": 25, "stl": 50, "ply": 27, "gltf": 24}
# Compressors differ, and so do planes: an estimate is that much above what the sampled planes took.
MARGIN = 1.25
SAMPLED_PLANES = 3


def raw_bytes(data: ArraySource) -> int:
    """Return the bytes of an array as it is."""
    return math.prod(int(n) for n in data.shape) * data.dtype.itemsize


def compressed_bytes(data: ArraySource) -> int:
    """Estimate the bytes of a volume (z, y, x) compressed, from a few planes of it; with bytes sorted (shuffle)."""
    nz = data.shape[0]
    taken = sum(_compressed_share(data, (2 * i + 1) * nz // (2 * SAMPLED_PLANES)) for i in range(SAMPLED_PLANES))
    return int(min(1.0, MARGIN * taken / SAMPLED_PLANES) * raw_bytes(data))


def _compressed_share(data: ArraySource, z: int) -> float:
    plane = np.ascontiguousarray(data[z : z + 1]).view(np.uint8).reshape(-1, data.dtype.itemsize)
    return len(zlib.compress(plane.T.tobytes(), 1)) / plane.size
