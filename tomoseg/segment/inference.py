"""Labels and confidence for stacks of slices from a trained network."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.segment.blending import PredictBatch, predict_stack
from tomoseg.segment.card import ModelCard
from tomoseg.segment.scaling import Scale

# The axis of a (z, y, x) volume that is perpendicular to the plane.
NORMAL_AXIS: dict[str, int] = {"xy": 0, "xz": 1, "yz": 2}
PIXELS_PER_BATCH = 512 * 512 * 2  # the paper's batch of two patches of 512 px


@dataclass(frozen=True)
class SlicePredictor:
    """A network ready for slices of one scale of intensity.

    Attributes
    ----------
    predict_batch : from (batch, patch, patch) scaled images to (batch, patch, patch, classes) probabilities
    patch : largest side of the patches in px; slices smaller than that use smaller ones
    multiple : patches are a multiple of this
    overlap : see `tomoseg.segment.blending.predict_stack`
    """

    predict_batch: PredictBatch
    scale: Scale
    n_classes: int
    patch: int
    multiple: int
    overlap: int = 2

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

        return cls(predict_batch, scale, len(card.class_names), size, card.multiple, overlap)

    def patch_for(self, shape: tuple[int, ...]) -> int:
        """Return the side of the patches used for slices of `shape`, no larger than they need."""
        needed = -(-max(shape) // self.multiple) * self.multiple
        return min(self.patch, needed)

    def probabilities(self, slices: Array) -> NDArray[np.float32]:
        """Return (n, classes, h, w) probabilities of raw slices (n, h, w)."""
        patch = self.patch_for(slices.shape[1:])
        batch = min(max(PIXELS_PER_BATCH // patch**2, 1), 64)
        return predict_stack(self.predict_batch, self.scale(slices), patch, self.overlap, batch=batch)

    def classify(self, slices: Array) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return labels and confidence (255 = certain) of raw slices (n, h, w), both (n, h, w) u1."""
        probabilities = self.probabilities(slices)
        labels = probabilities.argmax(axis=1).astype(np.uint8)
        confidence = np.rint(255 * np.clip(probabilities.max(axis=1), 0, 1)).astype(np.uint8)
        return labels, confidence

    def bytes_per_slice(self, shape: tuple[int, ...]) -> float:
        """Return about how much memory one slice of `shape` needs while it is classified."""
        patch = self.patch_for(shape)
        pixels = max(shape[0], patch) * max(shape[1], patch)
        return 4.0 * pixels * (2 * self.n_classes + 4)
