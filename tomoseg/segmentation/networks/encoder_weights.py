"""Pretrained weights for the encoder of `se-resnet34-unet`.

They are those of the public release 0.0.1 of `classification_models` (P. Yakubovskiy), trained on ImageNet, or others
of the same layout: HDF5 as Keras 2 writes it, with a group per layer that holds those of the arrays `kernel:0`,
`bias:0`, `gamma:0`, `beta:0`, `moving_mean:0` and `moving_variance:0` that the layer has. The layers of squeeze-and-
excitation have ascending numbers instead of names, `conv2d_1` and so on, two per residual unit. In files with other
names altogether, layers are told by their order.
"""

import hashlib
import re
import tempfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np

from tomoseg.arrays import Array
from tomoseg.errors import InputError, shown
from tomoseg.io.atomic import atomic_path
from tomoseg.io.folders import cache_folder
from tomoseg.io.limits import reason_of
from tomoseg.io.sandbox import copy_numbers

IMAGENET = "imagenet"
_NAME = "seresnet34_imagenet_1000_no_top.h5"
_URL = f"https://github.com/qubvel/classification_models/releases/download/0.0.1/{_NAME}"
MD5_OF = {_NAME: "3348fd049f1f9ad307c070ff2b6ec4cb"}
SECONDS = 30  # without an answer from the server
MOST_BYTES = 1 << 30
COLORS = 3
_NUMBERED = re.compile(r"conv2d(?:_(\d+))?")
_OPTION = "--encoder-weights"

Layers = dict[str, dict[str, Array]]


def split_source(source: str) -> tuple[str, str]:
    """Return the path or URL that `source` names, and its expected MD5, empty if unknown.

    'imagenet' is the public file; an MD5 may be appended to any other, as in `weights.h5#md5=0123...`.

    Raises `InputError`: it is a URL of another kind than https, or the MD5 is malformed.
    """
    place, _, given = source.partition("#md5=")
    place = _URL if place == IMAGENET else place
    if given and not re.fullmatch("[0-9a-fA-F]{32}", given):
        raise InputError(f"{_OPTION} {source}: '#md5=' must be followed by 32 hexadecimal digits")
    if "://" in place and not place.startswith("https://"):
        raise InputError(f"{_OPTION} {source}: give a file, or an address that starts with https://")
    return place, given.lower() or MD5_OF.get(name_of(source), "")


def name_of(source: str) -> str:
    """Return the file name in `source`, without a folder."""
    place = source.partition("#md5=")[0]
    place = _URL if place == IMAGENET else place
    return Path(urlsplit(place).path if "://" in place else place).name


def fetch(source: str, tell: Callable[[str], object] = str, check: Callable[[], object] = str) -> tuple[Path, str]:
    """Return the file of weights and its MD5; download it to the user's cache if `source` is an address.

    `tell` is called with a message before a download, `check` repeatedly during it; it may raise to stop. Raises
    `InputError`: there is no such file, it cannot be downloaded, or its MD5 differs.
    """
    place, wanted = split_source(source)
    if "://" not in place:
        path = Path(place)
        if not path.is_file():
            raise InputError(f"{_OPTION} {source}: there is no such file")
        return path, _verified(path, wanted)
    path = cache_folder() / f"{hashlib.sha256(place.encode()).hexdigest()[:12]}_{name_of(source)}"
    if path.is_file():
        try:
            return path, _verified(path, wanted)
        except InputError:
            path.unlink()  # damaged on the disk
    tell(f"downloading {place} to {path.parent}")
    _download(place, path, wanted, check)
    return path, _verified(path, wanted)


def _download(address: str, path: Path, wanted: str, check: Callable[[], object]) -> None:
    """Download an address to a file, atomically."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        reply = urlopen(address, timeout=SECONDS)  # noqa: S310  only https comes here
        with reply, atomic_path(path) as part, part.open("wb") as file:
            if not str(reply.geturl()).startswith("https://"):
                raise InputError(f"{_OPTION}: {address} redirects to an address that is not https")
            n_bytes = 0
            while block := reply.read(1 << 20):
                check()
                n_bytes += len(block)
                if n_bytes > MOST_BYTES:
                    raise InputError(f"{_OPTION}: {address} has more than {MOST_BYTES} bytes")
                file.write(block)
            file.flush()
            _verified(part, wanted)
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(
            f"{_OPTION}: {address} cannot be downloaded ({reason_of(error)}). If this machine has no connection, "
            f"download it elsewhere and give the file: {_OPTION} {name_of(address)}. To start from random weights "
            f"instead, which need many more images: {_OPTION} ''"
        ) from error


def _verified(path: Path, wanted: str) -> str:
    """Return the MD5 of a file; raise `InputError` if another one is wanted."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if wanted and found != wanted:
        raise InputError(
            f"{_OPTION}: {path} has the MD5 {found}, not {wanted}: it is damaged, or another file of that name. "
            "Download it again, or, if you mean this file, rename it or give its MD5 as FILE#md5=..."
        )
    return found


def read_layers(path: Path) -> Layers:
    """Return the arrays of each layer in a file of weights, by their names without ':0'.

    The file is read in another process, see `tomoseg.io.sandbox`.

    Raises `InputError`: the file is of another kind, or damaged.
    """
    from tomoseg.io.readers.weights import arrays

    with tempfile.TemporaryDirectory(prefix="tomoseg-") as folder:
        copy = Path(folder, "weights.h5")
        try:
            copy_numbers(path, copy)
        except (InputError, OSError) as error:
            raise InputError(f"the encoder's weights {path} cannot be read: {reason_of(error)}") from error
        layers: Layers = {}
        for name, array in arrays(copy).items():
            layer, *_, weight = name.split("/")
            layers.setdefault(layer, {})[weight.partition(":")[0]] = array
    return layers


