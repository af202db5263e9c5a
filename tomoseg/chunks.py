"""Volumes read so that each chunk of the file they are stored in is read once, and written to files without chunks."""

import math
from collections.abc import Sequence
from typing import BinaryIO

from tomoseg.arrays import Array, ArraySource, Box
from tomoseg.runtime import slabs


def pieces(shape: Sequence[int], chunks: Sequence[int], itemsize: int, n_bytes: float) -> list[Box]:
    """Cut a volume (z, y, x) into boxes of whole chunks, so that each chunk of a file is read or written once.

    As long along x, then y, as fits in `n_bytes`, and at least one chunk; in the order of the file.
    """
    left = max(1, int(n_bytes / (math.prod(chunks) * itemsize)))
    parts: list[list[slice]] = []
    for n, chunk in zip(reversed(shape), reversed(chunks), strict=True):
        together = min(left, -(-n // chunk))
        left = max(1, left // together)
        parts.append(slabs(n, together * chunk))
    along_x, along_y, along_z = parts
    return [(z, y, x) for z in along_z for y in along_y for x in along_x]


def pieces_of(data: ArraySource, itemsize: int, n_bytes: float) -> list[Box]:
    """Cut an array (z, y, x) or handle as `pieces` does; planes are the chunks of an array that has none."""
    return pieces(data.shape, _chunks(data), itemsize, n_bytes)


def planes_at_once(data: ArraySource, most: int) -> int:
    """Return at most so many planes of an array (z, y, x) or handle, so that few of its chunks are read twice."""
    depth = _chunks(data)[0]
    return most // depth * depth if most >= depth else math.ceil(depth / math.ceil(depth / most))


def write_piece(file: BinaryIO, start: int, values: Array, piece: Box, shape: Sequence[int]) -> None:
    """Write a box (z, y, x) of a volume of `shape` to where it belongs in a file, whose values begin at `start`."""
    z, y, x = piece
    for k, plane in enumerate(values, z.start):
        # Whole rows lie side by side in the file.
        parts = [plane] if x.stop - x.start == shape[2] else plane
        for j, part in enumerate(parts, y.start):
            file.seek(start + ((k * shape[1] + j) * shape[2] + x.start) * values.itemsize)
            file.write(part.data)


def _chunks(data: ArraySource) -> tuple[int, ...]:
    return getattr(data, "chunks", None) or (1, *data.shape[1:])
