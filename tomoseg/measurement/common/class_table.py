"""Classes of a labelled volume: voxels, volume and surface area of each, block by block."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tomoseg.ahead import ahead
from tomoseg.arrays import Array, ArraySource
from tomoseg.errors import InputError
from tomoseg.measurement.common.blocks import strips, threads_for_blocks
from tomoseg.measurement.common.columns import fill_nm
from tomoseg.measurement.common.surface import Block, Counted, FloatArray, LevelFinder, Mesh, block_mesh, counted
from tomoseg.runtime import Runtime


class BlockVisitor(Protocol):
    """Measures something else while the blocks of a volume pass by: once to count voxels, once to mesh surfaces.

    Blocks are looked at in threads, and what they tell is taken by one.
    """

    def count(self, labels: Array, block: Block) -> Any:
        """Return what the labels (z, y, x) at `block.read` tell, for `take_counted`; several blocks at once."""

    def take_counted(self, found: Any) -> None:
        """Add what was found in a block; blocks come in order."""

    def mesh(self, block: Block, labels: Array, meshes: Sequence[Mesh], volume: ArraySource) -> Any:
        """Return what the surface of each class in a block tells, for `take_meshed`; several blocks at once.

        `labels` are those at `block.read`, `volume` all.
        """

    def take_meshed(self, found: Any) -> None:
        """Add what was found in a block; blocks come in order."""


def measure_classes(
    labels: ArraySource,
    names: Sequence[str],
    voxel_size_nm: float,
    strip_bytes: float,
    runtime: Runtime,
    visitor: BlockVisitor | None = None,
) -> NDArray[np.void]:
    """Count the voxels of each class and mesh its surface; return the table of classes.

    The labels are (z, y, x) u1; some `strip_bytes` are read at a time. `visitor` is shown every block in both passes.
    """
    pieces = strips(labels.shape, strip_bytes, labels.dtype.itemsize)
    counter = ClassCounter(len(names))

    def parts(what: str) -> Iterator[tuple[Block, Array]]:
        for strip in runtime.track(pieces, what):
            values = labels[strip.read]
            if values.max() >= len(names):
                raise InputError(
                    f"the labels hold class {values.max()}, but only {len(names)} classes have names; segment again."
                )
            for part in strip.parts(values):
                runtime.check()
                yield part

    def count(part: tuple[Block, Array]) -> tuple[Counts, Any]:
        block, here = part
        return counter.counted(here, block), None if visitor is None else visitor.count(here, block)

    def mesh(part: tuple[Block, Array]) -> tuple[list[float], Any]:
        block, here = part
        meshes = [block_mesh(here == k, level, block) for k, level in enumerate(levels)]
        found = None if visitor is None else visitor.mesh(block, here, meshes, labels)
        return [one.area_px2() for one in meshes], found

    threads = threads_for_blocks(runtime)
    with closing(ahead(count, parts("counting voxels"), threads)) as counting:
        for counts, others in counting:
            counter.take(counts)
            if visitor is not None:
                visitor.take_counted(others)
    levels = counter.levels()
    area = np.zeros(len(names))
    with closing(ahead(mesh, parts("meshing surfaces"), threads)) as meshing:
        for areas, others in meshing:
            area += areas
            if visitor is not None:
                visitor.take_meshed(others)
    return class_table(names, counter.voxels, area, voxel_size_nm)


Counts = tuple[NDArray[np.int64], list[Counted]]  # voxels of each class, and what leads to its level


class ClassCounter:
    """Counts the voxels of each class in blocks, and finds the level at which its surface encloses as many."""

    def __init__(self, n_classes: int) -> None:
        self.voxels: NDArray[np.int64] = np.zeros(n_classes, np.int64)
        self._finders = [LevelFinder() for _ in range(n_classes)]

    def counted(self, labels: Array, part: Block) -> Counts:
        """Return what the voxels `part.own` of the labels (z, y, x) at `part.read` tell, for `take`.

        All labels are below the number of classes. Several threads may do so.
        """
        voxels = np.bincount(labels[part.own].ravel(), minlength=len(self.voxels))
        return voxels, [counted(labels == k, part) for k in range(len(self._finders))]

    def take(self, found: Counts) -> None:
        """Add what was `counted` in a block."""
        self.voxels += found[0]
        for finder, one in zip(self._finders, found[1], strict=True):
            finder.take(one)

    def levels(self) -> FloatArray:
        """Return the level of each class, for `block_mesh`."""
        return np.array([finder.level() for finder in self._finders])


def class_table(
    names: Sequence[str], voxels: NDArray[np.int64], area_px2: FloatArray, voxel_size_nm: float
) -> NDArray[np.void]:
    """Return one row per class: index, name, voxels, volume, fraction of the whole volume, surface area.

    Columns in nm are NaN where the voxel size is.
    """
    width = max([len(name) for name in names], default=1)
    columns = [("class_index", "i4"), ("name", f"U{max(width, 1)}"), ("voxels", "i8"), ("volume_nm3", "f8")]
    columns += [("volume_fraction", "f8"), ("surface_area_nm2", "f8"), ("surface_area_px2", "f8")]
    table = np.zeros(len(names), np.dtype(columns))
    table["class_index"] = np.arange(len(names))
    table["name"] = list(names)
    table["voxels"] = voxels
    table["volume_nm3"] = voxels * voxel_size_nm**3  # px^3 * (nm / px)^3
    table["volume_fraction"] = voxels / max(int(voxels.sum()), 1)
    table["surface_area_px2"] = area_px2
    fill_nm(table, voxel_size_nm)
    return table