def set_encoder_weights(model: Any, layers: Layers, name: str) -> None:
    """Set the weights of the encoder of a `tomoseg.segmentation.networks.builders.se_resnet34_unet`.

    Stages that the network does not have are ignored; `name` is that of the file, for messages. Raises `InputError`: a
    layer is missing, or has another shape; no weight is set then.
    """
    from tomoseg.segmentation.networks.builders import UNITS

    n_channels = model.input_shape[-1]
    known = _with_names(layers, UNITS, name)
    own = encoder_layers(model)
    in_color = {"conv0": (7, 7, COLORS, model.get_layer("conv0").filters), "bn_data": (COLORS,)}
    for layer in own:
        for weight in layer.weights:
            found = _array(known, layer.name, weight.name, name).shape
            wanted = in_color.get(layer.name, tuple(weight.shape))
            if found != wanted:
                raise InputError(
                    f"the encoder's weights {name} do not fit: {weight.name} of layer '{layer.name}' has the shape "
                    f"{found} there and {wanted} in this network. The public ImageNet weights are for "
                    "--base-filters 64"
                )
    adapted = known if n_channels == COLORS else known | for_grey(known, n_channels)
    for layer in own:
        for weight in layer.weights:
            weight.assign(adapted[layer.name][weight.name])


def encoder_layers(model: Any) -> list[Any]:
    """Return the layers with weights of the encoder of a `se_resnet34_unet`."""
    return [layer for layer in model.layers if layer.weights and not layer.name.startswith(("up", "probabilities"))]


def for_grey(first: Layers, n_channels: int) -> Layers:
    """Convert the first layers, `bn_data`, `conv0` and `bn0`, from colour images to grey ones.

    With the same image in all channels, they give the result of the given layers with that image in all three colours.
    As convolution is linear, the kernels of the colours are summed, weighted by how their own normalisation scales
    grey, and divided among the channels. The different means of the colours, a constant after the convolution, go into
    the means of `bn0`; at the border of the image, with its zero padding, that is an approximation.
    """
    from tomoseg.segmentation.networks.builders import EPSILON

    data = {key: np.asarray(value, np.float64) for key, value in first["bn_data"].items()}
    kernel = np.asarray(first["conv0"]["kernel"], np.float64)
    deviation = np.sqrt(data["moving_variance"] + EPSILON)
    grey = {key: value.mean() for key, value in data.items()}
    common = np.sqrt(grey["moving_variance"] + EPSILON)
    summed = np.einsum("yxcf,c->yxf", kernel, common / deviation)
    constants = np.einsum("yxcf,c->f", kernel, data["beta"] - data["moving_mean"] / deviation)
    constant = summed.sum(axis=(0, 1)) * (grey["beta"] - grey["moving_mean"] / common)
    shared = np.repeat(summed[:, :, None] / n_channels, n_channels, axis=2)
    bn0 = {**first["bn0"], "moving_mean": first["bn0"]["moving_mean"] - (constants - constant)}
    return {
        "bn_data": {key: np.full(n_channels, value) for key, value in grey.items()},
        "conv0": {"kernel": shared},
        "bn0": bn0,
    }


def _with_names(layers: Layers, units: tuple[int, ...], name: str) -> Layers:
    """Return the layers under the names of `tomoseg.segmentation.networks.builders`."""
    order = _order(units)
    if "conv0" not in layers and len(layers) == len(order):
        return dict(zip(order, layers.values(), strict=True))
    numbered = sorted((int(found[1] or 0), layer) for layer in layers if (found := _NUMBERED.fullmatch(layer)))
    places = [name for name in order if "_se_" in name]
    if len(numbered) != len(places):
        raise InputError(
            f"the encoder's weights {name} are not those of a squeeze-and-excitation ResNet-34: they have "
            f"{len(numbered)} numbered convolutions, not {len(places)}. Give {_NAME} of the "
            "classification_models release 0.0.1, or a file of the same layout"
        )
    return layers | {place: layers[layer] for place, (_, layer) in zip(places, numbered, strict=True)}


def _order(units: tuple[int, ...]) -> list[str]:
    """Return the names of the encoder's layers with weights, in the order of Keras.

    That is from input to output along the longest path: a shortcut comes just before the sum that it ends in.
    """
    names = ["bn_data", "conv0", "bn0"]
    for stage, n_units in enumerate(units, start=1):
        for unit in range(1, n_units + 1):
            parts = ["bn1", "conv1", "bn2", "conv2", "se_squeeze", "se_excite", *(["sc"] if unit == 1 else [])]
            names += [f"stage{stage}_unit{unit}_{part}" for part in parts]
    return [*names, "bn1"]


def _array(layers: Layers, layer: str, weight: str, name: str) -> Array:
    """Return an array of finite numbers; raise `InputError` if there is none."""
    array = layers.get(layer, {}).get(weight)
    if array is None:
        raise InputError(f"the encoder's weights {name} lack {weight} of layer '{shown(layer)}': give a complete file")
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise InputError(
            f"the encoder's weights {name} are damaged: {weight} of layer '{layer}' holds NaN, infinity or no numbers"
        )
    return array
