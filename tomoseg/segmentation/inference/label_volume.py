"""Labels and confidence of whole volumes by a trained network, slab by slab."""

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tomoseg.arrays import ArraySource, Outputs
from tomoseg.errors import InputError
from tomoseg.runtime import Runtime
from tomoseg.schema import CONFIDENCE, LABELS
from tomoseg.segmentation.data.histogram import Histogram, sampled_histogram
from tomoseg.segmentation.data.intensity_scaling import Intensities, Scale
from tomoseg.segmentation.inference.expected_dice import ExpectedDice
from tomoseg.segmentation.inference.first_look import FirstLook
from tomoseg.segmentation.inference.network import Facts, Network, facts_of
from tomoseg.segmentation.inference.occupied import Window, occupied
from tomoseg.segmentation.inference.volume_planes import n_slices
from tomoseg.segmentation.inference.volume_prediction import first_look, predict_volume, write_vacuum
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

POOR = 0.8  # an expected Dice below this is warned of
UNFIT = 0.5  # with one below this for the support, thresholds label instead; above it they mostly are worse
MOST_PARTICLES = 0.5  # of the sample; they filled less in 93 % of the volumes that the default network was trained on


class Unlike(Exception):
    """A volume is too unlike what the network was trained on; the message says in what."""


def label_with_network(
    volume: ArraySource,
    voxel_size_nm: float,
    params: SegmentParameters,
    runtime: Runtime,
    outputs: Outputs,
    *,
    only_alike: bool = False,
) -> LabelSummary:
    """Label a volume slice by slice with a network; probabilities exist for one slab of slices at a time.

    Writes 'labels' and 'confidence' to `outputs`, with a checkpoint after each slab. With `only_alike`, raises `Unlike`
    before anything is written where the network would be unsure.
    """
    path, values = Path(params.model or ""), sampled_histogram(volume)
    window = occupied(volume, values, runtime)
    network = Network(path, params, window.shape, voxel_size_nm)
    (known,) = runtime.each(facts_of, network, [("the network", None)])
    card = known.card
    names, colors = _names_and_colors(card, params.class_names, params.class_colors, runtime)
    runtime.device_used = known.device
    runtime.say(f"the network runs with {known.engine} on the {known.device}")
    own_levels = params.intensity == "volume" or not card.trained_here
    state = _state(
        window, values, network, known, outputs.resumed, runtime, own_levels=own_levels, only_alike=only_alike
    )
    scale = Scale(**state["scale"])
    if scale.of_each:
        runtime.say("each slice has an intensity scale of its own, from its median and spread, as in the training")
    else:
        runtime.say(f"intensity scale of the network: 0 is {scale.zero:.4g}, 1 is {scale.one:.4g}")

    if window.n_outside:
        sides = " x ".join(str(n) for n in window.shape)
        runtime.say(f"the network looks at the {sides} voxels (z, y, x) around the sample: beyond them is vacuum")
    labels = outputs.create(LABELS.name, volume.shape, attrs=label_attrs(names, colors, voxel_size_nm))
    confidence = outputs.create(CONFIDENCE.name, volume.shape)
    first, n = state["slices"], n_slices(window.shape, params.plane)
    expected = ExpectedDice(len(names), state.get("expected"))
    say_continuing(first, n, runtime)
    if first == 0:
        write_vacuum(labels, confidence, window, params.plane)
    if first < n:
        with closing(predict_volume(window, network, known, scale, first, runtime)) as labelled:
            for slab in labelled:
                slab.write(labels, confidence, window)
                state["counts"] = with_counts(state["counts"], slab.labels)
                expected.add_sums(slab.expected)
                state["expected"] = expected.sums.tolist()
                if params.plane != "all":  # which cannot be continued: its sums are gone with the process
                    state["slices"] = slab.part.stop
                    outputs.checkpoint(state)
    state["slices"] = n
    min_sizes = params.min_sizes(len(names))
    if max(min_sizes) > 1:
        remove_small_objects(labels, min_sizes, state, outputs.checkpoint, runtime)
        say_removed(state["removed"], names, min_sizes, runtime)
    expected.add_certain(window.n_outside)
    _tell_expected(expected.of_each, names, runtime)
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
        **({"looked_at": [[s.start, s.stop] for s in window.box]} if window.n_outside else {}),
        **({} if scale.of_each else {"intensity_zero": scale.zero, "intensity_one": scale.one}),
        **({} if card.threshold == MIDDLE else {"threshold": card.threshold}),
        "min_size_voxels": min_sizes,
        "expected_dice": expected.of_each,
        **({"agreement_with_thresholds": state["agreement"]} if state["agreement"] else {}),
    }
    return summarise(names, colors, state["counts"], info, runtime)


