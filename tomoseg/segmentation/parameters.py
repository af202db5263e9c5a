"""Parameters of the segmentation of a volume, and what can be wrong with them."""

from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from tomoseg.classes import default_names, problems_with_colors, problems_with_names
from tomoseg.errors import InputError
from tomoseg.parameters import Field, InputFile, Parameters
from tomoseg.segmentation.inference.engines import EngineName, described_engines, problem_with
from tomoseg.segmentation.inference.test_time_augmentation import Symmetries

DEFAULT_MODEL = "particles-on-support"  # for three classes, where nothing else is asked for
DEFAULT_CLASSES = 3
OTSU_MIN_SIZE = 20  # voxels: a sphere of 3.4 voxels across


class SegmentParameters(Parameters):
    """Parameters of the segment stage."""

    method: Literal["auto", "otsu", "unet"] = Field(
        "auto",
        description="'unet': label with the network named by `model`; 'otsu': label by intensity thresholds; 'auto': "
        "use the network if one is named; otherwise particles-on-support for three classes, where the volume is like "
        "what it was trained on, and thresholds elsewhere",
    )
    model: InputFile | None = Field(
        None,
        description="Trained network: a .keras file written by `tomoseg train`, or a name listed by `tomoseg models`; "
        "see `method` for the default",
    )
    classes: int = Field(
        3,
        ge=2,
        le=255,
        description="Number of classes for 'otsu', in ascending order of intensity; a network defines its own",
    )
    class_names: list[str] | None = Field(
        None,
        description="Names of the classes, in class order. Default: those of the network, or background, support, "
        "particles for three classes",
    )
    class_colors: list[str] | None = Field(
        None,
        description="Colours of the classes as #rrggbb, in a pipeline file in quotes, since # begins a comment: "
        "['#000000', '#0072b2', '#d55e00']. Default: those of the network, or the palette of Okabe and Ito",
    )
    engine: EngineName = Field(
        "auto",
        description=f"Software that runs the network. {described_engines()}; 'auto': on a CPU openvino, in half "
        "precision where the processor has it, if it is installed and the volume is large enough to be worth the "
        "conversion; keras otherwise",
    )
    plane: Literal["xz", "xy", "yz", "all"] = Field(
        "xz",
        description="Plane of the slices that the network labels. 'xz' is the plane of reconstruction, perpendicular "
        "to the tilt axis (Genc et al. 2022); 'all' averages the probabilities of all three planes, which takes three "
        "times as long and needs temporary disk space of two bytes per voxel for each class but one",
    )
    patch: int | None = Field(
        None,
        ge=0,
        description="Side of the network's patches in px. Default: the patch size of its training (Genc et al.: 512). "
        "0: predict each slice in one piece, mirrored at its edges, for slices not much larger than a patch",
    )
    overlap: int = Field(
        2,
        ge=1,
        le=8,
        description="Neighbouring patches start patch / overlap px apart; 1 means no overlap and leaves visible seams",
    )
    tta: Symmetries = Field(
        "none",
        description="Test-time augmentation: average the probabilities over mirrored and transposed copies of each "
        "patch. 'none': the patch alone; 'flips': also flipped up-down, left-right and both, four times the work; "
        "'dihedral': these four and their transposes, eight times the work",
    )
    rescale: bool = Field(
        True,
        description="Resample slices to the pixel size the network was trained on, and its probabilities back, where "
        "the voxel size differs from it by more than 5 %",
    )
    intensity: Literal["volume", "model"] = Field(
        "volume",
        description="Intensity scale for the network. 'volume': from the levels of background and support found in "
        "this volume; 'model': the scale of the training slices, for volumes in exactly the same unit",
    )
    smooth: float = Field(
        0.5,
        ge=0,
        le=10,
        description="'otsu': standard deviation, in voxels, of the Gaussian filter applied before thresholding; above "
        "0.8 it shrinks particles of fewer than 10 voxels across (measured on simulated series)",
    )
    thresholds: list[float] | None = Field(
        None,
        description="'otsu': thresholds between the classes, ascending, in the unit of the volume. Default: found from "
        "the histogram",
    )
    resolve_rims: bool = Field(
        True,
        description="'otsu': where an edge leads from a darker to a brighter class through one in between within 2 "
        "voxels, place the boundary half-way between the two and leave no rim of the one in between. Not used with "
        "given thresholds",
    )
    min_size: int | list[int] | None = Field(
        None,
        description="Objects of fewer voxels than this go to the class below: one number, or one for each class above "
        "the first; 1 keeps all. Default: 20 (a sphere of 3.4 voxels across) for 'otsu', 1 for a network. An object of "
        "a class is a connected region of voxels of that class or above",
    )

    @field_validator("model", mode="after")
    @classmethod
    def _found(cls, model: Path | None) -> Path | None:
        """Turn the name of a network into its path; `check` reports a name that no network has."""
        from tomoseg.segmentation.networks.known_models import find_model

        return None if model is None else find_model(model)

    @classmethod
    def is_known_name(cls, parameter: str, text: str) -> bool:
        """Tell whether `model` is a name and not a path."""
        from tomoseg.segmentation.networks.known_models import is_name

        return parameter == "model" and is_name(text)

    @classmethod
    def is_known_file(cls, parameter: str, path: Path) -> bool:
        """Tell whether `model` is one of the networks with a name."""
        from tomoseg.segmentation.networks.known_models import is_of_known_model

        return parameter == "model" and is_of_known_model(path)

    @property
    def uses_network(self) -> bool:
        """True where a named network makes the labels."""
        return self.method == "unet" or (self.method == "auto" and self.model is not None)

    @property
    def tries_default_network(self) -> bool:
        """True where the network that ships makes the labels if the volume is like its world."""
        free = self.method == "auto" and self.model is None and self.thresholds is None
        return free and self.classes == DEFAULT_CLASSES

    def expected_class_names(self) -> list[str] | None:
        """Return the names that the classes will have; None where the network's file does not tell."""
        if self.class_names is not None or not self.uses_network:
            return self.class_names or default_names(self.classes)
        from tomoseg.segmentation.networks.card import read_card
        from tomoseg.segmentation.networks.known_models import resolve_model

        try:
            card = read_card(resolve_model(self.model or ""))
        except InputError:
            return None  # `check` says why
        return None if card is None else card.class_names

    def min_sizes(self, n_classes: int) -> list[int]:
        """Return the smallest size of an object, in voxels, for each class above the first."""
        given = self.min_size
        if given is None:
            given = 1 if self.uses_network else OTSU_MIN_SIZE
        sizes = [given] if isinstance(given, int) else given
        return sizes * (n_classes - 1) if len(sizes) == 1 else sizes


