"""What is measured of each class of a labelled volume, slab by slab."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.measurement.common.surface import (
    Block,
    BoolArray,
    FloatArray,
    LevelFinder,
    Mesh,
    Slab,
    level_surface,
    smooth,
)


class ClassCounter:
    """First pass over slabs or blocks: voxels of each class, and the level at which its surface encloses as many."""

    def __init__(self, n_classes: int) -> None:
        self.voxels: NDArray[np.int64] = np.zeros(n_classes, np.int64)
        self._finders = [LevelFinder() for _ in range(n_classes)]

    def add(self, labels: Array, part: Slab | Block) -> None:
        """Count the voxels `part.own` of the labels (z, y, x) at `part.read`; all are below the number of classes."""
        self.voxels += np.bincount(labels[part.own].ravel(), minlength=len(self.voxels))
        for k, finder in enumerate(self._finders):
            finder.add(labels == k, part)

    def levels(self) -> FloatArray:
        """Return the level of each class, for `area_px2`."""
        return np.array([finder.level() for finder in self._finders])


def block_mesh(mask: BoolArray, level: float, part: Slab | Block) -> Mesh:
    """Return the surface of a mask (z, y, x) at `part.read`, from this part's beginning to the next.

    Its vertices are in px from the first voxel of `part.meshed`. There is no surface at the border of the volume.
    """
    if not mask.any() or mask.all():
        return Mesh(np.empty((0, 3), np.float32), np.empty((0, 3), np.int32), np.empty(0, np.float32))
    return level_surface(smooth(mask)[part.meshed], level, part.border)


def area_px2(mask: BoolArray, level: float, part: Slab | Block) -> float:
    """Return the area, px^2, of the surface that `block_mesh` returns."""
    return block_mesh(mask, level, part).area_px2()


def class_table(
    names: Sequence[str], voxels: NDArray[np.int64], area_px2: FloatArray, voxel_size_nm: float
) -> NDArray[np.void]:
    """Return one row per class: index, name, voxels, volume, part of the whole volume, surface area.

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
    table["surface_area_nm2"] = area_px2 * voxel_size_nm**2
    table["surface_area_px2"] = area_px2
    return table
