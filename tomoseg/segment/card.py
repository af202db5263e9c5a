"""What is known of a trained network, stored inside its `.keras` file and readable without Keras.

A `.keras` file is a zip archive; the card is one more entry in it, `tomoseg.json`, which Keras leaves alone.
"""

import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.errors import InputError
from tomoseg.segment.classes import default_colors, default_names, problems_with_colors, problems_with_names
from tomoseg.segment.scaling import Scale, Scaling

CARD_ENTRY = "tomoseg.json"
CARD_FORMAT = 1


@dataclass(frozen=True)
class ModelCard:
    """Everything needed to use a network, and where it comes from.

    Attributes
    ----------
    class_names, class_colors : one per class, in class order
    scaling : how intensities were scaled in training
    patch : side in px of the patches it was trained on
    multiple : images must be a multiple of this many px along each side
    pixel_size_nm : of the training images; None where unknown
    data_digest : SHA-256 of names, images and labels; empty where unknown
    training : settings and split, as trained
    scores : on the validation images, for the weights that were kept
    trained_here : False for a Keras model without a card
    """

    class_names: list[str]
    class_colors: list[str]
    scaling: Scaling
    patch: int
    multiple: int
    pixel_size_nm: float | None = None
    data_digest: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    made_by: str = ""
    trained_here: bool = True

    def to_json(self) -> str:
        """Return the card as JSON text."""
        return json.dumps({"format": CARD_FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Read a card; raises ValueError, KeyError or TypeError where it is not one."""
        values = json.loads(text)
        if values.pop("format") != CARD_FORMAT:
            raise ValueError("the card was written by a newer tomoseg")
        scaling = values.pop("scaling")
        trained = Scale(**scaling.pop("trained"))
        card = cls(scaling=Scaling(trained=trained, **scaling), **values)
        problems = problems_with_names(card.class_names) + problems_with_colors(
            card.class_colors, len(card.class_names)
        )
        if problems:
            raise ValueError("; ".join(problems))
        np.dtype(card.scaling.dtype)
        return card


def foreign_card(n_classes: int, patch: int, multiple: int) -> ModelCard:
    """Return the assumptions made of a Keras model that was not trained here."""
    scaling = Scaling("range", "uint8", Scale(0.0, 255.0, 0.0, 1.0))
    names, colors = default_names(n_classes), default_colors(n_classes)
    return ModelCard(names, colors, scaling, patch, multiple, trained_here=False)


def read_card(path: Path) -> ModelCard | None:
    """Return the card of a `.keras` file, or None if it has none (a model from elsewhere).

    Raises
    ------
    InputError
        Where the file is missing, is no `.keras` file, or its card is damaged.
    """
    if not path.is_file():
        raise InputError(f"the model {path} does not exist: give the .keras file that `tomoseg train` wrote")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = set(archive.namelist())
            if not {"config.json", "model.weights.h5"} <= entries:
                raise InputError(
                    f"{path} is a zip archive but no Keras model: give the .keras file of a trained network"
                )
            if CARD_ENTRY not in entries:
                return None
            return ModelCard.from_json(archive.read(CARD_ENTRY).decode())
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(
            f"{path} is not a .keras file ({error}): give the file that `tomoseg train` wrote. If it is that file, it "
            "is damaged; copy it again."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"the description inside the model {path} cannot be read: {error}") from error


def add_card(path: Path, card: ModelCard) -> None:
    """Put the card into a `.keras` file that has none."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CARD_ENTRY, card.to_json())
