"""Checks of a `.keras` file, its zip archive and its description of a network, before Keras builds that.

Keras finds the class of every part by the module and name given in the file. Its safe mode refuses code in the file,
but not every class that reads files, loads other models or imports modules. Only the parts of networks for images are
allowed here.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tomoseg import plain_json
from tomoseg.errors import InputError, shown
from tomoseg.io.limits import reason_of, require_plausible

CARD_ENTRY, CONFIG_ENTRY, WEIGHTS_ENTRY = "tomoseg.json", "config.json", "model.weights.h5"
# Allowed entries and their largest sizes: a hundred layers take some 60 kB. Keras also knows assets, which it unpacks
# to the disk, and other kinds of weights; no segmentation network needs them.
_LARGEST = {"metadata.json": 1 << 20, CONFIG_ENTRY: 4 << 20, CARD_ENTRY: 4 << 20, WEIGHTS_ENTRY: 64 << 30}
MOST_LAYERS = 1000  # the deepest backbones in use have some 700
LARGEST_NUMBER = 10**7  # in the description: channels, pixels, padding

_LAYERS = {
    *("InputLayer", "Conv2D", "Conv2DTranspose", "SeparableConv2D", "DepthwiseConv2D", "Dense"),
    *("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "UpSampling2D", "Resizing"),
    *("ZeroPadding2D", "Cropping2D", "CenterCrop", "Flatten", "Reshape", "Permute", "Identity", "Rescaling"),
    *("BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization", "Normalization"),
    *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"),
    *("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"),
    *("Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization"),
    *("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomContrast", "RandomBrightness"),
}
_INITIALIZERS = {
    *("Zeros", "Ones", "Constant", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling"),
    *("GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform", "Orthogonal"),
    *("OrthogonalInitializer", "Identity", "IdentityInitializer"),
}
_LOSSES = {"WeightedFocalLoss", "TverskyLoss", "SumOfLosses"}
_ALLOWED: dict[str, set[str]] = {
    "keras": {"Functional", "Sequential", "DTypePolicy"},
    "keras.dtype_policies": {"DTypePolicy"},
    "keras.src.models.functional": {"Functional"},
    "keras.src.models.sequential": {"Sequential"},
    "keras.layers": _LAYERS,
    "keras.initializers": _INITIALIZERS,
    "keras.random": {"SeedGenerator"},
    "keras.regularizers": {"L1", "L2", "L1L2"},
    "keras.constraints": {"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"},
    # Optimiser and loss, in checkpoints.
    "keras.optimizers": {"Adam", "LossScaleOptimizer"},
    "keras.src.backend.torch.optimizers.torch_adam": {"Adam"},  # its name with torch
    "tomoseg.segmentation.networks.losses": _LOSSES,
    "tomoseg.segment.losses": _LOSSES,  # in earlier checkpoints; Keras finds the classes by their registered names
}
_ACTIVATIONS = {
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "mish", "exponential"),
    *("sigmoid", "hard_sigmoid", "hard_silu", "hard_swish", "log_sigmoid", "tanh", "softplus", "softsign"),
    *("softmax", "log_softmax"),
}


def checked_architecture(path: Path, text: bytes, *, for_training: bool = False) -> dict[str, Any]:
    """Return the description of a network, with optimiser and loss only if `for_training`.

    Raises `InputError`: it is no JSON, or asks for a class that networks for images are not made of.
    """
    try:
        config = plain_json.load(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"the network in {path} is damaged: it is not described in JSON ({reason_of(error)})"
        ) from error
    if not isinstance(config, dict) or config.get("class_name") not in ("Functional", "Sequential"):
        raise InputError(f"the network in {path} is neither a Functional nor a Sequential model of Keras")
    if not for_training:
        config.pop("compile_config", None)
    n_layers = 0
    for value in _values(config):
        if isinstance(value, dict) and "class_name" in value:
            _check_class(path, value)
            n_layers += value.get("module") == "keras.layers"
        elif isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:
            raise InputError(f"the network in {path} is implausible: a number in its description is {shown(value)}")
    if n_layers > MOST_LAYERS:
        raise InputError(f"the network in {path} is implausible: it has {n_layers} layers")
    return config


def _values(top: Any) -> Iterator[Any]:
    """Yield everything in a JSON value except the large numbers that are not sizes: seeds and ids of shared objects."""
    waiting = [top]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, dict):
            numbers_of_keras = {key for key in ("shared_object_id", "seed") if isinstance(value.get(key), int)}
            waiting += [item for key, item in value.items() if key not in numbers_of_keras]
        elif isinstance(value, list):
            waiting += value


def _check_class(path: Path, described: dict[str, Any]) -> None:
    name, module, registered = (described.get(key) for key in ("class_name", "module", "registered_name"))
    if name == "__keras_tensor__" and module is None and registered is None:
        return
    is_activation = name == "function" and module == "builtins" and registered in ("function", None)
    if is_activation and isinstance(described.get("config"), str) and described["config"] in _ACTIVATIONS:
        return
    known = isinstance(module, str) and isinstance(name, str) and name in _ALLOWED.get(module, set())
    if not known or registered not in (None, name, f"tomoseg>{name}"):
        raise InputError(
            f"the network in {path} needs '{shown(module)}.{shown(name)}', which is not among the layers of networks "
            "for images, or holds Python code of its own; for safety it is not loaded"
        )


@contextmanager
def opened_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a `.keras` file whose entries are known, unique, and no larger than their stored bytes allow.

    Raises `InputError`: the file is missing, damaged or not a Keras model, or holds entries that a segmentation network
    does not need. Errors while the archive is used become `InputError`, too.
    """
    try:
        is_file = path.is_file()
    except OSError:  # a name that no file can have
        is_file = False
    if not is_file:
        raise InputError(
            f"the model {shown(path, 300)} does not exist: give the .keras file that `tomoseg train` wrote"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(path, archive.infolist())
            yield archive
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, zlib.error) as error:
        raise InputError(
            f"{path} is not a .keras file ({reason_of(error)}): give the file that `tomoseg train` wrote. If it is "
            "that file, it is damaged; copy it again."
        ) from error


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    names = [entry.filename for entry in entries]
    if not {CONFIG_ENTRY, WEIGHTS_ENTRY} <= set(names):
        raise InputError(f"{path} is a zip archive but no Keras model: give the .keras file of a trained network")
    strange = next((name for name in names if name not in _LARGEST or names.count(name) > 1), None)
    if strange is not None:
        raise InputError(
            f"the model {path} holds '{shown(strange)}', which a segmentation network does not need, or holds it "
            "twice; for safety it is not loaded"
        )
    size = path.stat().st_size
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise InputError(f"'{entry.filename}' in {path} is encrypted, or compressed in a way that Keras never uses")
        if entry.file_size > _LARGEST[entry.filename]:
            raise InputError(f"'{entry.filename}' in {path} is implausible: it claims {entry.file_size} bytes")
        require_plausible(path, entry.file_size, min(entry.compress_size, size), f"'{entry.filename}'")
