"""Labels of whole volumes by intensity thresholds, slab by slab."""

from collections.abc import Sequence

from tomoseg.arrays import Array, ArraySource, Outputs
from tomoseg.classes import default_colors, default_names
from tomoseg.runtime import Runtime, slabs
from tomoseg.schema import LABELS
from tomoseg.segmentation.cleaning import SmallObjects, say_removed
from tomoseg.segmentation.data.histogram import histogram, sampled_range
from tomoseg.segmentation.labelling import (
    LabelSummary,
    label_attrs,
    planes_per_slab,
    say_continuing,
    summarise,
    with_counts,
)
from tomoseg.segmentation.parameters import SegmentParameters
from tomoseg.segmentation.thresholds.rims import HALO_PX
from tomoseg.segmentation.thresholds.thresholding import find_thresholds, labelled_slab, smoothed_slab, smoothing_halo

SMOOTHING_BYTES = 8  # per voxel of a slab and its margins: f4 twice


def label_by_thresholds(
    volume: ArraySource, voxel_size_nm: float, params: SegmentParameters, runtime: Runtime, outputs: Outputs
) -> LabelSummary:
    """Label a volume by thresholds, in three passes over it: histogram, objects, labels.

    Writes 'labels' to `outputs`, with a checkpoint after each slab.
    """
    n_planes, ny, nx = volume.shape
    names = params.class_names or default_names(params.classes)
    colors = params.class_colors or default_colors(params.classes)
    margins = 2 * (smoothing_halo(params.smooth) + HALO_PX) * SMOOTHING_BYTES * ny * nx
    size = planes_per_slab(volume.shape, runtime.max_memory, margins)
    state = dict(outputs.resumed or {"slices": 0, "counts": [0] * params.classes})
    if outputs.resumed is None:
        state["thresholds"], state["levels"] = (
            thresholds_and_levels(volume, params.classes, params.smooth, size, runtime)
            if params.thresholds is None
            else (list(params.thresholds), [])
        )
    thresholds, levels, first = state["thresholds"], state["levels"], state["slices"]
    _warn_of_thresholds(names, thresholds, runtime, chosen=params.method == "otsu")
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
    return summarise(names, colors, state["counts"], info, runtime)


def thresholds_and_levels(
    volume: ArraySource, n_classes: int, sigma_px: float, planes: int, runtime: Runtime
) -> tuple[list[float], list[float]]:
    """Find the thresholds between classes and the levels of the classes, in the unit of the volume.

    Parameters
    ----------
    volume : (z, y, x)
    sigma_px : standard deviation of the Gaussian filter before thresholding
    planes : how many planes to read at a time
    """
    low, high = sampled_range(volume)
    parts = runtime.track(slabs(volume.shape[0], planes), "segment: histogram")
    found = find_thresholds(histogram((smoothed_slab(volume, part, sigma_px) for part in parts), low, high), n_classes)
    return [float(t) for t in found.thresholds], [float(level) for level in found.levels]


def _warn_of_thresholds(names: Sequence[str], thresholds: Sequence[float], runtime: Runtime, *, chosen: bool) -> None:
    """Warn that thresholds, and no network, made the labels; advise a network unless thresholds were `chosen`."""
    bounds = ", ".join(f"{name} above {t:.4g}" for name, t in zip(names[1:], thresholds, strict=True))
    advice = "" if chosen else " For reliable labels, train a network (tomoseg train) and name it with --model."
    runtime.warn(
        f"labels were made by intensity thresholds, not by a trained network: {bounds}. Thresholds ignore shape, so "
        f"streaks and bright rims may be labelled as {names[-1]}.{advice}"
    )
