"""The network is the paper's: structure and size computed here from its description, not from the code."""

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.segmentation.networks.builders import build
from tomoseg.segmentation.networks.keras_setup import keras

PAPER_CHANNELS = [32, 64, 128, 256, 512, 1024]


def conv_weights(kernel: int, n_in: int, n_out: int) -> int:
    return kernel * kernel * n_in * n_out + n_out


def paper_size(n_classes: int) -> int:
    """Weights of the U-Net of Genc et al. as the article describes it."""
    total, n_in = 0, 1
    for n in PAPER_CHANNELS:
        total += conv_weights(3, n_in, n) + conv_weights(3, n, n)
        n_in = n
    for deep, n in zip(PAPER_CHANNELS[:0:-1], PAPER_CHANNELS[-2::-1], strict=True):
        total += conv_weights(2, deep, n)  # transposed convolution halves the channels
        total += conv_weights(3, 2 * n, n) + conv_weights(3, n, n)  # after concatenation with the skip
    return total + conv_weights(1, PAPER_CHANNELS[0], n_classes)


@pytest.fixture(scope="module")
def paper_net():
    return build("unet", 3)


def test_it_has_the_papers_number_of_weights(paper_net):
    assert paper_size(3) == 31_093_987
    assert paper_net.count_params() == paper_size(3)


def test_layers_and_channels_are_the_papers(paper_net):
    convs = [layer for layer in paper_net.layers if type(layer) is keras.layers.Conv2D and layer.kernel_size == (3, 3)]
    down = [n for n in PAPER_CHANNELS for _ in range(2)]
    up = [n for n in PAPER_CHANNELS[-2::-1] for _ in range(2)]
    assert [layer.filters for layer in convs] == down + up
    for layer in convs:
        assert layer.padding == "same"
        assert layer.activation is keras.activations.relu
        assert isinstance(layer.kernel_initializer, keras.initializers.HeNormal)
    pools = [layer for layer in paper_net.layers if isinstance(layer, keras.layers.AveragePooling2D)]
    assert [layer.pool_size for layer in pools] == [(2, 2)] * 5
    rising = [layer for layer in paper_net.layers if isinstance(layer, keras.layers.Conv2DTranspose)]
    assert [(layer.filters, layer.kernel_size, layer.strides) for layer in rising] == [
        (n, (2, 2), (2, 2)) for n in PAPER_CHANNELS[-2::-1]
    ]
    last = paper_net.layers[-1]
    assert (last.filters, last.kernel_size) == (3, (1, 1))
    assert last.activation is keras.activations.softmax


def test_skips_join_equal_levels(paper_net):
    joins = [layer for layer in paper_net.layers if isinstance(layer, keras.layers.Concatenate)]
    assert [[tensor.shape[-1] for tensor in layer.input] for layer in joins] == [[n, n] for n in PAPER_CHANNELS[-2::-1]]


def test_probabilities_for_any_multiple_of_the_deepest_level():
    net = build("unet", 4, depth=3, base_filters=4, seed=0)
    rng = np.random.default_rng(0)
    for height, width in ((8, 8), (12, 40)):
        out = net.predict_on_batch(rng.normal(size=(2, height, width, 1)).astype(np.float32))
        assert out.shape == (2, height, width, 4)
        np.testing.assert_allclose(out.sum(axis=-1), 1, atol=1e-5)  # float32 softmax


def test_seed_fixes_the_weights_and_layers_differ():
    a, b, c = (build("unet", 2, depth=2, base_filters=4, seed=s).get_weights() for s in (1, 1, 2))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert not np.array_equal(a[0], c[0])
    kernels = [w for w in a if w.ndim == 4 and w.shape == (3, 3, 4, 4)]
    assert len(kernels) >= 2
    assert not np.array_equal(kernels[0], kernels[1])


def test_impossible_networks_are_refused():
    with pytest.raises(InputError, match="at least 2 classes"):
        build("unet", 1)
