"""How to train a network; light enough for the command line to show its defaults."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

from tomoseg.errors import InputError
from tomoseg.segmentation.data.augmentation import Augmentation
from tomoseg.segmentation.networks.card import MOST_CHANNELS
from tomoseg.segmentation.networks.loss_terms import loss_terms

Architecture = Literal["unet", "attention-unet", "attention-res-unet", "compact", "se-resnet34-unet"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
Schedule = Literal["constant", "cosine", "plateau"]
Precision = Literal["auto", "float32", "mixed"]
Preset = Literal["paper", "small"]
PRETRAINED: Architecture = "se-resnet34-unet"  # the one that published weights exist for
PRETRAINED_DEPTHS = (3, 6)  # the fewest and the most levels that it can have
FILTERS: dict[Architecture, int] = {"compact": 16, PRETRAINED: 64}  # of the first level, unless told; of others 32
_ABOVE_0 = (
    *("epochs", "batch", "patch", "learning_rate", "depth", "base_filters"),
    *("plateau_epochs", "validate_every"),
)


@dataclass(frozen=True)
class TrainSettings:
    """How to train. The values are those of Genc, Kovarik & Fraser (2022) where they give one.

    Attributes
    ----------
    epochs : passes over the training slices (paper: 100)
    batch : patches per step (paper: 2)
    patch : side of the patches, px (paper: 512)
    predict_patch : side of the patches in validation and in use; 0: the same
    learning_rate : of Adam (paper: 5e-4)
    schedule : 'constant' (paper); 'cosine': the rate falls to a hundredth over the epochs asked for; 'plateau': it is
        halved whenever validation has not become better for `plateau_epochs` epochs
    plateau_epochs : see `schedule`
    patience : stop once validation has not become better for so many epochs; 0: never
    monitor : what of validation tells which epoch is the best, for patience and plateau, too: 'dice', the mean over
        classes; 'dice:NAME', that of one class; 'loss'
    validate_every : validate after every so many epochs and after the last one
    ema : if above 0, what is validated and kept is a moving average of the weights, of which each step keeps this part
    loss : terms of 'focal' (paper), 'cross-entropy', 'dice', 'tversky' and 'iou', see
    `tomoseg.segmentation.networks.loss_terms` gamma : focusing parameter of the focal loss (paper: 1)
    class_weights : one per class; None for the paper's 0.2, 0.3, 0.5 with three classes, and for weights in proportion
        to 1 / sqrt(frequency) that sum to 1 with any other number
    channels : slices that the network sees: the one to be labelled, and as many neighbours on either side, see
        `tomoseg.segmentation.data.neighbours` (paper: 1)
    architecture : of the network, see `tomoseg.segmentation.networks.builders.build` (paper: 'unet')
    depth, base_filters : its levels, and the channels of the first (paper: 6 and 32)
    encoder_weights : file or https address of weights that the encoder of 'se-resnet34-unet' starts from, or
        'imagenet', see `tomoseg.segmentation.networks.encoder_weights`; empty: from random ones
    patches : patches per epoch; 0: as many as cover the training slices
    sampling : fraction of the patches that are placed around a random pixel of a rare class, one with less than half an
        equal share of the annotated pixels (paper: 0)
    folds, fold, guard : validation split, see `tomoseg.segmentation.data.folds.split`; the guard is at least as wide
    as the
        neighbours that the network sees
    augmentation : see `tomoseg.segmentation.data.augmentation.Augmentation`
    precision : of the computing: 'float32'; 'mixed', where products are of 16-bit numbers, and weights, sums and the
        result of 32-bit ones; 'auto': mixed on a GPU, except with jax, and float32 on a CPU
    seed : of the first weights and of all random views
    """

    epochs: int = 100
    batch: int = 2
    patch: int = 512
    predict_patch: int = 0
    learning_rate: float = 5e-4
    schedule: Schedule = "constant"
    plateau_epochs: int = 5
    patience: int = 0
    monitor: str = "dice"
    validate_every: int = 1
    ema: float = 0.0
    loss: str = "focal"
    gamma: float = 1.0
    class_weights: tuple[float, ...] | None = None
    channels: int = 1
    architecture: Architecture = "unet"
    depth: int = 6
    base_filters: int = 32
    encoder_weights: str = ""
    patches: int = 0
    sampling: float = 0.0
    folds: int = 4
    fold: int = 0
    guard: int = 1
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Precision = "float32"
    seed: int = 0

    def reach(self) -> int:
        """Return how many slices next to one to validate on are not trained on."""
        return max(self.guard, self.channels // 2)

    def monitored_class(self) -> str:
        """Return the name of the class that `monitor` names; empty where it names none."""
        return self.monitor.removeprefix("dice:") if self.monitor.startswith("dice:") else ""

    def problems(self) -> list[str]:
        """Say what is wrong with the settings."""
        found = [
            f"{name} is {getattr(self, name)}: it must be above 0" for name in _ABOVE_0 if not getattr(self, name) > 0
        ]
        found += [
            f"{name} is {getattr(self, name)}: it must not be below 0"
            for name in ("patches", "patience", "predict_patch")
            if getattr(self, name) < 0
        ]
        multiple = 2 ** (self.depth - 1) if self.depth > 0 else 1
        found += [
            f"{name} is {side} px: with depth {self.depth} it must be a multiple of {multiple}"
            for name, side in (("patch", self.patch), ("predict_patch", self.predict_patch))
            if side > 0 and side % multiple
        ]
        if self.class_weights is not None and not all(w >= 0 for w in self.class_weights):
            found.append("class_weights must not be below 0")
        return [*found, *self._problems_with_choices(), *self.augmentation.problems()]

    def _problems_with_choices(self) -> Iterator[str]:
        choices_of: dict[str, tuple[str, ...]] = {
            "architecture": ARCHITECTURES,
            "schedule": get_args(Schedule),
            "precision": get_args(Precision),
        }
        for name, choices in choices_of.items():
            if getattr(self, name) not in choices:
                yield f"{name} is {getattr(self, name)}: it must be one of {', '.join(choices)}"
        if not 1 <= self.channels <= MOST_CHANNELS or self.channels % 2 == 0:
            yield f"channels is {self.channels}: it must be odd, and 1 to {MOST_CHANNELS}"
        fewest, most = PRETRAINED_DEPTHS
        if self.architecture == PRETRAINED and not fewest <= self.depth <= most:
            yield f"depth is {self.depth}: {PRETRAINED} has {fewest} to {most} levels"
        if self.encoder_weights and self.architecture != PRETRAINED:
            yield f"encoder_weights are for the architecture {PRETRAINED}, not for {self.architecture}"
        if not 0 <= self.sampling <= 1:
            yield f"sampling is {self.sampling:g}: it must be 0 to 1"
        if self.monitor not in ("dice", "loss") and not self.monitored_class():
            yield f"monitor is {self.monitor}: it must be dice, loss, or dice: and the name of a class"
        if not 0 <= self.ema < 1:
            yield f"ema is {self.ema:g}: it must be 0 or more and below 1"
        if self.folds <= 1 and (self.patience or self.schedule == "plateau"):
            yield "patience and the schedule 'plateau' go by validation: they need 2 folds or more"
        try:
            loss_terms(self.loss)
        except InputError as error:
            yield str(error)


def preset(name: Preset, largest_side: int) -> TrainSettings:
    """Return settings known by a name.

    'paper' are those of Genc, Kovarik & Fraser (2022). 'small' are those of the network that ships with tomoseg, for a
    CPU: a compact network, patches around particles, and as many of them whatever the number of slices.

    Parameters
    ----------
    largest_side : of the slices, in px; the patches of 'small' are not larger than that needs
    """
    if name == "paper":
        return TrainSettings()
    return TrainSettings(
        architecture="compact",
        base_filters=FILTERS["compact"],
        epochs=40,
        batch=4,
        patch=min(320, -(-largest_side // 32) * 32),
        patches=200,
        sampling=0.4,
        loss="2*focal+dice",
        learning_rate=2e-3,
        schedule="cosine",
        ema=0.99,
        augmentation=Augmentation(
            straight=0.5, zoom=0.15, contrast=0.15, brightness=0.05, gamma=0.15, noise=0.05, blur_px=0.5
        ),
    )
