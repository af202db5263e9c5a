"""Networks from strangers: no code of theirs is run, no memory is spent on promises, and sound ones still load."""

import contextlib
import io
import json
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.fuzz import bombs
from tests.unit.segmentation.networks.test_model_file import CARD, rewritten
from tomoseg.errors import InputError
from tomoseg.project.provenance import PeakMemory
from tomoseg.segmentation.api import segment
from tomoseg.segmentation.inference.slice_prediction import ARRAYS_AT_ONCE
from tomoseg.segmentation.networks.builders import build
from tomoseg.segmentation.networks.card import CARD_ENTRY, read_card
from tomoseg.segmentation.networks.feature_maps import bytes_at_once, largest_output
from tomoseg.segmentation.networks.keras_setup import keras
from tomoseg.segmentation.networks.model_file import load_checkpoint, load_model, save_model
from tomoseg.segmentation.networks.registry import ARCHITECTURES

# Keras 3.15 converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
layers = keras.layers


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "net.keras"
    save_model(build("unet", 3, depth=2, base_filters=2, seed=1), path, CARD)
    return path


def described(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def with_description(source: Path, target: Path, change) -> Path:
    """Copy a network, with `change` made to its description."""
    config = described(source)
    change(config)
    return rewritten(source, target, **{"config.json": json.dumps(config).encode()})


def with_layer(source: Path, target: Path, layer: dict) -> Path:
    """Copy a network, with its first convolution replaced by another layer."""

    def change(config):
        conv = next(part for part in config["config"]["layers"] if part["class_name"] == "Conv2D")
        conv.update(layer | {"config": {"name": conv["config"]["name"]} | layer["config"]})

    return with_description(source, target, change)


def layer(module, name, registered=None, /, **config):
    return {"module": module, "class_name": name, "registered_name": registered, "config": config}


@keras.saving.register_keras_serializable(package="somebody")
class Strange(keras.layers.Layer):
    """A layer of someone's own; that it is registered here does not make it one that a file may ask for."""

    made = 0

    def __init__(self, **kwargs):
        Strange.made += 1
        super().__init__(**kwargs)

    def call(self, x):
        return x


OWN_CODE = {"class_name": "__lambda__", "config": {"value": "4wEAAAA=", "defaults": None, "closure": None}}
HOSTILE = {
    "lambda": layer("keras.layers", "Lambda", function=OWN_CODE, output_shape=None, arguments={}),
    "registered": layer("tests.unit.segmentation.networks.test_hostile_models", "Strange", "somebody>Strange"),
    "registered as standard": layer("keras.layers", "Conv2D", "somebody>Strange"),
    "saved model": layer("keras.layers", "TFSMLayer", filepath="/somewhere", call_endpoint="serve"),
    "torch": layer("keras.layers", "TorchModuleWrapper", module="gASV"),
    "jax": layer("keras.layers", "JaxLayer", call_fn=OWN_CODE),
    "vocabulary file": layer("keras.layers", "StringLookup", vocabulary="/etc/passwd"),
    "text file": layer("keras.layers", "TextVectorization", vocabulary="/etc/passwd"),
    "download": layer("keras.utils", "get_file", fname="x", origin="http://localhost/x"),
    "system": layer("os", "system", command="true"),
    "module of Keras": layer("keras.src.layers.core.lambda_layer", "Lambda", function=OWN_CODE),
    "hidden in a seed": layer("keras.layers", "Dropout", rate=0.1, seed=layer("os", "system", command="true")),
    "function": layer("keras.layers", "Conv2D", filters=2, kernel_size=3, activation=layer("builtins", "eval")),
    "activation": layer(
        "keras.layers", "Conv2D", activation={"module": "builtins", "class_name": "function", "config": "load_model"}
    ),
    "no module": {"class_name": "Conv2D", "config": {}, "module": None, "registered_name": None},
    "names of other types": {"class_name": ["Conv2D"], "config": {}, "module": {"a": 1}, "registered_name": 3},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_only_known_layers_are_made(sound, tmp_path, what):
    path = with_layer(sound, tmp_path / "net.keras", HOSTILE[what])
    with pytest.raises(InputError, match="for safety it is not loaded"):
        load_model(path)
    with pytest.raises(InputError, match="for safety it is not loaded"):
        load_checkpoint(path)
    assert Strange.made == 0


def test_a_loss_of_someone_else_is_left_alone_or_refused(sound, tmp_path):
    def compiled(config):
        config["compile_config"] = {"optimizer": "sgd", "loss": layer("os", "system", command="true")}

    path = with_description(sound, tmp_path / "net.keras", compiled)
    load_model(path)  # the loss plays no part in applying it
    with pytest.raises(InputError, match="for safety it is not loaded"):
        load_checkpoint(path)


def convolution(config: dict) -> dict:
    return next(part["config"] for part in config["config"]["layers"] if part["class_name"] == "Conv2D")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: convolution(c).update(filters=10**6, kernel_size=[999, 999]), "more weights than are stored"),
        (lambda c: convolution(c).update(filters=10**12), "a number in its description is 1000000000000"),
        (lambda c: convolution(c).update(filters=10**400), "a whole number of more than 128 bits"),
        (lambda c: convolution(c).update(dilation_rate=float("nan")), "a number in its description is nan"),
        (lambda c: convolution(c).update(filters="many"), "cannot be loaded"),
        (lambda c: convolution(c).update(activation="no_such"), "cannot be loaded"),
        (lambda c: c.update(config=[]), "cannot be loaded"),
        (lambda c: c["config"].update(layers=c["config"]["layers"] * 300), "layers"),
        (lambda c: c["config"].update(output_layers=[["nowhere", 0, 0]]), "cannot be loaded"),
        (lambda c: c.update(class_name="Model"), "neither a Functional nor a Sequential"),
    ],
)
def test_descriptions_that_cannot_be_right(sound, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        load_model(with_description(sound, tmp_path / "net.keras", change))


def test_a_feature_map_larger_than_all_memory(tmp_path):
    net = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            layers.UpSampling2D(1000),
            layers.UpSampling2D(10),
            layers.AveragePooling2D(10_000),
            layers.Conv2D(2, 1, activation="softmax"),
        ]
    )
    net.save(tmp_path / "net.keras")
    with pytest.raises(InputError, match="a feature map has"):
        load_model(tmp_path / "net.keras")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    path = tmp_path_factory.mktemp("foreign") / "foreign.keras"
    keras.Sequential([keras.Input((16, 16, 1)), layers.Conv2D(2, 1, activation="softmax")]).save(path)
    return path


