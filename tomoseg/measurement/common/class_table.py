"""Classes of a labelled volume: voxels, volume and surface area of each, block by block."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, ArraySource
from tomoseg.errors import InputError
from tomoseg.measurement.common.blocks import strips
from tomoseg.measurement.common.columns import fill_nm
from tomoseg.measurement.common.surface import Block, FloatArray, LevelFinder, Mesh, block_mesh
from tomoseg.runtime import Runtime


class BlockVisitor(Protocol):
    """Measures something else while the blocks of a volume pass by: once to count voxels, once to mesh surfaces."""

    def count(self, labels: Array, block: Block) -> None:
        """Add the labels (z, y, x) at `block.read`."""

    def mesh(self, labels: Array, block: Block, meshes: Sequence[Mesh], volume: ArraySource) -> None:
        """Add the surface of each class in a block, given the labels at `block.read` and those of the volume."""


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
    for strip in runtime.track(pieces, "counting voxels"):
        values = labels[strip.read]
        if values.max() >= len(names):
            raise InputError(
                f"the labels hold class {values.max()}, but only {len(names)} classes have names; segment again."
            )
        for block, here in strip.parts(values):
            counter.add(here, block)
            if visitor is not None:
                visitor.count(here, block)
    levels = counter.levels()
    area = np.zeros(len(names))
    for strip in runtime.track(pieces, "meshing surfaces"):
        for block, here in strip.parts(labels[strip.read]):
            runtime.check()
            meshes = [block_mesh(here == k, level, block) for k, level in enumerate(levels)]
            area += [mesh.area_px2() for mesh in meshes]
            if visitor is not None:
                visitor.mesh(here, block, meshes, labels)
    return class_table(names, counter.voxels, area, voxel_size_nm)


class ClassCounter:
    """Counts the voxels of each class in blocks, and finds the level at which its surface encloses as many."""

    def __init__(self, n_classes: int) -> None:
        self.voxels: NDArray[np.int64] = np.zeros(n_classes, np.int64)
        self._finders = [LevelFinder() for _ in range(n_classes)]

    def add(self, labels: Array, part: Block) -> None:
        """Count the voxels `part.own` of the labels (z, y, x) at `part.read`; all are below the number of classes."""
        self.voxels += np.bincount(labels[part.own].ravel(), minlength=len(self.voxels))
        for k, finder in enumerate(self._finders):
            finder.add(labels == k, part)

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
