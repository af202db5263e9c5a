"""What runs on an NVIDIA GPU, against the CPU: `make gpu`. Skipped where there is none."""

from functools import partial

import numpy as np
import pytest

import tomoseg as ts
from tomoseg.reconstruction.backends.astra import cuda_available
from tomoseg.simulate import project, tilt_angles

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]


def has_network_gpu() -> bool:
    """Tell whether Keras' backend sees a GPU."""
    try:
        from tomoseg.runtime import Runtime
        from tomoseg.segmentation.networks.keras_setup import prepare
    except ImportError:
        return False
    runtime = Runtime(device="auto")
    prepare(runtime)
    return runtime.device_used == "cuda"


def a_sample(n: int = 96) -> np.ndarray:
    """Return balls in a volume (n, 12, n)."""
    z, y, x = np.meshgrid(*(np.arange(m) - (m - 1) / 2 for m in (n, 12, n)), indexing="ij")
    volume = np.zeros((n, 12, n), np.float32)
    for cz, cx, radius, level in ((0, 0, 30, 1.0), (12, 8, 6, 3.0), (-20, 15, 4, 5.0)):
        volume[(z - cz) ** 2 + y**2 + (x - cx) ** 2 < radius**2] += level
    return volume


@pytest.mark.parametrize(("method", "options"), [("mlem", {"iterations": 20}), ("sirt", {"iterations": 20})])
def test_a_volume_of_the_gpu_is_that_of_the_cpu(method, options):
    if not cuda_available():
        pytest.skip("ASTRA finds no GPU")
    angles = tilt_angles(70, 2)
    images = project(a_sample(), angles)
    made = partial(ts.reconstruct, images, angles, method=method, resolution=False, **options)
    gpu, cpu = made(device="cuda").volume, made(device="cpu").volume
    difference = np.sqrt(np.mean((gpu - cpu) ** 2)) / np.sqrt(np.mean(cpu**2))
    assert difference < 0.02, difference  # textures have 8 bits of fraction


def test_a_network_on_the_gpu_labels_as_on_the_cpu(tmp_path):
    if not has_network_gpu():
        pytest.skip("Keras sees no GPU")
    volume = a_sample() + np.random.default_rng(0).normal(0, 0.1, (96, 12, 96)).astype(np.float32)
    labelled = partial(ts.segment, volume, method="unet", model="particles-on-support", engine="keras")
    gpu, cpu = labelled(device="cuda").labels, labelled(device="cpu").labels
    assert np.mean(gpu != cpu) < 1e-3


def test_a_training_on_the_gpu_learns(tmp_path):
    if not has_network_gpu():
        pytest.skip("Keras sees no GPU")
    from tomoseg.segmentation.training import train

    rng = np.random.default_rng(0)
    labels = [np.kron(rng.integers(0, 3, (8, 8)), np.ones((16, 16), int)).astype(np.uint8) for _ in range(8)]
    images = [np.float32([0, 1, 4])[label] + rng.normal(0, 0.2, label.shape).astype(np.float32) for label in labels]
    done = train(
        images, labels, tmp_path / "net.keras", architecture="compact", depth=4, base_filters=8, patch=64, batch=4,
        patches=80, epochs=4, learning_rate=3e-3, device="cuda", precision="mixed",
    )  # fmt: skip
    assert done.history[-1]["val_dice"] > 0.9
