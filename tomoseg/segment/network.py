"""The U-Net of Genc, Kovarik & Fraser, Scientific Reports 12, 16267 (2022)."""

import itertools
from collections.abc import Iterator
from typing import Any

from tomoseg.errors import InputError
from tomoseg.segment.keras_setup import keras


def unet(n_classes: int, n_channels: int = 1, depth: int = 6, base_filters: int = 32, seed: int | None = None) -> Any:
    """Build the U-Net that gives each pixel a probability per class.

    Each level has two 3x3 convolutions ('same', ReLU, He-normal); levels are joined by 2x2 average pooling on the way
    down and by 2x2 transposed convolutions (linear) on the way up, whose result is concatenated with the level's own
    feature maps before its two convolutions. A 1x1 convolution with softmax ends it. The paper's network is the
    default: six levels of 32, 64, 128, 256, 512 and 1024 channels, 31.1 million weights for three classes.

    Parameters
    ----------
    n_classes : int
        Number of classes C, at least 2.
    n_channels : int
        Channels of the input image.
    depth : int
        Number of levels; images must be a multiple of 2**(depth - 1) pixels along each side.
    base_filters : int
        Channels of the first level, doubled at each further level.
    seed : int, optional
        Same seed, same initial weights.

    Returns
    -------
    keras.Model
        From (batch, height, width, n_channels) f4 to (batch, height, width, n_classes) probabilities; height and width
        are free.
    """
    if n_classes < 2 or n_channels < 1 or depth < 1 or base_filters < 1:
        raise InputError(
            f"a U-Net of {n_classes} classes, {n_channels} channels, depth {depth} and {base_filters} filters cannot "
            "be built: it needs at least 2 classes, and 1 of everything else"
        )
    layers, start = keras.layers, _Initial(seed)
    inputs = keras.Input((None, None, n_channels), name="image")
    x, skips = inputs, []
    for level in range(1, depth):
        x = _two_convolutions(x, base_filters << (level - 1), f"down{level}", start)
        skips.append(x)
        x = layers.AveragePooling2D(2, name=f"down{level}_pool")(x)
    x = _two_convolutions(x, base_filters << (depth - 1), "bottom", start)
    for level in range(depth - 1, 0, -1):
        filters = base_filters << (level - 1)
        x = layers.Conv2DTranspose(
            filters, 2, strides=2, padding="same", kernel_initializer=start.glorot(), name=f"up{level}_upsample"
        )(x)
        x = layers.Concatenate(name=f"up{level}_skip")([x, skips[level - 1]])
        x = _two_convolutions(x, filters, f"up{level}", start)
    outputs = layers.Conv2D(
        n_classes, 1, activation="softmax", kernel_initializer=start.glorot(), name="probabilities"
    )(x)
    return keras.Model(inputs, outputs, name="unet")


class _Initial:
    """Initialisers that draw different weights for each layer, the same ones for the same seed."""

    def __init__(self, seed: int | None) -> None:
        self._seeds: Iterator[int | None] = itertools.repeat(None) if seed is None else itertools.count(1000 * seed)

    def he_normal(self) -> Any:
        return keras.initializers.HeNormal(seed=next(self._seeds))

    def glorot(self) -> Any:
        return keras.initializers.GlorotUniform(seed=next(self._seeds))


def _two_convolutions(x: Any, filters: int, name: str, start: _Initial) -> Any:
    """Apply the pair of 3x3 convolutions of one level."""
    for i in (1, 2):
        x = keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            activation="relu",
            kernel_initializer=start.he_normal(),
            name=f"{name}_conv{i}",
        )(x)
    return x
