"""The segment stage: a class for every voxel, by a trained network or by thresholds."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import field_validator

from tomoseg.arrays import Array, ArraySource, Input, Outputs
from tomoseg.errors import InputError
from tomoseg.io.digest import sha256
from tomoseg.runtime import Runtime, slabs
from tomoseg.schema import CONFIDENCE, LABELS, SEGMENTATION_INFO, VOLUME
from tomoseg.stages.base import Field, InputFile, Parameters, Stage

if TYPE_CHECKING:
    from tomoseg.segment.card import ModelCard
    from tomoseg.segment.histogram import Histogram
    from tomoseg.segment.inference import SlicePredictor

# Bytes that thresholding holds per voxel: f4 twice of a slab and its margins for smoothing; of the slab alone u1 labels
# and masks, and u4 component numbers with what finding them takes.
SMOOTHING_BYTES = 8
LABELLING_BYTES = 14
SAMPLED_SLICES = 64
# Slabs are no larger than these even where memory allows, so that progress is seen, little is lost with a slab that is
# dropped, and no library holds up a signal for more than a second or two.
MOST_VOXELS = 1 << 26  # for thresholds: a second's work or two
MOST_PIXELS, MOST_SLICES = 1 << 24, 16  # for a network; the volume is chunked by 16 along y


class SegmentParameters(Parameters):
    """Parameters of the segment stage."""

    method: Literal["auto", "otsu", "unet"] = Field(
        "auto",
        description="'unet': the network named by `model`; 'otsu': thresholds on the intensity; 'auto': the network if "
        "one is named, else thresholds",
    )
    model: InputFile | None = Field(
        None,
        description="Trained network: a .keras file as `tomoseg train` writes it, or a name that `tomoseg models` "
        "lists; none by default",
    )
    classes: int = Field(
        3,
        ge=2,
        le=255,
        description="Number of classes for 'otsu', in ascending order of intensity; a network has its own",
    )
    class_names: list[str] | None = Field(
        None,
        description="Names of the classes in class order; by default those of the network, or background, support, "
        "particles for three classes",
    )
    class_colors: list[str] | None = Field(
        None, description="Colours of the classes as #rrggbb; by default those of the network, or Okabe & Ito's palette"
    )
    plane: Literal["xz", "xy", "yz"] = Field(
        "xz",
        description="Slices the network sees: 'xz' is the plane of reconstruction, perpendicular to the tilt axis "
        "(Genc et al. 2022)",
    )
    patch: int | None = Field(
        None,
        ge=8,
        description="Side of the network's patches in px; by default that of its training (Genc et al.: 512)",
    )
    overlap: int = Field(
        2,
        ge=1,
        le=8,
        description="Neighbouring patches start patch / overlap px apart; 1 is no overlap and shows seams",
    )
    intensity: Literal["volume", "model"] = Field(
        "volume",
        description="Intensity scale for the network: 'volume' finds the levels of background and support in this "
        "volume; 'model' takes those of the training slices, for slices in the very same unit",
    )
    smooth: float = Field(
        0.5,
        ge=0,
        le=10,
        description="'otsu': standard deviation in voxels of the Gaussian filter before thresholding; more than 0.8 "
        "shrinks particles of fewer than 10 voxels across (measured on simulated series)",
    )
    thresholds: list[float] | None = Field(
        None,
        description="'otsu': thresholds between the classes in the unit of the volume, ascending; found by default",
    )
    min_size: int = Field(
        20,
        ge=1,
        description="'otsu': objects of fewer voxels than this fall to the class below; 20 voxels are a sphere of 3.4 "
        "voxels across; 1 keeps all",
    )

    @field_validator("model", mode="after")
    @classmethod
    def _found(cls, model: Path | None) -> Path | None:
        """Turn the name of a network into its path; `check` tells where there is none of that name."""
        from tomoseg.segment.known_models import find_model

        return None if model is None else find_model(model)

    @classmethod
    def is_known_name(cls, parameter: str, text: str) -> bool:
        """Tell whether `model` is a name and no path."""
        from tomoseg.segment.known_models import is_name

        return parameter == "model" and is_name(text)

    @property
    def uses_network(self) -> bool:
        """True where a network makes the labels."""
        return self.method == "unet" or (self.method == "auto" and self.model is not None)


def check(params: SegmentParameters) -> list[str]:
    """List what is wrong with the parameters and the model file."""
    from tomoseg.segment.classes import problems_with_colors, problems_with_names

    problems: list[str] = []
    n_classes: int | None = params.classes
    if params.method == "unet" and params.model is None:
        problems.append("segment.method is unet, but no network is named: set segment.model to a .keras file")
    if params.method == "otsu" and params.model is not None:
        problems.append(
            "segment.method is otsu, which uses no network: set it to unet or auto, or leave out segment.model"
        )
    if params.uses_network:
        n_classes, model_problems = _check_model(params)
        problems += model_problems
    else:
        problems += _check_thresholds(params)
    names = params.class_names
    if names is not None:
        problems += [f"segment.{problem}" for problem in problems_with_names(names)]
        if n_classes is not None and len(names) != n_classes:
            whose = "the network has" if params.uses_network else "segment.classes is"
            problems.append(f"segment.class_names has {len(names)} names, but {whose} {n_classes} classes")
    if params.class_colors is not None:
        count = n_classes or len(params.class_colors)
        problems += [f"segment.{problem}" for problem in problems_with_colors(params.class_colors, count)]
    return problems


def _check_model(params: SegmentParameters) -> tuple[int | None, list[str]]:
    """Return the number of classes of the network, where it is known without loading it, and what is wrong with it."""
    from tomoseg.segment.card import read_card
    from tomoseg.segment.known_models import resolve_model

    if params.model is None:
        return None, []
    try:
        card = read_card(resolve_model(params.model))
    except InputError as error:
        return None, [f"segment.model: {error}"]
    if card is None:
        return None, []
    if params.patch is not None and params.patch % card.multiple:
        return len(card.class_names), [
            f"segment.patch is {params.patch}: for this network it must be a multiple of {card.multiple} px"
        ]
    return len(card.class_names), []


def _check_thresholds(params: SegmentParameters) -> list[str]:
    """Say what is wrong with thresholds given by hand."""
    given = params.thresholds
    if given is None:
        return []
    if len(given) != params.classes - 1 or any(b <= a for a, b in pairwise(given)):
        return [
            f"segment.thresholds is {given}: {params.classes} classes need {params.classes - 1} ascending thresholds "
            "(segment.classes sets the number of classes)"
        ]
    return []


def run(*, volume: Input, params: SegmentParameters, runtime: Runtime, outputs: Outputs) -> None:
    """Give every voxel a class."""
    problems = check(params)
    if problems:
        raise InputError.of(problems)
    if params.uses_network:
        _run_network(volume, params, runtime, outputs)
    else:
        _run_thresholds(volume, params, runtime, outputs)


# --------------------------------------------------------------------------------------------------- thresholds


def _run_thresholds(volume: Input, params: SegmentParameters, runtime: Runtime, outputs: Outputs) -> None:
    """Label by thresholds, in three passes over the volume: histogram, objects, labels."""
    from tomoseg.segment.classes import default_colors, default_names
    from tomoseg.segment.otsu import SmallObjects, apply_thresholds, smoothed_slab

    names = params.class_names or default_names(params.classes)
    colors = params.class_colors or default_colors(params.classes)
    size = _planes_at_once(volume, runtime, params.smooth)
    state = dict(outputs.resumed or {"slices": 0, "counts": [0] * params.classes})
    if outputs.resumed is None:
        state["thresholds"], state["levels"] = _thresholds(volume, size, params, runtime)
    thresholds, levels, first = state["thresholds"], state["levels"], state["slices"]
    _warn_about_thresholds(names, thresholds, runtime, named_otsu=params.method == "otsu")
    sink = outputs.create(LABELS.name, volume.shape, attrs=_label_attrs(names, colors, volume))
    if outputs.resumed is None:
        outputs.checkpoint(state)

    def labels_of(part: slice) -> Array:
        return apply_thresholds(smoothed_slab(volume, part, params.smooth), thresholds)

    small = SmallObjects(params.classes, params.min_size)
    finished, parts = slabs(first, size), slabs(volume.shape[0], size, first)
    if params.min_size > 1:
        for part in runtime.track(finished + parts, "segment: find objects"):
            small.add(labels_of(part))
    _say_where(first, volume.shape[0], runtime)
    for i, part in runtime.track(list(enumerate(parts, start=len(finished))), "segment: write labels"):
        labels = labels_of(part)
        if params.min_size > 1:
            labels = small.clean(i, labels)
        sink[part] = labels
        _finish(state, part, labels, outputs)
    if params.min_size > 1:
        _say_removed(small.removed(), names, params.min_size, runtime)
    info = {"thresholds": thresholds, "min_size_voxels": params.min_size, "smooth_px": params.smooth}
    if levels:
        info["class_levels"] = levels
    outputs.set_attrs(SEGMENTATION_INFO.name, {"method": "otsu", **info, **_fractions(state["counts"], names, runtime)})


def _planes_at_once(volume: Input, runtime: Runtime, sigma_px: float) -> int:
    """Return how many planes (along z) make a slab that, with its margins for smoothing, fits in the memory allowed."""
    nz, ny, nx = volume.shape
    margins = 2 * int(4 * sigma_px + 0.5) * SMOOTHING_BYTES * ny * nx
    fits = (0.4 * runtime.max_memory - margins) / (LABELLING_BYTES * ny * nx)
    return max(1, min(nz, int(fits), MOST_VOXELS // (ny * nx)))


def _thresholds(
    volume: Input, size: int, params: SegmentParameters, runtime: Runtime
) -> tuple[list[float], list[float]]:
    """Return the thresholds, and the levels of the classes where they were found here."""
    from tomoseg.segment.histogram import histogram, sampled_range
    from tomoseg.segment.otsu import find_thresholds, smoothed_slab

    if params.thresholds is not None:
        return list(params.thresholds), []
    low, high = sampled_range(volume)
    parts = runtime.track(slabs(volume.shape[0], size), "segment: histogram")
    planes = (smoothed_slab(volume, part, params.smooth) for part in parts)
    found = find_thresholds(histogram(planes, low, high), params.classes)
    return [float(t) for t in found.thresholds], [float(level) for level in found.levels]


def _warn_about_thresholds(names: list[str], thresholds: list[float], runtime: Runtime, *, named_otsu: bool) -> None:
    """Say loudly that no network made the labels, and which thresholds did."""
    bounds = ", ".join(f"{name} above {t:.4g}" for name, t in zip(names[1:], thresholds, strict=True))
    advice = "" if named_otsu else " Train a network (tomoseg train) and name it with --model for labels to rely on."
    runtime.warn(
        f"labels were made by intensity thresholds, not by a trained network: {bounds}. Thresholds know nothing of "
        f"shape: streaks and bright rims may be labelled as {names[-1]}.{advice}"
    )


def _say_removed(removed: list[int], names: list[str], min_size: int, runtime: Runtime) -> None:
    """Tell how many small objects were removed."""
    counts = ", ".join(f"{n} of {name}" for n, name in zip(removed, names[1:], strict=True))
    runtime.say(f"objects of fewer than {min_size} voxels removed: {counts}")


# ------------------------------------------------------------------------------------------------------ network


def _run_network(volume: Input, params: SegmentParameters, runtime: Runtime, outputs: Outputs) -> None:
    """Label slice by slice with a network; probabilities exist for one slab of slices only."""
    from tomoseg.segment.inference import NORMAL_AXIS, SlicePredictor
    from tomoseg.segment.keras_setup import prepare
    from tomoseg.segment.model_file import load_model
    from tomoseg.segment.scaling import Scale

    path = Path(params.model or "")
    prepare(runtime)
    model, card = load_model(path)
    names, colors = _classes_of(card, params, runtime)
    _warn_about_pixel_size(card, volume, runtime)
    state = _network_state(volume, card, params, runtime, outputs.resumed)
    scale = Scale(**state["scale"])
    runtime.say(f"intensity {scale.zero:.4g} is 0 and {scale.one:.4g} is 1 for the network")
    predictor = SlicePredictor.of(model, card, scale, params.patch, params.overlap)
    axis = NORMAL_AXIS[params.plane]
    shape = tuple(n for a, n in enumerate(volume.shape) if a != axis)
    labels_sink = outputs.create(LABELS.name, volume.shape, attrs=_label_attrs(names, colors, volume))
    confidence_sink = outputs.create(CONFIDENCE.name, volume.shape)
    n, first = volume.shape[axis], state["slices"]
    _say_where(first, n, runtime)
    parts = slabs(n, _slices_at_once(predictor, shape, runtime), first)
    for part in runtime.track(parts, f"segment: {params.plane} slices"):
        box = (slice(None),) * axis + (part,)
        slices = np.moveaxis(np.asarray(volume[box], np.float32), axis, 0)
        labels, confidence = predictor.classify(slices, runtime.check)
        labels_sink[box] = np.moveaxis(labels, 0, axis)
        confidence_sink[box] = np.moveaxis(confidence, 0, axis)
        _finish(state, part, labels, outputs)
    info = {
        "method": "unet",
        "model": path.name,
        "model_sha256": sha256(path),
        "model_made_by": card.made_by,
        "plane": params.plane,
        "patch_px": predictor.patch_for(shape),
        "overlap": params.overlap,
        "intensity_zero": scale.zero,
        "intensity_one": scale.one,
    }
    outputs.set_attrs(SEGMENTATION_INFO.name, {**info, **_fractions(state["counts"], names, runtime)})


def _network_state(
    volume: Input, card: "ModelCard", params: SegmentParameters, runtime: Runtime, resumed: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the state of an interrupted run, or a new one; also where that run used another device.

    Networks give slightly different numbers on CPU and GPU, and a volume is to be of one piece.
    """
    if resumed is not None and resumed["device"] == runtime.device_used:
        return dict(resumed)
    scale = card.scaling.trained
    if params.intensity == "volume" or not card.trained_here:
        scale = card.scaling.for_data(volume.dtype, _sampled_histogram(volume))
    counts = [0] * len(card.class_names)
    return {"device": runtime.device_used, "scale": asdict(scale), "slices": 0, "counts": counts}


