"""Surfaces of labelled objects: where they lie, and their area.

A mask is smoothed and its level surface meshed by marching cubes. Two choices make the area accurate:

- The smoothing kernel is a Gaussian times a parabola with zero second moment. A plain Gaussian moves a surface of
  mean curvature H inwards by sigma^2 H (2% of the area of a sphere of radius 10 at sigma = 1, 9% at radius 5);
  without its second moment that term is gone (fourth-order kernel: Wand & Schucany, Can. J. Stat. 18, 1990).
- The level is not 0.5 but the one whose surface encloses as many voxels as were labelled, so that what is left of
  the shift cancels for objects of a few voxels too.

A surface against the border of the volume is no surface: the mask goes on unchanged beyond the border, and of the
outermost cells the half that lies inside the volume (the border is half a voxel beyond the last centres) is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array, BoolArray, Box

Float32Array = NDArray[np.float32]
FloatArray = NDArray[np.float64]
Sides = tuple[tuple[bool, bool], tuple[bool, bool], tuple[bool, bool]]

# Smallest width at which the staircase of a digital plane of any orientation adds less than 2% to its area.
SIGMA_PX = 1.4
RADIUS_PX = 5
# A class of nothing but specks would ask for a level near 0, a class of thin gaps for one near 1.
LEVEL_LIMITS = (0.3, 0.7)
BINS, BIN_RANGE = 600, (-0.25, 1.25)
NO_SIDES: Sides = ((False, False), (False, False), (False, False))


@dataclass(frozen=True)
class Mesh:
    """Triangles of a level surface.

    `vertices` (n, 3) are (z, y, x) in px from the centre of voxel (0, 0, 0) of the field; `faces` (m, 3) index them,
    counter-clockwise seen from outside in the right-handed frame (x, y, z); `weights` (m,) are the parts of the
    triangles that lie inside the volume.
    """

    vertices: Float32Array
    faces: NDArray[np.int32]
    weights: Float32Array

    def area_vectors(self) -> FloatArray:
        """Return the outward normals (m, 3) in (z, y, x) times the area inside the volume, px^2."""
        vertices = self.vertices.astype(np.float64)
        a = vertices[self.faces[:, 0]]
        (bz, by, bx), (cz, cy, cx) = (vertices[self.faces[:, i]].T - a.T for i in (1, 2))
        # The cross product of (z, y, x) triples is minus the one of (x, y, z). Spelled out: np.cross takes five times
        # as long for meshes of some hundred triangles.
        doubled = np.stack([by * cx - bx * cy, bx * cz - bz * cx, bz * cy - by * cz], axis=1)
        return np.asarray(-0.5 * doubled * self.weights[:, None])

    def area_px2(self) -> float:
        """Return the area inside the volume, px^2."""
        return float(np.linalg.norm(self.area_vectors(), axis=1).sum())

    @classmethod
    def none(cls) -> "Mesh":
        """Return a mesh without triangles."""
        return cls(np.empty((0, 3), np.float32), np.empty((0, 3), np.int32), np.empty(0, np.float32))


def kernel(sigma_px: float = SIGMA_PX, radius_px: int = RADIUS_PX) -> Float32Array:
    """Return the taps (2 radius + 1,) of the smoothing along one axis: sum 1, zero second moment."""
    x = np.arange(-radius_px, radius_px + 1, dtype=np.float64)
    gauss = np.exp(-(x**2) / (2 * sigma_px**2))
    moments = [float((gauss * x**n).sum()) for n in (0, 2, 4)]
    # (a + b x^2) gauss(x) with moments 1 and 0
    a, b = np.linalg.solve([[moments[0], moments[1]], [moments[1], moments[2]]], [1.0, 0.0])
    return np.asarray((a + b * x**2) * gauss, dtype=np.float32)


def smooth(mask: Array) -> Float32Array:
    """Smooth a mask (z, y, x), or a field of fractions, for meshing; beyond its ends it goes on as at its ends."""
    field = np.asarray(mask, dtype=np.float32)
    taps = kernel()
    for axis in range(3):
        field = ndimage.correlate1d(field, taps, axis=axis, mode="nearest")
    return field


def level_surface(field: Float32Array, level: float, border: Sides = NO_SIDES) -> Mesh:
    """Mesh the surface where a smoothed mask crosses `level`, by marching cubes (Lewiner et al., 2003).

    Inside, the `field` (z, y, x) is above `level`. `border`: per axis, whether the first and the last plane of `field`
    are at the border of the volume.
    """
    from skimage import measure

    marching_cubes: Any = measure.marching_cubes  # untyped

    padded = np.pad(field, [(int(low), int(high)) for low, high in border], mode="edge")
    if min(padded.shape) < 2 or not padded.min() < level < padded.max():
        return Mesh.none()
    vertices, faces, _, _ = marching_cubes(padded, level)
    vertices = (vertices - np.array([int(low) for low, _ in border])).astype(np.float32)
    weights = np.ones(len(faces), np.float32)
    for axis, (low, high) in enumerate(border):
        if low or high:
            centres = vertices[faces, axis].mean(axis=1)
            # Cells half outside the volume: the field does not change along `axis` there, so half the area is inside.
            weights[(low & (centres < 0)) | (high & (centres > field.shape[axis] - 1))] *= 0.5
    return Mesh(vertices, faces.astype(np.int32), weights)


def enclosed_px3(mesh: Mesh, shape: tuple[int, ...], border: Sides = NO_SIDES) -> float | None:
    """Return the volume inside a surface, px^3, by the divergence theorem; None where three axes are cut twice.

    Along an axis that the object leaves through one border at most, with the origin on that border, the open ends of
    the surface contribute nothing: V = sum of (r - r0) n dA, all along that axis.
    """
    for axis in range(3):
        low, high = border[axis]
        if low and high:
            continue
        origin = shape[axis] - 0.5 if high else -0.5
        centres = mesh.vertices[mesh.faces, axis].mean(axis=1, dtype=np.float64) - origin
        return float((centres * mesh.area_vectors()[:, axis]).sum())
    return None


def object_surface(mask: BoolArray, border: Sides = NO_SIDES, steps: int = 12) -> Mesh:
    """Return the surface of one object at the level where it encloses the object's number of voxels within 0.2%.

    `mask` has free voxels around the object, `RADIUS_PX` of them, on the sides that are not at the border of the
    volume. The level is found by the secant method, kept between levels known to be too low and too high.
    """
    field, n_voxels = smooth(mask), int(np.count_nonzero(mask))
    too_low, too_high = 0.0, float(field.max())
    level = 0.5 * min(1.0, too_high)
    mesh = level_surface(field, level, border)
    volume = enclosed_px3(mesh, mask.shape, border)
    if volume is None:
        return mesh
    # Across a plane the field falls by the kernel's middle tap per px.
    per_level = -max(mesh.area_px2(), 1.0) / float(kernel()[RADIUS_PX])
    for _ in range(steps):
        if abs(volume - n_voxels) < 2e-3 * n_voxels:
            break
        if volume > n_voxels:
            too_low = level
        else:
            too_high = level
        next_level = level + (n_voxels - volume) / per_level
        if not too_low < next_level < too_high:
            next_level = (too_low + too_high) / 2
        mesh = level_surface(field, next_level, border)
        next_volume = enclosed_px3(mesh, mask.shape, border) or 0.0
        if (next_volume - volume) * (next_level - level) < 0:
            per_level = (next_volume - volume) / (next_level - level)
        level, volume = next_level, next_volume
    return mesh


def level_of(histogram: NDArray[np.int64], n_voxels: int) -> float:
    """Return the level above which `n_voxels` of the values lie that `count_values` counted, within `LEVEL_LIMITS`.

    The values of a symmetric object leave gaps: of the levels that fit, the middle is taken.
    """
    above = np.cumsum(histogram[::-1])[::-1]  # values at or above the lower edge of each bin; falling
    edges = np.linspace(*BIN_RANGE, BINS + 1)[:-1]
    last = int(np.searchsorted(-above, -n_voxels, side="right")) - 1
    first = int(np.searchsorted(-above, -n_voxels, side="left"))
    level = (edges[np.clip(first, 0, BINS - 1)] + edges[np.clip(last, 0, BINS - 1)]) / 2
    return float(np.clip(level, *LEVEL_LIMITS))


def count_values(field: Float32Array) -> NDArray[np.int64]:
    """Return the histogram (`BINS`,) of a smoothed mask, to be added up over slabs for `level_of`."""
    scaled = ((field - BIN_RANGE[0]) * (BINS / (BIN_RANGE[1] - BIN_RANGE[0]))).astype(np.int16)
    return np.bincount(np.clip(scaled, 0, BINS - 1).ravel(), minlength=BINS)


@dataclass(frozen=True)
class Block:
    """A box of a volume to be meshed: what to `read`, and which of the voxels read are meant.

    `own` are the block's voxels, `meshed` those and the first planes of the next blocks, so that the meshes meet;
    `border` tells which sides of `meshed` are the border of the volume.
    """

    read: Box
    own: Box
    meshed: Box
    border: Sides


def block_of(box: Box, shape: Sequence[int]) -> Block:
    """Return the block of a box of a volume of `shape`, read with a halo around it for smoothing."""
    parts = []
    for s, n in zip(box, shape, strict=True):
        stop = min(s.stop + 1, n)
        read = slice(max(0, s.start - RADIUS_PX), min(n, stop + RADIUS_PX))
        own = slice(s.start - read.start, s.stop - read.start)
        parts.append((read, own, slice(own.start, stop - read.start), (s.start == 0, s.stop == n)))
    (rz, oz, mz, bz), (ry, oy, my, by), (rx, ox, mx, bx) = parts
    return Block((rz, ry, rx), (oz, oy, ox), (mz, my, mx), (bz, by, bx))


def block_mesh(mask: BoolArray, level: float, part: Block) -> Mesh:
    """Return the surface of a mask (z, y, x) at `part.read`, from this part's beginning to the next.

    Its vertices are in px from the first voxel of `part.meshed`. There is no surface at the border of the volume.
    """
    if not mask.any() or mask.all():
        return Mesh.none()
    return level_surface(smooth(mask)[part.meshed], level, part.border)


Counted = tuple[NDArray[np.int64], float]  # histogram of the smoothed values (BINS,), and the volume inside, px^3


def counted(inside: Array, part: Block) -> Counted:
    """Count the voxels `part.own` of a mask, or of the fractions of voxels, (z, y, x) at `part.read`."""
    own = inside[part.own]
    if inside.min() == inside.max() and inside.flat[0] in (0, 1):  # far from any surface
        return count_values(own.flat[:1].astype(np.float32)) * own.size, float(own.flat[0]) * own.size
    volume = float(np.ascontiguousarray(own).sum(dtype=np.float64))
    return count_values(smooth(inside)[part.own]), volume


class LevelFinder:
    """The level at which the surface of what passes by in blocks encloses its volume: `add` all, then `level`.

    See `level_of`; memory is that of a histogram.
    """

    def __init__(self) -> None:
        self._values: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self._volume = 0.0

    def add(self, inside: Array, part: Block) -> None:
        """Add the voxels `part.own` of a mask, or of the fractions of voxels, (z, y, x) at `part.read`."""
        self.take(counted(inside, part))

    def take(self, found: Counted) -> None:
        """Add what was `counted` in a block."""
        self._values += found[0]
        self._volume += found[1]

    def level(self) -> float:
        """Return the level."""
        return level_of(self._values, round(self._volume))
