"""Pores of a body on a coarse grid: where they are, which are closed, and how they are connected."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, ArraySource, BoolArray, Box
from tomoseg.components import component_sizes, looked_up
from tomoseg.errors import InputError
from tomoseg.measurement.common.coarse_grid import box_of, cell_side, coarse_grid
from tomoseg.measurement.common.surface import FloatArray
from tomoseg.measurement.pores.porosimetry import FreeSpace, distances, outside_radius
from tomoseg.runtime import Runtime

SMALLEST_PORE = 27  # cells; smaller ones are left out of the table, but not of the volume
LARGEST_CLOSING = 120  # radius of a ball, cells
GRID_SHARE, READING_SHARE = 0.6, 1 / 16  # of the memory allowed: the coarse grid, and what is read at once
MARGIN = 2  # cells around the support, beyond the reach of a ball that comes from outside
BYTES_PER_BOX_CELL = 18  # of the box around the support, while pores are found and measured


@dataclass(frozen=True)
class PoreSpace:
    """The support on a coarse grid, in a box around it, with the pores in it.

    Attributes
    ----------
    kinds : (z, y, x) u1, 0 background, 1 support, 2 particles
    free : free space around the support alone (particles are no walls on the way in)
    numbers : (z, y, x) i4, number of the pore of each cell, 0 in none, -1 in one too small for the table
    closed : (n,) bool, whether pore 1 + i is cut off from outside
    inside : (z, y, x) bool, support, pores, and particles in them
    start : (3,) the first cell of the box in the volume; negative where the box reaches beyond it
    shape : of the volume, cells
    side : of a cell, px
    """

    kinds: NDArray[np.uint8]
    free: FreeSpace
    numbers: NDArray[np.int32]
    closed: NDArray[np.bool_]
    inside: BoolArray
    start: NDArray[np.int64]
    shape: tuple[int, ...]
    side: int

    @classmethod
    def of(cls, kinds: NDArray[np.uint8], side: int, ball_cells: float | None = None) -> "PoreSpace":
        """Find the pores of a volume in cells; with the radius of a ball, all that it cannot reach are pores."""
        import cc3d

        shape = kinds.shape
        most = _largest_ball(shape, ball_cells)
        boxed, start = _boxed(kinds, most + MARGIN)
        support = boxed == 1
        free = FreeSpace.around(support, most, _part_in_volume(start, support.shape, shape))
        pores = free.hidden() if ball_cells is None else free.not_reached(ball_cells)
        pores |= _cut_off(boxed == 0)
        inside = pores | support
        del support
        pores &= boxed == 0
        pores &= _in_volume(boxed.shape, start, shape)
        labels, n = cc3d.connected_components(pores, connectivity=6, return_N=True)
        voxels = component_sizes(labels, n)
        order = np.argsort(-voxels[1:], kind="stable") + 1
        n = int((voxels[1:] >= SMALLEST_PORE).sum())
        numbers = np.full(len(voxels), -1, np.int32)
        numbers[0] = 0
        numbers[order[:n]] = np.arange(1, n + 1)
        numbered = looked_up(numbers, labels)
        del labels
        is_open = _touching(numbered, (boxed == 0) & ~pores, n)
        return cls(boxed, free, numbered, ~is_open, inside, start, shape, side)

    @property
    def pores(self) -> BoolArray:
        """All pores, the small ones too."""
        return np.asarray(self.numbers != 0)

    @property
    def body(self) -> BoolArray:
        """The support, its pores, and what of particles lies in them."""
        return np.asarray(self.inside | self.pores)

    def in_volume(self) -> tuple[slice, ...]:
        """Return the part of the box that lies in the volume."""
        return _part_in_volume(self.start, self.kinds.shape, self.shape)

    def numbers_at(self, cells: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the numbers (n,) of the pores in cells (n, 3) of the volume; those beyond it are as at its border."""
        place = np.clip(cells, 0, np.array(self.shape) - 1) - self.start
        known = ((place >= 0) & (place < self.numbers.shape)).all(axis=1)
        out = np.zeros(len(cells), np.int32)
        out[known] = self.numbers[tuple(place[known].T)]
        return out

    def look_up(self, points_px: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the cells of the box, as an index, next to points (n, 3) in px of the volume."""
        cells = np.rint((points_px - (self.side - 1) / 2) / self.side).astype(np.int64) - self.start
        z, y, x = np.clip(cells, 0, np.array(self.kinds.shape) - 1).T
        return z, y, x


def find_pores(
    labels: ArraySource,
    kind_of_class: NDArray[np.uint8],
    voxel_size_nm: float,
    closing_nm: float | None,
    runtime: Runtime,
) -> PoreSpace | None:
    """Find the pores of the support in a labelled volume; None where no voxel is support.

    Parameters
    ----------
    labels : (z, y, x) u1
    kind_of_class : (256,) u1, 0 background, 1 support, 2 particles
    closing_nm : radius of a ball: all that it cannot reach from outside are pores. None: what lies behind throats is
    runtime : what memory is allowed sets the side of the grid's cells
    """
    closing_px = None if closing_nm is None else closing_nm / voxel_size_nm
    box = box_of(labels, kind_of_class, 1, runtime)
    body = tuple(part.stop - part.start for part in box)
    if not all(body):
        return None
    side = _side(tuple(labels.shape), body, closing_px, GRID_SHARE * runtime.max_memory)
    if side > 1:
        runtime.say(f"pores are sought in cells of {side} voxels across: the volume is too large for single voxels")
    reading = READING_SHARE * runtime.max_memory
    kinds = coarse_grid(labels, kind_of_class, side, reading, runtime.check, runtime.workers)
    if not (kinds == 1).any():
        return None
    ball = None if closing_nm is None else _ball_cells(closing_nm, voxel_size_nm, side, kinds.shape)
    space = PoreSpace.of(kinds, side, ball)
    runtime.check()
    return space


def _side(shape: tuple[int, ...], body: tuple[int, ...], closing_px: float | None, n_bytes: float) -> int:
    """Return the side of cells, px, at which the box around the support, of `body` px, fits in `n_bytes`."""
    side = cell_side(shape, n_bytes, body=body)
    while side < max(body) and n_bytes < BYTES_PER_BOX_CELL * _box_cells(shape, body, closing_px, side):
        side += 1
    return side


def _box_cells(shape: tuple[int, ...], body: tuple[int, ...], closing_px: float | None, side: int) -> int:
    """Return how many cells the box around a support of `body` px has with its margin, in a volume of `shape` px."""
    ball = None if closing_px is None or not closing_px / side <= LARGEST_CLOSING else closing_px / side
    margin = _largest_ball([-(-n // side) for n in shape], ball) + MARGIN
    return math.prod(-(-n // side) + 2 * margin for n in body)


def _largest_ball(shape: Sequence[int], ball_cells: float | None) -> int:
    """Return the radius, cells, of the largest ball that comes from outside into a volume of `shape`."""
    return max(outside_radius(shape), 0 if ball_cells is None else math.ceil(ball_cells))


def _ball_cells(closing_nm: float, voxel_size_nm: float, side: int, shape: tuple[int, ...]) -> float:
    """Return the radius of a ball in cells."""
    if np.isnan(voxel_size_nm):
        raise InputError(
            "measure.pore_closing_nm needs the voxel size, which is unknown. Give it at import (--pixel-size NM)."
        )
    cells = closing_nm / voxel_size_nm / side
    limit = min(max(shape) / 2, LARGEST_CLOSING)
    if cells > limit:
        largest = limit * side * voxel_size_nm
        raise InputError(
            f"measure.pore_closing_nm is {closing_nm:g} nm: in this volume it can be at most {largest:.4g} nm."
        )
    return cells


def _part_in_volume(start: Array, box: tuple[int, ...], volume: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(max(0, -int(s)), min(n, size - int(s))) for s, n, size in zip(start, box, volume, strict=True))


def _boxed(kinds: NDArray[np.uint8], margin: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Cut out the support with a margin; beyond the border of the volume it goes on as at the border."""
    support = kinds == 1
    start, stop = [], []
    for axis in range(3):
        found = np.flatnonzero(support.any(axis=tuple(a for a in range(3) if a != axis)))
        start.append(int(found[0]) - margin)
        stop.append(int(found[-1]) + 1 + margin)
    index = [np.clip(np.arange(a, b), 0, n - 1) for a, b, n in zip(start, stop, kinds.shape, strict=True)]
    return np.ascontiguousarray(kinds[np.ix_(*index)]), np.array(start)


def _in_volume(box: tuple[int, ...], start: NDArray[np.int64], shape: tuple[int, ...]) -> BoolArray:
    inside = np.zeros(box, bool)
    inside[_part_in_volume(start, box, shape)] = True
    return inside


def _cut_off(free: BoolArray) -> BoolArray:
    """Return the free cells that no path through faces joins to the border of the box."""
    import cc3d

    labels = cc3d.connected_components(free, connectivity=6)
    joined = np.zeros(int(labels.max()) + 1, bool)
    for axis in range(3):
        for end in (0, -1):
            joined[np.unique(labels.take(end, axis=axis))] = True
    joined[0] = True
    return looked_up(~joined, labels)


def _touching(numbers: NDArray[np.int32], outside: BoolArray, n: int) -> NDArray[np.bool_]:
    """Return which of the pores 1..n (n,) share a face with a cell outside."""
    touched = np.zeros(n + 1, bool)
    for axis in range(3):
        a, b = np.moveaxis(numbers, axis, 0), np.moveaxis(outside, axis, 0)
        for mine, other in ((a[:-1], b[1:]), (a[1:], b[:-1])):
            touched[mine[(mine > 0) & other]] = True
    return touched[1:]


def euler_number(space: PoreSpace) -> int:
    """Return the Euler number of the pores (joined through faces): pores less tunnels plus what floats within them.

    That of all planes, less that of what each shares with the next.
    """
    total, last = 0, np.zeros(space.numbers.shape[1:], bool)
    for numbers in space.numbers:
        here = numbers != 0
        total += _euler_number_of_plane(here) - _euler_number_of_plane(here & last)
        last = here
    return total


def _euler_number_of_plane(mask: BoolArray) -> int:
    """Return the Euler number of a plane: cells less pairs that share an edge plus fours around a corner."""
    pairs = mask[1:] & mask[:-1]
    n_pairs = np.count_nonzero(pairs) + np.count_nonzero(mask[:, 1:] & mask[:, :-1])
    return int(np.count_nonzero(mask) - n_pairs + np.count_nonzero(pairs[:, 1:] & pairs[:, :-1]))


def porosity_with_gaps(space: PoreSpace, ball_cells: float) -> float:
    """Return the porosity if all that a ball cannot reach from outside were pores: gaps and corners too."""
    here = space.in_volume()
    body = (space.free.not_reached(ball_cells) | space.inside)[here]
    return float((body & (space.kinds[here] == 0)).sum() / max(int(body.sum()), 1))


def connected_sides(space: PoreSpace) -> tuple[bool, bool, bool]:
    """Return whether one pore joins opposite sides of the volume along z, y and x."""
    ends = [[_numbers_in_plane(space, axis, at) for at in (0, n - 1)] for axis, n in enumerate(space.shape)]
    z, y, x = (bool((np.intersect1d(first, last) > 0).any()) for first, last in ends)
    return z, y, x


def _numbers_in_plane(space: PoreSpace, axis: int, at: int) -> NDArray[np.int32]:
    """Return the numbers of the pores in a plane of the volume."""
    place = at - int(space.start[axis])
    known = 0 <= place < space.numbers.shape[axis]
    return np.unique(space.numbers.take(place, axis=axis)) if known else np.zeros(0, np.int32)


def box_within(space: PoreSpace) -> Box | None:
    """Return a box of cells inside the body, of the box of `space`; None where it would be below 8 cells across.

    The cube within the largest sphere in the body, grown on all sides as far as no more than 1% of a side lies outside.
    """
    here = space.in_volume()
    inside = space.body
    bounds = [[h.start, h.stop] for h in here]
    if inside[here].mean() < 0.99:
        depth = distances(inside)[here]
        centre = np.unravel_index(int(np.argmax(depth)), depth.shape)
        half = int(depth[centre] / 3**0.5 - 1)
        middle = [int(c) + h.start for c, h in zip(centre, here, strict=True)]
        low = [[max(h.start, m - half), min(h.stop, m + half + 1)] for m, h in zip(middle, here, strict=True)]
        bounds = _grown(inside, low, bounds)
    if min(b - a for a, b in bounds) < 8:
        return None
    z, y, x = (slice(a, b) for a, b in bounds)
    return z, y, x


def _grown(inside: BoolArray, box: list[list[int]], limits: list[list[int]]) -> list[list[int]]:
    going = True
    while going:
        going = False
        for axis in range(3):
            for end, step in ((0, -1), (1, 1)):
                if box[axis][end] == limits[axis][end]:
                    continue
                face = [slice(a, b) for a, b in box]
                at = box[axis][end] - 1 if end == 0 else box[axis][end]
                face[axis] = slice(at, at + 1)
                if inside[tuple(face)].mean() >= 0.99:
                    box[axis][end] += step
                    going = True
    return box
