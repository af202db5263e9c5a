"""The loss the network is trained with."""

from collections.abc import Sequence
from typing import Any

from tomoseg.io.slices import IGNORE
from tomoseg.segment.keras_setup import keras


@keras.saving.register_keras_serializable(package="tomoseg")
class WeightedFocalLoss(keras.losses.Loss):  # type: ignore[misc]
    """Weighted focal loss, equation 1 of Genc, Kovarik & Fraser (2022), after Lin et al. (ICCV 2017).

        FL = -(1 / N) sum_i a[t_i] (1 - p_i)**gamma log(p_i)

    over the N annotated pixels of a batch, where t_i is the true class of pixel i, p_i the probability given to it and
    a the weight of the class. Confident pixels (p near 1) hardly count, rare classes count more. Pixels labelled
    `ignore` contribute nothing, neither to the sum nor to N. It is a sum over pixels, so a class absent from a batch
    is simply absent from the sum.

    Parameters
    ----------
    class_weights : sequence of float
        One per class; the paper has 0.2, 0.3, 0.5 for background, support and particles.
    gamma : float
        Focusing parameter; the paper has 1. With 0 and equal weights of 1 it is the cross-entropy.
    ignore : int
        Label of pixels without annotation.
    """

    def __init__(
        self, class_weights: Sequence[float], gamma: float = 1.0, ignore: int = IGNORE, name: str = "weighted_focal"
    ) -> None:
        # reduction None: the mean over annotated pixels is taken here, a mean over all pixels would dilute it.
        super().__init__(name=name, reduction=None)
        self.class_weights = [float(w) for w in class_weights]
        self.gamma = float(gamma)
        self.ignore = int(ignore)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of labels (batch, h, w) integer and probabilities (batch, h, w, C)."""
        ops = keras.ops
        labels = ops.cast(y_true, "int32")
        if len(labels.shape) == len(y_pred.shape):
            labels = ops.squeeze(labels, axis=-1)
        known = ops.cast(ops.not_equal(labels, self.ignore), y_pred.dtype)
        one_hot = ops.one_hot(labels, len(self.class_weights), dtype=y_pred.dtype)  # all zero where ignored
        p = ops.clip(ops.sum(one_hot * y_pred, axis=-1), 1e-7, 1.0 - 1e-7)  # finite gradients for any gamma
        weight = ops.sum(one_hot * ops.convert_to_tensor(self.class_weights, dtype=y_pred.dtype), axis=-1)
        per_pixel = -known * weight * ops.power(1.0 - p, self.gamma) * ops.log(p)
        return ops.sum(per_pixel) / ops.maximum(ops.sum(known), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the loss."""
        return {
            "class_weights": self.class_weights,
            "gamma": self.gamma,
            "ignore": self.ignore,
            "name": self.name,
        }
