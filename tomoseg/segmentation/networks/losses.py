"""The losses a network can be trained with."""

from collections.abc import Callable, Sequence
from typing import Any

from tomoseg.io.slices import IGNORE
from tomoseg.segmentation.networks.keras_setup import keras
from tomoseg.segmentation.networks.registry import loss_terms

SMALLEST = 1e-7  # lower limit of probabilities, and sums of them, in denominators and logarithms
MISSED = 0.7  # what the Tversky loss counts a missed pixel as; an invented one counts the rest of 1


def make_loss(text: str, class_weights: Sequence[float], gamma: float = 1.0) -> Any:
    """Make the loss that `text` describes, see `tomoseg.segmentation.networks.registry.loss_terms`.

    Parameters
    ----------
    class_weights : one per class, for 'focal' and 'cross-entropy'; the others weigh each class by its own size
    gamma : focusing parameter of 'focal'

    Returns
    -------
    keras.losses.Loss
        Of labels (batch, h, w) integer and probabilities (batch, h, w, C).
    """
    terms = loss_terms(text)
    losses = [MAKERS[name](class_weights, gamma) for _, name in terms]
    factors = [factor for factor, _ in terms]
    return losses[0] if factors == [1.0] else SumOfLosses(losses, factors)


@keras.saving.register_keras_serializable(package="tomoseg")
class WeightedFocalLoss(keras.losses.Loss):  # type: ignore[misc]
    """Weighted focal loss, equation 1 of Genc, Kovarik & Fraser (2022), after Lin et al. (ICCV 2017).

        FL = -(1 / N) sum_i a[t_i] (1 - p_i)**gamma log(p_i)

    over the N annotated pixels of a batch, where t_i is the true class of pixel i, p_i the probability given to it and
    a the weight of the class. Confident pixels (p near 1) hardly count, rare classes count more. Pixels labelled
    `ignore` contribute nothing, neither to the sum nor to N. It is a sum over pixels, so a class absent from a batch
    is simply absent from the sum. The paper has the weights 0.2, 0.3, 0.5 for background, support and particles, and a
    focusing parameter gamma of 1. With gamma 0 and equal weights of 1 it is the cross-entropy.
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
        known, one_hot = _known_and_one_hot(y_true, y_pred, self.ignore)
        p = ops.clip(ops.sum(one_hot * y_pred, axis=-1), SMALLEST, 1.0 - SMALLEST)  # finite gradients for any gamma
        weight = ops.sum(one_hot * ops.convert_to_tensor(self.class_weights, dtype=y_pred.dtype), axis=-1)
        per_pixel = -known * weight * ops.power(1.0 - p, self.gamma) * ops.log(p)
        return ops.sum(per_pixel) / ops.maximum(ops.sum(known), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the loss."""
        return {"class_weights": self.class_weights, "gamma": self.gamma, "ignore": self.ignore, "name": self.name}


@keras.saving.register_keras_serializable(package="tomoseg")
class TverskyLoss(keras.losses.Loss):  # type: ignore[misc]
    """One minus the Tversky index of a batch, the mean over the classes that occur in it.

        T_c = TP_c / (TP_c + a FP_c + b FN_c)

    with TP_c the sum over annotated pixels of class c of the probability given to it, FN_c the sum of what was not
    given to it there, and FP_c the sum of what was given to it elsewhere (Salehi, Erdogmus & Gholipour, MLMI 2017).
    With a = b = 1/2 it is the Dice loss (Milletari, Navab & Ahmadi, 3DV 2016), with a = b = 1 the IoU loss (Rahman &
    Wang, ISVC 2016). A class absent from a batch has no index of its own: where it is predicted nevertheless, the
    indices of the other classes fall. `false_positives` and `false_negatives` are a and b, above 0.
    """

    def __init__(
        self, false_positives: float, false_negatives: float, ignore: int = IGNORE, name: str = "tversky"
    ) -> None:
        super().__init__(name=name, reduction=None)
        self.false_positives = float(false_positives)
        self.false_negatives = float(false_negatives)
        self.ignore = int(ignore)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of labels (batch, h, w) integer and probabilities (batch, h, w, C)."""
        ops = keras.ops
        known, one_hot = _known_and_one_hot(y_true, y_pred, self.ignore)
        size = ops.sum(one_hot, axis=(0, 1, 2))  # (C,) pixels
        hit = ops.sum(one_hot * y_pred, axis=(0, 1, 2))
        found = ops.sum(ops.expand_dims(known, -1) * y_pred, axis=(0, 1, 2))
        whole = hit + self.false_positives * (found - hit) + self.false_negatives * (size - hit)
        present = ops.cast(size > 0, y_pred.dtype)
        missed = present * (1.0 - hit / ops.maximum(whole, SMALLEST))
        return ops.sum(missed) / ops.maximum(ops.sum(present), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the loss."""
        weights = {"false_positives": self.false_positives, "false_negatives": self.false_negatives}
        return weights | {"ignore": self.ignore, "name": self.name}


@keras.saving.register_keras_serializable(package="tomoseg")
class SumOfLosses(keras.losses.Loss):  # type: ignore[misc]
    """The sum of several losses, each times a factor."""

    def __init__(self, losses: Sequence[Any], factors: Sequence[float], name: str = "sum_of_losses") -> None:
        super().__init__(name=name, reduction=None)
        self.losses = list(losses)
        self.factors = [float(f) for f in factors]

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of labels (batch, h, w) integer and probabilities (batch, h, w, C)."""
        terms = [f * loss(y_true, y_pred) for f, loss in zip(self.factors, self.losses, strict=True)]
        return sum(terms[1:], terms[0])

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the loss."""
        losses = [keras.losses.serialize(loss) for loss in self.losses]
        return {"losses": losses, "factors": self.factors, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SumOfLosses":
        """Rebuild the loss."""
        losses = [keras.losses.deserialize(loss) for loss in config["losses"]]
        return cls(losses, config["factors"], config["name"])


def _known_and_one_hot(y_true: Any, y_pred: Any, ignore: int) -> tuple[Any, Any]:
    """Return 1 where pixels (batch, h, w) are annotated, and (batch, h, w, C) with 1 for the class of each of those."""
    ops, n_classes, dtype = keras.ops, y_pred.shape[-1], y_pred.dtype
    labels = ops.cast(y_true, "int32")
    if len(labels.shape) == len(y_pred.shape):  # Keras may have given them a last axis of 1
        labels = ops.squeeze(labels, axis=-1)
    # -1 is no class with any backend; torch refuses numbers above the last class.
    classes = ops.where(ops.equal(labels, ignore), -1, labels)
    return ops.cast(ops.not_equal(labels, ignore), dtype), ops.one_hot(classes, n_classes, dtype=dtype)


# From class weights and gamma.
MAKERS: dict[str, Callable[[Sequence[float], float], Any]] = {
    "focal": WeightedFocalLoss,
    "cross-entropy": lambda weights, _: WeightedFocalLoss(weights, 0.0, name="cross_entropy"),
    "dice": lambda *_: TverskyLoss(0.5, 0.5, name="dice"),
    "tversky": lambda *_: TverskyLoss(1 - MISSED, MISSED),
    "iou": lambda *_: TverskyLoss(1.0, 1.0, name="iou"),
}
