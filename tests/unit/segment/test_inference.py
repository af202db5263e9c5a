"""From slices to labels and confidence."""

from types import SimpleNamespace

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.segment.card import foreign_card
from tomoseg.segment.inference import SlicePredictor
from tomoseg.segment.scaling import Scale


def softened(patches):
    """Return probabilities that follow the scaled intensity: class 1 for bright, class 0 for dark."""
    p = np.clip(patches, 0, 1)
    return np.stack([1 - p, p], axis=-1)


def predictor(patch=32, multiple=8):
    return SlicePredictor(softened, Scale(100, 200, 0, 1), 2, patch, multiple)


def test_labels_and_confidence_are_argmax_and_maximum():
    slices = np.array([[[100, 120, 180, 200]]], np.uint16)
    labels, confidence = predictor().classify(slices)
    assert labels.dtype == confidence.dtype == np.uint8
    np.testing.assert_array_equal(labels[0], [[0, 0, 1, 1]])
    np.testing.assert_array_equal(confidence[0], [[255, 204, 204, 255]])


@pytest.mark.parametrize("shape", [(2, 40, 70), (1, 5, 9), (3, 32, 32)])
def test_any_size_gives_labels_of_its_size(shape):
    slices = 100 + 100 * (np.random.default_rng(0).random(shape) > 0.5)
    labels, _ = predictor().classify(slices)
    np.testing.assert_array_equal(labels, slices > 150)


def test_patches_are_no_larger_than_needed():
    assert predictor(512, 32).patch_for((100, 190)) == 192
    assert predictor(512, 32).patch_for((600, 100)) == 512


def test_a_patch_that_does_not_fit_the_network_is_refused():
    free = SimpleNamespace(input_shape=(None, None, None, 1))
    with pytest.raises(InputError, match="a multiple of 32"):
        SlicePredictor.of(free, foreign_card(2, 512, 32), Scale(0, 1, 0, 1), patch=100)
    fixed = SimpleNamespace(input_shape=(None, 64, 64, 1))
    with pytest.raises(InputError, match="exactly 64"):
        SlicePredictor.of(fixed, foreign_card(2, 64, 64), Scale(0, 1, 0, 1), patch=128)
