"""Keras computes with TensorFlow, torch or JAX: the same network, weights, loss and steps of training with each."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from tomoseg.segmentation.networks.keras_setup import keras

SCRIPT = """
import sys
from pathlib import Path

import numpy as np

from tomoseg.segmentation.networks.keras_setup import keras
from tomoseg.segmentation.networks.losses import make_loss
from tomoseg.segmentation.networks.model_file import load_checkpoint
from tomoseg.segmentation.networks.builders import build
from tomoseg.segmentation.training.parameters import TrainParameters
from tomoseg.segmentation.training.trainer import make_optimizer

folder = Path(sys.argv[1])
rng = np.random.default_rng(0)
images = rng.normal(size=(2, 16, 16, 1)).astype(np.float32)
labels = (images[..., 0] > 0).astype(np.uint8) + (images[..., 0] > 1)
labels[:, :3] = 255
found = {}


def weighted(name):
    net = build(name, 3, 1, 3, 4, seed=0)
    # As large as training leaves them; no number of one layer is that of another.
    spread = [1.4 / np.sqrt(np.prod(w.shape[:-1])) if w.ndim == 4 else 0.2 for w in net.get_weights()]
    net.set_weights([rng.normal(w.ndim < 4, s, w.shape) for w, s in zip(net.get_weights(), spread)])
    return net


net = weighted("compact")
loss = make_loss("focal+0.5*cross-entropy+dice+tversky+iou", (0.2, 0.3, 0.5))
found["probabilities"] = np.asarray(net.predict_on_batch(images))
found["loss"] = keras.ops.convert_to_numpy(loss(labels, found["probabilities"]))
optimizer = make_optimizer(TrainParameters(learning_rate=1e-3, ema=0.9), "float32")
net.compile(optimizer=optimizer, loss=make_loss("focal+dice", (0.2, 0.3, 0.5)), jit_compile=False)
found["losses"] = [float(net.train_on_batch(images, labels)) for _ in range(3)]
net.save(folder / "latest.keras")
again = load_checkpoint(folder / "latest.keras")
found["resumed"] = [float(net.train_on_batch(images, labels)) for net in (net, again)]
again.optimizer.finalize_variable_values(again.trainable_variables)
for i, value in enumerate(again.get_weights()):
    found[f"average {i}"] = value
np.savez(folder / "found.npz", backend=keras.config.backend(), **found)
"""


def computed(folder, backend):
    """Return what the script finds with a backend."""
    folder.mkdir()
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "found.npz") as found:
        return dict(found)


@pytest.fixture(scope="module")
def present(tmp_path_factory):
    """Return what the script finds with the backend that the other tests run with."""
    return computed(tmp_path_factory.mktemp("present") / "found", keras.config.backend())


def test_a_training_that_is_resumed_takes_the_same_step(present):
    assert str(present["backend"]) == keras.config.backend()
    on, resumed = present["resumed"]
    assert resumed == pytest.approx(on, rel=1e-6)
    assert on < present["losses"][0]


@pytest.mark.parametrize("backend", ["tensorflow", "torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_every_backend_gives_the_same(present, backend, tmp_path):
    if backend == keras.config.backend():
        pytest.skip(f"{backend} is what the others are compared with")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    found = computed(tmp_path / "found", backend)
    assert str(found.pop("backend")) == backend
    assert set(found) == set(present) - {"backend"}
    for key, value in found.items():
        np.testing.assert_allclose(value, present[key], rtol=1e-4, atol=1e-5, err_msg=key)
