"""Losses other than the focal one, and sums of losses: against values by hand, and finite where a class is absent."""

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.io.slices import IGNORE
from tomoseg.segmentation.networks.keras_setup import keras
from tomoseg.segmentation.networks.losses import make_loss
from tomoseg.segmentation.networks.model_file import load_checkpoint
from tomoseg.segmentation.networks.registry import LOSSES, loss_terms

WEIGHTS = (0.2, 0.3, 0.5)
# One row of four pixels, three classes.
LABELS = np.array([[[0, 0, 1, 1]]], np.uint8)
P = np.array([[[[0.8, 0.1, 0.1], [0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.0, 0.5, 0.5]]]], np.float32)


def value(loss, labels, probabilities):
    return float(keras.ops.convert_to_numpy(loss(labels, probabilities)))


def overlap_by_hand(a, b):
    """Return 1 - mean Tversky index of LABELS and P: class 2 is not there.

    Class 0: 1.4 found of 2 pixels, 0.3 elsewhere. Class 1: 1.2 found of 2, 0.5 elsewhere.
    """
    return 1 - np.mean([1.4 / (1.4 + a * 0.3 + b * 0.6), 1.2 / (1.2 + a * 0.5 + b * 0.8)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dice", 1 - np.mean([2 * 1.4 / (2 + 1.7), 2 * 1.2 / (2 + 1.7)])),  # 2 |A B| / (|A| + |B|)
        ("iou", 1 - np.mean([1.4 / (2 + 1.7 - 1.4), 1.2 / (2 + 1.7 - 1.2)])),  # |A B| / |A or B|
        ("tversky", overlap_by_hand(0.3, 0.7)),
        ("cross-entropy", -(0.2 * np.log(0.8 * 0.6) + 0.3 * np.log(0.7 * 0.5)) / 4),
        (
            "focal",
            -(0.2 * (0.2 * np.log(0.8) + 0.4 * np.log(0.6)) + 0.3 * (0.3 * np.log(0.7) + 0.5 * np.log(0.5))) / 4,
        ),
    ],
)
def test_values_by_hand(name, expected):
    assert value(make_loss(name, WEIGHTS), LABELS, P) == pytest.approx(expected, rel=1e-6)


def test_sums_are_sums():
    parts = {name: value(make_loss(name, WEIGHTS), LABELS, P) for name in ("focal", "dice", "iou")}
    assert value(make_loss("focal+dice", WEIGHTS), LABELS, P) == pytest.approx(parts["focal"] + parts["dice"])
    expected = 0.5 * parts["focal"] + 1e-2 * parts["iou"]
    assert value(make_loss("0.5*focal + 1e-2 * iou", WEIGHTS), LABELS, P) == pytest.approx(expected)
    assert value(make_loss("2*dice", WEIGHTS), LABELS, P) == pytest.approx(2 * parts["dice"])


def test_missed_pixels_cost_more_in_the_tversky_loss():
    # Found 1 pixel too few or 1 too many, of 2, with certainty.
    truth = np.array([[[1, 1, 0, 0]]])
    few, many = (np.eye(2, dtype=np.float32)[np.array([[found]])] for found in ([1, 0, 0, 0], [1, 1, 1, 0]))
    gap = {}
    for name in ("dice", "tversky"):
        loss = make_loss(name, (1, 1))
        gap[name] = [value(loss, truth, few), value(loss, truth, many)]
    assert gap["dice"][0] == pytest.approx(gap["dice"][1])  # classes are alike, what one lacks the other has too many
    # By hand, FP 0.3, FN 0.7: (1/(1 + 0.7), 2/(2 + 0.3)) and (2/(2 + 0.3), 1/(1 + 0.7)).
    assert gap["tversky"][0] == pytest.approx(1 - (1 / 1.7 + 2 / 2.3) / 2)


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_count_for_nothing(name):
    loss = make_loss(name, WEIGHTS)
    more = np.concatenate([P, P[..., ::-1]], axis=2)
    labels = np.concatenate([LABELS, np.full_like(LABELS, IGNORE)], axis=2)
    assert value(loss, labels, more) == pytest.approx(value(loss, LABELS, P), rel=1e-6)
    assert value(loss, np.full_like(LABELS, IGNORE), P) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_right_answers_cost_nothing_and_wrong_ones_the_most(name):
    loss = make_loss(name, WEIGHTS)
    right = np.eye(3, dtype=np.float32)[LABELS]
    assert value(loss, LABELS, right) == pytest.approx(0, abs=1e-6)
    assert value(loss, LABELS, np.roll(right, 1, axis=-1)) > value(loss, LABELS, P)


@pytest.mark.parametrize("name", [*LOSSES, "focal+dice"])
@pytest.mark.parametrize("label", [0, 2, IGNORE])
def test_training_stays_finite_where_classes_are_absent(name, label):
    net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(3, 1, activation="softmax")])
    net.compile("sgd", make_loss(name, WEIGHTS), jit_compile=False)
    for scale in (1.0, 1e4):  # saturated outputs
        net.train_on_batch(np.full((1, 4, 4, 1), scale, np.float32), np.full((1, 4, 4), label, np.uint8))
        net.train_on_batch(np.full((1, 4, 4, 1), -scale, np.float32), np.full((1, 4, 4), label, np.uint8))
    assert all(np.isfinite(w).all() for w in net.get_weights())


@pytest.mark.parametrize("name", [*LOSSES, "0.5*focal+2*dice+iou"])
def test_losses_come_back_from_a_checkpoint(name, tmp_path):
    net = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(3, 1, activation="softmax")])
    net.compile("adam", make_loss(name, WEIGHTS, gamma=2.0), jit_compile=False)
    net.train_on_batch(np.ones((1, 1, 4, 1), np.float32), LABELS)
    net.save(tmp_path / "latest.keras")
    assert value(load_checkpoint(tmp_path / "latest.keras").loss, LABELS, P) == value(net.loss, LABELS, P)


def test_what_a_loss_is_written_as():
    assert loss_terms("focal") == [(1.0, "focal")]
    assert loss_terms(" 0.5*focal + 1e-1 * cross-entropy") == [(0.5, "focal"), (0.1, "cross-entropy")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "give one of focal"),
        ("focal+", "give one of focal"),
        ("hinge", "give one of focal"),
        ("dice+dice", "a sum of different ones"),
        ("x*dice", "'x' is not a number above 0"),
        ("-1*dice", "'-1' is not a number above 0"),
        ("nan*dice", "'nan' is not a number above 0"),
        ("inf*dice", "'inf' is not a number above 0"),
    ],
)
def test_what_is_no_loss(text, message):
    with pytest.raises(InputError, match=message):
        loss_terms(text)
