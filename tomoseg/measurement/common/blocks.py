"""Blocks of one size that a volume is cut into, whatever the memory allowed: sums over them are the same to the bit.

Only how many blocks are read at once depends on the memory: a file is read best in long strips.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tomoseg.arrays import Array, Box
from tomoseg.measurement.common.surface import RADIUS_PX, Block, block_of
from tomoseg.runtime import Runtime, slabs

# A block with its halo is meshed in some 25 MiB: mask, three float32 fields, and the mesh of a surface through
# every third voxel.
SIDE_PX, BYTES_PER_BLOCK = 64, 25 << 20
HALO_PX = 2 * RADIUS_PX + 1  # a block is read with that much more along each axis


@dataclass(frozen=True)
class Strip:
    """Neighbouring blocks that are read together: the box to read, and the blocks in it."""

    read: Box
    blocks: tuple[Block, ...]

    def parts(self, values: Array) -> Iterator[tuple[Block, Array]]:
        """Yield each block and what was read of it, given the values at `read`."""
        for block in self.blocks:
            yield block, values[inside(block.read, self.read)]


def strips(shape: Sequence[int], n_bytes: float, itemsize: int = 1) -> list[Strip]:
    """Cut a volume of `shape` into blocks, in strips along x.

    A strip is as long along y as fits in `n_bytes`, given the bytes of a voxel, and at least one block.
    """
    nz, ny, nx = shape
    row = min(nz, SIDE_PX + HALO_PX) * nx * itemsize
    height = max(SIDE_PX, int(n_bytes / row - HALO_PX) // SIDE_PX * SIDE_PX)
    return [_strip(z, y, shape) for z in slabs(nz, SIDE_PX) for y in slabs(ny, height)]


def threads_for_blocks(runtime: Runtime) -> int:
    """Return how many blocks may be worked on at once: one per CPU, in a quarter of the memory allowed."""
    return max(1, min(runtime.workers, int(runtime.max_memory / 4 / BYTES_PER_BLOCK)))


def inside(box: Box, around: Box) -> Box:
    """Return a box in the coordinates of one around it."""
    z, y, x = (slice(b.start - a.start, b.stop - a.start) for b, a in zip(box, around, strict=True))
    return z, y, x


def placed(box: Box, around: Box) -> Box:
    """Return a box that is given in the coordinates of one around it in those of the volume."""
    z, y, x = (slice(a.start + b.start, a.start + b.stop) for b, a in zip(box, around, strict=True))
    return z, y, x


def _strip(z: slice, y: slice, shape: Sequence[int]) -> Strip:
    rows = [slice(y.start + s.start, y.start + s.stop) for s in slabs(y.stop - y.start, SIDE_PX)]
    blocks = tuple(block_of((z, row, x), shape) for row in rows for x in slabs(shape[2], SIDE_PX))
    first, last = blocks[0].read, blocks[-1].read
    return Strip((first[0], slice(first[1].start, last[1].stop), slice(0, shape[2])), blocks)