def _tell_expected(expected: Sequence[float], names: Sequence[str], runtime: Runtime) -> None:
    """Say how good the labels are by the network's own probabilities, and warn where that is not good."""
    known = [(name, dice) for name, dice in zip(names[1:], expected[1:], strict=True) if math.isfinite(dice)]
    if not known:
        return
    told = ", ".join(f"{name} {dice:.2f}" for name, dice in known)
    runtime.say(f"Dice to expect by the network's own probabilities: {told}")
    if poor := [name for name, dice in known if dice < POOR]:
        runtime.warn(
            f"the network is unsure of {' and '.join(poor)}: by its own probabilities, a Dice of {told} is to be "
            "expected. Check the labels; a few painted slices make it fit (tomoseg annotate paint, then tomoseg train)"
        )


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
    window: Window,
    values: Histogram,
    network: Network,
    known: Facts,
    resumed: Mapping[str, Any] | None,
    runtime: Runtime,
    *,
    own_levels: bool,
    only_alike: bool,
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
    scale = card.scaling.for_data(window.dtype, values) if own_levels else card.scaling.trained
    warnings: list[str] = []
    agreement: list[float] = []
    if card.scaling.kind == "labelled":
        look = first_look(window, network, known, scale, runtime)
        scale, agreement = look.scale, look.agreement(values)
        if only_alike and (why := _unlike(look)):
            raise Unlike(why)
        if not look.knows_levels:
            warnings.append(
                "the network finds too little background or support to tell their levels, so the intensity scale may "
                "be wrong: check the labels"
            )
        filled = look.share_of_last
        if only_alike and filled > MOST_PARTICLES:
            warnings.append(
                f"{card.class_names[-1]} fill {filled:.0%} of the sample in {len(look.labels)} slices, more than in "
                "most of what the network was trained on: they may be layers, or a body, rather than particles on a "
                "support"
            )
        with_thresholds = ", ".join(
            f"{name} {dice:.2f}" for name, dice in zip(card.class_names[1:], agreement[1:], strict=True)
        )
        runtime.say(f"Dice between the network and thresholds in {len(look.labels)} slices: {with_thresholds}")
    comparable = card.trained_here and not scale.of_each
    unlike = Intensities.of(values, scale).unlike(card.scaling.intensities) if comparable else []
    if unlike:
        differs = "the volume differs from the slices the network was trained on, so check the labels"
        warnings.append(f"{differs}: {'; '.join(unlike)}")
    for warning in warnings:
        runtime.warn(warning)
    return {
        **computed_by,
        "scale": asdict(scale),
        "warnings": warnings,
        "agreement": agreement,
        "slices": 0,
        "counts": [window.n_outside] + [0] * (len(card.class_names) - 1),
    }


def _unlike(look: FirstLook) -> str:
    """Say why a network does not fit a volume; empty where it does."""
    if not look.knows_levels:
        return "it finds too little background or support to tell their levels"
    support = look.expected[1]
    if not support >= UNFIT:
        return f"by its own probabilities, a Dice of {support:.2f} is to be expected for the support"
    return ""
