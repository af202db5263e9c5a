"""Networks by name: what each is made of, that it runs, and that it comes back from its file as it was."""

import io
import zipfile

import h5py
import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.segmentation.data.intensity_scaling import Scale, Scaling
from tomoseg.segmentation.networks.builders import build
from tomoseg.segmentation.networks.card import ModelCard
from tomoseg.segmentation.networks.keras_setup import keras
from tomoseg.segmentation.networks.losses import make_loss
from tomoseg.segmentation.networks.model_file import load_checkpoint, load_model, save_model
from tomoseg.segmentation.networks.registry import ARCHITECTURES

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def some_images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def layers_of(net, kind):
    return [layer for layer in net.layers if isinstance(layer, kind)]


def parts_with_weights(path):
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
        return set(weights)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("n_classes", "n_channels", "depth", "filters"), [(2, 1, 1, 3), (5, 3, 4, 2), (3, 1, 3, 1)])
def test_any_size_gives_probabilities(name, n_classes, n_channels, depth, filters):
    depth = max(depth, 3) if name == "se-resnet34-unet" else depth
    net = build(name, n_classes, n_channels, depth, filters, seed=0)
    out = net.predict_on_batch(some_images(2, 24, 40, n_channels))
    assert out.shape == (2, 24, 40, n_classes)
    np.testing.assert_allclose(out.sum(axis=-1), 1, atol=1e-5)  # float32 softmax


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_seed_fixes_the_weights(name):
    a, b, c = (build(name, 3, 1, 3, 4, seed=s).get_weights() for s in (1, 1, 2))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    kernels = [i for i, weight in enumerate(a) if weight.ndim == 4]
    assert not any(np.array_equal(a[i], c[i]) for i in kernels)


@pytest.mark.parametrize(
    "name",
    [name if name in ("unet", "compact") else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES],
)
def test_it_comes_back_from_model_and_checkpoint(name, tmp_path):
    net = build(name, 3, 1, 3, 4, seed=0)
    net.compile("adam", make_loss("0.5*focal+dice", (0.2, 0.3, 0.5)), jit_compile=False)
    images, labels = some_images(2, 16, 16, 1), np.random.default_rng(1).integers(0, 3, (2, 16, 16)).astype(np.uint8)
    for _ in range(3):  # statistics of batch normalisation differ from those it starts with
        net.train_on_batch(images, labels)
    expected = net.predict_on_batch(images)
    scaling = Scaling("range", "uint8", Scale(0.0, 255.0, 0.0, 1.0))
    card = ModelCard(["a", "b", "c"], ["#000000", "#ff0000", "#0000ff"], scaling, 16, 4)
    save_model(net, tmp_path / "net.keras", card)
    assert parts_with_weights(tmp_path / "net.keras") == {"layers", "vars"}
    loaded, read = load_model(tmp_path / "net.keras")
    assert read == card
    np.testing.assert_array_equal(loaded.predict_on_batch(images), expected)
    net.save(tmp_path / "latest.keras")
    assert "optimizer" in parts_with_weights(tmp_path / "latest.keras")
    again = load_checkpoint(tmp_path / "latest.keras")
    np.testing.assert_array_equal(again.predict_on_batch(images), expected)
    assert again.optimizer.iterations == 3
    assert float(again.test_on_batch(images, labels)) == pytest.approx(float(net.test_on_batch(images, labels)))


def test_gates_multiply_each_skip_by_one_number_per_pixel():
    plain, gated = build("unet", 3, depth=4, base_filters=4), build("attention-unet", 3, 1, 4, 4)
    gates = layers_of(gated, keras.layers.Multiply)
    assert [[tuple(x.shape)[-1] for x in gate.input] for gate in gates] == [[16, 1], [8, 1], [4, 1]]
    # For a level of C channels above one of 2 C: C/2 from 2 x 2 of C, C/2 (and bias) from 2 C, 1 (and bias) from C/2.
    extra = sum(4 * c * c // 2 + 2 * c * c // 2 + c // 2 + c // 2 + 1 for c in (16, 8, 4))
    assert gated.count_params() == plain.count_params() + extra


def test_a_gate_lets_through_between_nothing_and_everything():
    net = build("attention-unet", 2, 1, 2, 4, seed=3)
    weight = keras.Model(net.input, net.get_layer("up1_gate_upsample").output)
    images = some_images(1, 16, 16, 1)
    values = weight.predict_on_batch(images)
    assert values.shape == (1, 16, 16, 1)
    assert 0 < values.min() < values.max() < 1
    skip, product = (
        keras.Model(net.input, net.get_layer(name).output).predict_on_batch(images)
        for name in ("down1_conv2", "up1_gate_product")
    )
    np.testing.assert_allclose(product, skip * values, rtol=1e-5)


def test_residual_blocks_add_their_input():
    net = build("attention-res-unet", 3, 1, 3, 4)
    sums = [layer for layer in layers_of(net, keras.layers.Add) if "gate" not in layer.name]
    assert len(sums) == 5  # two levels down, the bottom, two levels up
    assert len(layers_of(net, keras.layers.BatchNormalization)) == 3 * 5


def test_the_compact_network_is_small():
    net = build("compact", 3, 1, 6, 16)
    assert 4 * net.count_params() < 16e6  # bytes; the promise is 4 million weights
    assert max(layer.filters for layer in layers_of(net, keras.layers.Conv2D)) == 128  # eight times 16
    assert net.count_params() < 0.08 * build("unet", 3).count_params()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_whole_depth_is_seen(name):
    # A pixel far away changes the result: the deepest level joins what is 2**(depth - 1) px apart and more.
    net = build(name, 2, 1, 5, 16 if name == "se-resnet34-unet" else 4, seed=0)  # which has a quarter there
    image = some_images(1, 64, 64, 1)
    other = image.copy()
    other[0, 4, 4] += 50
    # Before the softmax, which may be 0 and 1 to the last digit in a network that has learned nothing.
    seen = keras.Model(net.input, net.get_layer("probabilities").input)
    change = np.abs(seen.predict_on_batch(image) - seen.predict_on_batch(other))[0]
    assert change[28, 28].max() > 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_impossible_networks_are_refused(name):
    for sizes in ((1, 1, 3, 4), (2, 0, 3, 4), (2, 1, 0, 4), (2, 1, 3, 0)):
        with pytest.raises(InputError, match="at least 2 classes"):
            build(name, *sizes)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        InputError, match=r"no architecture 'vgg'.*unet, attention-unet, attention-res-unet, compact, se-resnet34-unet"
    ):
        build("vgg", 2)
