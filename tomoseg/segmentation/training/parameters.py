"""Parameters of a training, and presets of them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import ValidationInfo, field_validator

from tomoseg.errors import InputError
from tomoseg.parameters import Field, Parameters
from tomoseg.segmentation.data.augmentation import Augmentation
from tomoseg.segmentation.networks.card import MOST_CHANNELS
from tomoseg.segmentation.networks.registry import ARCHITECTURES, LOSSES, loss_terms

Preset = Literal["paper", "small", "fine"]
PRETRAINED = ", ".join(name for name, network in ARCHITECTURES.items() if network.pretrained)
_SMALL: dict[str, Any] = {
    "architecture": "compact",
    "epochs": 40,
    "batch": 4,
    "patches": 200,
    "sampling": 0.4,
    "loss": "2*focal+dice",
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "ema": 0.99,
    "augmentation": {
        "straight": 0.5,
        "zoom": 0.15,
        "contrast": 0.15,
        "brightness": 0.05,
        "gamma": 0.15,
        "noise": 0.05,
        "blur_px": 0.5,
    },
}
# From the network that ships, with a tenth of its training.
_FINE: dict[str, Any] = {
    "start": "particles-on-support",
    "epochs": 12,
    "patches": 320,
    "patch": 128,
    "predict_patch": 512,
    "batch": 8,
    "sampling": 0.4,
    "loss": "2*focal+dice",
    "class_weights": (0.3, 0.3, 0.4),
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "ema": 0.98,
    "augmentation": _SMALL["augmentation"],
}
TAKEN_OVER = ("architecture", "depth", "base_filters", "channels")  # from the network that a training starts from
_USUAL_FILTERS = ", ".join(f"{name} {network.filters}" for name, network in ARCHITECTURES.items())


class TrainParameters(Parameters):
    """Parameters of a training; the defaults are those of Genc, Kovarik & Fraser (2022) where they give one."""

    epochs: int = Field(100, ge=1, description="Number of epochs (Genc et al.: 100)")
    batch: int = Field(2, ge=1, description="Patches per step (Genc et al.: 2)")
    patch: int = Field(512, ge=8, description="Side of the training patches in px (Genc et al.: 512)")
    predict_patch: int = Field(0, ge=0, description="Side of the patches in validation and use, in px; 0: as `patch`")
    learning_rate: float = Field(5e-4, gt=0, description="Initial learning rate of Adam (Genc et al.: 5e-4)")
    schedule: Literal["constant", "cosine", "plateau"] = Field(
        "constant",
        description="Schedule of the learning rate: 'constant' (Genc et al.); 'cosine', falling to a hundredth over "
        "all epochs; 'plateau', multiplied by `plateau_factor` whenever validation has not improved for "
        "`plateau_epochs` epochs",
    )
    plateau_epochs: int = Field(5, ge=1, description="Epochs without improvement that make a plateau")
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="Factor of the learning rate at a plateau")
    patience: int = Field(0, ge=0, description="Stop after this many epochs without improvement; 0: never")
    monitor: str = Field(
        "dice",
        description="Validation score by which the best epoch, plateaus and patience are judged: 'dice', the mean over "
        "classes; 'iou', the mean intersection over union; 'dice:CLASS' or 'iou:CLASS', that of one class; 'loss'",
    )
    validate_every: int = Field(1, ge=1, description="Validate after every this many epochs, and after the last one")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of a moving average of the weights, such as 0.999; the average is then validated and kept. "
        "0: no average",
    )
    loss: str = Field("focal", description=f"{', '.join(LOSSES)}, or a sum such as focal+dice or 0.5*focal+1*dice")
    gamma: float = Field(1.0, ge=0, description="Focusing parameter of the focal loss (Genc et al.: 1)")
    class_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        None,
        description="Weight of each class in the loss; by default 0.2, 0.3, 0.5 for three classes (Genc et al.), else "
        "in proportion to 1 / sqrt(frequency), with sum 1",
    )
    channels: int = Field(
        1,
        ge=1,
        le=MOST_CHANNELS,
        description="Slices that the network sees, odd: the one to label in the middle, neighbours on either side "
        "(Genc et al.: 1)",
    )
    architecture: str = Field("unet", description=f"Network: {', '.join(ARCHITECTURES)} (Genc et al.: unet)")
    depth: int = Field(6, ge=1, description="Levels of the network (Genc et al.: 6)")
    base_filters: int = Field(
        0, ge=0, description=f"Channels of the first level; 0: the usual number ({_USUAL_FILTERS})"
    )
    start: str = Field(
        "",
        description="Network that the training starts from: a .keras file, or a name listed by `tomoseg models`. Its "
        "architecture, depth, filters and channels are taken over; its last layer is, too, where it has as many "
        "classes. Random weights by default",
    )
    encoder_weights: str = Field(
        "",
        description=f"Weights that the encoder of {PRETRAINED} starts from: a file or https address, with #md5=... "
        "appended to verify it, or 'imagenet' for the public ones; random by default",
    )
    frozen_epochs: int = Field(
        0,
        ge=0,
        description="Epochs at the start in which an encoder with `encoder_weights` stays as it is, its batch "
        "normalisation by the stored statistics too; the whole network is trained after them",
    )
    norm_epochs: int = Field(
        0,
        ge=0,
        description="Epochs in which batch normalisation learns; from then on its statistics and weights stay, as "
        "those of patches drawn around rare classes are not those of whole slices. 0: it learns to the end, but not in "
        "a network that the training starts from",
    )
    patches: int = Field(0, ge=0, description="Patches per epoch; 0: as many as cover the training slices")
    sampling: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Fraction of the patches placed around a random pixel of a rare class, one with less than half an "
        "equal share of the annotated pixels (Genc et al.: 0)",
    )
    folds: int = Field(4, ge=1, description="Parts that the slices are split into; 1: no validation")
    fold: int = Field(0, ge=0, description="Part to validate on, from 0")
    validation_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Fraction of the images to validate on, drawn at random one by one, for images that are no "
        "neighbours of each other; 0: a part of `folds`",
    )
    sweep_threshold: bool = Field(
        False,
        description="For two classes: from which probability on a pixel is of the second class is found in validation "
        "(best intersection over union) and kept with the network; 0.5 otherwise",
    )
    guard: int = Field(
        1,
        ge=0,
        description="Slices next to a validation slice that are not trained on; at least as many as `channels` sees on "
        "either side",
    )
    augmentation: Augmentation = Field(Augmentation.of("augmentation", {}), description="Random views of the slices")
    intensity: Literal["set", "labels", "image", "scaled"] = Field(
        "set",
        description="Intensity scale. 'set': one for all images, from the levels of background and support in their "
        "histogram; 'labels': likewise, from what is labelled as the first class and as the second; 'image': each "
        "image has its own, from its median and spread, for micrographs of different contrast; "
        "'scaled': images are on a scale already on which these levels are 0 and 1, as simulated worlds are",
    )
    precision: Literal["auto", "float32", "mixed"] = Field(
        "float32",
        description="'float32'; 'mixed': products of 16-bit numbers, all else of 32 bits; 'auto': mixed on a GPU "
        "(except with jax), float32 on a CPU",
    )
    seed: int = Field(0, ge=0, description="Seed of the initial weights and of the random views")

    @field_validator("monitor")
    @classmethod
    def _known_score(cls, value: str) -> str:
        score, colon, name = value.partition(":")
        if score not in ("dice", "iou", "loss") or bool(colon) != bool(name) or (score == "loss" and name):
            raise ValueError("give dice, iou, loss, or dice: or iou: and the name of a class")
        return value

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str) -> str:
        try:
            loss_terms(value)
        except InputError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("channels")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"the number must be odd, and 1 to {MOST_CHANNELS}")
        return value

    @field_validator("architecture")
    @classmethod
    def _known_architecture(cls, value: str) -> str:
        if value not in ARCHITECTURES:
            raise ValueError(f"there is no such network; choose one of {', '.join(ARCHITECTURES)}")
        return value

    @field_validator("base_filters")
    @classmethod
    def _usual_filters(cls, value: int, info: ValidationInfo) -> int:
        return value or ARCHITECTURES[info.data.get("architecture", "unet")].filters

    @field_validator("augmentation", mode="before")
    @classmethod
    def _known_views(cls, value: Any) -> Any:
        known = Augmentation.model_fields
        if isinstance(value, Mapping) and (unknown := [name for name in value if name not in known]):
            raise ValueError(f"there is no '{unknown[0]}'; there are {', '.join(known)}")
        return value

    @property
    def reach(self) -> int:
        """Number of slices next to a validation slice that are not trained on."""
        return max(self.guard, self.channels // 2)

    @property
    def monitored_class(self) -> str:
        """Name of the class that `monitor` names; empty where it names none."""
        return self.monitor.partition(":")[2]

    @property
    def has_validation(self) -> bool:
        """True where some of the slices are kept for validation."""
        return self.folds > 1 or self.validation_fraction > 0

    def changed(self, **values: Any) -> Self:
        """Return the parameters with other values for some."""
        return self.of("train", self.model_dump() | values)


def check(params: TrainParameters) -> list[str]:
    """List what is wrong with valid parameters in combination."""
    network, multiple = ARCHITECTURES[params.architecture], 1 << (params.depth - 1)
    found = [
        f"{name} is {side} px: with depth {params.depth} it must be a multiple of {multiple}"
        for name, side in (("patch", params.patch), ("predict_patch", params.predict_patch))
        if side % multiple
    ]
    fewest, most = network.depths
    if not fewest <= params.depth <= most:
        found.append(f"depth is {params.depth}: {params.architecture} has {fewest} to {most} levels")
    if params.encoder_weights and not network.pretrained:
        found.append(f"encoder_weights are for the architecture {PRETRAINED}, not for {params.architecture}")
    if params.start:
        found += _problems_with_start(params)
    if not params.has_validation and (params.patience or params.schedule == "plateau" or params.sweep_threshold):
        found.append(
            "patience, the schedule 'plateau' and sweep_threshold need validation: give at least 2 folds, or a "
            "validation_fraction"
        )
    return found


def _problems_with_start(params: TrainParameters) -> list[str]:
    """List what is wrong with the network that a training starts from, or differs from it."""
    if params.encoder_weights:
        return ["start and encoder_weights both say where the weights come from: give one of them"]
    try:
        known = _shape_of(params.start)
    except InputError as error:
        return [f"start: {error}"]
    return [
        f"{key} is {getattr(params, key)}, and {value} in the network to start from ({params.start}): leave it out"
        for key, value in known.items()
        if key in TAKEN_OVER and getattr(params, key) != value
    ]


def _shape_of(start: str) -> dict[str, Any]:
    """Return the parameters that a training takes over from the network it starts from.

    Raises `InputError`: there is no such network, or tomoseg did not train it.
    """
    from tomoseg.segmentation.networks.card import read_card
    from tomoseg.segmentation.networks.known_models import resolve_model

    card = read_card(resolve_model(start))
    if card is None or any(key not in card.training for key in TAKEN_OVER):
        raise InputError(
            f"{start} does not tell its architecture: only networks trained by tomoseg can be started from"
        )
    shape = {key: card.training[key] for key in TAKEN_OVER}
    if card.scaling.kind == "image":
        return shape | {"intensity": "image"}
    return shape | {"intensity": "labels" if card.scaling.kind == "labelled" else "set"}


def preset(name: Preset, largest_side: int = 320, **changes: Any) -> TrainParameters:
    """Return the parameters known by a name, with changes.

    'paper' are those of Genc, Kovarik & Fraser (2022). 'small' are those of 'gamma-alumina-pt', which ships with
    tomoseg, for a CPU: a compact network, patches around particles, and the same number of them for any number of
    slices. 'fine' starts from 'particles-on-support', which ships as well.

    Parameters
    ----------
    largest_side : of the slices, in px; 'small' takes patches no larger than that needs
    changes : values in place of the preset's; of `augmentation`, a mapping, those that are given

    Raises
    ------
    InputError
        There is no such preset, or a value is wrong.
    """
    if name not in get_args(Preset):
        raise InputError(f"there is no preset '{name}': give one of {', '.join(get_args(Preset))}")
    small: dict[str, Any] = {**_SMALL, "patch": min(320, -(-largest_side // 32) * 32)}
    values = {"paper": {}, "small": small, "fine": _FINE}[name]
    if isinstance(views := changes.get("augmentation"), Mapping):
        changes["augmentation"] = {**values.get("augmentation", {}), **views}
    start = changes.get("start", values.get("start", ""))
    taken_over = _shape_of(start) if isinstance(start, str) and start else {}
    return TrainParameters.of("train", values | taken_over | changes)
