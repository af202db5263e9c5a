"""Mixed precision: products of 16-bit numbers in training, probabilities and the saved network in 32 bit."""

import json
import zipfile

import numpy as np
import pytest

from tests.unit.segmentation.networks.test_model_file import CARD
from tomoseg.errors import InputError
from tomoseg.runtime import Runtime
from tomoseg.segmentation.networks import keras_setup
from tomoseg.segmentation.networks.builders import build
from tomoseg.segmentation.networks.keras_setup import keras, policy, policy_for
from tomoseg.segmentation.networks.losses import make_loss
from tomoseg.segmentation.networks.model_file import load_checkpoint, load_model, save_model
from tomoseg.segmentation.networks.registry import ARCHITECTURES
from tomoseg.segmentation.training.parameters import TrainParameters
from tomoseg.segmentation.training.trainer import make_optimizer, train

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.mark.parametrize(
    ("precision", "device", "backend", "expected"),
    [
        ("auto", "cpu", "tensorflow", "float32"),
        ("auto", "cuda", "tensorflow", "mixed_float16"),
        ("auto", "cuda", "torch", "mixed_float16"),
        ("auto", "cuda", "jax", "float32"),
        ("mixed", "cpu", "tensorflow", "mixed_bfloat16"),
        ("mixed", "cuda", "jax", "mixed_bfloat16"),
        ("mixed", "cuda", "torch", "mixed_float16"),
        ("float32", "cuda", "tensorflow", "float32"),
    ],
)
def test_what_is_computed_in(precision, device, backend, expected, monkeypatch):
    monkeypatch.setattr(keras_setup.keras.config, "backend", lambda: backend)
    assert policy_for(precision, device) == expected


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_compute_in_16_bit_and_probabilities_in_32(name):
    before = keras.config.dtype_policy().name
    with policy("mixed_bfloat16"):
        net = build(name, 3, 1, 3, 4, seed=0)
    assert keras.config.dtype_policy().name == before
    kinds = {layer.compute_dtype for layer in net.layers if isinstance(layer, keras.layers.Conv2D)}
    assert kinds == {"bfloat16", "float32"}
    assert net.get_layer("probabilities").compute_dtype == "float32"
    assert {w.dtype for w in net.weights} == {"float32"}
    out = net.predict_on_batch(np.random.default_rng(0).normal(size=(1, 32, 32, 1)).astype(np.float32))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.sum(axis=-1), 1, atol=1e-6)  # 16 bits would be off by some 1e-3


@pytest.mark.slow
def test_a_training_in_mixed_precision(tmp_path, make_slices, tiny_settings):
    images, labels = make_slices(8, seed=1)
    settings = tiny_settings.changed(
        architecture="compact",
        ema=0.5,
        learning_rate=1e-2,
        loss="focal+dice",
        precision="mixed",
    )
    output = tmp_path / "m.keras"
    once = settings.changed(epochs=1)
    train(images, labels, output, params=once, runtime=Runtime(device="cpu"))
    result = train(images, labels, output, params=settings, resume=True, runtime=Runtime(device="cpu"))
    assert all(np.isfinite([row["loss"], row["val_loss"]]).all() for row in result.history)
    assert result.history[1]["loss"] < result.history[0]["loss"]
    assert result.card.training["policy"] == "mixed_bfloat16"
    latest = load_checkpoint(result.checkpoint / "epoch_00002.keras")
    assert latest.get_layer("down1_conv").compute_dtype == "bfloat16"
    model, _ = load_model(output)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    with zipfile.ZipFile(output) as archive:
        assert "bfloat16" not in json.dumps(json.loads(archive.read("config.json")))


def test_float16_scales_its_loss_and_comes_back(tmp_path):
    with policy("mixed_float16"):
        net = build("compact", 3, 1, 2, 4, seed=0)
    optimizer = make_optimizer(TrainParameters(learning_rate=1e-2, ema=0.9), "mixed_float16")
    net.compile(optimizer=optimizer, loss=make_loss("focal+dice", (0.2, 0.3, 0.5)), jit_compile=False)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 16, 16, 1)).astype(np.float32)
    labels = (images[..., 0] > 0).astype(np.uint8)
    losses = [float(net.train_on_batch(images, labels)) for _ in range(6)]
    assert losses[-1] < losses[0]
    assert type(net.optimizer).__name__ == "LossScaleOptimizer"
    net.optimizer.learning_rate = 1e-3
    net.save(tmp_path / "latest.keras")
    again = load_checkpoint(tmp_path / "latest.keras")
    assert int(again.optimizer.iterations) == 6
    assert float(again.optimizer.learning_rate) == pytest.approx(1e-3)
    assert float(again.train_on_batch(images, labels)) == pytest.approx(float(net.train_on_batch(images, labels)))
    save_model(net, tmp_path / "net.keras", CARD)
    plain, _ = load_model(tmp_path / "net.keras")
    exact, rounded = plain.predict_on_batch(images), net.predict_on_batch(images)
    np.testing.assert_allclose(exact, rounded, atol=0.02)  # float16 has 11 bits, and there are ten layers
    assert not np.array_equal(exact, rounded)


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match=r"train\.precision: .*'auto', 'float32' or 'mixed', got 'half'"):
        TrainParameters.of("train", {"precision": "half"})
