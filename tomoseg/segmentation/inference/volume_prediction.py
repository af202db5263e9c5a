"""Labels and confidence of whole volumes from a network, slab by slab."""

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, ArraySource
from tomoseg.errors import StageFailed
from tomoseg.runtime import Runtime, slabs
from tomoseg.segmentation.inference.slice_prediction import NORMAL_AXIS, SlicePredictor, decided

T = TypeVar("T")
# Slabs are no larger than these even where memory allows, so that progress is seen, little is lost with a slab that is
# dropped, and no library holds up a signal for more than a second or two; the volume is chunked by 16 along y.
MOST_PIXELS, MOST_SLICES = 1 << 24, 16
# Planes of three passes, whose probabilities are added up in whole numbers: the result is the same for any slabs. The
# last one is the plane of reconstruction.
PLANES = ("yz", "xy", "xz")
UNIT = 65535 // len(PLANES)
BLOCK_BYTES = 64 << 20  # of the sums that are in memory at a time
Planes = NDArray[np.uint8]


@dataclass(frozen=True)
class Labelled:
    """A slab done: slices `part` along the normal, where that is in the volume, and (n, h, w) labels and confidence."""

    part: slice
    box: tuple[slice, ...]
    labels: Planes
    confidence: Planes


def in_slices(
    volume: ArraySource, predictor: SlicePredictor, plane: str, first: int, runtime: Runtime
) -> Iterator[Labelled]:
    """Yield the slabs of a volume from slice `first` on, predicted slice by slice in one plane ('xy', 'xz', 'yz')."""
    size = slab_size(volume, predictor, plane, runtime)
    for part, slices in _read(volume, plane, size, first, predictor.channels, runtime):
        labels, confidence = predictor.classify(slices, runtime.check)
        yield Labelled(part, _box(plane, part), labels, confidence)


def in_all_planes(volume: ArraySource, predictor: SlicePredictor, runtime: Runtime) -> Iterator[Labelled]:
    """Yield the slabs of a volume by the mean of the probabilities of slices in all three planes.

    The sums of the first two passes lie in a temporary file of two bytes per voxel and class but one. It has no name,
    so that nothing of it remains however the process ends. Slabs come in the last pass only, along y.
    """
    *before, last = PLANES
    with closing(_Sums(predictor.n_classes - 1, volume.shape, runtime)) as sums:
        for plane in before:
            for part, parts in _passed(volume, predictor, plane, runtime):
                sums.add(_box(plane, part), np.moveaxis(parts, 1, NORMAL_AXIS[plane] + 1))
        for part, parts in _passed(volume, predictor, last, runtime):
            box = _box(last, part)
            total = parts + np.moveaxis(sums[box], NORMAL_AXIS[last] + 1, 1)
            yield Labelled(part, box, *_decided(total))


def planes_of(plane: str) -> tuple[str, ...]:
    """Return the planes to go through, one after the other."""
    return PLANES if plane == "all" else (plane,)


def batches_of(
    volume: ArraySource, predictor: SlicePredictor, plane: str, *, transposed: bool
) -> list[tuple[int, int, int]]:
    """Return the shapes (patches, height, width) of all batches there will be; with transposed ones, of those too."""
    found: dict[tuple[int, int, int], None] = {}
    for shape in (plane_shape(volume, one) for one in planes_of(plane)):
        (height, width), n = predictor.patch_for(shape), predictor.batch_for(shape)
        found[n, height, width] = None
        if transposed:
            found[n, width, height] = None
    return list(found)


