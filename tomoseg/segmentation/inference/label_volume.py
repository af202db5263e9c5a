"""Labels and confidence of whole volumes by a trained network, slab by slab."""

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tomoseg.arrays import ArraySource, Outputs
from tomoseg.errors import InputError
from tomoseg.io.digest import sha256
from tomoseg.runtime import Runtime
from tomoseg.schema import CONFIDENCE, LABELS
from tomoseg.segmentation.data.histogram import sampled_histogram
from tomoseg.segmentation.data.intensity_scaling import Intensities, Scale
from tomoseg.segmentation.inference.engines import Engine, engine_for
from tomoseg.segmentation.inference.slice_prediction import WHOLE_SLICE, SlicePredictor, fitted
from tomoseg.segmentation.inference.test_time_augmentation import N_COPIES, augmented
from tomoseg.segmentation.inference.volume_prediction import (
    batch_shapes,
    n_slices,
    plane_shape,
    planes_of,
    predict_volume,
)
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

SAME_PIXEL_SIZE = 1.05  # slices of a pixel size as close to the network's as this are not resampled
ODD_PIXEL_SIZE, IMPOSSIBLE_PIXEL_SIZE = 4.0, 16.0  # times smaller or larger: warned of, refused


def label_with_network(
    volume: ArraySource, voxel_size_nm: float, params: SegmentParameters, runtime: Runtime, outputs: Outputs
) -> LabelSummary:
    """Label a volume slice by slice with a network; probabilities exist for one slab of slices at a time.

    Writes 'labels' and 'confidence' to `outputs`, with a checkpoint after each slab.
    """
    from tomoseg.segmentation.networks.keras_setup import prepare
    from tomoseg.segmentation.networks.model_file import load_model

    path = Path(params.model or "")
    prepare(runtime)
    model, card = load_model(path)
    names, colors = _names_and_colors(card, params.class_names, params.class_colors, runtime)
    digest = sha256(path)
    zoom = zoom_to_network(voxel_size_nm, card.pixel_size_nm, runtime, rescale=params.rescale)
    predictor = SlicePredictor.of(model, card, card.scaling.trained, params.patch, params.overlap, zoom=zoom)
    slices = [plane_shape(volume.shape, plane) for plane in planes_of(params.plane)]
    predictor = fitted(predictor, model, slices, runtime.max_memory, _smaller_patch(predictor, model))
    shapes = batch_shapes(volume.shape, predictor, params.plane, transposed=params.tta == "dihedral")
    # Of the network, copies and resampling counted, overlap not.
    n_pixels = math.prod(volume.shape) * zoom**2 * len(planes_of(params.plane)) * N_COPIES[params.tta]
    engine = engine_for(params.engine, model, digest, shapes, runtime, n_pixels)
    runtime.device_used = engine.device
    runtime.say(f"the network runs with {engine.name} {engine.version} on the {engine.device}")
    own_levels = params.intensity == "volume" or not card.trained_here
    state = _state(volume, card, engine, outputs.resumed, runtime, own_levels=own_levels)
    scale = Scale(**state["scale"])
    if scale.of_each:
        runtime.say("each slice has an intensity scale of its own, from its median and spread, as in the training")
    else:
        runtime.say(f"intensity scale of the network: 0 is {scale.zero:.4g}, 1 is {scale.one:.4g}")
    predictor = replace(predictor, scale=scale, predict_batch=augmented(engine, params.tta))

    labels = outputs.create(LABELS.name, volume.shape, attrs=label_attrs(names, colors, voxel_size_nm))
    confidence = outputs.create(CONFIDENCE.name, volume.shape)
    first, n = state["slices"], n_slices(volume.shape, params.plane)
    say_continuing(first, n, runtime)
    if first < n:
        with closing(predict_volume(volume, predictor, params.plane, first, runtime)) as labelled:
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
    patches = [predictor.patch_shape(shape) for shape in slices]
    info = {
        "method": "unet",
        "model": path.name,
        "model_sha256": digest,
        "model_made_by": card.made_by,
        "engine": f"{engine.name} {engine.version}",
        "plane": params.plane,
        "patch_px": list(max(patches, key=math.prod)),
        "overlap": params.overlap,
        "tta": params.tta,
        "zoom": zoom,
        **({} if scale.of_each else {"intensity_zero": scale.zero, "intensity_one": scale.one}),
        **({} if predictor.threshold == MIDDLE else {"threshold": predictor.threshold}),
        "min_size_voxels": min_sizes,
    }
    return summarise(names, colors, state["counts"], info, runtime)


def _smaller_patch(predictor: SlicePredictor, model: Any) -> str:
    """Say what else helps where memory is short: nothing where the network takes patches of one size only."""
    if model.input_shape[1] is not None or predictor.patch == predictor.multiple:
        return ""
    if predictor.patch == WHOLE_SLICE:
        return ", or cut slices into patches (segment.patch)"
    return f", or a segment.patch of less than {predictor.patch} px"


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
    card: ModelCard,
    engine: Engine,
    resumed: Mapping[str, Any] | None,
    runtime: Runtime,
    *,
    own_levels: bool,
) -> dict[str, Any]:
    """Return the state of an interrupted run to continue, or a new one.

    A run that another engine or device began starts again: these give slightly different numbers, and one volume is to
    be labelled by one of them. With `own_levels` the intensity scale is this volume's, not that of the training slices.
    """
    computed_by = {"engine": f"{engine.name} {engine.version}", "device": engine.device}
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


def zoom_to_network(voxel_size_nm: float, trained_nm: float | None, runtime: Runtime, *, rescale: bool) -> float:
    """Return the factor by which slices are resampled for a network, and report why; 1 for none.

    The voxel size is NaN, the pixel size of the network's training slices None where unknown. Without `rescale` nothing
    is resampled. Raises `InputError`: the sizes differ by more than any resampling can mend.
    """
    if not trained_nm or not math.isfinite(voxel_size_nm):
        unknown = "pixel size of the network's training slices" if not trained_nm else "voxel size"
        runtime.say(f"the {unknown} is unknown: slices are not resampled for the network")
        return 1.0
    zoom = voxel_size_nm / trained_nm
    if 1 / SAME_PIXEL_SIZE <= zoom <= SAME_PIXEL_SIZE:
        return 1.0
    sizes = f"the network was trained on pixels of {trained_nm:.4g} nm, and the voxels are {voxel_size_nm:.4g} nm"
    if not rescale:
        runtime.warn(f"{sizes}: to the network objects look {1 / zoom:.2g} times as large, and labels may be poor")
        return 1.0
    if not 1 / IMPOSSIBLE_PIXEL_SIZE <= zoom <= IMPOSSIBLE_PIXEL_SIZE:
        raise InputError(
            f"{sizes}: these differ by a factor of {max(zoom, 1 / zoom):.3g}, too much to resample. Correct the pixel "
            "size (tomoseg import --pixel-size), choose another network, or turn segment.rescale off"
        )
    said = f"{sizes}: slices are resampled to {zoom:.3g} times as many pixels across"
    if 1 / ODD_PIXEL_SIZE <= zoom <= ODD_PIXEL_SIZE:
        runtime.say(said)
    else:
        runtime.warn(f"{said}. So large a difference is usually a mistake: check the pixel size of the series")
    return zoom
