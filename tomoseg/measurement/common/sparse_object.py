"""Sparse object: one object as the list of its voxels, in memory that is the object's, however large its box.

The voxels are in the order of the volume (z, y, x). Those of one line along x lie together: `starts` tells where each
line of the box begins, so that a voxel is found by bisection.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numba
import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, BoolArray, Box
from tomoseg.components import EXTENT

FAR = 1 << 30  # squared distance of what has no outside in sight; above any in a volume


@dataclass(frozen=True)
class SparseObject:
    """The voxels of an object in a box of the volume.

    Attributes
    ----------
    box : where the box lies in the volume
    starts : (n_z * n_y + 1,) i8, the first voxel of each line of the box, and their number
    x : (n,) i4, position of each voxel in its line
    """

    box: Box
    starts: NDArray[np.int64]
    x: NDArray[np.int32]

    @classmethod
    def of(cls, masks: Iterable[BoolArray], box: Box) -> Self:
        """Collect the voxels from the masks (z, y, x) of consecutive slabs of the box."""
        counts: list[Array] = [np.zeros(1, np.int64)]
        found: list[Array] = [np.zeros(0, np.int32)]
        for mask in masks:
            counts.append(np.count_nonzero(mask, axis=2).ravel())
            found += [np.nonzero(plane)[1].astype(np.int32) for plane in mask]
        return cls(box, np.cumsum(np.concatenate(counts)), np.concatenate(found))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the box."""
        z, y, x = (s.stop - s.start for s in self.box)
        return z, y, x

    def lines(self) -> NDArray[np.int32]:
        """Return the number of the line, z * n_y + y, of each voxel."""
        return np.repeat(np.arange(len(self.starts) - 1, dtype=np.int32), np.diff(self.starts))

    def mask(self, box: Box, parts: NDArray[np.int32], part: int) -> BoolArray:
        """Return the mask of the voxels that are of one of the `parts` (n,), in a box within the object's box."""
        out = np.zeros([s.stop - s.start for s in box], bool)
        _fill(self.starts, self.x, parts, part, self.shape[1], box[0].start, box[1].start, box[2].start, out)
        return out

    def extents(self, parts: NDArray[np.int32]) -> NDArray[np.void]:
        """Return the number of voxels of each of the parts 1..n and where they are in the volume, `EXTENT` (n,)."""
        out = np.zeros(int(parts.max(initial=0)), EXTENT)
        out["start"] = np.iinfo(np.int64).max
        _extents(self.starts, self.x, parts, self.shape[1], out["voxels"], out["start"], out["stop"], out["sum"])
        corner = np.array([s.start for s in self.box])
        out["start"] += corner
        out["stop"] += corner
        out["sum"] += out["voxels"][:, None] * corner
        return out

    def squared_radii(self, checkpoint: Callable[[], None] = lambda: None) -> NDArray[np.int32]:
        """Return the squared distance (n,) of each voxel to the nearest one outside, px^2.

        The box's own border is no outside: there, the object may go on. `FAR` or more where the box has no outside.
        `checkpoint` is called now and then; it may raise to stop.
        """
        nz, ny, nx = self.shape
        squared = _along_x(self.starts, self.x, nx)
        for n, n_planes, line_step, plane_step in ((ny, nz, 1, ny), (nz, ny, ny, 1)):  # along y, then along z
            plane = np.zeros((nx, n), np.int32)
            for k in range(n_planes):
                checkpoint()
                plane[:] = 0
                _along_lines(self.starts, self.x, squared, k * plane_step, line_step, plane)
        return squared


@numba.njit(nogil=True, cache=True)
def _fill(starts: Array, x: Array, parts: Array, part: int, n_y: int, z0: int, y0: int, x0: int, out: Array) -> None:
    for z in range(out.shape[0]):
        for y in range(out.shape[1]):
            line = (z0 + z) * n_y + y0 + y
            for voxel in range(starts[line], starts[line + 1]):
                if parts[voxel] == part and 0 <= x[voxel] - x0 < out.shape[2]:
                    out[z, y, x[voxel] - x0] = True


@numba.njit(nogil=True, cache=True)
def _extents(
    starts: Array, x: Array, parts: Array, n_y: int, voxels: Array, start: Array, stop: Array, total: Array
) -> None:
    place = np.zeros(3, np.int64)
    for line in range(len(starts) - 1):
        place[0], place[1] = line // n_y, line % n_y
        for voxel in range(starts[line], starts[line + 1]):
            place[2] = x[voxel]
            k = parts[voxel] - 1
            voxels[k] += 1
            for axis in range(3):
                start[k, axis] = min(start[k, axis], place[axis])
                stop[k, axis] = max(stop[k, axis], place[axis] + 1)
                total[k, axis] += place[axis]


@numba.njit(nogil=True, cache=True)
def _along_x(starts: Array, x: Array, n_x: int) -> Array:
    """Return the squared distance of each voxel to the nearest one outside in its line."""
    out = np.empty(len(x), np.int32)
    for line in range(len(starts) - 1):
        first = starts[line]
        while first < starts[line + 1]:
            last = first
            while last + 1 < starts[line + 1] and x[last + 1] == x[last] + 1:
                last += 1
            before = x[first] > 0
            after = x[last] < n_x - 1
            for voxel in range(first, last + 1):
                d = min(x[voxel] - x[first] + 1 if before else n_x, x[last] - x[voxel] + 1 if after else n_x)
                out[voxel] = d * d if before or after else FAR
            first = last + 1
    return out


@numba.njit(nogil=True, cache=True)
def _nearest_of(column: Array, i: int) -> int:
    """Return the least of column[j] + (i - j)^2."""
    best = int(column[i])
    step = 1
    while step * step < best:
        inside = False
        if i >= step:
            best = min(best, int(column[i - step]) + step * step)
            inside = True
        if i + step < len(column):
            best = min(best, int(column[i + step]) + step * step)
            inside = True
        if not inside:
            break
        step += 1
    return best


@numba.njit(nogil=True, cache=True)
def _along_lines(starts: Array, x: Array, squared: Array, first: int, step: int, plane: Array) -> None:
    """Account for the voxels outside in the plane of the lines `first` + k `step`; `plane` (x, k) is 0."""
    for k in range(plane.shape[1]):
        for voxel in range(starts[first + k * step], starts[first + k * step + 1]):
            plane[x[voxel], k] = squared[voxel]
    for k in range(plane.shape[1]):
        for voxel in range(starts[first + k * step], starts[first + k * step + 1]):
            squared[voxel] = _nearest_of(plane[x[voxel]], k)
