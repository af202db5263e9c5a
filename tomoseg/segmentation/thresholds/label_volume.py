"""Labels of whole volumes by intensity thresholds, slab by slab."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array, ArraySource, Outputs
from tomoseg.classes import default_colors, default_names
from tomoseg.errors import StageFailed
from tomoseg.runtime import Runtime, slabs
from tomoseg.schema import LABELS
from tomoseg.segmentation.data.histogram import Histogram, histogram, partition, sampled_range
from tomoseg.segmentation.labelling import (
    LabelSummary,
    SmallObjects,
    label_attrs,
    planes_per_slab,
    say_continuing,
    say_removed,
    summarise,
    with_counts,
)
from tomoseg.segmentation.parameters import SegmentParameters
from tomoseg.segmentation.thresholds.rims import HALO_PX, resolve_rims

SMOOTHING_BYTES = 8  # per voxel of a slab and its margins: f4 twice


def label_by_thresholds(
    volume: ArraySource,
    voxel_size_nm: float,
    params: SegmentParameters,
    runtime: Runtime,
    outputs: Outputs,
    no_network: str = "",
) -> LabelSummary:
    """Label a volume by thresholds, in three passes over it: histogram, objects, labels.

    Writes 'labels' to `outputs`, with a checkpoint after each slab. `no_network` says why no network labels it.
    """
    n_planes, ny, nx = volume.shape
    names = params.class_names or default_names(params.classes)
    colors = params.class_colors or default_colors(params.classes)
    margins = 2 * (smoothing_halo(params.smooth) + HALO_PX) * SMOOTHING_BYTES * ny * nx
    size = planes_per_slab(volume.shape, runtime.max_memory, margins)
    state = dict(outputs.resumed or {"slices": 0, "counts": [0] * params.classes, "no_network": no_network})
    no_network = state.get("no_network", "")
    if outputs.resumed is None and params.thresholds is not None:
        state |= {"thresholds": list(params.thresholds), "levels": []}
    elif outputs.resumed is None:
        low, high = sampled_range(volume)
        read = runtime.track(slabs(n_planes, size), "segment: histogram")
        smoothed = (smoothed_slab(volume, part, params.smooth) for part in read)
        state["thresholds"], state["levels"] = find_thresholds(histogram(smoothed, low, high), params.classes)
    thresholds, levels, first = state["thresholds"], state["levels"], state["slices"]
    bounds = ", ".join(f"{name} above {t:.4g}" for name, t in zip(names[1:], thresholds, strict=True))
    advice = " For reliable labels, train a network (tomoseg train) and name it with --model."
    why = f", since {no_network}" if no_network else ""
    runtime.warn(
        f"labels were made by intensity thresholds, not by a trained network{why}: {bounds}. Thresholds ignore shape, "
        f"so streaks and bright rims may be labelled as {names[-1]}.{'' if params.method == 'otsu' else advice}"
    )
    sink = outputs.create(LABELS.name, volume.shape, attrs=label_attrs(names, colors, voxel_size_nm))
    if outputs.resumed is None:
        outputs.checkpoint(state)

    edges = levels if params.resolve_rims else None

    def labels_of(part: slice) -> Array:
        return labelled_slab(volume, part, params.smooth, thresholds, edges)

    min_sizes = params.min_sizes(params.classes)
    small, cleans = SmallObjects(params.classes, min_sizes), max(min_sizes) > 1
    finished, parts = slabs(first, size), slabs(n_planes, size, first)
    if cleans:
        for part in runtime.track(finished + parts, "segment: find objects"):
            small.add(labels_of(part))
    say_continuing(first, n_planes, runtime)
    for i, part in runtime.track(list(enumerate(parts, start=len(finished))), "segment: write labels"):
        labels = labels_of(part)
        if cleans:
            labels = small.clean(i, labels)
        sink[part] = labels
        state |= {"counts": with_counts(state["counts"], labels), "slices": part.stop}
        outputs.checkpoint(state)
    if cleans:
        say_removed(small.removed(), names, min_sizes, runtime)
    info = {"method": "otsu", "thresholds": thresholds, "min_size_voxels": min_sizes, "smooth_px": params.smooth}
    if levels:
        info["class_levels"] = levels
    if no_network:
        info["no_network"] = no_network
    return summarise(names, colors, state["counts"], info, runtime)


def find_thresholds(values: Histogram, n_classes: int) -> tuple[list[float], list[float]]:
    """Return the thresholds between `n_classes` classes of intensity, and the levels of these; see `partition`.

    Raises `StageFailed`: the histogram does not hold that many distinct intensities.
    """
    found = partition(values, n_classes)
    if not (np.diff(found.thresholds) > 0).all() or found.sizes.min() == 0:
        raise StageFailed(
            f"the intensities of the volume do not separate into {n_classes} classes (thresholds "
            f"{', '.join(f'{t:.4g}' for t in found.thresholds)}). Ask for fewer classes (segment.classes), or set the "
            "thresholds (segment.thresholds)."
        )
    return found.thresholds.tolist(), found.levels.tolist()


def smoothed_slab(volume: ArraySource, slab: slice, sigma_px: float) -> NDArray[np.float32]:
    """Smooth planes `slab` of a volume (z, y, x) with a Gaussian filter, as if the whole volume had been filtered."""
    halo = smoothing_halo(sigma_px)
    first, stop = max(slab.start - halo, 0), min(slab.stop + halo, volume.shape[0])
    part = np.asarray(volume[first:stop], np.float32)
    if sigma_px > 0:
        part = ndimage.gaussian_filter(part, sigma_px, mode="nearest", truncate=4.0)
    return part[slab.start - first : slab.stop - first]


def smoothing_halo(sigma_px: float) -> int:
    """Return how many voxels on either side enter a smoothed voxel."""
    return int(4 * sigma_px + 0.5)  # scipy cuts the kernel off at four standard deviations


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
