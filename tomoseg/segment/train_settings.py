"""How to train a network; light enough for the command line to show its defaults."""

from dataclasses import dataclass, field

from tomoseg.segment.augment import Augmentation


@dataclass(frozen=True)
class TrainSettings:
    """How to train. The values are those of Genc, Kovarik & Fraser (2022) where they give one.

    Attributes
    ----------
    epochs : passes over the training slices (paper: 100)
    batch : patches per step (paper: 2)
    patch : side of the patches, px (paper: 512)
    learning_rate : of Adam (paper: 5e-4)
    gamma : focusing parameter of the loss (paper: 1)
    class_weights : one per class; None for the paper's 0.2, 0.3, 0.5 with three classes, and for weights in proportion
        to 1 / sqrt(frequency) that sum to 1 with any other number
    depth, base_filters : of the U-Net (paper: 6 and 32)
    folds, fold, guard : validation split, see `tomoseg.segment.folds.split`
    augmentation : see `tomoseg.segment.augment.Augmentation`
    seed : of the first weights and of all random views
    """

    epochs: int = 100
    batch: int = 2
    patch: int = 512
    learning_rate: float = 5e-4
    gamma: float = 1.0
    class_weights: tuple[float, ...] | None = None
    depth: int = 6
    base_filters: int = 32
    folds: int = 4
    fold: int = 0
    guard: int = 1
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0

    def problems(self) -> list[str]:
        """Say what is wrong with the settings."""
        found = [
            f"{name} is {getattr(self, name)}: it must be above 0"
            for name in ("epochs", "batch", "patch", "learning_rate", "depth", "base_filters")
            if not getattr(self, name) > 0
        ]
        multiple = 2 ** (self.depth - 1) if self.depth > 0 else 1
        if self.patch > 0 and self.patch % multiple:
            found.append(f"patch is {self.patch} px: with depth {self.depth} it must be a multiple of {multiple}")
        if self.class_weights is not None and not all(w >= 0 for w in self.class_weights):
            found.append("class_weights must not be below 0")
        return found
