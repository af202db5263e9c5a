"""Labels and confidence of whole volumes from a network, slab by slab."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import ArraySink, ArraySource
from tomoseg.runtime import Runtime, slabs
from tomoseg.segmentation.data.histogram import require_finite
from tomoseg.segmentation.inference.scratch_sums import ScratchSums
from tomoseg.segmentation.inference.slice_prediction import NORMAL_AXIS, SlicePredictor, labels_and_confidence

T = TypeVar("T")
# Slabs are no larger than these even where memory allows, so that progress is seen, little is lost with a slab that is
# dropped, and no library holds up a signal for more than a second or two; the volume is chunked by 16 along y.
MAX_SLAB_PIXELS, MAX_SLAB_SLICES = 1 << 24, 16
# For all planes, probabilities are added up in whole numbers, so that the result does not depend on the slabs. The last
# plane is that of reconstruction.
PLANES = ("yz", "xy", "xz")
UNIT = 65535 // len(PLANES)
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class LabelledSlab:
    """Slices `part` of a volume in a plane, with their labels and confidence, (n, h, w) u1."""

    plane: str
    part: slice
    labels: Labels
    confidence: Labels

    def write(self, labels: ArraySink, confidence: ArraySink) -> None:
        """Store labels and confidence at the slab's place in volumes (z, y, x)."""
        box, axis = _box(self.plane, self.part), NORMAL_AXIS[self.plane]
        labels[box] = np.moveaxis(self.labels, 0, axis)
        confidence[box] = np.moveaxis(self.confidence, 0, axis)


def predict_volume(
    volume: ArraySource, predictor: SlicePredictor, plane: str, first: int, runtime: Runtime
) -> Generator[LabelledSlab]:
    """Yield the labelled slabs of a volume (z, y, x) from slice `first` of a plane, 'xy', 'xz' or 'yz', on.

    With plane 'all', labels are by the mean of the probabilities of slices in all three planes. The sums of the first
    two passes lie in a temporary file, two bytes per voxel for each class but one. Slabs come in the last pass only,
    along y, and all of them, whatever `first`.
    """
    if plane != "all":
        for part, slices in _read(volume, predictor, plane, first, runtime):
            yield LabelledSlab(plane, part, *predictor.classify(slices, runtime.check))
        return
    *before, last = PLANES
    with closing(ScratchSums(predictor.n_classes - 1, volume.shape, runtime)) as sums:
        for one in before:
            for part, parts in _quantised(volume, predictor, one, runtime):
                sums.add(_box(one, part), np.moveaxis(parts, 1, NORMAL_AXIS[one] + 1))
        for part, parts in _quantised(volume, predictor, last, runtime):
            total = parts + np.moveaxis(sums[_box(last, part)], NORMAL_AXIS[last] + 1, 1)
            yield LabelledSlab(last, part, *_labels_of_sums(total, predictor.threshold))


def planes_of(plane: str) -> tuple[str, ...]:
    """Return the planes to predict, one after the other."""
    return PLANES if plane == "all" else (plane,)


def n_slices(shape: Sequence[int], plane: str) -> int:
    """Return the number of slices of a volume of `shape` in a plane; for 'all', in the last plane predicted."""
    return shape[NORMAL_AXIS[planes_of(plane)[-1]]]


def batch_shapes(
    shape: Sequence[int], predictor: SlicePredictor, plane: str, *, transposed: bool
) -> list[tuple[int, int, int]]:
    """Return the shapes (patches, height, width) of all batches for a volume of `shape`, `transposed` ones too."""
    found = []
    for slice_shape in (plane_shape(shape, one) for one in planes_of(plane)):
        (height, width), n = predictor.patch_shape(slice_shape), predictor.batch_size(slice_shape)
        found += [(n, height, width), (n, width, height)][: 1 + transposed]
    return list(dict.fromkeys(found))