def slab_size(volume: ArraySource, predictor: SlicePredictor, plane: str, runtime: Runtime) -> int:
    """Return how many slices make a slab; says so where even one takes more memory than allowed."""
    shape = plane_shape(volume, plane)
    always, per_slice = predictor.memory(shape)
    if always + per_slice > runtime.max_memory:
        sides = " x ".join(str(n) for n in dict.fromkeys(predictor.patch_for(shape)))
        runtime.progress.message(
            f"the network takes about {always / 2**20:.0f} MiB for a patch of {sides} px, more "
            f"than --max-memory allows ({runtime.max_memory / 2**20:.0f} MiB): as much as that is used"
        )
    fits = int((0.75 * runtime.max_memory - always) / per_slice)
    return max(1, min(fits, MOST_SLICES, MOST_PIXELS // math.prod(shape)))


def plane_shape(volume: ArraySource, plane: str) -> tuple[int, int]:
    """Return height and width of the slices of a volume in a plane."""
    height, width = (n for axis, n in enumerate(volume.shape) if axis != NORMAL_AXIS[plane])
    return height, width


def _passed(
    volume: ArraySource, predictor: SlicePredictor, plane: str, runtime: Runtime
) -> Iterator[tuple[slice, NDArray[np.uint16]]]:
    """Yield the slabs of one pass: probabilities of classes above 0, (classes - 1, n, h, w) in units of 1 / UNIT."""
    size = slab_size(volume, predictor, plane, runtime)
    for part, slices in _read(volume, plane, size, 0, predictor.channels, runtime):
        parts = np.empty((predictor.n_classes - 1, *slices.shape[:3]), np.uint16)
        for i in range(len(slices)):
            probabilities = predictor.probabilities(slices[i : i + 1], runtime.check)[0]
            parts[:, i] = np.rint(UNIT * np.clip(probabilities[1:], 0, 1))
        yield part, parts


def _decided(total: NDArray[np.uint16]) -> tuple[Planes, Planes]:
    """Return labels and confidence, (n, h, w), of sums over the passes, (classes - 1, n, h, w)."""
    labels, confidence = np.empty(total.shape[1:], np.uint8), np.empty(total.shape[1:], np.uint8)
    for i in range(total.shape[1]):
        above = total[:, i].astype(np.float32) / np.float32(UNIT * len(PLANES))
        labels[i], confidence[i] = decided(np.concatenate([1 - above.sum(axis=0, keepdims=True), above]))
    return labels, confidence


def _read(
    volume: ArraySource, plane: str, size: int, first: int, channels: int, runtime: Runtime
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield slabs of slices with progress; the next slab is read while one is worked on.

    Slices are (n, h, w), or (n, h, w, channels) with their neighbours; at the ends of the volume the last one takes the
    place of those that are not there.
    """
    axis = NORMAL_AXIS[plane]

    def read(part: slice) -> NDArray[np.float32]:
        reach, n = channels // 2, volume.shape[axis]
        around = slice(max(part.start - reach, 0), min(part.stop + reach, n))
        slices = np.moveaxis(np.asarray(volume[_box(plane, around)], np.float32), axis, 0)
        if not np.isfinite(slices).all():
            raise StageFailed("the volume holds NaN or infinite values: reconstruct it again before segmenting it")
        if channels == 1:
            return slices
        missing = (around.start - part.start + reach, part.stop + reach - around.stop)
        slices = np.pad(slices, (missing, (0, 0), (0, 0)), mode="edge")
        return np.lib.stride_tricks.sliding_window_view(slices, channels, axis=0)

    parts = slabs(volume.shape[axis], size, first)
    with closing(read_ahead(read, parts)) as reading:
        for part in runtime.track(parts, f"segment: {plane} slices"):
            yield part, next(reading)


def read_ahead(read: Callable[[slice], T], parts: Sequence[slice]) -> Generator[T]:
    """Yield what `read` returns for each part; the next part is read in another thread meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        coming: Future[T] | None = pool.submit(read, parts[0]) if parts else None
        for following in [*parts[1:], None]:
            if coming is None:
                return
            done = coming.result()
            coming = pool.submit(read, following) if following is not None else None
            yield done


def _box(plane: str, part: slice) -> tuple[slice, ...]:
    """Return where slices `part` of a plane are in a (z, y, x) volume."""
    box = [slice(None)] * 3
    box[NORMAL_AXIS[plane]] = part
    return tuple(box)


class _Sums:
    """A (classes, z, y, x) array of 16-bit numbers in a temporary file, first 0; a part is in memory at a time."""

    def __init__(self, n: int, shape: tuple[int, ...], runtime: Runtime) -> None:
        self._plane = (n, *shape[1:])
        self._plane_bytes = 2 * math.prod(self._plane)
        self._nz = shape[0]
        size = shape[0] * self._plane_bytes
        folder = tempfile.gettempdir()
        runtime.progress.message(
            f"probabilities of all planes take {size / 2**20:.0f} MiB in {folder} for a while; interrupted, they are "
            "made anew"
        )
        self._file = tempfile.TemporaryFile(prefix="tomoseg-")  # noqa: SIM115  closed by `close`
        if not _reserved(self._file.fileno(), size, folder):
            self.close()
            raise StageFailed(
                f"segment.plane is all, which takes {size / 2**30:.1f} GiB in {folder} for a while, and there is less "
                "left: set TMPDIR to a folder with room, or choose one plane"
            )
        self._file.truncate(size)

    def add(self, box: tuple[slice, ...], values: NDArray[np.uint16]) -> None:
        """Add `values` (classes, z, y, x) to the part of the volume `box`."""
        for where, planes in self._blocks(box[0]):
            planes[:, :, box[1], box[2]] += np.moveaxis(values[:, where], 0, 1)

    def __getitem__(self, box: tuple[slice, ...]) -> NDArray[np.uint16]:
        parts = [np.moveaxis(np.array(planes[:, :, box[1], box[2]]), 0, 1) for _, planes in self._blocks(box[0])]
        return np.concatenate(parts, axis=1)

    def _blocks(self, rows: slice) -> Iterator[tuple[slice, Array]]:
        """Yield parts of planes `rows`, counted from the first of them, and a map of each, (n, classes, y, x)."""
        start, stop, _ = rows.indices(self._nz)
        for part in slabs(stop - start, max(1, BLOCK_BYTES // self._plane_bytes)):
            offset, n = (start + part.start) * self._plane_bytes, part.stop - part.start
            yield part, np.memmap(self._file, np.uint16, "r+", offset, (n, *self._plane))

    def close(self) -> None:
        """Give the space back."""
        self._file.close()


def _reserved(file: int, size: int, folder: str) -> bool:
    """Return whether there is room for a file; a disk that fills up later would end the process by a signal."""
    if size > shutil.disk_usage(folder).free:
        return False
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            return error.errno != errno.ENOSPC  # not every file system can reserve
    return True
