"""What is measured of each class of a labelled volume, slab by slab."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.measure.surface import BINS, Block, FloatArray, Slab, count_values, level_of, level_surface, smooth


class ClassCounter:
    """First pass over slabs or blocks: voxels of each class, and the level at which its surface encloses as many."""

    def __init__(self, n_classes: int) -> None:
        self.voxels: NDArray[np.int64] = np.zeros(n_classes, np.int64)
        self._values: NDArray[np.int64] = np.zeros((n_classes, BINS), np.int64)

    def add(self, labels: Array, slab: Slab | Block) -> None:
        """Count the voxels `slab.own` of the labels (z, y, x) at `slab.read`; all are below the number of classes."""
        own, n_classes = labels[slab.own], len(self.voxels)
        self.voxels += np.bincount(own.ravel(), minlength=n_classes)
        for k, here in enumerate(np.bincount(labels.ravel(), minlength=n_classes)):
            if here in (0, labels.size):  # far from any surface of this class
                self._values[k] += count_values(np.array([here > 0], np.float32)) * own.size
            else:
                self._values[k] += count_values(smooth(labels == k)[slab.own])

    def levels(self) -> FloatArray:
        """Return the level of each class, for `class_area_px2`."""
        pairs = zip(self._values, self.voxels, strict=True)
        return np.array([level_of(values, int(n)) for values, n in pairs])


def class_area_px2(labels: Array, k: int, level: float, slab: Slab | Block) -> float:
    """Return the area, px^2, of the surface of class `k` from this slab's first plane to the next one's.

    `labels` (z, y, x) are those at `slab.read`. There is no surface at the border of the volume.
    """
    mask = labels == k
    if not mask.any() or mask.all():
        return 0.0
    return level_surface(smooth(mask)[slab.meshed], level, slab.border).area_px2()


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
