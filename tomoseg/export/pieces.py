"""Pieces of a volume that end where the chunks of a file end, so that each chunk is written once."""

import math
from collections.abc import Sequence

from tomoseg.runtime import slabs

Piece = tuple[slice, slice, slice]


def pieces(shape: Sequence[int], chunks: Sequence[int], itemsize: int, n_bytes: float) -> list[Piece]:
    """Cut a volume (z, y, x) into boxes of whole chunks, as long along x, then y, as fits in `n_bytes`.

    A box has at least one chunk, however small `n_bytes` is.

    Returns
    -------
    list of (z, y, x)
        Slices, in the order of the file.
    """
    left = max(1, int(n_bytes / (math.prod(chunks) * itemsize)))
    parts: list[list[slice]] = []
    for n, chunk in zip(reversed(shape), reversed(chunks), strict=True):
        together = min(left, -(-n // chunk))
        left = max(1, left // together)
        parts.append(slabs(n, together * chunk))
    along_x, along_y, along_z = parts
    return [(z, y, x) for z in along_z for y in along_y for x in along_x]
