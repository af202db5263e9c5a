"""Closed surfaces of the classes, meshed block by block.

They are the surfaces whose areas `measure` reports (`tomoseg.measurement.common.surface`: smoothed without shrinking,
at the level that encloses the volume of the class), with one difference: where a class continues beyond the border of
the volume, its surface is closed by a flat cap, half a voxel outside the outermost voxel centres. A closed surface has
an inside, looks solid, and can be printed. The cap is marked, because it is the end of the data and not a surface of
the sample.

Surface nets or flying edges on the labels would be faster, but they follow the staircase of the voxels, which smoothing
has to undo, and nothing preserves the enclosed volume. Here the level does.

The size of the blocks does not depend on the memory allowed, so that a surface is the same to the bit at any limit.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, ArraySource, BoolArray
from tomoseg.measurement.common.blocks import Strip, strips
from tomoseg.measurement.common.surface import (
    Block,
    Float32Array,
    Mesh,
    level_surface,
    smooth,
)

# Needed while a surface is joined, smoothed and written. Measured: 140.
BYTES_PER_TRIANGLE = 150
# Larger surfaces are not reduced: VTK's quadric decimation takes 740 bytes per triangle and 15 us for each one that it
# removes. This many fit in the smallest --max-memory.
MOST_REDUCED = 48_000
# Nor are surfaces of more than this times the target: they would lose their shape.
LARGEST_REDUCTION = 2.5
# Needed while faces are counted in a slab: labels, where they differ, and the labels on both sides.
BYTES_PER_VOXEL = 12
# Largest distance from the border, px, of a triangle of the cap after the windowed-sinc filter.
CAP_TOLERANCE_PX = 0.25


@dataclass(frozen=True)
class CoarseLabels:
    """Labels (z, y, x) read in cells of `factor`^3 voxels; incomplete cells at the end repeat their last voxels.

    `shape` is in cells. The position of a cell's centre, px, is cell * factor + (factor - 1) / 2.
    """

    labels: ArraySource
    factor: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of cells along each axis."""
        return tuple(-(-n // self.factor) for n in self.labels.shape)

    def fraction(self, box: Sequence[slice], k: int) -> Array:
        """Return the fraction of class `k` in each cell of a box: bool at full resolution, else float32."""
        f = self.factor
        if f == 1:
            return np.asarray(self.labels[tuple(box)] == k)
        return np.concatenate([self._layer(z, box[1], box[2], k) for z in range(box[0].start, box[0].stop)])

    def strips(self, n_bytes: float) -> list[Strip]:
        """Return the blocks, of cells; see `tomoseg.measurement.common.blocks.strips`."""
        return strips(self.shape, n_bytes, itemsize=2 if self.factor == 1 else 8)

    def _layer(self, z: int, y: slice, x: slice, k: int) -> Float32Array:
        f = self.factor
        voxels = self.labels[tuple(slice(s.start * f, s.stop * f) for s in (slice(z, z + 1), y, x))]
        wanted = (f, (y.stop - y.start) * f, (x.stop - x.start) * f)
        missing = [(0, w - n) for w, n in zip(wanted, voxels.shape, strict=True)]
        mask = np.pad(voxels, missing, mode="edge") == k
        return np.asarray(
            mask.reshape(1, f, wanted[1] // f, f, wanted[2] // f, f).mean(axis=(1, 3, 5), dtype=np.float32)
        )


@dataclass(frozen=True)
class Patch:
    """The part of a surface in one block: points (n, 3) in cells, triangles (m, 3) as in `Mesh`.

    `seam` (n,) marks the points on the sides shared with other blocks.
    """

    points: Float32Array
    faces: NDArray[np.int32]
    seam: BoolArray


def boundary_faces(slabs_of_labels: Iterable[Array], n_classes: int) -> NDArray[np.int64]:
    """Count the voxel faces between each class and the others, given the labels as consecutive slabs (z, y, x)."""
    faces = np.zeros(256, np.int64)
    last: Array | None = None
    for slab in map(np.ascontiguousarray, slabs_of_labels):
        count_faces(slab, slab[0] if last is None else last, faces)
        last = slab[-1]
    return faces[:n_classes]


def _count_faces(labels, before, faces):  # type: ignore[no-untyped-def]
    """Add the voxel faces in labels (z, y, x) u1, and those to the plane `before`, to `faces` (256,)."""
    nz, ny, nx = labels.shape
    for z in range(nz):
        below = labels[z - 1] if z > 0 else before
        for y in range(ny):
            for x in range(nx):
                one = labels[z, y, x]
                if one != below[y, x]:
                    faces[one] += 1
                    faces[below[y, x]] += 1
                if y > 0 and one != labels[z, y - 1, x]:
                    faces[one] += 1
                    faces[labels[z, y - 1, x]] += 1
                if x > 0 and one != labels[z, y, x - 1]:
                    faces[one] += 1
                    faces[labels[z, y, x - 1]] += 1


count_faces: Callable[..., None] = numba.njit(nogil=True, cache=True)(_count_faces)


def coarsening(n_faces: int, target_triangles: int) -> int:
    """Return the cell size, in voxels, at which a surface of `n_faces` voxel faces is near the target; 0: no target.

    A voxel face gives at most two triangles, and cells of f^3 voxels give f^2 times fewer.
    """
    if not target_triangles:
        return 1
    limit = max(target_triangles, min(LARGEST_REDUCTION * target_triangles, MOST_REDUCED))
    return max(1, math.ceil(math.sqrt(2 * n_faces / limit)))


def bytes_needed(n_faces: int, factor: int) -> int:
    """Return the most bytes that a surface of `n_faces` voxel faces takes, meshed from cells of `factor`^3 voxels."""
    return 2 * n_faces * BYTES_PER_TRIANGLE // factor**2


def block_surface(fraction: Array, level: float, block: Block) -> Patch | None:
    """Return the part of a class's closed surface that lies in a block, or None if there is none.

    `fraction` is the fraction of the class in each cell of `block.read`.
    """
    if not fraction.any():
        return None
    field = smooth(fraction)[block.meshed]
    # Beyond the border the field is mirrored about the level, so that the surface crosses half a voxel outside.
    for axis, sides in enumerate(block.border):
        field = _capped(field, axis, sides, level)
    mesh = level_surface(field, level)
    if not len(mesh.faces):
        return None
    seam = np.zeros(len(mesh.vertices), bool)
    for axis, (low, high) in enumerate(block.border):
        seam |= (mesh.vertices[:, axis] == 0) & (not low)
        seam |= (mesh.vertices[:, axis] == field.shape[axis] - 1) & (not high)
    start = [r.start + m.start - low for r, m, (low, _) in zip(block.read, block.meshed, block.border, strict=True)]
    return Patch(mesh.vertices + np.array(start, np.float32), mesh.faces, seam)


def joined(patches: Sequence[Patch], coarse: CoarseLabels) -> Mesh:
    """Join the patches of all blocks into one surface, in px of the labels.

    Coincident points of the seams are merged. They agree exactly, because neighbouring blocks compute the points on
    their shared side from the same numbers.
    """
    if not patches:
        return level_surface(np.zeros((2, 2, 2), np.float32), 0.5)
    points = np.concatenate([patch.points for patch in patches])
    on_seam = np.flatnonzero(np.concatenate([patch.seam for patch in patches]))
    _, first, place = np.unique(points[on_seam], axis=0, return_index=True, return_inverse=True)
    same = np.arange(len(points), dtype=np.int32)
    same[on_seam] = on_seam[first[place.ravel()]]
    kept = same == np.arange(len(points))
    number = (np.cumsum(kept, dtype=np.int32) - 1)[same]
    starts = np.cumsum([0, *(len(patch.points) for patch in patches)])
    faces = np.concatenate([number[patch.faces + start] for patch, start in zip(patches, starts, strict=False)])
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    vertices = points[kept] * coarse.factor + np.float32((coarse.factor - 1) / 2)
    # The last cells may reach beyond the volume, where voxels were repeated.
    np.minimum(vertices, np.array(coarse.labels.shape, np.float32) - np.float32(0.5), out=vertices)
    return Mesh(vertices, faces, np.ones(len(faces), np.float32))


def on_cap(vertices_px: Array, faces: Array, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mark the triangles (m, 3) that lie on the flat caps at the border of a volume of `shape`."""
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
