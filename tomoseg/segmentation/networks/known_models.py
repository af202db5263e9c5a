"""Networks known by name: the user's own, and those that ship with tomoseg.

The name is the file name before `.keras`; of two networks with the same name, the user's own counts. This module loads
nothing heavy: parameters are checked with it.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomoseg.errors import InputError, shown
from tomoseg.io.folders import data_folder
from tomoseg.io.regular import status_of

if TYPE_CHECKING:
    from tomoseg.segmentation.networks.card import ModelCard

SUFFIX = ".keras"
VARIABLE = "TOMOSEG_MODELS"
SHIPPED = Path(__file__).parents[2] / "models"


@dataclass(frozen=True)
class KnownModel:
    """A network with a name."""

    name: str
    path: Path  # the `.keras` file
    ships: bool  # it ships with tomoseg
    hidden: bool  # another network of the same name comes first
    card: "ModelCard | None"  # its card; None if it cannot be read, for the reason in `problem`
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        card = self.card
        return {
            "name": self.name,
            "path": str(self.path),
            "ships_with_tomoseg": self.ships,
            "hidden": self.hidden,
            "problem": self.problem,
            "class_names": card.class_names if card else [],
            "pixel_size_nm": card.pixel_size_nm if card else None,
            "scores": card.scores if card else {},
            "made_by": card.made_by if card else "",
        }


def user_folder() -> Path:
    """Return the folder of the user's own networks; it need not exist."""
    if named := os.environ.get(VARIABLE):
        try:
            return Path(named).expanduser()
        except RuntimeError as error:  # ~nobody
            raise InputError(f"the environment variable {VARIABLE} is {shown(named)}: there is no such home") from error
    return data_folder() / "models"


def is_name(text: str) -> bool:
    """Tell whether a text can be the name of a network: without a folder, and without `.keras`."""
    return bool(text) and not text.endswith(SUFFIX) and Path(text).name == text


def is_of_known_model(path: Path) -> bool:
    """Tell whether a file lies in the folder of the user's own networks, or ships with tomoseg."""
    return path.suffix == SUFFIX and path.parent in (user_folder().absolute(), SHIPPED)


def find_model(model: Path | str) -> Path:
    """Return the file of a network given by path or by name; anything else is returned unchanged.

    A file takes precedence over a network of that name.
    """
    path = Path(model)
    if not is_name(str(model)) or status_of(path):
        return path
    return next((f for folder in (user_folder(), SHIPPED) if status_of(f := folder / f"{path}{SUFFIX}")), path)


def resolve_model(model: Path | str) -> Path:
    """Return the file of a network given by path or by name.

    Raises `InputError`: it looks like a name, and no network has it. Paths are not checked.
    """
    found = find_model(model)
    if is_name(str(found)) and not found.is_file():
        names = sorted({known.name for known in known_models() if known.card is not None})
        there = f"there are {', '.join(names)}" if names else "there are none"
        raise InputError(
            f"there is no network named '{shown(found)}' ({there}): give one of these, or the path of a {SUFFIX} file. "
            f"Your own networks belong in {user_folder()}"
        )
    return found


def known_models() -> list[KnownModel]:
    """Return the networks with a name, sorted by it; files without a card are left out."""
    from tomoseg.segmentation.networks.card import read_card

    found: list[KnownModel] = []
    for folder in (user_folder(), SHIPPED):
        for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
            hidden = any(known.name == path.stem for known in found)
            try:
                card, problem = read_card(path), ""
            except InputError as error:
                card, problem = None, str(error)
            if card is not None or problem:
                found.append(KnownModel(path.stem, path, folder == SHIPPED, hidden, card, problem))
    return sorted(found, key=lambda known: (known.name, known.ships))
