"""The surface of the support in small elements: where each is, its area, its direction, and what it faces."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, BoolArray, Box
from tomoseg.measurement.common.surface import Block, Float32Array, Mesh
from tomoseg.measurement.support.curvature import HALO_PX, shape_at, smoothed

OUTSIDE, PORE, PARTICLE = 0, 1, 2  # what the surface faces
STEPS_PX = (0.8, 1.4, 2.0, 2.8)  # distances from the surface at which that is looked up
SIDE_PX = 2  # side of the cubes whose triangles make an element

PoresAt = Callable[[NDArray[np.int64]], NDArray[np.int32]]


@dataclass(frozen=True)
class SurfaceElements:
    """Elements of a surface; index or mask them as one array.

    `centres` (n, 3) in (z, y, x), px from the centre of the first voxel; outward unit `normals` (n, 3); `areas` (n,)
    px^2; `mean` and `gaussian` curvature (n,), 1/px and 1/px^2, averaged by area; what each faces (n,); and the
    number of the pore where it faces one (n,), else 0.
    """

    centres: Float32Array
    normals: Float32Array
    areas: Float32Array
    mean: Float32Array
    gaussian: Float32Array
    facing: NDArray[np.uint8]
    pore: NDArray[np.int32]

    @classmethod
    def none(cls) -> "SurfaceElements":
        """Return no elements."""
        flat = np.empty(0, np.float32)
        corner = np.empty((0, 3), np.float32)
        return cls(corner, corner, flat, flat, flat, np.empty(0, np.uint8), np.empty(0, np.int32))

    @classmethod
    def joined(cls, parts: Iterable["SurfaceElements"]) -> "SurfaceElements":
        """Return the elements of all parts as one."""
        columns: list[list[Array]] = [[] for _ in fields(cls)]
        for part in chain([cls.none()], parts):
            for column, f in zip(columns, fields(cls), strict=True):
                column.append(getattr(part, f.name))
        return cls(*(np.concatenate(columns.pop(0)) for _ in fields(cls)))  # one column at a time is held twice

    def __getitem__(self, chosen: Any) -> "SurfaceElements":
        return SurfaceElements(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def __len__(self) -> int:
        return len(self.areas)

    @property
    def exposed(self) -> BoolArray:
        """Whether each element faces no particle."""
        return np.asarray(self.facing != PARTICLE)


def box_around(block: Block, shape: tuple[int, ...]) -> Box:
    """Return the box to read of a volume of `shape` for the elements of a block, see `block_elements`."""
    z, y, x = (
        slice(max(0, r.start + m.start - HALO_PX), min(n, r.start + m.stop + HALO_PX))
        for r, m, n in zip(block.read, block.meshed, shape, strict=True)
    )
    return z, y, x


def block_elements(mesh: Mesh, block: Block, box: Box, kinds: Array, pores_at: PoresAt, side: int) -> SurfaceElements:
    """Return the elements of the support's surface in a block, given the mesh of the support in `block.meshed`.

    `kinds` are the voxels of the `box` that was read, see `box_around`: 0 background, 1 support, 2 particles.
    `pores_at` returns the numbers (n,) of the pores that cells (n, 3) of the coarse grid, of `side` px, are in; 0 in
    none.
    """
    if not len(mesh.faces):
        return SurfaceElements.none()
    start = np.array([r.start + m.start for r, m in zip(block.read, block.meshed, strict=True)], np.float32)
    centres = mesh.vertices[mesh.faces].mean(axis=1) + start
    corner = np.array([b.start for b in box], np.float32)
    support, particles = kinds == 1, kinds == 2
    shape = shape_at(smoothed(support, ~particles), centres - corner)
    areas = np.linalg.norm(mesh.area_vectors(), axis=1).astype(np.float32)
    known = np.isfinite(shape.mean)
    normals, mean, gaussian = (
        np.where(known.reshape((-1,) + (1,) * (a.ndim - 1)), a, 0) for a in (shape.normals, shape.mean, shape.gaussian)
    )
    facing, pore = _facing(centres, mesh, kinds, corner, pores_at, side)
    facing[~known], pore[~known] = PARTICLE, 0  # deep beneath a particle: nothing known is near
    return _gathered(centres, normals, areas, mean, gaussian, facing, pore, SIDE_PX * side)


def _facing(
    centres: Array, mesh: Mesh, kinds: Array, corner: Array, pores_at: PoresAt, side: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return what each triangle faces: the first voxel along its normal that is not support, and the pore's number."""
    normals = mesh.area_vectors()
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    facing = np.zeros(len(centres), np.uint8)
    pore = np.zeros(len(centres), np.int32)
    open_ = np.ones(len(centres), bool)
    for step in STEPS_PX:
        at = np.rint(centres + step * normals).astype(np.int64)
        local = np.clip(at - corner.astype(np.int64), 0, np.array(kinds.shape) - 1)
        kind = kinds[tuple(local.T)]
        free = open_ & (kind != 1)
        number = np.where(kind[free] == 2, 0, pores_at(at[free] // side))
        pore[free] = number
        facing[free] = np.where(kind[free] == 2, PARTICLE, np.where(number > 0, PORE, OUTSIDE))
        open_ &= ~free
    return facing, pore


def _gathered(
    centres: Array, normals: Array, areas: Array, mean: Array, gaussian: Array, facing: Array, pore: Array, side: int
) -> SurfaceElements:
    """Merge the triangles of each cube that face the same thing in about the same direction."""
    keys = np.floor(centres / side).astype(np.int64) + 1
    ways = (np.rint(1.3 * normals).astype(np.int64) + 1) @ np.array([9, 3, 1])  # of 27, so that edges stay sharp
    key = (((keys[:, 0] << 36) | (keys[:, 1] << 18) | keys[:, 2]) * 27 + ways) * 3 + facing
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    total = np.bincount(place, areas)

    def average(values: Array) -> Float32Array:
        return np.asarray(np.bincount(place, values * areas) / np.maximum(total, 1e-12), np.float32)

    direction = np.stack([average(normals[:, i]) for i in range(3)], axis=1)
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    return SurfaceElements(
        np.stack([average(centres[:, i]) for i in range(3)], axis=1),
        np.asarray(direction / np.maximum(length, 1e-6), np.float32),
        total.astype(np.float32),
        average(mean),
        average(gaussian),
        facing[first],
        pore[first],
    )