@pytest.mark.filterwarnings("ignore::tomoseg.errors.TomosegWarning")  # of the labels, which matter to nobody
@pytest.mark.parametrize("what", bombs.there_and_back(2))
def test_a_network_that_needs_more_than_the_memory_allowed(foreign, tmp_path, what):
    """20 kB that ask for a gigabyte are refused before any of it is taken, also where it is hidden in a part."""
    path, volume = tmp_path / "net.keras", np.random.default_rng(0).random((4, 4, 4))
    options = {"model": path, "max_memory": "256M", "engine": "keras", "device": "cpu"}
    path.write_bytes(bombs.with_layers(foreign.read_bytes(), bombs.there_and_back(2)[what]))
    assert segment(volume, **options).labels.shape == (4, 4, 4)
    path.write_bytes(bombs.with_layers(foreign.read_bytes(), bombs.there_and_back(600)[what]))
    peak = PeakMemory()
    before = peak.bytes
    with pytest.raises(InputError, match=r"about \d+ MiB for a patch of 16 px .*--max-memory allows \(256 MiB\)"):
        segment(volume, **options)
    assert peak.bytes - before < 64 << 20


def functional(make):
    inputs = layers.Input((None, None, 1))
    return keras.Model(inputs, make(inputs))


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="its graph tells of arrays inside of layers")
@pytest.mark.parametrize(
    ("make", "least"),
    [
        (lambda x: layers.Conv2D(8, 3, padding="same", dilation_rate=5000)(x), 800 << 20),
        (lambda x: layers.SeparableConv2D(2, 1, depth_multiplier=1000)(x), 1000 << 20),
        (lambda x: layers.Concatenate()([layers.Conv2D(64, 1)(x) for _ in range(20)]), 20 * 64 << 20),
    ],
    ids=["dilated", "separable", "many that wait"],
)
def test_arrays_inside_of_layers_and_those_that_wait_count(make, least):
    assert bytes_at_once(functional(make), 512, 512) > least


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_held_at_once_is_within_what_is_reckoned_for_sound_networks(name):
    model = build(name, 3, depth=3, base_filters=8)
    assert 0 <= bytes_at_once(model, 64, 64) <= ARRAYS_AT_ONCE * 4 * largest_output(model, 64, 64)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"3", b"null", b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_a_description_that_is_none(sound, tmp_path, text):
    with pytest.raises(InputError, match=r"is damaged|neither a Functional"):
        load_model(rewritten(sound, tmp_path / "net.keras", **{"config.json": text}))


# The archive ---------------------------------------------------------------------------------------------------------


