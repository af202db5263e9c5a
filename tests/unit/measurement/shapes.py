"""Labels and bodies of known surface, and what the program finds of them."""

import numpy as np

from tomoseg.measurement.common.blocks import strips
from tomoseg.measurement.common.sparse_object import SparseObject
from tomoseg.measurement.common.surface import LevelFinder, block_mesh
from tomoseg.measurement.particles.separation import separate_by_distance
from tomoseg.measurement.support.surface_elements import SurfaceElements, block_elements, box_around

SHAPE = (48, 60, 72)
# Centre (z, y, x) and radius, px, of particles that do not touch; the last one is cut by the border.
SPHERES = [
    ((12.2, 14.0, 15.3), 6.0),
    ((30.0, 40.4, 20.0), 4.5),
    ((24.0, 20.0, 50.0), 8.0),
    ((37.3, 46.1, 50.0), 5.2),
    ((12.0, 45.2, 44.7), 5.6),
    ((24.0, 40.0, 71.0), 6.0),
]


def labelled():
    """Return labels: a plate of support, spheres, and one speck."""
    z, y, x = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    labels[20:28] = 1
    for (cz, cy, cx), radius in SPHERES:
        labels[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = 2
    labels[40:42, 5:7, 60:62] = 2
    return labels


def crowded():
    """Return labels of more than a block along each axis: balls, many of which touch, plates and specks."""
    rng = np.random.default_rng(6)
    z, y, x = np.indices((80, 130, 140), np.float32)
    labels = np.zeros(z.shape, np.uint8)
    labels[:, :, 60:75] = 1
    for cz, cy, cx, r in zip(*(rng.uniform(0, n, 60) for n in z.shape), rng.uniform(3, 9, 60), strict=True):
        box = tuple(slice(max(0, int(c - r)), int(c + r) + 2) for c in (cz, cy, cx))
        labels[box][(z[box] - cz) ** 2 + (y[box] - cy) ** 2 + (x[box] - cx) ** 2 <= r * r] = 2
    labels[20:40, 5:125, 5:135] = 2
    labels[rng.random(z.shape) < 1e-3] = 2
    return labels


def grid(n):
    """Return coordinates (3, n, n, n) from the centre of a cube."""
    return np.indices((n, n, n)).astype(float) - (n - 1) / 2


def polyhedron(n, matrix, *, cube=None, octahedron=None, dodecahedron=None):
    """Return the common part of a cube {100}, an octahedron {111} and a rhombic dodecahedron {110}, turned.

    The sizes bound max |q_i|, sum |q_i| and max |q_i| + |q_j| of crystal coordinates q.
    """
    q = np.abs(np.tensordot(matrix.T, grid(n), 1))
    mask = np.ones((n, n, n), bool)
    if cube is not None:
        mask &= q.max(axis=0) <= cube
    if octahedron is not None:
        mask &= q.sum(axis=0) <= octahedron
    if dodecahedron is not None:
        mask &= q.sum(axis=0) - q.min(axis=0) <= dodecahedron
    return mask


def separate(mask, neck_ratio=0.7):
    """Return the parts (z, y, x), 1..n, of one object; a side without a free voxel is the border of the volume."""
    parts = np.zeros(mask.shape, np.int32)
    parts[mask] = separate_by_distance(SparseObject.of([mask], tuple(slice(0, n) for n in mask.shape)), neck_ratio)
    return parts


def surface_elements(kinds, pores=None):
    """Return the elements of the surface of class 1, block by block as the stage does it."""
    pieces, finder = strips(kinds.shape, 1e9), LevelFinder()
    numbers = np.zeros(kinds.shape, np.int32) if pores is None else pores
    blocks = [block for strip in pieces for block in strip.blocks]

    def numbers_at(cells):
        return numbers[tuple(np.clip(cells, 0, np.array(kinds.shape) - 1).T)]

    for block in blocks:
        finder.add(kinds[block.read] == 1, block)
    level, parts = finder.level(), []
    for block in blocks:
        mesh = block_mesh(kinds[block.read] == 1, level, block)
        box = box_around(block, kinds.shape)
        parts.append(block_elements(mesh, block, box, kinds[box], numbers_at, 1))
    return SurfaceElements.joined(parts)
