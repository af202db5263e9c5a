"""The squeeze-and-excitation ResNet-34: published weights in the layout of their file give the features they should."""

import hashlib
import io
import json
import urllib.error

import h5py
import numpy as np
import pytest
from scipy import ndimage, signal

from tomoseg.errors import InputError
from tomoseg.runtime import Runtime
from tomoseg.segmentation.networks.builders import LEVEL_8_BIT, build
from tomoseg.segmentation.networks.card import read_card
from tomoseg.segmentation.networks.encoder_weights import fetch, name_of, read_layers, set_encoder_weights
from tomoseg.segmentation.networks.keras_setup import keras
from tomoseg.segmentation.training.parameters import TrainParameters, check
from tomoseg.segmentation.training.trainer import train

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
UNITS = (3, 4, 6, 3)
WIDTH = 4
ULP = 2e-4  # relative: 36 convolutions in f4, against f8


def published(width=WIDTH):
    """Return {layer: {weight: array}} in the order of a published file, random but of the sizes that training gives."""
    rng = np.random.default_rng(0)
    made, n_numbered = {}, 0

    def convolution(name, size, n_in, n_out):
        spread = np.sqrt(2 / (size * size * n_in))
        made[name] = {"kernel:0": rng.normal(0, spread, (size, size, n_in, n_out)).astype(np.float32)}

    def normalisation(name, n, mean=0.0, deviation=1.0, scale=True):
        weights = {"gamma:0": rng.uniform(0.5, 1.5, n)} if scale else {}
        weights |= {"beta:0": rng.normal(0, 0.3, n), "moving_mean:0": mean + 0.1 * deviation * rng.normal(size=n)}
        weights["moving_variance:0"] = deviation**2 * rng.uniform(0.8, 1.2, n)
        made[name] = {key: value.astype(np.float32) for key, value in weights.items()}

    normalisation("bn_data", 3, 116.0, 58.0, scale=False)
    convolution("conv0", 7, 3, width)
    normalisation("bn0", width)
    n_in = width
    for stage, n_units in enumerate(UNITS, start=1):
        n_out = width * 2 ** (stage - 1)
        for unit in range(1, n_units + 1):
            name = f"stage{stage}_unit{unit}_"
            normalisation(f"{name}bn1", n_in)
            convolution(f"{name}conv1", 3, n_in, n_out)
            normalisation(f"{name}bn2", n_out)
            convolution(f"{name}conv2", 3, n_out, n_out)
            for sizes in ((n_out, max(n_out // 16, 1)), (max(n_out // 16, 1), n_out)):
                n_numbered += 1
                convolution(f"conv2d_{n_numbered}", 1, *sizes)
                made[f"conv2d_{n_numbered}"]["bias:0"] = rng.normal(0, 0.5, sizes[1]).astype(np.float32)
            if unit == 1:
                convolution(f"{name}sc", 1, n_in, n_out)
            n_in = n_out
    normalisation("bn1", n_in)
    return made


def written(path, layers):
    """Write weights as Keras 2 does, with the layers that have none among them."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in ["data", *layers, "relu1"]]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.2.4"
        for name in ("data", "relu1"):
            file.create_group(name).attrs["weight_names"] = np.zeros(0)
        for name, weights in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{key}".encode() for key in weights]
            for key, value in weights.items():
                group[f"{name}/{key}"] = value
    return path


@pytest.fixture(scope="module")
def weights():
    return published()


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    return written(tmp_path_factory.mktemp("weights") / "encoder.h5", weights)


def reference(image, layers, n_stages):
    """Return the features of an 8-bit image (h, w, 3) computed from the papers' description, in f8."""

    def weight(layer, key):
        return layers[layer][f"{key}:0"].astype(float)

    def normalised(x, name):
        gamma = weight(name, "gamma") if "gamma:0" in layers[name] else 1.0
        deviation = np.sqrt(weight(name, "moving_variance") + 2e-5)
        return gamma * (x - weight(name, "moving_mean")) / deviation + weight(name, "beta")

    def activated(x, name):
        return np.maximum(normalised(x, name), 0)

    def convolved(x, name, strides=1):
        kernel = weight(name, "kernel")
        x = np.pad(x, ((kernel.shape[0] // 2,) * 2, (kernel.shape[0] // 2,) * 2, (0, 0)))
        maps = [
            sum(signal.correlate(x[..., c], kernel[..., c, f], mode="valid") for c in range(kernel.shape[2]))
            for f in range(kernel.shape[3])
        ]
        return np.stack(maps, axis=-1)[::strides, ::strides]

    def excited(x, n):
        means = x.mean(axis=(0, 1))
        fewer = np.maximum(means @ weight(f"conv2d_{n}", "kernel")[0, 0] + weight(f"conv2d_{n}", "bias"), 0)
        more = fewer @ weight(f"conv2d_{n + 1}", "kernel")[0, 0] + weight(f"conv2d_{n + 1}", "bias")
        return x / (1 + np.exp(-more))

    x = activated(convolved(normalised(image, "bn_data"), "conv0", 2), "bn0")
    features = [x]
    x = ndimage.maximum_filter(x, (3, 3, 1), mode="constant")[::2, ::2]
    numbered = 1
    for stage in range(1, n_stages + 1):
        for unit in range(1, UNITS[stage - 1] + 1):
            name, strides = f"stage{stage}_unit{unit}_", 2 if unit == 1 < stage else 1
            y = activated(x, f"{name}bn1")
            if unit == 1 < stage:
                features.append(y)
            shortcut = convolved(y, f"{name}sc", strides) if unit == 1 else x
            y = convolved(activated(convolved(y, f"{name}conv1", strides), f"{name}bn2"), f"{name}conv2")
            x, numbered = excited(y, numbered) + shortcut, numbered + 2
    return [*features, activated(x, "bn1" if n_stages == 4 else f"stage{n_stages + 1}_unit1_bn1")]


def features_of(net, images):
    """Return what the encoder hands to the decoder, from the finest level to the coarsest."""
    joins = [layer for layer in net.layers if isinstance(layer, keras.layers.Concatenate)]
    enlarged = [layer for layer in net.layers if isinstance(layer, keras.layers.UpSampling2D)]
    deepest = max(enlarged, key=lambda layer: layer.name).input
    values = keras.Model(net.input, [*(join.input[1] for join in joins), deepest]).predict_on_batch(images)
    return sorted((v[0] for v in values), key=lambda v: -v.shape[0])


@pytest.mark.parametrize("depth", [3, 4, 6])
def test_the_features_are_those_of_the_papers(file, weights, depth):
    net = build("se-resnet34-unet", 2, 3, depth, WIDTH, seed=0)
    set_encoder_weights(net, read_layers(file), "encoder.h5")
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3)).astype(float)
    found = features_of(net, (image / LEVEL_8_BIT)[None].astype(np.float32))
    expected = reference(image, weights, depth - 2)
    assert [x.shape for x in found] == [x.shape for x in expected]
    assert [x.shape[0] for x in found] == [64 >> level for level in range(1, depth)]
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=ULP * np.abs(y).max())


def test_layers_of_other_names_go_by_their_order(file, weights, tmp_path):
    # What tells the order is the network itself, as Keras lists it.
    net = build("se-resnet34-unet", 2, 3, 6, WIDTH, seed=0)
    set_encoder_weights(net, read_layers(file), "encoder.h5")
    expected = {w.path: np.array(w) for w in net.weights}
    own = [layer.name for layer in net.layers if layer.weights and not layer.name.startswith(("up", "prob"))]
    numbered = [name for name in own if "_se_" in name]
    published_as = {name: f"conv2d_{i}" for i, name in enumerate(numbered, start=1)}
    assert len(own) == 104
    renamed = {f"layer_{7 * i % 104}": weights[published_as.get(name, name)] for i, name in enumerate(own)}
    other = build("se-resnet34-unet", 2, 3, 6, WIDTH, seed=1)
    set_encoder_weights(other, read_layers(written(tmp_path / "renamed.h5", renamed)), "renamed.h5")
    for layer in own:
        for weight in other.get_layer(layer).weights:
            np.testing.assert_array_equal(np.array(weight), expected[weight.path])


@pytest.mark.parametrize("n_channels", [1, 5])
def test_grey_images_give_the_features_of_grey_colours(file, weights, n_channels):
    net = build("se-resnet34-unet", 2, n_channels, 3, WIDTH, seed=0)
    set_encoder_weights(net, read_layers(file), "encoder.h5")
    grey = np.random.default_rng(1).integers(0, 256, (64, 64, 1)).astype(float)
    first = keras.Model(net.input, net.get_layer("relu0").output)
    found = first.predict_on_batch((grey / LEVEL_8_BIT).repeat(n_channels, axis=-1)[None].astype(np.float32))[0]
    expected = reference(grey.repeat(3, axis=-1), weights, 1)[0]
    inside = (
        slice(2, -2),
        slice(2, -2),
    )  # zeros around the image reach 3 of its pixels, every other one of which counts
    np.testing.assert_allclose(found[inside], expected[inside], atol=ULP * expected.max())
    assert np.abs(found - expected).max() < 0.5 * expected.max()


def test_real_width_has_the_papers_number_of_weights():
    encoder = [
        w
        for layer in build("se-resnet34-unet", 3, 3, 6, 64, seed=0).layers
        if not layer.name.startswith(("up", "prob"))
        for w in layer.weights
    ]
    # Table 1 of He et al.: a 7x7 convolution, then 3, 4, 6 and 3 pairs of 3x3 ones; and four 1x1 shortcuts.
    kernels = sum(int(np.prod(w.shape)) for w in encoder if w.name == "kernel")
    convolutions = 64 * 147 + 6 * 9 * 64**2 + 7 * 9 * 128**2 + 9 * 64 * 128 + 11 * 9 * 256**2 + 9 * 128 * 256
    convolutions += 5 * 9 * 512**2 + 9 * 256 * 512 + 64 * 64 + 64 * 128 + 128 * 256 + 256 * 512
    excitation = 2 * sum(n * c * c // 16 for n, c in zip(UNITS, (64, 128, 256, 512), strict=True))
    assert kernels == convolutions + excitation


@pytest.mark.parametrize("depth", [2, 7])
def test_depths_that_it_cannot_have(depth):
    with pytest.raises(InputError, match="3 to 6 levels"):
        build("se-resnet34-unet", 2, 1, depth, WIDTH)
    patch = 1 << (depth + 2)
    (problem,) = check(TrainParameters(architecture="se-resnet34-unet", depth=depth, patch=patch))
    assert "3 to 6 levels" in problem


def test_files_that_do_not_fit(weights, tmp_path):
    net = build("se-resnet34-unet", 2, 1, 6, WIDTH, seed=0)
    before = net.get_weights()
    lacking = {name: w for name, w in weights.items() if name != "stage2_unit1_sc"}
    fewer = {name: w for name, w in weights.items() if name != "conv2d_32"}
    bad = weights | {"bn1": weights["bn1"] | {"beta:0": np.full(8 * WIDTH, np.nan, np.float32)}}
    cases = {
        "lack kernel of layer 'stage2_unit1_sc'": lacking,
        "31 numbered convolutions, not 32": fewer,
        r"kernel of layer 'conv0' has the shape \(7, 7, 3, 8\) there and \(7, 7, 3, 4\).*--base-filters 64": published(
            8
        ),
        "beta of layer 'bn1' holds NaN, infinity or no numbers": bad,
    }
    for i, (message, layers) in enumerate(cases.items()):
        given = read_layers(written(tmp_path / f"{i}.h5", layers))
        with pytest.raises(InputError, match=message):
            set_encoder_weights(net, given, "encoder.h5")
    for a, b in zip(before, net.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(InputError, match=r"text\.h5 cannot be read"):
        read_layers(tmp_path / "text.h5")


def test_checksums(file, tmp_path):
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    assert fetch(str(file)) == fetch(f"{file}#md5={md5.upper()}") == (file, md5)
    with pytest.raises(InputError, match=f"has the MD5 {md5}, not {'0' * 32}"):
        fetch(f"{file}#md5={'0' * 32}")
    known = tmp_path / "seresnet34_imagenet_1000_no_top.h5"
    known.write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="not 3348fd049f1f9ad307c070ff2b6ec4cb"):
        fetch(str(known))
    for source, message in (
        (f"{file}#md5=12", "32 hexadecimal digits"),
        ("http://example.org/w.h5", "starts with https://"),
        (str(tmp_path / "none.h5"), "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            fetch(source)


class Reply(io.BytesIO):
    """What a server sends."""

    address = "https://example.org/w.h5"

    def geturl(self):
        return self.address


def test_downloads_are_kept_and_checked(file, tmp_path, monkeypatch):
    monkeypatch.setattr("tomoseg.segmentation.networks.encoder_weights.cache_folder", lambda: tmp_path / "cache")
    asked, sent = [], [file.read_bytes()]

    def opened(address, timeout):
        asked.append((address, timeout))
        return Reply(sent[0])

    monkeypatch.setattr("tomoseg.segmentation.networks.encoder_weights.urlopen", opened)
    md5 = hashlib.md5(sent[0]).hexdigest()
    source = f"https://example.org/w.h5#md5={md5}"
    said = []
    path, found = fetch(source, said.append)
    assert (path.read_bytes(), found) == (sent[0], md5)
    assert "example.org" in said[0]
    assert fetch(source)[0] == path
    assert asked == [("https://example.org/w.h5", 30)]  # once
    path.write_bytes(b"damaged")
    fetch(source)
    assert path.read_bytes() == sent[0]
    path.unlink()
    sent[0] = b"something else"
    with pytest.raises(InputError, match="not " + md5):
        fetch(source)
    assert not list((tmp_path / "cache").iterdir())
    monkeypatch.setattr(Reply, "address", "http://example.org/w.h5")
    with pytest.raises(InputError, match="not https"):
        fetch(source)


def test_offline_says_what_to_do(tmp_path, monkeypatch):
    def opened(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("tomoseg.segmentation.networks.encoder_weights.cache_folder", lambda: tmp_path)
    monkeypatch.setattr("tomoseg.segmentation.networks.encoder_weights.urlopen", opened)
    with pytest.raises(InputError, match=r"no route to host.*--encoder-weights seresnet34_imagenet_1000_no_top\.h5"):
        fetch("imagenet")
    assert name_of("imagenet") == "seresnet34_imagenet_1000_no_top.h5"


def test_a_training_starts_from_them_and_remembers(file, make_slices, tmp_path):
    images, labels = make_slices(8)
    settings = TrainParameters(
        epochs=1,
        batch=2,
        patch=32,
        depth=3,
        architecture="se-resnet34-unet",
        base_filters=WIDTH,
        learning_rate=1e-9,
        encoder_weights=str(file),
    )
    output = tmp_path / "m.keras"
    result = train(images, labels, output, params=settings, runtime=Runtime(device="cpu"))
    from tomoseg.segmentation.networks.model_file import load_model

    kernel = load_model(output)[0].get_layer("stage1_unit2_conv1").kernel
    np.testing.assert_allclose(kernel, read_layers(file)["stage1_unit2_conv1"]["kernel"], atol=1e-6)
    card = read_card(output)
    assert card.training["encoder_weights"] == "encoder.h5"
    assert card.training["encoder_md5"] == hashlib.md5(file.read_bytes()).hexdigest()
    assert json.loads((result.checkpoint / "state.json").read_text())["identity"]["encoder_weights"] == "encoder.h5"
    problems = check(TrainParameters(encoder_weights="imagenet"))
    assert any("for the architecture se-resnet34-unet, not for unet" in p for p in problems)