def test_an_archive_that_unpacks_to_far_more_than_it_is(sound, tmp_path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(sound) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("config.json", old.read("config.json"))
        with new.open("model.weights.h5", "w") as entry:
            for _ in range(200):
                entry.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match=r"bomb\.keras .*'model\.weights\.h5' .*210 MB"):
        load_model(path)


@pytest.mark.parametrize("promised", [0xFFFFFFF0, 200 << 20, 1])
def test_an_archive_that_lies_about_sizes(sound, tmp_path, promised):
    content = bytearray(sound.read_bytes())
    at = content.find(b"PK\x01\x02")
    while at >= 0:  # the size of every entry in the archive's table of contents
        content[at + 24 : at + 28] = struct.pack("<I", promised)
        at = content.find(b"PK\x01\x02", at + 4)
    path = tmp_path / "net.keras"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"net\.keras"):
        load_model(path)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/outside", "assets/file.txt", "variables.pkl", "config.json"])
def test_what_a_network_does_not_need_is_refused(sound, tmp_path, name):
    path = rewritten(sound, tmp_path / "net.keras")
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")  # that an entry is there already
        archive.writestr(name, "{}")
    with pytest.raises(InputError, match="does not need"):
        load_model(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.9, 0.999])
def test_a_truncated_archive(sound, tmp_path, part):
    content = sound.read_bytes()
    path = tmp_path / "net.keras"
    path.write_bytes(content[: int(part * len(content))])
    for use in (load_model, read_card):
        with pytest.raises(InputError, match="damaged"):
            use(path)


# The weights ---------------------------------------------------------------------------------------------------------


def with_weights(source: Path, target: Path, change) -> Path:
    """Copy a network, with `change` made to its file of weights."""
    with zipfile.ZipFile(source) as archive:
        memory = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(memory, "r+") as file:
        change(file)
    return rewritten(source, target, **{"model.weights.h5": memory.getvalue()})


def kernels(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if getattr(item, "ndim", 0) == 4 else None)
    return names


def replaced(make):
    def change(file):
        name = kernels(file)[0]
        del file[name]
        make(file, name)

    return change


@pytest.mark.parametrize(
    "change",
    [
        replaced(lambda f, n: f.create_dataset(n, (10**5, 10**5, 10), "f4")),
        replaced(lambda f, n: f.create_dataset(n, (10**4, 10**4), "f4", chunks=(100, 100), compression="gzip")),
        replaced(lambda f, n: f.create_dataset(n, (3, 3, 1, 2), "f4", external=[("/etc/passwd", 0, 72)])),
        replaced(lambda f, n: f.__setitem__(n, h5py.ExternalLink("/etc/passwd", "/x"))),
        replaced(lambda f, n: f.__setitem__(n, "a text")),
        replaced(lambda f, n: f.__setitem__(n, np.zeros((3, 3, 1, 3), "f4"))),
        replaced(lambda f, n: None),
    ],
    ids=["huge", "compressed", "in another file", "link", "text", "other shape", "missing"],
)
def test_weights_that_are_not_what_they_should_be(sound, tmp_path, change):
    with pytest.raises(InputError, match="damaged"):
        load_model(with_weights(sound, tmp_path / "net.keras", change))


def test_damaged_weights_never_crash(sound, tmp_path):
    with zipfile.ZipFile(sound) as archive:
        weights = archive.read("model.weights.h5")
    rng = np.random.default_rng(3)
    for part in (0.001, 0.3, 0.95):
        cut = weights[: int(len(weights) * part)]
        with pytest.raises(InputError, match="damaged"):
            load_model(rewritten(sound, tmp_path / "net.keras", **{"model.weights.h5": cut}))
    for _ in range(12):
        content = np.frombuffer(weights, np.uint8).copy()
        content[rng.integers(0, len(content) // 4, 40)] = rng.integers(0, 256, 40)
        with contextlib.suppress(InputError):  # anything else, and the end of this process, is a failure
            load_model(rewritten(sound, tmp_path / "net.keras", **{"model.weights.h5": content.tobytes()}))


# The card ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": 3},
        {"class_names": [1, 2, 3]},
        {"class_names": ["a", "a", "b"]},
        {"class_names": [f"c{i}" for i in range(300_000)]},
        {"class_names": ["a", "b", "\ud800"]},
        {"class_colors": None},
        {"class_colors": ["#000000", "url(javascript:alert(1))", "#ffffff"]},
        {"patch": "64"},
        {"patch": 0},
        {"patch": 10**9},
        {"multiple": -4},
        {"pixel_size_nm": float("nan")},
        {"pixel_size_nm": [1]},
        {"training": []},
        {"scores": "good"},
        {"made_by": 5},
        {"trained_here": "yes"},
        {"scaling": None},
        {"scaling": {"kind": "levels", "dtype": "O", "trained": {}}},
        {"scaling": {"kind": "magic", "dtype": "uint8", "trained": {"low": 0, "high": 1, "bottom": 0, "top": 1}}},
        {"format": 99},
        {"more": 1},
    ],
    ids=lambda change: str(change)[:40],
)
def test_cards_of_the_wrong_kind(sound, tmp_path, change):
    card = json.loads(CARD.to_json()) | change
    path = rewritten(sound, tmp_path / "net.keras", **{CARD_ENTRY: json.dumps(card).encode()})
    for use in (read_card, load_model):
        with pytest.raises(InputError, match="description inside"):
            use(path)


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"\xff", b"{" * 50_000, b"[" * 50_000, b"3"])
def test_a_card_that_is_none(sound, tmp_path, text):
    with pytest.raises(InputError, match="description inside"):
        read_card(rewritten(sound, tmp_path / "net.keras", **{CARD_ENTRY: text}))


