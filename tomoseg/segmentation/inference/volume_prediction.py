"""Labels and confidence of whole volumes from a network, slab by slab."""

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tomoseg.ahead import ahead
from tomoseg.arrays import ArraySink, ArraySource
from tomoseg.runtime import Runtime, slabs
from tomoseg.segmentation.data.histogram import require_finite
from tomoseg.segmentation.data.intensity_scaling import Scale
from tomoseg.segmentation.inference.expected_dice import ExpectedDice
from tomoseg.segmentation.inference.first_look import FirstLook, look_at
from tomoseg.segmentation.inference.network import Facts, Network
from tomoseg.segmentation.inference.occupied import Window
from tomoseg.segmentation.inference.scratch_sums import ScratchSums
from tomoseg.segmentation.inference.slice_prediction import NORMAL_AXIS, SlicePredictor, labels_and_confidence
from tomoseg.segmentation.inference.volume_planes import MAX_SLAB_SLICES, PLANES, plane_shape, planes_of

T = TypeVar("T")
UNIT = 65535 // len(PLANES)
Labels = NDArray[np.uint8]
VACUUM, CERTAIN = 0, 255  # label and confidence where there is nothing


def write_vacuum(labels: ArraySink, confidence: ArraySink, window: Window, plane: str) -> None:
    """Store what lies before and behind the window along the normal of a plane."""
    for box in window.beyond(NORMAL_AXIS[planes_of(plane)[-1]], MAX_SLAB_SLICES):
        shape = [s.stop - s.start for s in box]
        labels[box] = np.full(shape, VACUUM, np.uint8)
        confidence[box] = np.full(shape, CERTAIN, np.uint8)


@dataclass(frozen=True)
class LabelledSlab:
    """Slices `part` of a volume in a plane, and their labels and confidence, (n, h, w) u1."""

    plane: str
    part: slice
    labels: Labels
    confidence: Labels
    expected: NDArray[np.float64]  # sums for `ExpectedDice`

    def write(self, labels: ArraySink, confidence: ArraySink, window: Window) -> None:
        """Store labels and confidence at the slab's place in volumes (z, y, x), of which the `window` was labelled."""
        axis = NORMAL_AXIS[self.plane]
        for sink, values, fill in ((labels, self.labels, VACUUM), (confidence, self.confidence, CERTAIN)):
            box, planes = window.around(np.moveaxis(values, 0, axis), axis, self.part, fill)
            sink[box] = planes


def predict_volume(
    volume: ArraySource, network: Network, known: Facts, scale: Scale, first: int, runtime: Runtime
) -> Generator[LabelledSlab]:
    """Yield the labelled slabs of a volume (z, y, x) from slice `first` of the plane on.

    With plane 'all', labels are by the mean of the probabilities of slices in all three planes. The sums of the first
    two passes lie in a temporary file, two bytes per voxel for each class but one. Slabs come in the last pass only,
    along y, and all of them, whatever `first`.
    """
    plane = network.params.plane
    slabs_of = partial(_computed, volume, network, known, scale, runtime)
    if plane != "all":
        with closing(slabs_of(_classified, plane, first)) as found:
            for part, labelled in found:
                yield LabelledSlab(plane, part, *labelled)
        return
    *before, last = PLANES
    with closing(ScratchSums(len(known.card.class_names) - 1, volume.shape, runtime)) as sums:
        for one in before:
            with closing(slabs_of(_quantised, one, 0)) as found:
                for part, parts in found:
                    sums.add(_box(one, part), np.moveaxis(parts, 1, NORMAL_AXIS[one] + 1))
        with closing(slabs_of(_quantised, last, 0)) as found:
            for part, parts in found:
                total = parts + np.moveaxis(sums[_box(last, part)], NORMAL_AXIS[last] + 1, 1)
                yield LabelledSlab(last, part, *_labels_of_sums(total, known.card.threshold))


FIRST_SLICES = 12  # that are looked at first, or as many as fit in this part of the memory
SHARE_OF_MEMORY = 8
Item = tuple[Scale, NDArray[np.float32]]  # slices (n + channels - 1, h, w), and the intensity scale of the volume


