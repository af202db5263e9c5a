"""Labels and confidence for stacks of slices from a trained network."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.segmentation.data.intensity_scaling import Scale
from tomoseg.segmentation.data.resampling import Resampling
from tomoseg.segmentation.inference.blending import PredictBatch, Tiling, never_stop, predict_stack
from tomoseg.segmentation.inference.engines import KerasEngine
from tomoseg.segmentation.inference.test_time_augmentation import Views, averaged_over
from tomoseg.segmentation.networks.card import ModelCard

# The axis of a (z, y, x) volume that is perpendicular to the plane.
NORMAL_AXIS: dict[str, int] = {"xy": 0, "xz": 1, "yz": 2}
# What a batch takes, or a patch if that takes more (the paper's network: 256 MiB for 512 px). It does not follow the
# memory allowed, since a network's last digits may depend on the size of its batches. Larger ones were measured not to
# be faster on a CPU.
BATCH_BYTES = 64 << 20
MOST_PATCHES = 64
# Arrays of the size of a network's largest one that it holds at a time: 2.3 to 3.4 measured with TensorFlow and U-Nets.
ARRAYS_AT_ONCE = 4
WHOLE = 0  # for a patch: each slice in one piece


@dataclass(frozen=True)
class SlicePredictor:
    """A network ready for slices of one scale of intensity.

    Attributes
    ----------
    predict_batch : from scaled patches (batch, h, w), or (batch, h, w, channels), to (batch, h, w, classes)
        probabilities
    patch : largest side of the square patches in px; slices smaller than that use smaller ones. `WHOLE`: a slice is one
        patch
    multiple : sides of patches are a multiple of this
    overlap : see `tomoseg.segmentation.inference.blending.predict_stack`
    bytes_per_pixel : what the network holds in memory per pixel of the patches of a batch
    zoom : pixel size of the slices over that of the network, to which they are resampled, and probabilities back
    channels : slices that the network sees at a time: the one to be labelled in the middle, its neighbours around it
    """

    predict_batch: PredictBatch
    scale: Scale
    n_classes: int
    patch: int
    multiple: int
    overlap: int = 2
    bytes_per_pixel: float = 1024.0
    zoom: float = 1.0
    channels: int = 1

    @classmethod
    def of(
        cls,
        model: Any,
        card: ModelCard,
        scale: Scale,
        patch: int | None = None,
        overlap: int = 2,
        *,
        predict_batch: PredictBatch | None = None,
        views: Views = "none",
        zoom: float = 1.0,
    ) -> "SlicePredictor":
        """Wrap a Keras model.

        Parameters
        ----------
        patch : the one it was trained with unless given
        predict_batch : an engine other than Keras, see `tomoseg.segmentation.inference.engines`
        views : see `tomoseg.segmentation.inference.test_time_augmentation.averaged_over`
        """
        size = card.patch if patch is None else patch
        fixed = model.input_shape[1]
        if size % card.multiple or (fixed is not None and size != fixed):
            wanted = f"a multiple of {card.multiple}" if fixed is None else f"exactly {fixed}"
            raise InputError(f"patches of {size} px do not fit this network: its patch must be {wanted} px")

        n_bytes = bytes_per_pixel(model, size or card.patch)
        predict = averaged_over(views, predict_batch or KerasEngine(model))
        n = len(card.class_names)
        return cls(predict, scale, n, size, card.multiple, overlap, n_bytes, zoom, card.channels)

    def patch_for(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return height and width of the patches used for slices of `shape`, no larger than they need."""
        height, width = (-(-n // self.multiple) * self.multiple for n in self._resampling(shape).resampled)
        if self.patch == WHOLE:
            return height, width
        side = min(self.patch, max(height, width))
        return side, side

    def batch_for(self, shape: tuple[int, ...]) -> int:
        """Return how many patches of a slice of `shape` are predicted at a time at most."""
        patch = self.patch_for(shape)
        fits = int(BATCH_BYTES / (self.bytes_per_pixel * math.prod(patch)))
        places = len(Tiling.of(self._resampling(shape).resampled, patch, self.overlap).starts)
        most = max(1, min(fits, MOST_PATCHES, places))
        return -(-places // -(-places // most))

    def probabilities(self, slices: Array, check: Callable[[], object] = never_stop) -> NDArray[np.float32]:
        """Return (n, classes, h, w) probabilities of raw slices; `check` may raise to stop.

        Slices are (n, h, w), or (n, h, w, channels) with their neighbours where the network sees these.
        """
        if slices.ndim != 3 + (self.channels > 1) or slices.shape[3:] not in ((), (self.channels,)):
            raise InputError(
                f"the network sees {self.channels} slices at a time, one and its neighbours: it cannot label slices of "
                f"shape {slices.shape[1:]}"
            )
        shape = slices.shape[1:3]
        patch, batch = self.patch_for(shape), self.batch_for(shape)
        images = self.scale(slices)
        if self.zoom == 1:
            return predict_stack(self.predict_batch, images, patch, self.overlap, batch=batch, check=check)
        at = self._resampling(shape)
        images = np.moveaxis(at.forth(np.moveaxis(images, -1, 1)), 1, -1) if images.ndim == 4 else at.forth(images)
        return at.back(predict_stack(self.predict_batch, images, patch, self.overlap, batch=batch, check=check))

    def classify(
        self, slices: Array, check: Callable[[], object] = never_stop
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return labels and confidence (255 = certain) of raw slices, both (n, h, w) u1; see `probabilities`.

        Probabilities exist for one slice at a time. `check` is called between batches of patches and may raise to stop.
        """
        shape = slices.shape[:3]
        labels, confidence = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        for i in range(len(slices)):
            labels[i], confidence[i] = decided(self.probabilities(slices[i : i + 1], check)[0])
        return labels, confidence

    def memory(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Return about how many bytes it takes to classify slices of `shape`: in any case, and for each slice more."""
        patch, seen = self.patch_for(shape), self._resampling(shape).resampled
        padded = max(seen[0], patch[0]) * max(seen[1], patch[1])
        network = self.bytes_per_pixel * math.prod(patch) * self.batch_for(shape)
        # Of one slice: scaled, padded, sums over patches, normalised, the largest and where it is (8 bytes).
        one = 4.0 * padded * (2 * self.n_classes + 4 + 2 * self.channels)
        if self.zoom != 1:
            one += 4 * shape[0] * shape[1] * (self.n_classes + self.channels)
        # Of each: itself and the one of the next slab, read meanwhile; labels and confidence, and these as written.
        return network + one, 12.0 * shape[0] * shape[1]

    def _resampling(self, shape: tuple[int, ...]) -> Resampling:
        """Return how slices of `shape` come to the network's pixel size."""
        return Resampling.of((shape[0], shape[1]), self.zoom)


def decided(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return labels and confidence (255 = certain), (...) u1, of probabilities (classes, ...)."""
    confidence = np.rint(255 * np.clip(probabilities.max(axis=0), 0, 1)).astype(np.uint8)
    return probabilities.argmax(axis=0).astype(np.uint8), confidence


def bytes_per_pixel(model: Any, patch: int) -> float:
    """Return about how many bytes a Keras network holds per pixel of a patch, going by the outputs of its layers."""
    from tomoseg.segmentation.networks.keras_setup import keras

    every = keras.Function(model.inputs, [layer.output for layer in model.layers])
    outputs = every.compute_output_spec([keras.KerasTensor((1, patch, patch, model.input_shape[-1]))])
    return float(ARRAYS_AT_ONCE * 4 * max(math.prod(output.shape) for output in outputs)) / patch**2