def slab_size(volume: ArraySource, predictor: SlicePredictor, plane: str, runtime: Runtime) -> int:
    """Return how many slices make a slab."""
    shape = plane_shape(volume.shape, plane)
    always, per_slice = predictor.memory_bytes(shape)
    fits = int((0.75 * runtime.max_memory - always) / per_slice)
    return max(1, min(fits, MAX_SLAB_SLICES, MAX_SLAB_PIXELS // math.prod(shape)))


def plane_shape(shape: Sequence[int], plane: str) -> tuple[int, int]:
    """Return height and width of the slices of a volume of `shape` in a plane."""
    height, width = (n for axis, n in enumerate(shape) if axis != NORMAL_AXIS[plane])
    return height, width


def _quantised(
    volume: ArraySource, predictor: SlicePredictor, plane: str, runtime: Runtime
) -> Iterator[tuple[slice, NDArray[np.uint16]]]:
    """Yield slabs of one plane: probabilities of the classes above 0, (classes - 1, n, h, w) in units of 1 / UNIT."""
    for part, slices in _read(volume, predictor, plane, 0, runtime):
        parts = np.empty((predictor.n_classes - 1, *slices.shape[:3]), np.uint16)
        for i in range(len(slices)):
            probabilities = predictor.probabilities(slices[i : i + 1], runtime.check)[0]
            parts[:, i] = np.rint(UNIT * np.clip(probabilities[1:], 0, 1))
        yield part, parts


def _labels_of_sums(total: NDArray[np.uint16], threshold: float) -> tuple[Labels, Labels]:
    """Return labels and confidence, (n, h, w), from sums over the planes, (classes - 1, n, h, w)."""
    labels, confidence = np.empty(total.shape[1:], np.uint8), np.empty(total.shape[1:], np.uint8)
    for i in range(total.shape[1]):
        above = total[:, i].astype(np.float32) / np.float32(UNIT * len(PLANES))
        probabilities = np.concatenate([1 - above.sum(axis=0, keepdims=True), above])
        labels[i], confidence[i] = labels_and_confidence(probabilities, threshold)
    return labels, confidence


def _read(
    volume: ArraySource, predictor: SlicePredictor, plane: str, first: int, runtime: Runtime
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield slabs of slices with progress; the next slab is read meanwhile.

    Slices are (n, h, w), or (n, h, w, channels) with their neighbours; at the ends of the volume the last slice is
    repeated.
    """
    axis, channels = NORMAL_AXIS[plane], predictor.channels

    def read(part: slice) -> NDArray[np.float32]:
        reach, n = channels // 2, volume.shape[axis]
        around = slice(max(part.start - reach, 0), min(part.stop + reach, n))
        slices = np.moveaxis(np.asarray(volume[_box(plane, around)], np.float32), axis, 0)
        require_finite(slices)
        if channels == 1:
            return slices
        missing = (around.start - part.start + reach, part.stop + reach - around.stop)
        slices = np.pad(slices, (missing, (0, 0), (0, 0)), mode="edge")
        return np.lib.stride_tricks.sliding_window_view(slices, channels, axis=0)

    parts = slabs(volume.shape[axis], slab_size(volume, predictor, plane, runtime), first)
    with closing(read_ahead(read, parts)) as reading:
        for part in runtime.track(parts, f"segment: {plane} slices"):
            yield part, next(reading)


def read_ahead(read: Callable[[slice], T], parts: Sequence[slice]) -> Generator[T]:
    """Yield `read(part)` for each part, reading the next part in another thread meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        coming: Future[T] | None = pool.submit(read, parts[0]) if parts else None
        for following in [*parts[1:], None]:
            if coming is None:
                return
            done = coming.result()
            coming = pool.submit(read, following) if following is not None else None
            yield done


def _box(plane: str, part: slice) -> tuple[slice, ...]:
    """Return the place of slices `part` of a plane in a volume (z, y, x)."""
    box = [slice(None)] * 3
    box[NORMAL_AXIS[plane]] = part
    return tuple(box)
