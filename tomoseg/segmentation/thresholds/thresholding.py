"""Thresholds between classes of intensity, and labels by them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array, ArraySource
from tomoseg.errors import StageFailed
from tomoseg.segmentation.data.histogram import Histogram, Partition, partition
from tomoseg.segmentation.thresholds.rims import HALO_PX, resolve_rims


def smoothed_slab(volume: ArraySource, slab: slice, sigma_px: float) -> NDArray[np.float32]:
    """Smooth planes `slab` of a volume (z, y, x) with a Gaussian filter, as if the whole volume had been filtered.

    Parameters
    ----------
    sigma_px : standard deviation of the Gaussian in voxels; 0 for none
    """
    halo = smoothing_halo(sigma_px)
    first, stop = max(slab.start - halo, 0), min(slab.stop + halo, volume.shape[0])
    part = np.asarray(volume[first:stop], np.float32)
    if sigma_px > 0:
        part = ndimage.gaussian_filter(part, sigma_px, mode="nearest", truncate=4.0)
    return part[slab.start - first : slab.stop - first]


def smoothing_halo(sigma_px: float) -> int:
    """Return how many voxels on either side enter a smoothed voxel."""
    return int(4 * sigma_px + 0.5)  # scipy cuts the kernel off at four standard deviations


def find_thresholds(values: Histogram, n_classes: int) -> Partition:
    """Find the thresholds between `n_classes` classes of intensity; see `histogram.partition`.

    Raises `StageFailed`: the histogram does not hold that many distinct intensities.
    """
    found = partition(values, n_classes)
    if not (np.diff(found.thresholds) > 0).all() or found.sizes.min() == 0:
        raise StageFailed(
            f"the intensities of the volume do not separate into {n_classes} classes (thresholds "
            f"{', '.join(f'{t:.4g}' for t in found.thresholds)}). Ask for fewer classes (segment.classes), or set the "
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
    """Label planes `slab` of a volume (z, y, x), as if the whole volume had been labelled; returns u1.

    With the `levels` of the classes, edges between classes that are not neighbours in intensity are moved half-way
    between their levels; see `tomoseg.segmentation.thresholds.rims`.
    """
    if not levels or len(levels) < 3:
        return apply_thresholds(smoothed_slab(volume, slab, sigma_px), thresholds)
    wide = slice(max(slab.start - HALO_PX, 0), min(slab.stop + HALO_PX, volume.shape[0]))
    values = smoothed_slab(volume, wide, sigma_px)
    labels = resolve_rims(apply_thresholds(values, thresholds), values, thresholds, levels)
    return labels[slab.start - wide.start : slab.stop - wide.start]
