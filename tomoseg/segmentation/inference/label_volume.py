"""Labels and confidence of whole volumes by a trained network, slab by slab."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tomoseg.arrays import ArraySource, Outputs
from tomoseg.errors import InputError
from tomoseg.runtime import Runtime
from tomoseg.schema import CONFIDENCE, LABELS
from tomoseg.segmentation.data.histogram import sampled_histogram
from tomoseg.segmentation.data.intensity_scaling import Intensities, Scale
from tomoseg.segmentation.inference.network import Facts, Network, facts_of
from tomoseg.segmentation.inference.volume_planes import n_slices
from tomoseg.segmentation.inference.volume_prediction import predict_volume
from tomoseg.segmentation.labelling import (
    LabelSummary,
    label_attrs,
    remove_small_objects,
    say_continuing,
    say_removed,
    summarise,
    with_counts,
)
from tomoseg.segmentation.networks.card import MIDDLE, ModelCard
from tomoseg.segmentation.parameters import SegmentParameters


def label_with_network(
    volume: ArraySource, voxel_size_nm: float, params: SegmentParameters, runtime: Runtime, outputs: Outputs
) -> LabelSummary:
    """Label a volume slice by slice with a network; probabilities exist for one slab of slices at a time.

    Writes 'labels' and 'confidence' to `outputs`, with a checkpoint after each slab.
    """
    path = Path(params.model or "")
    network = Network(path, params, volume.shape, voxel_size_nm)
    (known,) = runtime.each(facts_of, network, [("the network", None)])
    card = known.card
    names, colors = _names_and_colors(card, params.class_names, params.class_colors, runtime)
    runtime.device_used = known.device
    runtime.say(f"the network runs with {known.engine} on the {known.device}")
    own_levels = params.intensity == "volume" or not card.trained_here
    state = _state(volume, known, outputs.resumed, runtime, own_levels=own_levels)
    scale = Scale(**state["scale"])
    if scale.of_each:
        runtime.say("each slice has an intensity scale of its own, from its median and spread, as in the training")
    else:
        runtime.say(f"intensity scale of the network: 0 is {scale.zero:.4g}, 1 is {scale.one:.4g}")

    labels = outputs.create(LABELS.name, volume.shape, attrs=label_attrs(names, colors, voxel_size_nm))
    confidence = outputs.create(CONFIDENCE.name, volume.shape)
    first, n = state["slices"], n_slices(volume.shape, params.plane)
    say_continuing(first, n, runtime)
    if first < n:
        with closing(predict_volume(volume, network, known, scale, first, runtime)) as labelled:
            for slab in labelled:
                slab.write(labels, confidence)
                state["counts"] = with_counts(state["counts"], slab.labels)
                if params.plane != "all":  # which cannot be continued: its sums are gone with the process
                    state["slices"] = slab.part.stop
                    outputs.checkpoint(state)
    state["slices"] = n
    min_sizes = params.min_sizes(len(names))
    if max(min_sizes) > 1:
        remove_small_objects(labels, min_sizes, state, outputs.checkpoint, runtime)
        say_removed(state["removed"], names, min_sizes, runtime)
    info = {
        "method": "unet",
        "model": path.name,
        "model_sha256": known.digest,
        "model_made_by": card.made_by,
        "engine": known.engine,
        "plane": params.plane,
        "patch_px": list(known.patch),
        "overlap": params.overlap,
        "tta": params.tta,
        "zoom": known.zoom,
        **({} if scale.of_each else {"intensity_zero": scale.zero, "intensity_one": scale.one}),
        **({} if card.threshold == MIDDLE else {"threshold": card.threshold}),
        "min_size_voxels": min_sizes,
    }
    return summarise(names, colors, state["counts"], info, runtime)


def _names_and_colors(
    card: ModelCard, names: list[str] | None, colors: list[str] | None, runtime: Runtime
) -> tuple[list[str], list[str]]:
    """Return names and colours of the classes: those given, else the network's."""
    names, colors, n = names or card.class_names, colors or card.class_colors, len(card.class_names)
    if len(names) != n or len(colors) != n:
        raise InputError(
            f"the network has {n} classes, but segment.class_names and segment.class_colors give {len(names)} and "
            f"{len(colors)}"
        )
    if not card.trained_here:
        runtime.warn(
            "the network was not trained by tomoseg, and its file does not describe its classes or intensities: "
            f"classes are taken as {', '.join(names)}, and intensities as 0 .. 1 between the 0.1 and 99.9 percentiles "
            "of the volume"
        )
    return names, colors


def _state(
    volume: ArraySource,
    known: Facts,
    resumed: Mapping[str, Any] | None,
    runtime: Runtime,
    *,
    own_levels: bool,
) -> dict[str, Any]:
    """Return the state of an interrupted run to continue, or a new one.

    A run that another engine or device began starts again: these give slightly different numbers, and one volume is to
    be labelled by one of them. With `own_levels` the intensity scale is this volume's, not that of the training slices.
    """
    card, computed_by = known.card, {"engine": known.engine, "device": known.device}
    if resumed is not None and all(resumed.get(key) == value for key, value in computed_by.items()):
        for warning in resumed["warnings"]:
            runtime.warn(warning)
        return dict(resumed)
    values = sampled_histogram(volume)
    scale = card.scaling.for_data(volume.dtype, values) if own_levels else card.scaling.trained
    warnings: list[str] = []
    comparable = card.trained_here and not scale.of_each
    unlike = Intensities.of(values, scale).unlike(card.scaling.intensities) if comparable else []
    if unlike:
        differs = "the volume differs from the slices the network was trained on, so check the labels"
        warnings.append(f"{differs}: {'; '.join(unlike)}")
        runtime.warn(warnings[0])
    counts = [0] * len(card.class_names)
    return {**computed_by, "scale": asdict(scale), "warnings": warnings, "slices": 0, "counts": counts}
