"""The weighted focal loss, against the equation written out in NumPy."""

import numpy as np
import pytest

from tomoseg.io.slices import IGNORE
from tomoseg.segmentation.networks.keras_setup import keras
from tomoseg.segmentation.networks.losses import WeightedFocalLoss

WEIGHTS = (0.2, 0.3, 0.5)


def numpy_loss(labels, probabilities, weights, gamma):
    """Equation 1: the mean over annotated pixels of -a_t (1 - p_t)**gamma ln p_t, pixel by pixel."""
    values = [
        -weights[t] * (1 - p[t]) ** gamma * np.log(p[t])
        for t, p in zip(labels.ravel(), probabilities.reshape(-1, probabilities.shape[-1]), strict=True)
        if t != IGNORE
    ]
    return np.mean(values)


def some_probabilities(shape=(2, 5, 6), n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    raw = np.exp(rng.normal(0, 1.5, (*shape, n_classes)))
    return (raw / raw.sum(-1, keepdims=True)).astype(np.float32), rng.integers(0, n_classes, shape)


def value(loss, labels, probabilities):
    return float(keras.ops.convert_to_numpy(loss(labels, probabilities)))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.5])
def test_it_is_equation_1(gamma):
    probabilities, labels = some_probabilities()
    expected = numpy_loss(labels, probabilities.astype(float), WEIGHTS, gamma)
    got = value(WeightedFocalLoss(WEIGHTS, gamma), labels.astype(np.uint8), probabilities)
    assert got == pytest.approx(expected, rel=1e-5)  # float32 arithmetic


def test_one_pixel_by_hand():
    # Particle (weight 0.5) seen with p = 0.5: 0.5 * (1 - 0.5) * ln 2.
    got = value(WeightedFocalLoss(WEIGHTS), np.array([[[2]]]), np.array([[[[0.3, 0.2, 0.5]]]], np.float32))
    assert got == pytest.approx(0.25 * np.log(2), rel=1e-6)


def test_ignored_pixels_count_for_nothing():
    probabilities, labels = some_probabilities()
    masked = labels.copy()
    masked[:, :2] = IGNORE
    expected = numpy_loss(labels[:, 2:], probabilities[:, 2:].astype(float), WEIGHTS, 1.0)
    assert value(WeightedFocalLoss(WEIGHTS), masked, probabilities) == pytest.approx(expected, rel=1e-5)
    nothing = np.full(labels.shape, IGNORE)
    assert value(WeightedFocalLoss(WEIGHTS), nothing, probabilities) == 0.0


def test_no_particle_in_the_batch_and_certain_mistakes_stay_finite():
    probabilities = np.zeros((1, 2, 2, 3), np.float32)
    probabilities[..., 0] = 1  # certain of the background
    right, wrong = np.zeros((1, 2, 2), int), np.ones((1, 2, 2), int)
    assert value(WeightedFocalLoss(WEIGHTS), right, probabilities) == pytest.approx(0, abs=1e-9)
    assert np.isfinite(value(WeightedFocalLoss(WEIGHTS), wrong, probabilities))


def test_gradients_are_finite_for_an_absent_class():
    # A batch without particles and with saturated outputs, through the optimiser: no weight becomes NaN.
    net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(3, 1, activation="softmax")])
    net.compile("sgd", WeightedFocalLoss(WEIGHTS), jit_compile=False)
    for scale in (1.0, 1e4):
        net.train_on_batch(np.full((1, 4, 4, 1), scale, np.float32), np.zeros((1, 4, 4), np.uint8))
    assert all(np.isfinite(w).all() for w in net.get_weights())


def test_it_survives_serialisation():
    loss = WeightedFocalLoss(WEIGHTS, gamma=2.0)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    probabilities, labels = some_probabilities()
    assert isinstance(again, WeightedFocalLoss)
    assert value(again, labels, probabilities) == value(loss, labels, probabilities)