def check(params: SegmentParameters) -> list[str]:
    """List what is wrong with the parameters in combination, and with the model file."""
    problems: list[str] = []
    n_classes: int | None = params.classes
    if params.method == "unet" and params.model is None:
        problems.append("segment.method is unet, but no network is named: set segment.model to a .keras file")
    if params.method == "otsu" and params.model is not None:
        problems.append(
            "segment.method is otsu, which uses no network: set it to unet or auto, or leave out segment.model"
        )
    if params.uses_network:
        n_classes, model_problems = _check_model(params)
        problems += model_problems
    else:
        problems += _check_thresholds(params)
    problems += _check_sizes(params.min_size, n_classes)
    names = params.class_names
    if names is not None:
        problems += [f"segment.{problem}" for problem in problems_with_names(names)]
        if n_classes is not None and len(names) != n_classes:
            expected = (
                f"the network has {n_classes} classes" if params.uses_network else f"segment.classes is {n_classes}"
            )
            problems.append(f"segment.class_names has {len(names)} names, but {expected}")
    if params.class_colors is not None:
        colors = params.class_colors
        problems += [f"segment.{problem}" for problem in problems_with_colors(colors, n_classes or len(colors))]
    return problems


def _check_model(params: SegmentParameters) -> tuple[int | None, list[str]]:
    """Return the number of classes of the network, where its card tells, and what is wrong with model and engine."""
    from tomoseg.segmentation.networks.card import read_card
    from tomoseg.segmentation.networks.known_models import resolve_model

    missing = problem_with(params.engine)
    problems = [f"segment.engine: {missing}, or choose keras"] if missing else []
    if params.model is None:
        return None, problems
    try:
        card = read_card(resolve_model(params.model))
    except InputError as error:
        return None, [*problems, f"segment.model: {error}"]
    if card is None:
        return None, problems
    if params.patch is not None and params.patch % card.multiple:
        problems.append(
            f"segment.patch is {params.patch}: for this network it must be a multiple of {card.multiple} px, or 0"
        )
    return len(card.class_names), problems


def _check_thresholds(params: SegmentParameters) -> list[str]:
    """List what is wrong with thresholds given by hand."""
    given = params.thresholds
    if given is None or (len(given) == params.classes - 1 and all(a < b for a, b in pairwise(given))):
        return []
    return [
        f"segment.thresholds is {given}: {params.classes} classes need {params.classes - 1} ascending thresholds "
        "(segment.classes sets the number of classes)"
    ]


def _check_sizes(given: int | list[int] | None, n_classes: int | None) -> list[str]:
    """List what is wrong with the smallest sizes of objects."""
    sizes = given if isinstance(given, list) else [1 if given is None else given]
    problems = []
    if not sizes or min(sizes) < 1:
        problems.append(f"segment.min_size is {given}: give numbers of voxels of 1 or more")
    if n_classes is not None and len(sizes) not in (1, n_classes - 1):
        problems.append(
            f"segment.min_size has {len(sizes)} numbers: give one, or {n_classes - 1}, one for each class above the "
            "first"
        )
    return problems