# Sound ones ----------------------------------------------------------------------------------------------------------


def squeeze_excite(x, n):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(n // 2, 1, activation="relu")(gate)
    return layers.Multiply()([x, layers.Conv2D(n, 1, activation="sigmoid")(gate)])


def residual(x, n, strides=1):
    y = layers.Conv2D(n, 3, strides, padding="same", use_bias=False, kernel_regularizer="l2")(x)
    y = layers.BatchNormalization()(y)
    y = layers.Conv2D(n, 3, padding="same", use_bias=False)(layers.Activation("swish")(y))
    y = squeeze_excite(layers.GroupNormalization(2)(y), n)
    return layers.Add()([y, layers.Conv2D(n, 1, strides)(x)])


def attention(skip, gate, n):
    both = layers.Add()([layers.Conv2D(n, 1)(skip), layers.Conv2D(n, 1)(gate)])
    weight = layers.Conv2D(1, 1, activation=keras.activations.sigmoid)(layers.LeakyReLU()(both))
    return layers.Multiply()([skip, weight])


def elaborate():
    """Return a little network of the kinds of layers that the field's U-Nets are made of."""
    x = inputs = layers.Input((None, None, 1))
    x = layers.Rescaling(0.5)(x)
    skip = residual(layers.Conv2D(4, 7, padding="same", kernel_initializer="he_normal")(x), 4)
    down = residual(layers.ZeroPadding2D(0)(skip), 4, strides=2)
    down = layers.SpatialDropout2D(0.1, seed=2**40)(layers.PReLU(shared_axes=[1, 2])(down))
    up = layers.UpSampling2D(interpolation="bilinear")(down)
    x = layers.Concatenate()([attention(skip, up, 4), layers.Conv2DTranspose(4, 2, 2)(down)])
    x = layers.SeparableConv2D(4, 3, padding="same", activation="gelu")(x)
    block = keras.Sequential([keras.Input((None, None, 4)), layers.DepthwiseConv2D(3, padding="same"), layers.ReLU(6)])
    outputs = layers.Conv2D(3, 1, activation="softmax", dtype="float32")(block(x))
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_networks_of_standard_layers_load(tmp_path, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        net = elaborate()
    finally:
        keras.config.set_dtype_policy(before)
    net.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    net.save(tmp_path / "net.keras")
    again, card = load_model(tmp_path / "net.keras")
    assert not card.trained_here
    for a, b in zip(again.get_weights(), net.get_weights(), strict=True):
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 1)).astype(np.float32)
    np.testing.assert_array_equal(again.predict_on_batch(images), net.predict_on_batch(images))


@pytest.mark.slow
def test_a_network_trained_elsewhere_loads_in_a_process_of_its_own(sound):
    code = (
        "import sys; from pathlib import Path; from tomoseg.segmentation.networks.model_file import load_model; "
        "model, card = load_model(Path(sys.argv[1])); print(card.class_names, model.count_params())"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(sound)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    n = build("unet", 3, depth=2, base_filters=2).count_params()
    assert done.stdout.strip() == f"['vacuum', 'oxide', 'metal'] {n}", done.stderr


def test_a_network_that_does_not_say_what_it_takes(tmp_path):
    keras.Sequential([keras.Input((8, 8, 1)), layers.Softmax()]).save(tmp_path / "net.keras")

    def change(config):
        del config["build_config"], config["config"]["build_input_shape"], config["config"]["layers"][0]

    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(with_description(tmp_path / "net.keras", tmp_path / "other.keras", change))
