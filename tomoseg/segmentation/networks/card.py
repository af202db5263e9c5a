"""The card of a trained network, stored inside its `.keras` file and readable without Keras.

A `.keras` file is a zip archive; the card is an additional entry, `tomoseg.json`, which Keras ignores.
"""

import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import numpy as np

from tomoseg import plain_json
from tomoseg.classes import default_colors, default_names, problems_with_colors, problems_with_names
from tomoseg.errors import InputError
from tomoseg.io.limits import reason_of
from tomoseg.lengths import is_possible
from tomoseg.segmentation.data.intensity_scaling import Kind, Scale, Scaling
from tomoseg.segmentation.networks.file_validation import CARD_ENTRY, opened_archive

CARD_FORMAT = 1
LARGEST_PATCH = 8192  # px
MOST_CHANNELS = 31
MIDDLE = 0.5  # the probability at which two classes are equally likely
_KINDS: dict[str, Any] = {
    **{"class_names": list, "class_colors": list, "patch": int, "multiple": int, "made_by": str, "data_digest": str},
    **{
        "channels": int,
        "pixel_size_nm": int | float | NoneType,
        "training": dict,
        "scores": dict,
        "trained_here": bool,
        "threshold": int | float,
    },
}


@dataclass(frozen=True)
class ModelCard:
    """Everything needed to use a network, and its origin."""

    class_names: list[str]  # one per class, in class order
    class_colors: list[str]  # one per class, in class order
    scaling: Scaling  # how intensities were scaled in training
    patch: int  # side in px of the patches it was trained on
    multiple: int  # sides of images must be a multiple of this many px
    pixel_size_nm: float | None = None  # of the training images; None if unknown
    data_digest: str = ""  # SHA-256 of names, images and labels; empty if unknown
    training: dict[str, Any] = field(default_factory=dict)  # parameters and split of the training
    scores: dict[str, Any] = field(default_factory=dict)  # of the saved weights on the validation slices
    made_by: str = ""
    trained_here: bool = True  # False for a Keras model without a card
    channels: int = 1  # of the input: the slice to label in the middle, and as many neighbours on either side
    threshold: float = MIDDLE  # of two classes: the probability from which on a pixel is of the second one

    def to_json(self) -> str:
        """Return the card as JSON text."""
        return json.dumps({"format": CARD_FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Read a card; raise ValueError, KeyError or TypeError if it is malformed."""
        values = plain_json.load(text)
        json.dumps(values, ensure_ascii=False).encode()  # lone surrogates, which nothing can write, are refused here
        if values.pop("format") != CARD_FORMAT:
            raise ValueError("the card was written by a newer tomoseg")
        scaling = values.pop("scaling")
        trained = Scale(**scaling.pop("trained"))
        card = cls(scaling=Scaling(trained=trained, **scaling), **values)
        problems = list(_problems(card))
        if problems:
            raise ValueError("; ".join(problems))
        return card


def _problems(card: ModelCard) -> Iterator[str]:
    """Yield what is wrong with a card."""
    for key, kind in _KINDS.items():
        if not isinstance(getattr(card, key), kind):
            yield f"{key} has the wrong type"
            return
    if not all(isinstance(text, str) for text in (*card.class_names, *card.class_colors)):
        yield "names and colours of classes must be text"
        return
    yield from problems_with_names(card.class_names)
    yield from problems_with_colors(card.class_colors, len(card.class_names))
    if not 1 <= card.patch <= LARGEST_PATCH or not 1 <= card.multiple <= LARGEST_PATCH:
        yield f"patch and multiple must be 1 to {LARGEST_PATCH}"
    if not 1 <= card.channels <= MOST_CHANNELS or card.channels % 2 == 0:
        yield f"channels must be odd, and 1 to {MOST_CHANNELS}"
    if not 0 < card.threshold < 1 or (card.threshold != MIDDLE and len(card.class_names) != 2):
        yield "the threshold must be between 0 and 1, and 0.5 for more than two classes"
    if card.pixel_size_nm is not None and not is_possible(card.pixel_size_nm):
        yield "pixel_size_nm is impossible"
    yield from _problems_with_scaling(card.scaling)


def _problems_with_scaling(scaling: Scaling) -> Iterator[str]:
    if not isinstance(scaling.intensities, dict):
        yield "intensities has the wrong type"
        return
    numbers = [*vars(scaling.trained).values(), *scaling.intensities.values()]
    if scaling.kind not in get_args(Kind):
        yield "the kind of scaling is unknown"
    if not (isinstance(scaling.dtype, str) and np.dtype(scaling.dtype).kind in "iufb"):
        yield "the scaling is for a type that is not numeric"
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        yield "the scaling holds values that are not finite numbers"


def foreign_card(n_classes: int, patch: int, multiple: int) -> ModelCard:
    """Return the card assumed for a Keras model without one."""
    scaling = Scaling("range", "uint8", Scale(0.0, 255.0, 0.0, 1.0))
    names, colors = default_names(n_classes), default_colors(n_classes)
    return ModelCard(names, colors, scaling, patch, multiple, trained_here=False)


def read_card(path: Path) -> ModelCard | None:
    """Return the card of a `.keras` file; None for a model that was not trained by tomoseg.

    Raises `InputError`: the file is missing or not a `.keras` file, or its card is damaged.
    """
    with opened_archive(path) as archive:
        return card_in(path, archive)


def card_in(path: Path, archive: zipfile.ZipFile) -> ModelCard | None:
    """Return the card of an open `.keras` file; see `read_card`."""
    if CARD_ENTRY not in archive.namelist():
        return None
    text = archive.read(CARD_ENTRY)
    try:
        return ModelCard.from_json(text.decode())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"the description inside the model {path} cannot be read: {reason_of(error)}") from error


def add_card(path: Path, card: ModelCard) -> None:
    """Add a card to a `.keras` file without one."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CARD_ENTRY, card.to_json())
