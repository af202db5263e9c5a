"""Labelled 2D phantoms, and one tiny network trained on them per test session."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.segmentation.data.augmentation import Augmentation
from tomoseg.segmentation.training.parameters import TrainParameters


def phantom_slice(rng, size):
    """Return an 8-bit slice with a patch of support and a few bright particles, and its labels."""
    rough = ndimage.gaussian_filter(rng.normal(size=(size, size)), size / 12)
    labels = (rough > np.quantile(rough, 0.65)).astype(np.uint8)
    y, x = np.indices(labels.shape)
    for cy, cx in np.argwhere(labels == 1)[rng.integers(0, labels.sum(), 4)]:
        labels[(y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(2.5, 4.5) ** 2] = 2
    clean = ndimage.gaussian_filter(np.array([8.0, 60.0, 190.0])[labels], 0.7)
    return np.clip(clean + rng.normal(0, 9, labels.shape), 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="session")
def make_slices():
    """Return a function that makes n labelled slices of a size."""

    def make(n, size=64, seed=0):
        rng = np.random.default_rng(seed)
        pairs = [phantom_slice(rng, size) for _ in range(n)]
        return [image for image, _ in pairs], [labels for _, labels in pairs]

    return make


@pytest.fixture(scope="session")
def tiny_settings():
    """Return settings that train in seconds on a CPU."""
    return TrainParameters(
        epochs=2,
        batch=4,
        patch=64,
        learning_rate=5e-3,
        depth=3,
        base_filters=4,
        folds=4,
        augmentation=Augmentation(shear=0.05),
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory, make_slices, tiny_settings):
    """Train the tiny network once."""
    from tomoseg.runtime import Runtime
    from tomoseg.segmentation.training.trainer import train

    images, labels = make_slices(16)
    output = tmp_path_factory.mktemp("trained") / "tiny.keras"
    runtime = Runtime(device="cpu")
    rows = []
    names = [f"s_{i:03d}" for i in range(16)]
    result = train(
        images,
        labels,
        output,
        names=names,
        pixel_size_nm=0.3,
        params=tiny_settings,
        runtime=runtime,
        on_epoch=rows.append,
    )
    return SimpleNamespace(
        path=output, result=result, images=images, labels=labels, names=names, runtime=runtime, rows=rows
    )
