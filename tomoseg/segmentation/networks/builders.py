"""Networks that give each pixel of an image a probability per class.

All are encoders and decoders joined level by level (Ronneberger, Fischer & Brox, MICCAI 2015), of any depth and width:
`unet` is the network of Genc, Kovarik & Fraser, Scientific Reports 12, 16267 (2022); the docstrings of the others say
how they differ from it. They are made only of standard layers of Keras that
`tomoseg.segmentation.networks.file_validation` allows. `tomoseg.segmentation.networks.registry` lists them.

Each function adds a network without its last layer to an image `x`, of `depth` levels from `filters` channels, with
initial weights from `start`.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from tomoseg.errors import InputError
from tomoseg.segmentation.networks.keras_setup import keras
from tomoseg.segmentation.networks.registry import ARCHITECTURES

# Of the moving averages of batch normalisation, which must settle even in short trainings.
MOMENTUM = 0.9
WIDEST = 8  # times the first level's channels: the most that `compact` has
UNITS = (3, 4, 6, 3)  # residual units of each stage of a ResNet-34
REDUCTION = 16  # of channels, in squeeze-and-excitation
EPSILON = 2e-5  # of batch normalisation in the ResNet
# The published weights were trained on 8-bit colours as they are. Here 0 is the background and 1 the next level of
# grey; the brightest level of a micrograph is two to five times as far.
LEVEL_8_BIT = 64.0


class _Initial:
    """Initialisers with another seed for each layer, reproducible from one seed."""

    def __init__(self, seed: int | None) -> None:
        self._seeds: Iterator[int | None] = itertools.repeat(None) if seed is None else itertools.count(1000 * seed)

    def he_normal(self) -> Any:
        return keras.initializers.HeNormal(seed=next(self._seeds))

    def glorot(self) -> Any:
        return keras.initializers.GlorotUniform(seed=next(self._seeds))


def build(
    name: str, n_classes: int, n_channels: int = 1, depth: int = 6, base_filters: int = 32, seed: int | None = None
) -> Any:
    """Build a network by its name.

    Raises `InputError`: there is no such network, or it cannot have these sizes.

    Parameters
    ----------
    name : a row of `tomoseg.segmentation.networks.registry.ARCHITECTURES`
    n_classes : at least 2
    n_channels : of the input image
    depth : number of levels; images must be a multiple of 2**(depth - 1) pixels along each side
    base_filters : channels of the first level; of 'se-resnet34-unet' those of the encoder's first convolution
    seed : same seed, same initial weights

    Returns
    -------
    keras.Model
        From (batch, height, width, n_channels) f4 to (batch, height, width, n_classes) probabilities; height and width
        are free.
    """
    if name not in ARCHITECTURES:
        raise InputError(f"there is no architecture '{name}': choose one of {', '.join(ARCHITECTURES)}")
    if n_classes < 2 or n_channels < 1 or depth < 1 or base_filters < 1:
        raise InputError(
            f"a network of {n_classes} classes, {n_channels} channels, depth {depth} and {base_filters} filters cannot "
            "be built: it needs at least 2 classes, and 1 of everything else"
        )
    fewest, most = ARCHITECTURES[name].depths
    if not fewest <= depth <= most:
        raise InputError(f"{name} of depth {depth} cannot be built: it has {fewest} to {most} levels")
    builder, start = ARCHITECTURES[name].builder, _Initial(seed)
    inputs = keras.Input((None, None, n_channels), name="image")
    features = globals()[builder](inputs, depth, base_filters, start)
    probabilities = keras.layers.Conv2D(
        n_classes,
        1,
        activation="softmax",
        kernel_initializer=start.glorot(),
        dtype="float32",  # whatever the other layers have, so that a probability of 1 - 1e-7 is not 1
        name="probabilities",
    )(features)
    return keras.Model(inputs, probabilities, name=builder)


def unet(x: Any, depth: int, filters: int, start: _Initial) -> Any:
    """Add the U-Net of Genc, Kovarik & Fraser.

    Each level has two 3x3 convolutions ('same', ReLU, He-normal). Levels are joined by 2x2 average pooling on the way
    down and by linear 2x2 transposed convolutions on the way up, whose result is concatenated with the feature maps of
    the level before its two convolutions. The last layer is a 1x1 convolution with softmax. The default is the paper's
    network: six levels of 32, 64, 128, 256, 512 and 1024 channels, 31.1 million weights for three classes.
    """
    return _encoder_decoder(x, depth, filters, start, _two_convolutions, gated=False)


def attention_unet(x: Any, depth: int, filters: int, start: _Initial) -> Any:
    """Add the U-Net with additive attention gates at its skip connections.

    Oktay et al., 'Attention U-Net: learning where to look for the pancreas', MIDL 2018, equations 1 and 2: the features
    of a skip connection are multiplied, pixel by pixel, by a number between 0 and 1 that follows from them and from the
    coarser level below.
    """
    return _encoder_decoder(x, depth, filters, start, _two_convolutions, gated=True)


def attention_res_unet(x: Any, depth: int, filters: int, start: _Initial) -> Any:
    """Add the attention U-Net with residual blocks in place of its pairs of convolutions.

    The two convolutions of a level are batch-normalised (Ioffe & Szegedy, ICML 2015), and the level's input is added to
    their result through a 1x1 convolution (He et al., CVPR 2016).
    """
    return _encoder_decoder(x, depth, filters, start, _projected_block, gated=True)


def compact(x: Any, depth: int, filters: int, start: _Initial) -> Any:
    """Add a small network for a CPU.

    Channels double from level to level up to eight times those of the first. On the way down, a level has a 3x3
    convolution with stride 2 and a residual block of two 3x3 convolutions, all batch-normalised; the first level, where
    each channel costs most, has a single convolution. On the way up, features are reduced by a 1x1 convolution,
    enlarged bilinearly and added to (not concatenated with) those of the level, before two convolutions (one on the
    first level). Six levels from 16 channels have 2.1 million weights.
    """
    layers = keras.layers
    widths = [filters * min(1 << level, WIDEST) for level in range(depth)]
    x = _normalised(x, widths[0], "down1_conv", start)
    skips = []
    for level in range(2, depth + 1):
        skips.append(x)
        x = _normalised(x, widths[level - 1], f"down{level}_stride", start, strides=2)
        x = _residual_block(x, x, widths[level - 1], f"down{level}", start)
    for level in range(depth - 1, 0, -1):
        width = widths[level - 1]
        x = layers.Conv2D(width, 1, use_bias=False, kernel_initializer=start.he_normal(), name=f"up{level}_reduce")(x)
        x = layers.UpSampling2D(2, interpolation="bilinear", name=f"up{level}_upsample")(x)
        x = layers.Add(name=f"up{level}_skip")([x, skips[level - 1]])
        for i in range(1, 2 if level == 1 else 3):
            x = _normalised(x, width, f"up{level}_conv{i}", start)
    return x


def se_resnet34_unet(x: Any, depth: int, filters: int, start: _Initial) -> Any:
    """Add a U-Net on a squeeze-and-excitation ResNet-34.

    With 64 filters the encoder takes the public ImageNet weights. On the way up, features are doubled in size,
    concatenated with those of the encoder at that level (there are none at the first) and go through two
    batch-normalised 3x3 convolutions. With six levels, the most possible, the level above the deepest has four times
    the encoder's filters, and each next one half as many: with 64 filters, 24.6 million weights.
    """
    *skips, x = _se_resnet34(x, depth, filters, start)
    for level in range(depth - 1, 0, -1):
        x = keras.layers.UpSampling2D(2, name=f"up{level}_upsample")(x)
        if level > 1:
            x = keras.layers.Concatenate(name=f"up{level}_skip")([x, skips[level - 2]])
        for i in (1, 2):
            x = _normalised(x, max((filters << level) // 8, 1), f"up{level}_conv{i}", start)
    return x


def _encoder_decoder(
    x: Any,
    depth: int,
    filters: int,
    start: _Initial,
    block: Callable[[Any, int, str, _Initial], Any],
    *,
    gated: bool,
) -> Any:
    """Add a U-Net of such blocks."""
    layers, skips = keras.layers, []
    for level in range(1, depth):
        x = block(x, filters << (level - 1), f"down{level}", start)
        skips.append(x)
        x = layers.AveragePooling2D(2, name=f"down{level}_pool")(x)
    x = block(x, filters << (depth - 1), "bottom", start)
    for level in range(depth - 1, 0, -1):
        width, skip = filters << (level - 1), skips[level - 1]
        if gated:
            skip = _attended(skip, x, max(width // 2, 1), f"up{level}_gate", start)
        x = layers.Conv2DTranspose(
            width, 2, strides=2, padding="same", kernel_initializer=start.glorot(), name=f"up{level}_upsample"
        )(x)
        x = layers.Concatenate(name=f"up{level}_skip")([x, skip])
        x = block(x, width, f"up{level}", start)
    return x


def _two_convolutions(x: Any, filters: int, name: str, start: _Initial) -> Any:
    for i in (1, 2):
        options = {"activation": "relu", "kernel_initializer": start.he_normal(), "name": f"{name}_conv{i}"}
        x = keras.layers.Conv2D(filters, 3, padding="same", **options)(x)
    return x


def _attended(skip: Any, coarse: Any, filters: int, name: str, start: _Initial) -> Any:
    """Weight the features of a skip connection by an attention gate.

    a = sigmoid(w . relu(W_x x + W_g g + b_g) + b) on the coarser grid, enlarged bilinearly; the result is a x. W_x
    is a 2x2 convolution with stride 2, as in the authors' own network.
    """
    layers = keras.layers
    own = layers.Conv2D(
        filters, 2, strides=2, use_bias=False, kernel_initializer=start.he_normal(), name=f"{name}_own"
    )(skip)
    below = layers.Conv2D(filters, 1, kernel_initializer=start.he_normal(), name=f"{name}_below")(coarse)
    joined = layers.Activation("relu", name=f"{name}_relu")(layers.Add(name=f"{name}_sum")([own, below]))
    weight = layers.Conv2D(1, 1, activation="sigmoid", kernel_initializer=start.glorot(), name=f"{name}_weight")(joined)
    weight = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_upsample")(weight)
    return layers.Multiply(name=f"{name}_product")([skip, weight])


def _normalised(
    x: Any, filters: int, name: str, start: _Initial, *, size: int = 3, strides: int = 1, relu: bool = True
) -> Any:
    """Apply a batch-normalised convolution, followed by ReLU if `relu`."""
    options = {"use_bias": False, "kernel_initializer": start.he_normal(), "name": name}
    x = keras.layers.Conv2D(filters, size, strides=strides, padding="same", **options)(x)
    x = keras.layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_norm")(x)
    return keras.layers.Activation("relu", name=f"{name}_relu")(x) if relu else x


def _residual_block(x: Any, shortcut: Any, filters: int, name: str, start: _Initial) -> Any:
    """Apply two convolutions, and add the shortcut before the last ReLU."""
    x = _normalised(x, filters, f"{name}_conv1", start)
    x = _normalised(x, filters, f"{name}_conv2", start, relu=False)
    x = keras.layers.Add(name=f"{name}_sum")([x, shortcut])
    return keras.layers.Activation("relu", name=f"{name}_relu")(x)


def _projected_block(x: Any, filters: int, name: str, start: _Initial) -> Any:
    """Apply a residual block whose shortcut is a 1x1 convolution."""
    shortcut = _normalised(x, filters, f"{name}_shortcut", start, size=1, relu=False)
    return _residual_block(x, shortcut, filters, name, start)


def _se_resnet34(x: Any, depth: int, width: int, start: _Initial) -> list[Any]:
    """Return (batch, h / 2**l, w / 2**l, channels) features of a squeeze-and-excitation ResNet-34, l = 1 to depth - 1.

    He, Zhang, Ren & Sun, CVPR 2016, with normalisation, ReLU and convolution in the order of their ECCV 2016 paper; Hu,
    Shen & Sun, 'Squeeze-and-excitation networks', CVPR 2018. Layers and their names are those of the files that
    `tomoseg.segmentation.networks.encoder_weights` reads. The image itself is the first of 3 to 6 levels, and `width`
    the channels of the first convolution and the first stage (64 in the papers).
    """
    layers = keras.layers

    def normalised(x: Any, name: str, **options: Any) -> Any:
        return layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name, **options)(x)

    def activated(x: Any, name: str, i: int | str) -> Any:
        return layers.Activation("relu", name=f"{name}relu{i}")(normalised(x, f"{name}bn{i}"))

    def convolved(x: Any, filters: int, name: str, size: int = 3, strides: int = 1) -> Any:
        # Zeros on both sides, whatever the stride: 'same' would put them on one side where strides are 2.
        if size > 1:
            x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        options = {"use_bias": False, "kernel_initializer": start.he_normal(), "name": name}
        return layers.Conv2D(filters, size, strides=strides, **options)(x)

    def excited(x: Any, filters: int, name: str) -> Any:
        """Multiply each channel by a number between 0 and 1 that depends on the means of all channels."""
        weight = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}se_means")(x)
        fewer = max(filters // REDUCTION, 1)
        for n, activation, layer in ((fewer, "relu", "se_squeeze"), (filters, "sigmoid", "se_excite")):
            options = {"kernel_initializer": start.he_normal(), "name": f"{name}{layer}"}
            weight = layers.Conv2D(n, 1, activation=activation, **options)(weight)
        return layers.Multiply(name=f"{name}se_product")([x, weight])

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
            x = excited(convolved(x, filters, f"{name}conv2"), filters, name)
            x = layers.Add(name=f"{name}sum")([x, shortcut])
    # The last features of a shortened network are those that the next stage would begin with.
    features.append(activated(x, "" if n_stages == len(UNITS) else f"stage{n_stages + 1}_unit1_", 1))
    return features
