"""Save and load networks with their card."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tomoseg.errors import InputError
from tomoseg.segment import losses  # noqa: F401  registers the loss, so that checkpoints load
from tomoseg.segment.card import ModelCard, add_card, foreign_card, read_card
from tomoseg.segment.keras_setup import keras

# A U-Net from elsewhere with free input size: six levels at most is what the field uses.
FOREIGN_PATCH, FOREIGN_MULTIPLE = 512, 32

# Layers that run code or other programs' models, which Keras' safe mode does not refuse in all versions.
CODE = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__"}
MODULES = ("keras", "builtins", "tomoseg.segment.losses")
MOST_TIMES = 100  # a network's weights hardly compress; more than this is a trap for the memory
SMALL_BYTES = 1 << 20  # of an entry that may compress as well as it likes


def save_model(model: Any, path: Path, card: ModelCard) -> None:
    """Write weights, architecture and card to `path` in one step; optimiser state is left out."""
    bare = keras.models.clone_model(model)
    bare.set_weights(model.get_weights())
    part = path.with_name(f".{path.stem}.part.keras")
    try:
        bare.save(part)
        add_card(part, card)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_model(path: Path) -> tuple[Any, ModelCard]:
    """Load a network and its card, without running code that the file may hold (Keras' safe mode).

    A Keras model without a card is taken as it is: see `foreign_card`.

    Raises
    ------
    InputError
        Where the file is missing, damaged, needs code of its own, or is no segmentation network for grey images.
    """
    card = read_card(path)
    _refuse_traps(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises nearly anything here, h5py and zipfile errors included
        raise InputError(
            f"the network in {path} cannot be loaded: {_first_line(error)}. It is damaged, was saved by a newer Keras "
            f"than {keras.__version__}, or holds Python code of its own, which is not run for safety."
        ) from error
    shape_in, shape_out = tuple(model.input_shape), tuple(model.output_shape)
    if len(shape_in) != 4 or shape_in[-1] != 1 or len(shape_out) != 4 or (shape_out[-1] or 0) < 2:
        raise InputError(
            f"the network in {path} maps {shape_in} to {shape_out}; needed is one that maps grey images (batch, "
            "height, width, 1) to class probabilities (batch, height, width, classes)"
        )
    if card is None:
        sides = {side for side in shape_in[1:3] if side is not None}
        if len(sides) > 1:
            raise InputError(
                f"the network in {path} wants images of {shape_in[1:3]} px; only square ones are supported"
            )
        fixed = sides.pop() if sides else None
        return model, foreign_card(shape_out[-1], fixed or FOREIGN_PATCH, fixed or FOREIGN_MULTIPLE)
    if shape_out[-1] != len(card.class_names):
        raise InputError(
            f"the network in {path} has {shape_out[-1]} classes, but its card names {len(card.class_names)}: the file "
            "was changed after training"
        )
    return model, card


def _refuse_traps(path: Path) -> None:
    """Raise `InputError` for an archive that unpacks to far more than it is, or names code; all else Keras tells."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.file_size > SMALL_BYTES + MOST_TIMES * entry.compress_size:
                    raise InputError(
                        f"the network in {path} is refused: {entry.filename} unpacks to far more than it is"
                    )
            config = json.loads(archive.read("config.json"))
            named = list(_classes(config))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, RecursionError, NotImplementedError) as error:
        raise InputError(f"the network in {path} cannot be loaded: {_first_line(error)}. It is damaged.") from error
    for module, name in named:
        if name in CODE or not any(module == known or module.startswith(f"{known}.") for known in MODULES):
            raise InputError(
                f"the network in {path} names {module}.{name}, which is Python code of its own or of another program; "
                "it is not run for safety. Save it again with Keras' own layers only."
            )


def _classes(config: Any) -> Iterator[tuple[str, str]]:
    """Yield (module, class) of everything that a configuration makes."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield str(config.get("module") or "keras"), str(config["class_name"])
        for value in config.values():
            yield from _classes(value)
    elif isinstance(config, list):
        for value in config:
            yield from _classes(value)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
