"""Check of the description of a network in a `.keras` file, before Keras builds it.

Keras finds the class of every part by the module and name given in the file. Its safe mode refuses code in the file,
but not every class that reads files, loads other models or imports modules. Only the parts of networks for images are
allowed here.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tomoseg.errors import InputError, shown
from tomoseg.io.limits import reason_of

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
        config = json.loads(text.decode("utf-8"))
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
