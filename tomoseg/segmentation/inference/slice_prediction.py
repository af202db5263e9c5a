"""Labels and confidence for stacks of slices from a trained network."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.segmentation.data.intensity_scaling import Scale
from tomoseg.segmentation.data.resampling import resized
from tomoseg.segmentation.inference.blending import PredictBatch, Tiling, predict_stack
from tomoseg.segmentation.inference.engines import KerasEngine
from tomoseg.segmentation.inference.expected_dice import ExpectedDice
from tomoseg.segmentation.networks.card import MIDDLE, ModelCard

# The axis of a (z, y, x) volume that is perpendicular to the plane.
NORMAL_AXIS: dict[str, int] = {"xy": 0, "xz": 1, "yz": 2}
# Memory of a batch, or of one patch if that needs more (the paper's network: 256 MiB for 512 px). It does not depend on
# the memory allowed, unless this is less than 256 MiB, since a network's last digits may depend on the size of its
# batches. Larger batches were measured not to be faster on a CPU.
BATCH_BYTES = 64 << 20
MOST_PATCHES = 64
# Arrays as large as a network's largest one that are held at a time: 2.3 to 3.4 measured with TensorFlow and U-Nets.
ARRAYS_AT_ONCE = 4
WHOLE_SLICE = 0  # for a patch: each slice in one piece


@dataclass(frozen=True)
class SlicePredictor:
    """A network ready to label slices of one intensity scale."""

    predict_batch: PredictBatch  # of scaled patches
    scale: Scale
    n_classes: int
    patch: int  # largest side of the square patches in px, smaller for smaller slices; or `WHOLE_SLICE`
    multiple: int  # sides of patches are a multiple of this
    overlap: int = 2  # see `tomoseg.segmentation.inference.blending.predict_stack`
    bytes_per_pixel: float = 1024.0  # memory that the network needs per pixel of the patches of a batch
    zoom: float = 1.0  # pixel size of the slices over the network's: slices are resampled by it, probabilities back
    channels: int = 1  # neighbouring slices that the network takes, the one to be labelled in the middle
    batch_bytes: int = BATCH_BYTES  # memory of a batch, see there
    threshold: float = MIDDLE  # of two classes, see `labels_of`

    @classmethod
    def of(
        cls,
        model: Any,
        card: ModelCard,
        scale: Scale,
        patch: int | None = None,
        overlap: int = 2,
        zoom: float = 1.0,
    ) -> "SlicePredictor":
        """Wrap a Keras model; `patch` is that of its training by default."""
        size = card.patch if patch is None else patch
        fixed = model.input_shape[1]
        if size % card.multiple or (fixed is not None and size != fixed):
            wanted = f"a multiple of {card.multiple}" if fixed is None else f"exactly {fixed}"
            raise InputError(f"patches of {size} px do not fit this network: its patch must be {wanted} px")
        n_bytes = bytes_per_pixel(model, size or card.patch, size or card.patch)
        return cls.described(KerasEngine(model), card, scale, patch, overlap, zoom, n_bytes)

    @classmethod
    def described(
        cls,
        predict_batch: PredictBatch,
        card: ModelCard,
        scale: Scale,
        patch: int | None,
        overlap: int,
        zoom: float,
        bytes_per_pixel: float,
    ) -> "SlicePredictor":
        """Wrap a network that is described by its card and the memory it needs; see `of`."""
        sizes = card.patch if patch is None else patch, card.multiple, overlap, bytes_per_pixel, zoom
        return cls(predict_batch, scale, len(card.class_names), *sizes, card.channels, threshold=card.threshold)

    def patch_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return height and width of the patches for slices of `shape`, no larger than these need."""
        height, width = (-(-n // self.multiple) * self.multiple for n in self._resampled(shape))
        if self.patch == WHOLE_SLICE:
            return height, width
        side = min(self.patch, max(height, width))
        return side, side

    def batch_size(self, shape: tuple[int, ...]) -> int:
        """Return how many patches of a slice of `shape` make a batch."""
        patch = self.patch_shape(shape)
        fits = int(self.batch_bytes / (self.bytes_per_pixel * math.prod(patch)))
        places = len(Tiling.of(self._resampled(shape), patch, self.overlap).starts)
        most = max(1, min(fits, MOST_PATCHES, places))
        return -(-places // -(-places // most))

    def probabilities(self, slices: Array, check: Callable[[], object] = str) -> NDArray[np.float32]:
        """Return (n, classes, h, w) probabilities of raw slices; `check` may raise to stop.

        Slices are (n, h, w), or (n, h, w, channels) with their neighbours for a network of several channels.
        """
        if slices.ndim != 3 + (self.channels > 1) or slices.shape[3:] not in ((), (self.channels,)):
            raise InputError(
                f"slices of shape {slices.shape[1:]} do not fit the network, which takes a slice and its neighbours as "
                f"channels: {self.channels} in all"
            )
        shape = slices.shape[1:3]
        patch, batch = self.patch_shape(shape), self.batch_size(shape)
        images = self.scale(slices)
        if self.zoom == 1:
            return predict_stack(self.predict_batch, images, patch, self.overlap, batch=batch, check=check)
        planes = np.moveaxis(images, -1, 1) if images.ndim == 4 else images
        planes = resized(planes, self._resampled(shape))
        images = np.moveaxis(planes, 1, -1) if images.ndim == 4 else planes
        predicted = predict_stack(self.predict_batch, images, patch, self.overlap, batch=batch, check=check)
        return resized(predicted, shape)

    def classify(
        self, slices: Array, check: Callable[[], object] = str, expected: ExpectedDice | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return labels and confidence (255 = certain) of raw slices, both (n, h, w) u1; see `probabilities`.

        Probabilities exist for one slice at a time; they are added to `expected`. `check` is called between batches of
        patches and may raise to stop.
        """
        shape = slices.shape[:3]
        labels, confidence = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        for i in range(len(slices)):
            probabilities = self.probabilities(slices[i : i + 1], check)[0]
            labels[i], confidence[i] = labels_and_confidence(probabilities, self.threshold)
            if expected is not None:
                expected.add(probabilities, labels[i])
        return labels, confidence

    def memory_bytes(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Estimate the bytes needed to classify slices of `shape`: in any case, and for each slice of a slab."""
        patch, seen = self.patch_shape(shape), self._resampled(shape)
        padded = max(seen[0], patch[0]) * max(seen[1], patch[1])
        network = self.bytes_per_pixel * math.prod(patch) * self.batch_size(shape)
        # Of one slice: scaled, padded, sums over patches, normalised, the largest and where it is (8 bytes).
        one = 4.0 * padded * (2 * self.n_classes + 4 + 2 * self.channels)
        if self.zoom != 1:
            one += 4 * shape[0] * shape[1] * (self.n_classes + self.channels)
        # Of each: itself and the one of the next slab, read meanwhile; labels and confidence, and these as written.
        return network + one, 12.0 * shape[0] * shape[1]

    def _resampled(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the shape of slices of `shape` at the network's pixel size, to the nearest whole numbers."""
        height, width = (max(1, math.floor(n * self.zoom + 0.5)) for n in shape[:2])
        return height, width


def labels_of(probabilities: NDArray[np.float32], threshold: float = MIDDLE) -> NDArray[np.uint8]:
    """Return labels (...) u1 from probabilities (classes, ...): the likeliest class.

    With another `threshold` than 0.5, of two classes the second where it has at least that probability.
    """
    if threshold == MIDDLE:
        return np.asarray(probabilities.argmax(axis=0), np.uint8)
    return np.asarray(probabilities[1] >= np.float32(threshold), np.uint8)


def labels_and_confidence(
    probabilities: NDArray[np.float32], threshold: float = MIDDLE
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return labels and their probability (255 = certain), (...) u1, from probabilities (classes, ...)."""
    labels = labels_of(probabilities, threshold)
    found = probabilities.max(axis=0) if threshold == MIDDLE else np.where(labels, probabilities[1], probabilities[0])
    return labels, np.rint(255 * np.clip(found, 0, 1)).astype(np.uint8)


def fitted(
    predictor: SlicePredictor, model: Any, shapes: Sequence[tuple[int, ...]], max_memory: int, hint: str = ""
) -> SlicePredictor:
    """Return the predictor of a model with batches that leave room for slices of `shapes`.

    Raises `InputError`: slice and network need more than `max_memory` bytes, even one patch at a time; `hint` says what
    helps besides more memory.
    """
    n_bytes = max(_needed_per_pixel(model, *predictor.patch_shape(shape)) for shape in shapes)
    fits = replace(predictor, bytes_per_pixel=n_bytes, batch_bytes=batch_bytes_in(max_memory))
    for shape in shapes:
        needed = sum(fits.memory_bytes(shape))
        if needed > max_memory:
            sides = " x ".join(str(n) for n in dict.fromkeys(fits.patch_shape(shape)))
            raise InputError(
                f"the network needs about {math.ceil(needed / 2**20)} MiB for a patch of {sides} px and the slice it "
                f"is of, more than --max-memory allows ({max_memory / 2**20:.0f} MiB): give a larger --max-memory{hint}"
            )
    return fits


def batch_bytes_in(max_memory: int) -> int:
    """Return the memory of a batch where `max_memory` bytes are allowed."""
    return min(BATCH_BYTES, max_memory // 4)


def _needed_per_pixel(model: Any, height: int, width: int) -> float:
    from tomoseg.segmentation.networks.feature_maps import bytes_at_once

    return max(bytes_per_pixel(model, height, width), bytes_at_once(model, height, width) / (height * width))


def bytes_per_pixel(model: Any, height: int, width: int) -> float:
    """Estimate the bytes a Keras network needs per pixel of a patch, from the outputs of its layers."""
    from tomoseg.segmentation.networks.feature_maps import largest_output

    return float(ARRAYS_AT_ONCE * 4 * largest_output(model, height, width)) / (height * width)
