"""The surface of the support, collected while the blocks of a labelled volume pass by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, ArraySource
from tomoseg.measurement.common.surface import Block, Counted, LevelFinder, Mesh, block_mesh, counted
from tomoseg.measurement.pores.pore_space import PoreSpace
from tomoseg.measurement.support.surface_elements import SurfaceElements, block_elements, box_around

BACKGROUND, SUPPORT, PARTICLES = 0, 1, 2  # kinds of classes


@dataclass(frozen=True)
class SupportClasses:
    """The classes that are support: all but the background and the class counted as particles.

    Attributes
    ----------
    indices, names : of these classes
    kind_of_class : (256,) u1, `BACKGROUND`, `SUPPORT` or `PARTICLES`
    """

    indices: tuple[int, ...]
    names: tuple[str, ...]
    kind_of_class: NDArray[np.uint8]

    @classmethod
    def of(cls, names: Sequence[str], particle_class: int | None) -> "SupportClasses":
        """Choose them from the names of all classes, given the class counted (None where none is)."""
        indices = tuple(k for k in range(1, len(names)) if k != particle_class)
        kinds = np.full(256, BACKGROUND, np.uint8)
        kinds[list(indices)] = SUPPORT
        if particle_class is not None:
            kinds[particle_class] = PARTICLES
        return cls(indices, tuple(names[k] for k in indices), kinds)


class SupportSurface:
    """Collects the elements of the support's surface; a `BlockVisitor`."""

    def __init__(self, classes: SupportClasses, space: PoreSpace) -> None:
        self._classes, self._space = classes, space
        self._finder = LevelFinder() if len(classes.indices) > 1 else None
        self._parts: list[SurfaceElements] = []

    def count(self, labels: Array, block: Block) -> Counted | None:
        """Count what leads to the level of the surface, where the support is of several classes."""
        return None if self._finder is None else counted(self._is_support(labels), block)

    def take_counted(self, found: Counted | None) -> None:
        """Add what was counted in a block."""
        if self._finder is not None and found is not None:
            self._finder.take(found)

    def mesh(self, block: Block, labels: Array, meshes: Sequence[Mesh], volume: ArraySource) -> SurfaceElements | None:
        """Return the elements of the surface of the support's class, or of that of several classes together."""
        if self._finder is None:
            mesh = meshes[self._classes.indices[0]]
        else:
            mesh = block_mesh(self._is_support(labels), self._finder.level(), block)
        if not len(mesh.faces):
            return None
        z, y, x = volume.shape
        box = box_around(block, (z, y, x))
        kinds = self._classes.kind_of_class[volume[box]]
        return block_elements(mesh, block, box, kinds, self._space.numbers_at, self._space.side)

    def take_meshed(self, found: SurfaceElements | None) -> None:
        """Add the elements of a block."""
        self._parts += [] if found is None else [found]

    def elements(self) -> SurfaceElements:
        """Return all elements; this ends the collecting."""
        parts, self._parts = self._parts, []
        parts.reverse()
        return SurfaceElements.joined(parts.pop() for _ in range(len(parts)))  # none is held any longer than needed

    def _is_support(self, labels: Array) -> Array:
        return np.asarray(self._classes.kind_of_class[labels] == SUPPORT)
