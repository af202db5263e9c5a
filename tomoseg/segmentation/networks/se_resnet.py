"""The squeeze-and-excitation ResNet-34 as an encoder.

He, Zhang, Ren & Sun, CVPR 2016, with normalisation, ReLU and convolution in the order of their ECCV 2016 paper; Hu,
Shen & Sun, 'Squeeze-and-excitation networks', CVPR 2018. Layers and their names are those of the files that
`tomoseg.segmentation.networks.encoder_weights` reads. It is made of standard layers of Keras only.
"""

from typing import Any, Protocol

from tomoseg.segmentation.networks.keras_setup import keras

UNITS = (3, 4, 6, 3)  # residual units of each stage
REDUCTION = 16  # of channels, in squeeze-and-excitation
EPSILON = 2e-5
# The published weights were trained on 8-bit colours as they are. Here 0 is the background and 1 the next level of
# grey; the brightest level of a micrograph is two to five times as far.
LEVEL_8_BIT = 64.0


class Start(Protocol):
    """Initialisers that draw different weights for each layer."""

    def he_normal(self) -> Any:
        """Return the initialiser of the next layer."""


def encode(x: Any, depth: int, width: int, start: Start, momentum: float) -> list[Any]:
    """Apply the encoder.

    Parameters
    ----------
    x : (batch, h, w, channels) scaled images
    depth : levels, the image itself being the first: 3 to 6; the whole encoder has 6
    width : channels of the first convolution and the first stage (64 in the papers)
    momentum : of the moving averages of batch normalisation

    Returns
    -------
    list of (batch, h / 2**l, w / 2**l, channels) features for l = 1 to depth - 1
    """
    layers = keras.layers

    def normalised(x: Any, name: str, **options: Any) -> Any:
        return layers.BatchNormalization(momentum=momentum, epsilon=EPSILON, name=name, **options)(x)

    def activated(x: Any, name: str, i: int | str) -> Any:
        return layers.Activation("relu", name=f"{name}relu{i}")(normalised(x, f"{name}bn{i}"))

    def convolved(x: Any, filters: int, name: str, size: int = 3, strides: int = 1) -> Any:
        # Zeros on both sides, whatever the stride: 'same' would put them on one side where strides are 2.
        if size > 1:
            x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        options = {"use_bias": False, "kernel_initializer": start.he_normal(), "name": name}
        return layers.Conv2D(filters, size, strides=strides, **options)(x)

    x = layers.Rescaling(LEVEL_8_BIT, name="as_8_bit")(x)
    x = normalised(x, "bn_data", scale=False)
    features = [activated(convolved(x, width, "conv0", 7, 2), "", 0)]
    x = layers.ZeroPadding2D(1, name="pooling0_pad")(features[0])
    x = layers.MaxPooling2D(3, strides=2, name="pooling0")(x)
    n_stages = depth - 2  # the image and the first convolution are levels of their own
    for stage in range(1, n_stages + 1):
        filters = width << (stage - 1)
        for unit in range(1, UNITS[stage - 1] + 1):
            name, strides = f"stage{stage}_unit{unit}_", 2 if unit == 1 < stage else 1
            shortcut, x = x, activated(x, name, 1)
            if unit == 1:
                if stage > 1:
                    features.append(x)
                shortcut = convolved(x, filters, f"{name}sc", 1, strides)
            x = activated(convolved(x, filters, f"{name}conv1", 3, strides), name, 2)
            x = _excited(convolved(x, filters, f"{name}conv2"), filters, name, start)
            x = layers.Add(name=f"{name}sum")([x, shortcut])
    # The last features of a shortened network are those that the next stage would begin with.
    features.append(activated(x, "" if n_stages == len(UNITS) else f"stage{n_stages + 1}_unit1_", 1))
    return features


def _excited(x: Any, filters: int, name: str, start: Start) -> Any:
    """Multiply each channel by a number between 0 and 1 that depends on the means of all channels."""
    layers = keras.layers
    means = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}se_means")(x)
    fewer = layers.Conv2D(
        max(filters // REDUCTION, 1),
        1,
        activation="relu",
        kernel_initializer=start.he_normal(),
        name=f"{name}se_squeeze",
    )(means)
    weight = layers.Conv2D(
        filters, 1, activation="sigmoid", kernel_initializer=start.he_normal(), name=f"{name}se_excite"
    )(fewer)
    return layers.Multiply(name=f"{name}se_product")([x, weight])
