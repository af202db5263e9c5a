"""Saving and loading of networks with their card."""

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tomoseg.classes import MAX_CLASSES
from tomoseg.errors import InputError
from tomoseg.io.atomic import atomic_path
from tomoseg.io.limits import reason_of
from tomoseg.io.sandbox import copy_numbers
from tomoseg.segmentation.networks import losses  # noqa: F401  registers the loss, so that checkpoints load
from tomoseg.segmentation.networks.card import ModelCard, add_card, card_in, foreign_card
from tomoseg.segmentation.networks.feature_maps import Trial
from tomoseg.segmentation.networks.file_validation import (
    CONFIG_ENTRY,
    WEIGHTS_ENTRY,
    checked_architecture,
    opened_archive,
)
from tomoseg.segmentation.networks.keras_setup import keras

# Assumed for other U-Nets of free input size: the field uses six levels at most.
FOREIGN_PATCH, FOREIGN_MULTIPLE = 512, 32
SPARE_NUMBERS = 1_000_000  # weights that a network may have in addition to those in its file: random states
MOST_NUMBERS_PER_MAP = 1 << 30  # 4 GB; the largest map of the paper's network has 16 million for a patch of 512 px


def save_model(model: Any, path: Path, card: ModelCard) -> None:
    """Write weights, architecture and card to `path` atomically, without the optimiser.

    The saved network computes in float32, whatever the precision of its training.
    """
    # Not clone_model: the clone of a compiled network is compiled, and is saved with its optimiser at thrice the size.
    bare = type(model).from_config(_in_float32(model.get_config()))
    bare.set_weights(model.get_weights())
    with atomic_path(path, suffix=".keras") as part:  # Keras wants its suffix
        bare.save(part)
        add_card(part, card)


def _in_float32(config: Any) -> Any:
    """Return a description of layers with all policies of mixed precision replaced by float32."""
    if isinstance(config, Mapping):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {**config["config"], "name": "float32"}}
        return {key: _in_float32(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_in_float32(value) for value in config)
    return config


def load_checkpoint(path: Path) -> Any:
    """Load a network with its optimiser and loss from a checkpoint.

    Raises `InputError`: it is missing or damaged, or has parts that `tomoseg train` does not use.
    """
    with opened_archive(path) as archive:
        checked_architecture(path, archive.read(CONFIG_ENTRY), for_training=True)
    try:
        return keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # Keras raises nearly anything here
        raise InputError(
            f"the checkpoint {path} cannot be loaded: {type(error).__name__}: {reason_of(error)}. Train anew with "
            "--force."
        ) from error


def load_model(path: Path) -> tuple[Any, ModelCard]:
    """Load a network and its card without running code that the file may hold.

    Only layers of networks for images are allowed, and Keras' safe mode is on. A Keras model without a card gets that
    of `foreign_card`.

    Raises `InputError`: the file is missing or damaged, needs code of its own, claims more than it holds, or is not a
    segmentation network for grey images.
    """
    with opened_archive(path) as archive, tempfile.TemporaryDirectory(prefix="tomoseg-") as folder:
        card = card_in(path, archive)
        config = checked_architecture(path, archive.read(CONFIG_ENTRY))
        given, weights = Path(folder, "given.h5"), Path(folder, "model.weights.h5")
        with archive.open(WEIGHTS_ENTRY) as source, given.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        # Another process rewrites the file for Keras, since a damaged one may crash its reader.
        try:
            n_numbers = copy_numbers(given, weights)
        except (InputError, OSError) as error:
            raise InputError(f"the weights in {path} are damaged: {reason_of(error)}") from error
        model = _built(path, config, weights, n_numbers)
    return model, _checked_use(path, model, card)


def _built(path: Path, config: dict[str, Any], weights: Path, n_numbers: int) -> Any:
    """Return the network of a description with its weights."""
    try:
        with _held_to(path, 2 * n_numbers + SPARE_NUMBERS):
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        model.load_weights(weights)
    except InputError:
        raise
    except Exception as error:  # Keras raises nearly anything here
        raise InputError(
            f"the network in {path} cannot be loaded: {type(error).__name__}: {reason_of(error)}. It is damaged, or "
            f"was saved by a newer Keras than {keras.__version__}."
        ) from error
    return model


@contextmanager
def _held_to(path: Path, most_numbers: int) -> Iterator[None]:
    """Refuse, inside this block, more weights than are in the file and feature maps of implausible size.

    Keras has no hook for either, so its methods are replaced meanwhile.
    """
    add_weight, call = keras.Layer.add_weight, keras.Layer.__call__
    left = most_numbers

    def counted_weight(layer: Any, shape: Any = None, *args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= math.prod(shape or ())
        if left < 0:
            raise InputError(
                f"the network in {path} is implausible: its layers have more weights than are stored in the file"
            )
        return add_weight(layer, shape, *args, **kwargs)

    def measured_call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        output = call(layer, *args, **kwargs)
        numbers = math.prod(n or 1 for n in getattr(output, "shape", ()))
        if numbers > MOST_NUMBERS_PER_MAP:
            raise InputError(f"the network in {path} is implausible: a feature map has {numbers} numbers")
        return output

    keras.Layer.add_weight, keras.Layer.__call__ = counted_weight, measured_call
    try:
        yield
    finally:
        keras.Layer.add_weight, keras.Layer.__call__ = add_weight, call


def _checked_use(path: Path, model: Any, card: ModelCard | None) -> ModelCard:
    """Check that the network can segment grey images; return its card, or an assumed one."""
    shape_in, shape_out = _one_shape(model.input_shape), _one_shape(model.output_shape)
    n_classes = shape_out[-1] if len(shape_out) == 4 and shape_out[-1] else 0
    channels = card.channels if card else 1
    if len(shape_in) != 4 or shape_in[-1] != channels or not 2 <= n_classes <= MAX_CLASSES:
        raise InputError(
            f"the network in {path} maps {shape_in} to {shape_out}, but must map grey images (batch, height, width, "
            f"{channels}) to class probabilities (batch, height, width, classes)"
        )
    if card is None:
        sides = {side for side in shape_in[1:3] if side is not None}
        if len(sides) > 1:
            raise InputError(
                f"the network in {path} takes images of {shape_in[1:3]} px; only square ones are supported"
            )
        fixed = sides.pop() if sides else None
        card = foreign_card(n_classes, fixed or FOREIGN_PATCH, fixed or FOREIGN_MULTIPLE)
    if n_classes != len(card.class_names):
        raise InputError(
            f"the network in {path} has {n_classes} classes, but its card names {len(card.class_names)}: the file was "
            "changed after the training"
        )
    _try_out(path, model, card.patch, channels)
    return card


def _one_shape(shape: Any) -> tuple[int | None, ...]:
    """Return the shape of the only input or output; an empty one if there are several."""
    shape = tuple(shape) if isinstance(shape, list | tuple) else ()
    return shape if all(n is None or isinstance(n, int) for n in shape) else ()


def _try_out(path: Path, model: Any, patch: int, channels: int) -> None:
    """Follow the shapes of one patch through the network without computing anything."""
    try:
        with _held_to(path, 0):
            shape = Trial(model).output_shape((1, patch, patch, channels))
    except Exception as error:  # shapes that do not fit each other; Keras wraps what is raised inside
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {reason_of(error)}"
        raise InputError(f"the network in {path} does not take patches of {patch} px: {reason}") from error
    if shape[:3] != (1, patch, patch):
        raise InputError(f"the network in {path} makes {shape[1:3]} px out of patches of {patch} px")
