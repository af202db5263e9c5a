"""Bodies of known surface, as masks, and what the program finds of their surface."""

import numpy as np

from tomoseg.measurement.common.blocks import strips
from tomoseg.measurement.common.class_table import block_mesh
from tomoseg.measurement.common.surface import LevelFinder
from tomoseg.measurement.support.surface_elements import Elements, block_elements, grown


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


def surface_elements(kinds, pores=None):
    """Return the elements of the surface of class 1, block by block as the stage does it."""
    pieces, finder = strips(kinds.shape, 1e9), LevelFinder()
    numbers = np.zeros(kinds.shape, np.int32) if pores is None else pores
    blocks = [block for strip in pieces for block in strip.blocks]
    for block in blocks:
        finder.add(kinds[block.read] == 1, block)
    level, parts = finder.level(), []
    for block in blocks:
        mesh = block_mesh(kinds[block.read] == 1, level, block)
        box = grown(block, kinds.shape)
        parts.append(block_elements(mesh, block, box, kinds[box], numbers, 1, 2))
    return Elements.joined(parts)
