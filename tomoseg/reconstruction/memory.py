"""How many slices to reconstruct and to read together within the memory allowed."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.kernels import WIDE
from tomoseg.reconstruction.simd import LANES
from tomoseg.runtime import slabs

WRITE_UNIT = 16  # slices written together, as the volume is chunked
READ_AHEAD = 64  # slices read together, as the aligned series is chunked; fewer where memory is short
SAMPLE_BLOCK = 16  # slices of the sample that a thread computes at the same time


@dataclass(frozen=True)
class MemoryNeed:
    """Memory that a method takes: copies of the voxels (the result among them) and of the data of its slices."""

    geometry: ParallelGeometry
    volumes: int
    sinograms: int
    reading: int = 0  # bytes of buffers

    @property
    def plane(self) -> int:
        """Bytes of a slice."""
        return 4 * self.geometry.nz * self.geometry.nx

    @property
    def sinogram(self) -> int:
        """Bytes of the data of a slice."""
        return 4 * self.geometry.n_tilt * self.geometry.n_detector

    def per_slice(self, block: int) -> float:
        """Return the bytes of each slice that is computed, in blocks of `block`."""
        # Every block has its own weights of the voxels, made with two more copies of them.
        return self.volumes * self.plane + self.sinograms * self.sinogram + 3 * self.plane / block

    def fixed(self, unit: int) -> int:
        """Return the bytes that do not depend on how many slices are computed at once; `unit` are written together."""
        # Tables of the projector for rays and voxels; weights; the slices on their way to the disk; two groups of data.
        tables = 4 * self.sinogram + 3 * self.plane
        return tables + unit * self.plane + 2 * unit * self.sinogram + self.reading


def cpu_block(n_slices: int, need: MemoryNeed, workers: int, max_memory: int) -> int:
    """Return how many slices tomoseg's own projector treats together: WIDE where all threads have work with that.

    Each of them should have two blocks or more, which are in memory for all threads at once.
    """
    memory = workers * WIDE * need.per_slice(WIDE) + need.fixed(WIDE)
    return WIDE if n_slices >= 2 * workers * WIDE and memory <= max_memory / 2 else LANES


def gpu_slab(most: int, need: MemoryNeed, max_memory: int) -> int:
    """Return `most` slices, halved until they fit in half of the memory allowed here."""
    while most > WRITE_UNIT and most * need.per_slice(most) + need.fixed(most) > max_memory / 2:
        most //= 2
    return most


def sample_threads(geometry: ParallelGeometry, volumes: int, workers: int, max_memory: int) -> int:
    """Return how many blocks of the sample may be computed at the same time."""
    block = 4 * (volumes + 1) * SAMPLE_BLOCK * geometry.nz * geometry.nx  # bytes, with the slices that are returned
    return max(1, min(workers, int(max_memory / 2 / block)))


def plan_groups(
    n_slices: int,
    first: int,
    need: MemoryNeed,
    block: int,
    at_once: int,
    max_memory: int,
    tell: Callable[[str], object],
) -> tuple[list[slice], int]:
    """Return the groups of slices to compute from the `first` that is not done, and how many slices to read ahead.

    A group is as many blocks of `block` slices as are computed `at_once`, or as fit in `max_memory` bytes; `tell` is
    called with a message where even the smallest group does not fit.
    """
    unit = math.lcm(block, WRITE_UNIT)
    per_slice, fixed = need.per_slice(block), need.fixed(unit)
    fits = int((max_memory / 2 - fixed) / per_slice) // unit * unit
    least = unit * per_slice + fixed
    if fits < unit and least > max_memory:
        tell(
            f"reconstructing {unit} slices at a time, the fewest possible, takes about {least / 2**20:.0f} MiB: more "
            f"than the {max_memory / 2**20:.0f} MiB that --max-memory allows"
        )
    size = max(unit, min(fits, math.ceil(block * at_once / unit) * unit))
    # While data are read, the previous data are still held, and a copy where images are left out.
    spare = int((max_memory / 2 - fixed - size * per_slice) / (3 * need.sinogram))
    ahead = max(1, min(READ_AHEAD, spare) // size) * size
    return slabs(n_slices, size, first), ahead
