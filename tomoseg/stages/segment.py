"""The segment stage: a class for every voxel, by a trained network or by thresholds."""

import math
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import field_validator

from tomoseg.arrays import Array, ArraySink, ArraySource, Input, Outputs
from tomoseg.errors import InputError
from tomoseg.io.digest import sha256
from tomoseg.parameters import Field, InputFile, Parameters
from tomoseg.runtime import Runtime, slabs
from tomoseg.schema import CONFIDENCE, LABELS, SEGMENTATION_INFO, VOLUME
from tomoseg.segmentation.inference.engines import EngineName
from tomoseg.segmentation.inference.test_time_augmentation import N_VIEWS, Views
from tomoseg.stages.base import Stage

if TYPE_CHECKING:
    from tomoseg.segmentation.data.histogram import Histogram
    from tomoseg.segmentation.data.intensity_scaling import Scale
    from tomoseg.segmentation.inference.engines import Engine
    from tomoseg.segmentation.inference.slice_prediction import SlicePredictor
    from tomoseg.segmentation.inference.volume_prediction import Labelled
    from tomoseg.segmentation.networks.card import ModelCard

# Bytes that thresholding holds per voxel: f4 twice of a slab and its margins for smoothing; of the slab alone u1 labels
# and masks, and u4 component numbers with what finding them takes.
SMOOTHING_BYTES = 8
LABELLING_BYTES = 14
SAMPLED_SLICES = 64
# Pixels for a network to see from which on it is worth to convert it for a faster engine, which takes some 7 s once.
WORTH_CONVERTING = 24_000_000
# Slabs for thresholds are no larger than this even where memory allows, so that progress is seen, little is lost with a
# slab that is dropped, and no library holds up a signal for more than a second or two.
MOST_VOXELS = 1 << 26
OTSU_MIN_SIZE = 20  # voxels: a sphere of 3.4 voxels across
SAME_PIXEL_SIZE = 1.05  # slices of a pixel size as close to the network's as this are not resampled
ODD_PIXEL_SIZE, IMPOSSIBLE_PIXEL_SIZE = 4.0, 16.0  # times smaller or larger: warned of, refused
# A histogram with all but a few voxels in such a part of its range is counted again in that part.
NARROWED, FEW_VOXELS, MOST_NARROWINGS = 64, 3, 5


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
    engine: EngineName = Field(
        "auto",
        description="What computes the network. 'keras': on a GPU or CPU; 'openvino' and 'onnxruntime': on the CPU, "
        "from a copy of the network that is converted once and kept in the user's cache folder (pip install "
        "'tomoseg[fast]' or 'tomoseg[onnx]'), with the same probabilities to 1e-4; 'openvino-bf16': in half precision, "
        "in about half the time on a CPU that has it, with another class for about one voxel in 10 000; 'auto': "
        "openvino on a CPU where it is installed and the work worth it, else keras",
    )
    plane: Literal["xz", "xy", "yz", "all"] = Field(
        "xz",
        description="Slices the network sees: 'xz' is the plane of reconstruction, perpendicular to the tilt axis "
        "(Genc et al. 2022); 'all': the mean of the probabilities in all three, which takes thrice as long, and "
        "scratch space of two bytes per voxel and class but one in the temporary folder",
    )
    patch: int | None = Field(
        None,
        ge=0,
        description="Side of the network's patches in px; by default that of its training (Genc et al.: 512); 0: each "
        "slice in one piece, mirrored at its edges, for slices that are not much larger",
    )
    overlap: int = Field(
        2,
        ge=1,
        le=8,
        description="Neighbouring patches start patch / overlap px apart; 1 is no overlap and shows seams",
    )
    tta: Views = Field(
        "none",
        description="Views of each patch whose probabilities are averaged: 'none': it alone; 'flips': also up-down, "
        "left-right and both, four times the work; 'dihedral': these and their transposes, eight times the work",
    )
    rescale: bool = Field(
        True,
        description="Resample slices to the pixel size the network was trained on where the voxels differ from it by "
        "more than 5 %, and its probabilities back",
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
    resolve_rims: bool = Field(
        True,
        description="'otsu': where an edge passes from a darker to a brighter class through one in between, within 2 "
        "voxels, put it half way between those two and leave no rim of the one in between. Not with thresholds given",
    )
    min_size: int | list[int] | None = Field(
        None,
        description="Objects of fewer voxels than this fall to the class below: one number, or one for each class "
        "above the first; 1 keeps all. By default 20 (a sphere of 3.4 voxels across) for 'otsu', and 1 for a network. "
        "An object of a class is a connected region of it and the classes above",
    )

    @field_validator("model", mode="after")
    @classmethod
    def _found(cls, model: Path | None) -> Path | None:
        """Turn the name of a network into its path; `check` tells where there is none of that name."""
        from tomoseg.segmentation.networks.known_models import find_model

        return None if model is None else find_model(model)

    @classmethod
    def is_known_name(cls, parameter: str, text: str) -> bool:
        """Tell whether `model` is a name and no path."""
        from tomoseg.segmentation.networks.known_models import is_name

        return parameter == "model" and is_name(text)

    def least_sizes(self, n_classes: int) -> list[int]:
        """Return the voxels that an object must have at least, for each class above the first."""
        given = self.min_size
        if given is None:
            given = 1 if self.uses_network else OTSU_MIN_SIZE
        sizes = [given] if isinstance(given, int) else given
        return sizes * (n_classes - 1) if len(sizes) == 1 else sizes

    @property
    def uses_network(self) -> bool:
        """True where a network makes the labels."""
        return self.method == "unet" or (self.method == "auto" and self.model is not None)


def check(params: SegmentParameters) -> list[str]:
    """List what is wrong with the parameters and the model file."""
    from tomoseg.classes import problems_with_colors, problems_with_names

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
    problems += _check_sizes(params, n_classes)
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
    from tomoseg.segmentation.inference.engines import problem_with
    from tomoseg.segmentation.networks.card import read_card
    from tomoseg.segmentation.networks.known_models import resolve_model

    missing = problem_with(params.engine)
    problems = [f"segment.engine: {missing}, or take engine keras"] if missing else []
    if params.model is None:
        return None, problems
    try:
        card = read_card(resolve_model(params.model))
    except InputError as error:
        return None, [*problems, f"segment.model: {error}"]
    if card is None:
        return None, problems
    if params.patch is not None and params.patch % card.multiple:
        problems.append(
            f"segment.patch is {params.patch}: for this network it must be a multiple of {card.multiple} px, or 0"
        )
    return len(card.class_names), problems


def _check_sizes(params: SegmentParameters, n_classes: int | None) -> list[str]:
    """Say what is wrong with the sizes of objects."""
    given = params.min_size
    sizes = given if isinstance(given, list) else [1 if given is None else given]
    problems = []
    if not sizes or min(sizes) < 1:
        problems.append(f"segment.min_size is {given}: give numbers of voxels of 1 or more")
    if n_classes is not None and len(sizes) not in (1, n_classes - 1):
        problems.append(
            f"segment.min_size has {len(sizes)} numbers: give one, or {n_classes - 1}, one for each class above the "
            "first"
        )
    return problems


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
    from tomoseg.classes import default_colors, default_names
    from tomoseg.segmentation.thresholds.thresholding import SmallObjects, labelled_slab

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

    edges = levels if params.resolve_rims else None

    def labels_of(part: slice) -> Array:
        return labelled_slab(volume, part, params.smooth, thresholds, edges)

    least = params.least_sizes(params.classes)
    small, cleans = SmallObjects(params.classes, least), max(least) > 1
    finished, parts = slabs(first, size), slabs(volume.shape[0], size, first)
    if cleans:
        for part in runtime.track(finished + parts, "segment: find objects"):
            small.add(labels_of(part))
    _say_where(first, volume.shape[0], runtime)
    for i, part in runtime.track(list(enumerate(parts, start=len(finished))), "segment: write labels"):
        labels = labels_of(part)
        if cleans:
            labels = small.clean(i, labels)
        sink[part] = labels
        _count(state, labels)
        _finish(state, part, outputs)
    if cleans:
        _say_removed(small.removed(), names, least, runtime)
    info = {"thresholds": thresholds, "min_size_voxels": least, "smooth_px": params.smooth}
    if levels:
        info["class_levels"] = levels
    outputs.set_attrs(SEGMENTATION_INFO.name, {"method": "otsu", **info, **_fractions(state["counts"], names, runtime)})


def _planes_at_once(volume: Input, runtime: Runtime, sigma_px: float) -> int:
    """Return how many planes (along z) make a slab that, with its margins for smoothing, fits in the memory allowed."""
    from tomoseg.segmentation.thresholds.rims import HALO_PX

    nz, ny, nx = volume.shape
    margins = 2 * (int(4 * sigma_px + 0.5) + HALO_PX) * SMOOTHING_BYTES * ny * nx
    fits = (0.4 * runtime.max_memory - margins) / (LABELLING_BYTES * ny * nx)
    return max(1, min(nz, int(fits), MOST_VOXELS // (ny * nx)))


def _thresholds(
    volume: Input, size: int, params: SegmentParameters, runtime: Runtime
) -> tuple[list[float], list[float]]:
    """Return the thresholds, and the levels of the classes where they were found here."""
    from tomoseg.segmentation.data.histogram import histogram, sampled_range
    from tomoseg.segmentation.thresholds.thresholding import find_thresholds, smoothed_slab

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


def _say_removed(removed: list[int], names: list[str], least: list[int], runtime: Runtime) -> None:
    """Tell how many small objects were removed."""
    counts = ", ".join(f"{n} of {name}" for n, name in zip(removed, names[1:], strict=True))
    sizes = ", ".join(str(size) for size in dict.fromkeys(least))
    runtime.say(f"objects of fewer than {sizes} voxels removed: {counts}")


# ------------------------------------------------------------------------------------------------------ network


def _run_network(volume: Input, params: SegmentParameters, runtime: Runtime, outputs: Outputs) -> None:
    """Label slice by slice with a network; probabilities exist for one slab of slices only."""
    from tomoseg.segmentation.data.intensity_scaling import Scale
    from tomoseg.segmentation.inference.slice_prediction import NORMAL_AXIS
    from tomoseg.segmentation.inference.volume_prediction import planes_of
    from tomoseg.segmentation.networks.keras_setup import prepare
    from tomoseg.segmentation.networks.model_file import load_model

    path = Path(params.model or "")
    prepare(runtime)
    model, card = load_model(path)
    names, colors = _classes_of(card, params, runtime)
    digest, zoom = sha256(path), _zoom(card, volume, params, runtime)
    engine = _engine(model, digest, card, zoom, volume, params, runtime)
    state = _network_state(volume, card, engine, params, runtime, outputs.resumed)
    scale = Scale(**state["scale"])
    runtime.say(f"intensity {scale.zero:.4g} is 0 and {scale.one:.4g} is 1 for the network")
    predictor = _predictor(model, card, scale, params, zoom, engine)
    labels_sink = outputs.create(LABELS.name, volume.shape, attrs=_label_attrs(names, colors, volume))
    confidence_sink = outputs.create(CONFIDENCE.name, volume.shape)
    with closing(_labelled(volume, predictor, params.plane, state["slices"], runtime)) as done:
        for slab in done:
            _put(labels_sink, slab, slab.labels)
            _put(confidence_sink, slab, slab.confidence)
            _count(state, slab.labels)
            if params.plane != "all":  # of which nothing can be continued: the sums are gone
                _finish(state, slab.part, outputs)
    state["slices"] = volume.shape[NORMAL_AXIS[planes_of(params.plane)[-1]]]
    least = params.least_sizes(len(names))
    if max(least) > 1:
        _clean(labels_sink, state, least, names, runtime, outputs)
    info = {
        "method": "unet",
        "model": path.name,
        "model_sha256": digest,
        "model_made_by": card.made_by,
        "engine": f"{engine.name} {engine.version}",
        "plane": params.plane,
        "patch_px": _largest_patch(predictor, volume, params.plane),
        "overlap": params.overlap,
        "tta": params.tta,
        "zoom": zoom,
        "intensity_zero": scale.zero,
        "intensity_one": scale.one,
        "min_size_voxels": least,
    }
    outputs.set_attrs(SEGMENTATION_INFO.name, {**info, **_fractions(state["counts"], names, runtime)})


def _predictor(
    model: Any,
    card: "ModelCard",
    scale: "Scale",
    params: SegmentParameters,
    zoom: float,
    engine: "Engine | None" = None,
) -> "SlicePredictor":
    """Return what predicts slices as the parameters ask for."""
    from tomoseg.segmentation.inference.slice_prediction import SlicePredictor

    return SlicePredictor.of(
        model, card, scale, params.patch, params.overlap, predict_batch=engine, views=params.tta, zoom=zoom
    )


def _engine(
    model: Any,
    digest: str,
    card: "ModelCard",
    zoom: float,
    volume: Input,
    params: SegmentParameters,
    runtime: Runtime,
) -> "Engine":
    """Return what computes the network, ready for the batches to come, and say what it is."""
    from tomoseg.segmentation.inference.engines import engine_for
    from tomoseg.segmentation.inference.volume_prediction import batches_of, planes_of

    sizes = _predictor(model, card, card.scaling.trained, params, zoom)
    shapes = batches_of(volume, sizes, params.plane, transposed=params.tta == "dihedral")
    pixels = math.prod(volume.shape) * zoom**2 * len(planes_of(params.plane)) * N_VIEWS[params.tta]
    small = params.engine == "auto" and pixels < WORTH_CONVERTING
    engine = engine_for("keras" if small else params.engine, model, digest, shapes, runtime)
    runtime.device_used = engine.device
    runtime.say(f"the network is computed by {engine.name} {engine.version} on the {engine.device}")
    return engine


def _labelled(
    volume: Input, predictor: "SlicePredictor", plane: str, first: int, runtime: Runtime
) -> "Generator[Labelled]":
    """Yield labels and confidence, slab by slab."""
    from tomoseg.segmentation.inference.slice_prediction import NORMAL_AXIS
    from tomoseg.segmentation.inference.volume_prediction import in_all_planes, in_slices, planes_of

    n = volume.shape[NORMAL_AXIS[planes_of(plane)[-1]]]
    _say_where(first, n, runtime)
    if first < n and plane == "all":
        yield from in_all_planes(volume, predictor, runtime)
    elif first < n:
        yield from in_slices(volume, predictor, plane, first, runtime)


def _put(sink: ArraySink, slab: "Labelled", values: Array) -> None:
    """Store (n, h, w) values where the slab is in the volume."""
    axis = next(a for a, where in enumerate(slab.box) if where == slab.part)
    sink[slab.box] = np.moveaxis(values, 0, axis)


def _largest_patch(predictor: "SlicePredictor", volume: Input, plane: str) -> list[int]:
    """Return height and width of the patches, the largest ones where planes differ."""
    from tomoseg.segmentation.inference.volume_prediction import plane_shape, planes_of

    patches = [predictor.patch_for(plane_shape(volume, one)) for one in planes_of(plane)]
    return list(max(patches, key=math.prod))


def _network_state(
    volume: Input,
    card: "ModelCard",
    engine: "Engine",
    params: SegmentParameters,
    runtime: Runtime,
    resumed: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the state of an interrupted run, or a new one; also where that run computed with something else.

    Engines and devices give slightly different numbers, and a volume is to be of one piece.
    """
    computed_by = {"engine": f"{engine.name} {engine.version}", "device": engine.device}
    if resumed is not None and all(resumed.get(key) == value for key, value in computed_by.items()):
        for warning in resumed["warnings"]:
            runtime.warn(warning)
        return dict(resumed)
    values = _sampled_histogram(volume)
    scale = card.scaling.trained
    if params.intensity == "volume" or not card.trained_here:
        scale = card.scaling.for_data(volume.dtype, values)
    counts = [0] * len(card.class_names)
    warnings = _warn_about_intensities(values, scale, card, runtime)
    return {**computed_by, "scale": asdict(scale), "warnings": warnings, "slices": 0, "counts": counts}


def _warn_about_intensities(values: "Histogram", scale: "Scale", card: "ModelCard", runtime: Runtime) -> list[str]:
    """Warn where the volume looks unlike what the network was trained on; return what was said."""
    from tomoseg.segmentation.data.intensity_scaling import Intensities

    if not card.trained_here:
        return []
    unlike = Intensities.of(values, scale).unlike(card.scaling.intensities)
    if not unlike:
        return []
    warning = f"the volume is unlike the slices the network was trained on, look at the labels: {'; '.join(unlike)}"
    runtime.warn(warning)
    return [warning]


def _clean(
    labels: ArraySink,
    state: dict[str, Any],
    least: list[int],
    names: list[str],
    runtime: Runtime,
    outputs: Outputs,
) -> None:
    """Remove small objects from finished labels, in two passes over them.

    Where that was interrupted, objects are looked for again in what is partly clean already. What was cleaned has no
    small objects, and what is left of those that go on beyond it is smaller than before, so the result is the same.
    """
    from tomoseg.segmentation.thresholds.thresholding import SmallObjects

    first = state.get("cleaned", 0)
    nz, ny, nx = labels.shape
    size = max(1, min(int(0.4 * runtime.max_memory / (LABELLING_BYTES * ny * nx)), MOST_VOXELS // (ny * nx), nz))
    small = SmallObjects(len(names), least)
    finished, parts = slabs(first, size), slabs(nz, size, first)
    for part in runtime.track(finished + parts, "segment: find small objects"):
        small.add(np.asarray(labels[part]))
    if "removed" not in state:
        state |= {"removed": small.removed(), "cleaned": 0, "counts": [0] * len(names)}
    for i, part in runtime.track(list(enumerate(parts, start=len(finished))), "segment: remove small objects"):
        cleaned = small.clean(i, np.asarray(labels[part]))
        labels[part] = cleaned
        _count(state, cleaned)
        state["cleaned"] = part.stop
        outputs.checkpoint(state)
    _say_removed(state["removed"], names, least, runtime)


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


def _zoom(card: "ModelCard", volume: Input, params: SegmentParameters, runtime: Runtime) -> float:
    """Return the voxels' size over the network's pixel size, or 1 where slices are not to be resampled; say why."""
    voxel, trained = float(volume.attrs.get("voxel_size_nm", math.nan)), card.pixel_size_nm
    if not trained or not math.isfinite(voxel):
        whose = "the network was trained on" if not trained else "the voxels have"
        runtime.say(f"the pixel size that {whose} is unknown: slices are not resampled to it")
        return 1.0
    zoom = voxel / trained
    if 1 / SAME_PIXEL_SIZE <= zoom <= SAME_PIXEL_SIZE:
        return 1.0
    sizes = f"the network was trained on pixels of {trained:.4g} nm, the voxels are {voxel:.4g} nm"
    if not params.rescale:
        runtime.warn(f"{sizes}: objects look {1 / zoom:.2g} times as large to it, and labels may be poor")
        return 1.0
    if not 1 / IMPOSSIBLE_PIXEL_SIZE <= zoom <= IMPOSSIBLE_PIXEL_SIZE:
        raise InputError(
            f"{sizes}: no slices can be resampled so far. Correct the pixel size (tomoseg import --pixel-size), take "
            "another network, or turn segment.rescale off"
        )
    said = f"{sizes}: slices are made {zoom:.3g} times as many pixels across for it"
    if 1 / ODD_PIXEL_SIZE <= zoom <= ODD_PIXEL_SIZE:
        runtime.say(said)
    else:
        runtime.warn(f"{said}. So large a difference is seldom right: check the pixel size of the series")
    return zoom


def _sampled_histogram(volume: ArraySource) -> "Histogram":
    """Return the histogram of evenly spaced planes of the volume.

    A few voxels far beyond all others leave too few bins for these, which are then counted alone.
    """
    from tomoseg.segmentation.data.histogram import OUTLIERS, histogram, sampled_range

    low, high = sampled_range(volume, SAMPLED_SLICES)
    chosen = np.unique(np.linspace(0, volume.shape[0] - 1, SAMPLED_SLICES).round().astype(int))
    found = histogram((np.asarray(volume[int(i)])[None] for i in chosen), low, high)
    for _ in range(MOST_NARROWINGS):
        width, apart = (high - low) / len(found.counts), 100 * max(OUTLIERS, FEW_VOXELS / found.counts.sum())
        inner_low, inner_high = found.percentile(apart) - width, found.percentile(100 - apart) + width
        if inner_high - inner_low > (high - low) / NARROWED:
            break
        low, high = inner_low, inner_high
        found = histogram((np.asarray(volume[int(i)])[None] for i in chosen), low, high)
        found.counts[[0, -1]] = 0  # those far beyond
    return found


# ------------------------------------------------------------------------------------------------------- common


def _count(state: dict[str, Any], labels: Array) -> None:
    """Add the labels of a slab to those counted."""
    counts = np.bincount(labels.ravel(), minlength=len(state["counts"]))
    state["counts"] = [a + int(b) for a, b in zip(state["counts"], counts, strict=True)]


def _finish(state: dict[str, Any], part: slice, outputs: Outputs) -> None:
    """Keep how far the work has come, once a slab has been written."""
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
    version=3,
    summary="give every voxel a class, by a trained network or by thresholds",
    parameters=SegmentParameters,
    reads=(VOLUME,),
    writes=(LABELS, CONFIDENCE, SEGMENTATION_INFO),
    run=run,
    check=check,
)