def _slices_at_once(predictor: "SlicePredictor", shape: tuple[int, ...], runtime: Runtime) -> int:
    """Return how many slices of `shape` make a slab."""
    always, per_slice = predictor.memory(shape)
    if always + per_slice > runtime.max_memory:
        runtime.progress.message(
            f"the network takes about {always / 2**20:.0f} MiB for a patch of {predictor.patch_for(shape)} px, more "
            f"than --max-memory allows ({runtime.max_memory / 2**20:.0f} MiB): as much as that is used"
        )
    fits = int((0.75 * runtime.max_memory - always) / per_slice)
    return max(1, min(fits, MOST_SLICES, MOST_PIXELS // math.prod(shape)))


def _classes_of(card: "ModelCard", params: SegmentParameters, runtime: Runtime) -> tuple[list[str], list[str]]:
    """Return names and colours: those given, else the network's."""
    names, colors = params.class_names or card.class_names, params.class_colors or card.class_colors
    if len(names) != len(card.class_names) or len(colors) != len(card.class_names):
        raise InputError(
            f"the network has {len(card.class_names)} classes, but segment.class_names and segment.class_colors give "
            f"{len(names)} and {len(colors)}"
        )
    if not card.trained_here:
        runtime.warn(
            "the network was not trained by tomoseg and says nothing of its classes or intensities: classes are taken "
            f"as {', '.join(names)}, and intensities as 0 .. 1 between the 0.1 and 99.9 percentiles of the volume"
        )
    return names, colors


def _warn_about_pixel_size(card: "ModelCard", volume: Input, runtime: Runtime) -> None:
    """Warn where the network was trained on pixels of another size: particles look larger or smaller to it."""
    voxel = float(volume.attrs.get("voxel_size_nm", math.nan))
    trained = card.pixel_size_nm
    if trained and math.isfinite(voxel) and not 0.8 < voxel / trained < 1.25:
        runtime.warn(
            f"the network was trained on pixels of {trained:.4g} nm, the voxels are {voxel:.4g} nm: objects look "
            f"{trained / voxel:.2g} times as large to it, and labels may be poor"
        )


def _sampled_histogram(volume: ArraySource) -> "Histogram":
    """Return the histogram of evenly spaced planes of the volume."""
    from tomoseg.segment.histogram import histogram, sampled_range

    low, high = sampled_range(volume, SAMPLED_SLICES)
    chosen = np.unique(np.linspace(0, volume.shape[0] - 1, SAMPLED_SLICES).round().astype(int))
    return histogram((np.asarray(volume[int(i)])[None] for i in chosen), low, high)


# ------------------------------------------------------------------------------------------------------- common


def _finish(state: dict[str, Any], part: slice, labels: Array, outputs: Outputs) -> None:
    """Count the labels of a slab that has been written, and keep how far the work has come."""
    counts = np.bincount(labels.ravel(), minlength=len(state["counts"]))
    state["counts"] = [a + int(b) for a, b in zip(state["counts"], counts, strict=True)]
    state["slices"] = part.stop
    outputs.checkpoint(state)


def _say_where(first: int, n: int, runtime: Runtime) -> None:
    """Tell that an interrupted run is continued."""
    if first:
        runtime.say(f"continuing after {first} of {n} slices")


def _label_attrs(names: list[str], colors: list[str], volume: Input) -> dict[str, Any]:
    """Return the attributes of the label volume."""
    voxel = float(volume.attrs.get("voxel_size_nm", math.nan))
    return {"class_names": list(names), "class_colors": list(colors), "voxel_size_nm": voxel}


def _fractions(counts: list[int], names: list[str], runtime: Runtime) -> dict[str, Any]:
    """Tell and return the fraction of the volume that each class takes."""
    fractions = [count / max(sum(counts), 1) for count in counts]
    runtime.say(", ".join(f"{name} {100 * f:.3g} %" for name, f in zip(names, fractions, strict=True)))
    empty = [name for name, n in zip(names, counts, strict=True) if n == 0]
    if empty:
        runtime.warn(f"no voxel was labelled as {' or '.join(empty)}")
    return {"class_fractions": fractions}


STAGE = Stage(
    name="segment",
    version=1,
    summary="give every voxel a class, by a trained network or by thresholds",
    parameters=SegmentParameters,
    reads=(VOLUME,),
    writes=(LABELS, CONFIDENCE, SEGMENTATION_INFO),
    run=run,
    check=check,
)
