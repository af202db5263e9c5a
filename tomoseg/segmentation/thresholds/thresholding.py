"""Classes by thresholds, for when there is no trained network."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array, ArraySource
from tomoseg.components import ComponentSizes
from tomoseg.errors import InputError, StageFailed
from tomoseg.segmentation.data.histogram import Histogram, Partition, partition
from tomoseg.segmentation.thresholds.rims import HALO_PX, resolve_rims


def smoothed_slab(volume: ArraySource, slab: slice, sigma_px: float) -> NDArray[np.float32]:
    """Return planes `slab` of the volume (z, y, x) after a Gaussian filter, as if the whole volume had been filtered.

    Parameters
    ----------
    sigma_px : standard deviation of the Gaussian in voxels; 0 for none
    """
    halo = int(4 * sigma_px + 0.5)  # scipy cuts the kernel off at four standard deviations
    first, stop = max(slab.start - halo, 0), min(slab.stop + halo, volume.shape[0])
    part = np.asarray(volume[first:stop], np.float32)
    if sigma_px > 0:
        part = ndimage.gaussian_filter(part, sigma_px, mode="nearest", truncate=4.0)
    return part[slab.start - first : slab.stop - first]


def find_thresholds(values: Histogram, n_classes: int) -> Partition:
    """Return the thresholds between `n_classes` classes of intensity; see `histogram.partition`.

    Raises
    ------
    StageFailed
        Where the histogram does not hold that many intensities.
    """
    found = partition(values, n_classes)
    if not (np.diff(found.thresholds) > 0).all() or found.sizes.min() == 0:
        raise StageFailed(
            f"the intensities of the volume do not separate into {n_classes} classes (thresholds "
            f"{', '.join(f'{t:.4g}' for t in found.thresholds)}). Ask for fewer classes (segment.classes), or give the "
            "thresholds (segment.thresholds)."
        )
    return found


def apply_thresholds(values: Array, thresholds: Sequence[float]) -> NDArray[np.uint8]:
    """Return the number of thresholds that each value exceeds, as u1."""
    labels = np.zeros(values.shape, np.uint8)
    for threshold in thresholds:
        labels += values > threshold
    return labels


def labelled_slab(
    volume: ArraySource, slab: slice, sigma_px: float, thresholds: Sequence[float], levels: Sequence[float] | None
) -> NDArray[np.uint8]:
    """Return the labels (z, y, x) u1 of planes `slab` of a volume, as if the whole volume had been labelled.

    With the `levels` of the classes, edges between classes that are not neighbours are put where they belong; see
    `tomoseg.segmentation.thresholds.rims`.
    """
    if not levels or len(levels) < 3:
        return apply_thresholds(smoothed_slab(volume, slab, sigma_px), thresholds)
    wide = slice(max(slab.start - HALO_PX, 0), min(slab.stop + HALO_PX, volume.shape[0]))
    values = smoothed_slab(volume, wide, sigma_px)
    labels = resolve_rims(apply_thresholds(values, thresholds), values, thresholds, levels)
    return labels[slab.start - wide.start : slab.stop - wide.start]


class SmallObjects:
    """Removal of small objects from labels whose classes are ordered by intensity.

    An object of class k is a connected region of voxels of class k or above; where it has fewer voxels than `min_size`
    (one number for all classes above 0, or one for each) it falls to class k - 1. So a bright speck in the support
    becomes support, and a speck in vacuum becomes vacuum. Holes stay: pores are real.

    Show all slabs in order with `add`, then get them back, in order too, with `clean`.
    """

    def __init__(self, n_classes: int, min_size: int | Sequence[int]) -> None:
        least = [min_size] * (n_classes - 1) if isinstance(min_size, int) else list(min_size)
        if len(least) != n_classes - 1:
            raise InputError(f"{len(least)} smallest sizes were given for the {n_classes - 1} classes above 0")
        self._sizes = [ComponentSizes(size) for size in least]

    def add(self, labels: Array) -> None:
        """Count the objects of the next slab (z, y, x)."""
        for k, sizes in enumerate(self._sizes, start=1):
            sizes.add(labels >= k)

    def clean(self, slab: int, labels: Array) -> NDArray[np.uint8]:
        """Return the labels of slab number `slab` without small objects."""
        cleaned = np.zeros(labels.shape, np.uint8)
        alive = np.ones(labels.shape, bool)
        for k, sizes in enumerate(self._sizes, start=1):
            alive &= sizes.large(slab, labels >= k)
            cleaned += alive
        return cleaned

    def removed(self) -> list[int]:
        """Return how many objects of each class from 1 on were too small."""
        return [sizes.removed() for sizes in self._sizes]
