"""Closed surfaces of the classes, meshed slab by slab.

They are the surfaces that `measure` reports the area of (`tomoseg.measure.surface`: smoothed without shrinking, at the
level that encloses the class's own volume), with one difference: where a class goes on beyond the border of the volume
its surface is closed there by a flat cap, half a voxel outside the last centres. A closed surface has an inside, looks
solid, and can be printed; the cap is marked, because it is where we stopped looking and no surface of the sample.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, ArraySource
from tomoseg.measure.surface import (
    BINS,
    Float32Array,
    Mesh,
    Slab,
    count_values,
    level_of,
    level_surface,
    slab_of,
    smooth,
)
from tomoseg.runtime import slabs

# While a surface is smoothed, thinned out and written: points, triangles, links and error matrices. Measured.
BYTES_PER_TRIANGLE = 800
# While a slab is meshed: labels, fractions, two smoothed fields f4, and the mesh.
BYTES_PER_VOXEL = 64
# Thinning out costs 15 us per triangle removed: from more than this times the target, a coarser mesh is better.
THINNING = 2.5
# How far from the border, px, a triangle of the cap may lie after the windowed-sinc filter.
CAP_TOLERANCE_PX = 0.25


@dataclass(frozen=True)
class CoarseLabels:
    """Labels (z, y, x) read in blocks of `factor`^3 voxels; blocks at the end that lack voxels are filled up.

    `shape` is in blocks. The position of a block's centre, px, is block * factor + (factor - 1) / 2.
    """

    labels: ArraySource
    factor: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of blocks along each axis."""
        return tuple(-(-n // self.factor) for n in self.labels.shape)

    def read(self, z: slice) -> Array:
        """Return the labels of the blocks at `z`, at full resolution."""
        f = self.factor
        block = self.labels[z.start * f : min(z.stop * f, self.labels.shape[0])]
        wanted = ((z.stop - z.start) * f, self.shape[1] * f, self.shape[2] * f)
        missing = [(0, w - n) for w, n in zip(wanted, block.shape, strict=True)]
        return np.pad(block, missing, mode="edge") if any(m for _, m in missing) else block

    def fraction(self, block: Array, k: int) -> Array:
        """Return what part of each block is of class `k`: bool at full resolution, else float32."""
        f = self.factor
        if f == 1:
            return np.asarray(block == k)
        nz, ny, nx = (n // f for n in block.shape)
        return np.asarray((block == k).reshape(nz, f, ny, f, nx, f).mean(axis=(1, 3, 5), dtype=np.float32))

    def slabs(self, size: int) -> list[Slab]:
        """Return the slabs, in blocks, of at most `size` planes."""
        return [slab_of(z, self.shape[0]) for z in slabs(self.shape[0], size)]


def boundary_faces(slabs_of_labels: Iterable[Array], n_classes: int) -> NDArray[np.int64]:
    """Count for each class the voxel faces between it and another class; consecutive slabs (z, y, x)."""
    faces = np.zeros(n_classes, np.int64)
    last: Array | None = None
    for slab in slabs_of_labels:
        block = slab if last is None else np.concatenate([last, slab])
        for axis in range(3):
            here = block if axis == 0 or last is None else slab  # the plane before has been counted in its own slab
            low, high = np.moveaxis(here, axis, 0)[:-1], np.moveaxis(here, axis, 0)[1:]
            differ = low != high
            for side in (low, high):
                faces += np.bincount(side[differ], minlength=n_classes)[:n_classes]
        last = slab[-1:]
    return faces


def coarsening(n_faces: int, target_triangles: int, max_memory: int) -> int:
    """Return the block size at which the surface of `n_faces` voxel faces fits the memory and the target.

    A voxel face gives two triangles at most, and blocks of f^3 voxels f^2 times fewer. `target_triangles` 0: no target.
    """
    limit = max_memory / 2 / BYTES_PER_TRIANGLE
    if target_triangles:
        limit = min(limit, THINNING * target_triangles)
    return max(1, math.ceil(math.sqrt(2 * n_faces / max(limit, 1))))


class LevelFinder:
    """The level at which the surface of a class encloses its volume; `add` every slab, then `level`."""

    def __init__(self, coarse: CoarseLabels, k: int) -> None:
        self._coarse, self._k = coarse, k
        self._values: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self._volume = 0.0

    def add(self, slab: Slab) -> None:
        """Take in a slab."""
        fraction = self._coarse.fraction(self._coarse.read(slab.read), self._k)
        self._volume += float(fraction[slab.own].sum(dtype=np.float64))
        self._values += count_values(smooth(fraction)[slab.own])

    def level(self) -> float:
        """Return the level."""
        return level_of(self._values, round(self._volume))


def slab_mesh(coarse: CoarseLabels, k: int, level: float, slab: Slab) -> Mesh:
    """Return the part of a class's closed surface that lies in a slab, in px of the labels."""
    fraction = coarse.fraction(coarse.read(slab.read), k)
    if not fraction.any():
        return level_surface(np.zeros((2, 2, 2), np.float32), level)
    field = smooth(fraction)[slab.meshed]
    # Beyond the border the field is mirrored at the level: the surface crosses midway, half a voxel outside.
    for axis, sides in enumerate(slab.border):
        field = _capped(field, axis, sides, level)
    mesh = level_surface(field, level)
    first = np.array([slab.read.start + slab.meshed.start, 0, 0]) - [int(low) for low, _ in slab.border]
    blocks = mesh.vertices + first.astype(np.float32)
    vertices = blocks * coarse.factor + np.float32((coarse.factor - 1) / 2)
    # The last blocks may reach beyond the volume, where their voxels were made up.
    return Mesh(np.minimum(vertices, np.array(coarse.labels.shape, np.float32) - 0.5), mesh.faces, mesh.weights)


def joined(meshes: Iterable[Mesh]) -> Mesh:
    """Join the meshes of consecutive slabs into one: points at the same place become one point.

    Neighbouring slabs compute the points on the plane they share from the same numbers, so they agree exactly.
    """
    parts = [m for m in meshes if len(m.faces)]
    if not parts:
        return level_surface(np.zeros((2, 2, 2), np.float32), 0.5)
    vertices, faces = parts[0].vertices, [parts[0].faces]
    chunks, n_before = [vertices], 0
    for above in parts[1:]:
        below = chunks[-1]
        number = _matched(below, above.vertices, n_before, n_before + len(below))
        faces.append(number[above.faces].astype(np.int32))
        kept = number >= n_before + len(below)
        n_before += len(below)
        chunks.append(above.vertices[kept])
    triangles = np.concatenate(faces)
    a, b, c = triangles.T
    triangles = triangles[(a != b) & (b != c) & (c != a)]
    return Mesh(np.concatenate(chunks), triangles, np.ones(len(triangles), np.float32))


def on_cap(vertices_px: Array, faces: Array, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Tell which triangles (m, 3) lie on the flat caps at the border of a volume of `shape`."""
    flat = np.zeros(len(faces), bool)
    for axis, n in enumerate(shape):
        along = vertices_px[faces, axis]
        for border in (-0.5, n - 0.5):
            flat |= (np.abs(along - border) < CAP_TOLERANCE_PX).all(axis=1)
    return flat


def _capped(field: Float32Array, axis: int, sides: tuple[bool, bool], level: float) -> Float32Array:
    ends = [np.take(field, [end], axis=axis) for end in (0, -1)]
    outside = [np.float32(level) - np.abs(end - np.float32(level)) for end in ends]
    low, high = sides
    return np.concatenate([*outside[:low], field, *outside[1 : 1 + high]], axis=axis)


def _matched(below: Array, above: Array, n_before: int, n_next: int) -> NDArray[np.int64]:
    """Return the number of each point of `above`: that of the equal point of `below`, or a new one from `n_next`."""
    plane = below[:, 0].max() if len(below) else 0.0
    number = np.full(len(above), -1, np.int64)
    candidates = {p.tobytes(): n_before + i for i, p in zip(*_at(below, plane), strict=True)}
    for i, p in zip(*_at(above, plane), strict=True):
        number[i] = candidates.get(p.tobytes(), -1)
    new = number < 0
    number[new] = n_next + np.arange(np.count_nonzero(new))
    return number


def _at(points: Array, plane: float) -> tuple[Array, Array]:
    where = np.flatnonzero(points[:, 0] == plane)
    return where, points[where]