def _computed(
    volume: ArraySource,
    network: Network,
    known: Facts,
    scale: Scale,
    runtime: Runtime,
    function: Callable[[Network, Item, Runtime], T],
    plane: str,
    first: int,
) -> Generator[tuple[slice, T]]:
    """Yield slabs of a plane with what `function` makes of their slices; the next slab is read meanwhile."""
    read = partial(_slices, volume, plane, known.card.channels // 2)
    parts = slabs(volume.shape[NORMAL_AXIS[plane]], known.slab[plane], first)
    with closing(ahead(read, parts)) as reading:
        read_parts = zip(parts, reading, strict=True)
        items = ((f"{plane} slices {p.start} to {p.stop - 1}", (scale, slices)) for p, slices in read_parts)
        with closing(runtime.each(function, network, items)) as results:
            yield from zip(runtime.track(parts, f"segment: {plane} slices"), results, strict=True)


def _slices(volume: ArraySource, plane: str, reach: int, part: slice) -> NDArray[np.float32]:
    """Read slices with `reach` neighbours before and after; at the ends of the volume the last slice is repeated."""
    axis = NORMAL_AXIS[plane]
    around = slice(max(part.start - reach, 0), min(part.stop + reach, volume.shape[axis]))
    slices = np.moveaxis(np.asarray(volume[_box(plane, around)], np.float32), axis, 0)
    require_finite(slices)
    missing = (around.start - part.start + reach, part.stop + reach - around.stop)
    return np.pad(slices, (missing, (0, 0), (0, 0)), mode="edge") if any(missing) else slices


def first_look(volume: ArraySource, network: Network, known: Facts, scale: Scale, runtime: Runtime) -> FirstLook:
    """Let the network label some slices of a volume, evenly spaced, which also tell its intensity scale.

    `scale` is the one of training where it counts, and else is replaced.
    """
    plane, reach = planes_of(network.params.plane)[-1], known.card.channels // 2
    n, pixels = volume.shape[NORMAL_AXIS[plane]], math.prod(plane_shape(volume.shape, plane))
    fits = runtime.max_memory // (SHARE_OF_MEMORY * 4 * pixels * known.card.channels)
    wanted = max(1, min(FIRST_SLICES, fits))
    places = np.unique(np.linspace(0, n - 1, wanted + 2).round().astype(int)[1:-1])
    slices = [_slices(volume, plane, reach, slice(int(k), int(k) + 1)) for k in places]
    found = np.stack([np.moveaxis(one, 0, -1) if reach else one[0] for one in slices])
    if scale != known.card.scaling.trained:
        scale = known.card.scaling.for_foreground(list(found))
    (answer,) = runtime.each(_look, network, [("the first look", (scale, found))])
    return answer


def _look(network: Network, item: Item, runtime: Runtime) -> FirstLook:
    scale, slices = item
    predictor, known = network.opened(runtime)
    return look_at(predictor, slices, scale, runtime.check, finds_levels=scale != known.card.scaling.trained)


def _opened(network: Network, item: Item, runtime: Runtime) -> tuple[SlicePredictor, NDArray[np.float32]]:
    """Return what labels slices, and the slices: (n, h, w), or (n, h, w, channels) with their neighbours."""
    scale, slices = item
    predictor, known = network.opened(runtime)
    channels = known.card.channels
    if channels > 1:
        slices = np.lib.stride_tricks.sliding_window_view(slices, channels, axis=0)
    return replace(predictor, scale=scale), slices


def _classified(network: Network, item: Item, runtime: Runtime) -> tuple[Labels, Labels, NDArray[np.float64]]:
    """Return labels and confidence of slices, (n, h, w), and sums for `ExpectedDice`."""
    predictor, slices = _opened(network, item, runtime)
    expected = ExpectedDice(predictor.n_classes)
    return *predictor.classify(slices, runtime.check, expected), expected.sums


def _quantised(network: Network, item: Item, runtime: Runtime) -> NDArray[np.uint16]:
    """Return probabilities of the classes above 0, (classes - 1, n, h, w) in units of 1 / UNIT."""
    predictor, slices = _opened(network, item, runtime)
    parts = np.empty((predictor.n_classes - 1, *slices.shape[:3]), np.uint16)
    for i in range(len(slices)):
        probabilities = predictor.probabilities(slices[i : i + 1], runtime.check)[0]
        parts[:, i] = np.rint(UNIT * np.clip(probabilities[1:], 0, 1))
    return parts


def _labels_of_sums(total: NDArray[np.uint16], threshold: float) -> tuple[Labels, Labels, NDArray[np.float64]]:
    """Return what `_classified` does from sums over the planes, (classes - 1, n, h, w)."""
    expected = ExpectedDice(total.shape[0] + 1)
    labels, confidence = np.empty(total.shape[1:], np.uint8), np.empty(total.shape[1:], np.uint8)
    for i in range(total.shape[1]):
        above = total[:, i].astype(np.float32) / np.float32(UNIT * len(PLANES))
        probabilities = np.concatenate([1 - above.sum(axis=0, keepdims=True), above])
        labels[i], confidence[i] = labels_and_confidence(probabilities, threshold)
        expected.add(probabilities, labels[i])
    return labels, confidence, expected.sums


def _box(plane: str, part: slice) -> tuple[slice, ...]:
    """Return the place of slices `part` of a plane in a volume (z, y, x)."""
    box = [slice(None)] * 3
    box[NORMAL_AXIS[plane]] = part
    return tuple(box)
