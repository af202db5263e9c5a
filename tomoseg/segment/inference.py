"""Labels and confidence for stacks of slices from a trained network."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.segment.blending import PredictBatch, Tiling, never_stop, predict_stack
from tomoseg.segment.card import ModelCard
from tomoseg.segment.scaling import Scale

# The axis of a (z, y, x) volume that is perpendicular to the plane.
NORMAL_AXIS: dict[str, int] = {"xy": 0, "xz": 1, "yz": 2}
# What a batch takes, or a patch if that takes more (the paper's network: 256 MiB for 512 px). It does not follow the
# memory allowed, since a network's last digits may depend on the size of its batches. Larger ones were measured not to
# be faster on a CPU.
BATCH_BYTES = 64 << 20
MOST_PATCHES = 64
# Arrays of the size of a network's largest one that it holds at a time: 2.3 to 3.4 measured with TensorFlow and U-Nets.
ARRAYS_AT_ONCE = 4


@dataclass(frozen=True)
class SlicePredictor:
    """A network ready for slices of one scale of intensity.

    Attributes
    ----------
    predict_batch : from (batch, patch, patch) scaled images to (batch, patch, patch, classes) probabilities
    patch : largest side of the patches in px; slices smaller than that use smaller ones
    multiple : patches are a multiple of this
    overlap : see `tomoseg.segment.blending.predict_stack`
    bytes_per_pixel : what the network holds in memory per pixel of the patches of a batch
    """

    predict_batch: PredictBatch
    scale: Scale
    n_classes: int
    patch: int
    multiple: int
    overlap: int = 2
    bytes_per_pixel: float = 1024.0

    @classmethod
    def of(
        cls, model: Any, card: ModelCard, scale: Scale, patch: int | None = None, overlap: int = 2
    ) -> "SlicePredictor":
        """Wrap a Keras model; `patch` is the one it was trained with unless given."""
        size = patch or card.patch
        fixed = model.input_shape[1] is not None
        if size % card.multiple or (fixed and size != model.input_shape[1]):
            wanted = f"exactly {model.input_shape[1]}" if fixed else f"a multiple of {card.multiple}"
            raise InputError(f"patches of {size} px do not fit this network: its patch must be {wanted} px")

        def predict_batch(patches: NDArray[np.float32]) -> Array:
            return np.asarray(model.predict_on_batch(patches[..., None]))

        n_bytes = bytes_per_pixel(model, size)
        return cls(predict_batch, scale, len(card.class_names), size, card.multiple, overlap, n_bytes)

    def patch_for(self, shape: tuple[int, ...]) -> int:
        """Return the side of the patches used for slices of `shape`, no larger than they need."""
        needed = -(-max(shape) // self.multiple) * self.multiple
        return min(self.patch, needed)

    def batch_for(self, shape: tuple[int, ...]) -> int:
        """Return how many patches of a slice of `shape` are predicted at a time at most."""
        patch = self.patch_for(shape)
        fits = int(BATCH_BYTES / (self.bytes_per_pixel * patch**2))
        return max(1, min(fits, MOST_PATCHES, len(Tiling.of((shape[0], shape[1]), patch, self.overlap).starts)))

    def probabilities(self, slices: Array, check: Callable[[], object] = never_stop) -> NDArray[np.float32]:
        """Return (n, classes, h, w) probabilities of raw slices (n, h, w); `check` may raise to stop."""
        shape = slices.shape[1:]
        patch, batch = self.patch_for(shape), self.batch_for(shape)
        return predict_stack(self.predict_batch, self.scale(slices), patch, self.overlap, batch=batch, check=check)

    def classify(
        self, slices: Array, check: Callable[[], object] = never_stop
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return labels and confidence (255 = certain) of raw slices (n, h, w), both (n, h, w) u1.

        Probabilities exist for one slice at a time. `check` is called between batches of patches and may raise to stop.
        """
        labels, confidence = np.empty(slices.shape, np.uint8), np.empty(slices.shape, np.uint8)
        for i in range(len(slices)):
            probabilities = self.probabilities(slices[i : i + 1], check)[0]
            labels[i] = probabilities.argmax(axis=0)
            confidence[i] = np.rint(255 * np.clip(probabilities.max(axis=0), 0, 1))
        return labels, confidence

    def memory(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Return about how many bytes it takes to classify slices of `shape`: in any case, and for each slice more."""
        patch = self.patch_for(shape)
        padded = max(shape[0], patch) * max(shape[1], patch)
        network = self.bytes_per_pixel * patch**2 * self.batch_for(shape)
        # Of one slice: scaled, padded, sums over patches, normalised, the largest and where it is (8 bytes).
        return network + 4 * padded * (2 * self.n_classes + 6), 8.0 * shape[0] * shape[1]


def bytes_per_pixel(model: Any, patch: int) -> float:
    """Return about how many bytes a Keras network holds per pixel of a patch, going by the outputs of its layers."""
    from tomoseg.segment.keras_setup import keras

    every = keras.Function(model.inputs, [layer.output for layer in model.layers])
    outputs = every.compute_output_spec([keras.KerasTensor((1, patch, patch, 1))])
    return float(ARRAYS_AT_ONCE * 4 * max(math.prod(output.shape) for output in outputs)) / patch**2
