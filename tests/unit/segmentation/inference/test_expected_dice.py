"""What a network's own probabilities let expect of its labels, and how far these agree with thresholds."""

import numpy as np
import pytest

from tomoseg.segmentation.data.histogram import sampled_histogram
from tomoseg.segmentation.data.intensity_scaling import Scale
from tomoseg.segmentation.inference.expected_dice import ExpectedDice
from tomoseg.segmentation.inference.first_look import FirstLook, look_at
from tomoseg.segmentation.inference.slice_prediction import SlicePredictor


def test_true_probabilities_tell_the_dice():
    """The truth is drawn from the probabilities themselves, so that they are right."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet([2.0, 1.0, 0.3], 200_000).T.astype(np.float32)
    truth = (rng.random(p.shape[1]) > np.cumsum(p, axis=0)).sum(axis=0)
    labels = p.argmax(axis=0)
    expected = ExpectedDice(3)
    expected.add(p, labels)
    for k, dice in enumerate(expected.of_each):
        assert dice == pytest.approx(
            2 * np.sum((truth == k) & (labels == k)) / (np.sum(truth == k) + np.sum(labels == k)), abs=0.01
        )


def test_parts_add_up_and_go_on():
    p = np.random.default_rng(1).dirichlet([1, 1], 1000).T.astype(np.float32)
    labels, whole, parts = p.argmax(axis=0), ExpectedDice(2), ExpectedDice(2)
    whole.add(p, labels)
    for part in (slice(0, 300), slice(300, None)):
        one = ExpectedDice(2)
        one.add(p[:, part], labels[part])
        parts.add_sums(one.sums)
    assert ExpectedDice(2, parts.sums.tolist()).of_each == pytest.approx(whole.of_each)


def test_a_class_that_nobody_thinks_of_has_none():
    expected = ExpectedDice(3)
    expected.add(np.float32([[1.0, 0.2], [0.0, 0.8], [0.0, 0.0]]), np.array([0, 1]))
    assert np.isnan(expected.of_each[2])
    assert expected.of_each[1] == pytest.approx(2 * 0.8 / 1.8)


def test_agreement_with_thresholds():
    images = np.zeros((2, 40, 40), np.float32)
    images[:, 10:30, 10:30], images[:, 14:20, 14:20] = 1.0, 5.0
    labels = np.searchsorted([0.5, 3.0], images).astype(np.uint8)
    values = sampled_histogram(np.moveaxis(images, 0, 1))
    look = FirstLook(Scale(0, 1, 0, 5), True, [1.0, 1.0, 1.0], images, labels)
    assert min(look.agreement(values)) > 0.9
    wrong = FirstLook(
        Scale(0, 1, 0, 5), True, [1.0, 1.0, 1.0], images, np.where(labels == 2, 1, labels).astype(np.uint8)
    )
    assert wrong.agreement(values)[2] == 0


def by_thresholds(batch):
    """Return what a network would that knows levels of 0, 1 and 4, and is unsure half-way between them."""
    above = [1 / (1 + np.exp(np.clip(-(batch - level) / width, -30, 30))) for level, width in ((0.4, 0.1), (2.5, 0.5))]
    return np.stack([1 - above[0], above[0] * (1 - above[1]), above[0] * above[1]], axis=-1).astype(np.float32)


def a_stack():
    images = np.zeros((3, 48, 48), np.float32)
    images[:, 8:40, 8:40], images[:, 12:16, 12:16] = 250.0, 1000.0
    return images + np.random.default_rng(0).normal(0, 1, images.shape).astype(np.float32) - 100


@pytest.mark.parametrize("wrong", [0.2, 0.45, 1.0, 2.0, 5.0])
def test_the_scale_settles_where_the_support_is_one(wrong):
    predictor = SlicePredictor(by_thresholds, Scale(0, 1, -9, 99), 3, 48, 16)
    look = look_at(predictor, a_stack(), Scale(-100, -100 + 250 * wrong, -9, 99))
    assert look.knows_levels
    assert (look.scale.zero, look.scale.one) == pytest.approx((-100, 150), abs=4)
    assert (look.labels[:, 20:30, 20:30] == 1).all()
    assert look.expected[1] > 0.9


def test_a_scale_that_is_given_stays():
    predictor = SlicePredictor(by_thresholds, Scale(0, 1, -9, 99), 3, 48, 16)
    look = look_at(predictor, a_stack(), Scale(-100, 20, -9, 99), finds_levels=False)
    assert (look.scale.zero, look.scale.one) == (-100, 20)
    assert look.knows_levels


def test_a_network_that_finds_nothing_says_so():
    predictor = SlicePredictor(by_thresholds, Scale(0, 1, -9, 99), 3, 48, 16)
    look = look_at(predictor, a_stack(), Scale(-100, 1e6, -9, 99))
    assert not look.knows_levels
    assert look.scale.one == 1e6


def test_of_several_scales_the_surest_counts():
    """From a scale on which particles look like support, and support like nothing, it comes back to the right one."""
    predictor = SlicePredictor(by_thresholds, Scale(0, 1, -9, 99), 3, 48, 16)
    images = a_stack()
    images[:, 20:23, 20:23] += 400  # unlike any level: on the wrong scale it is neither support nor particle
    look = look_at(predictor, images, Scale(-100, 900, -9, 99))
    assert look.scale.one == pytest.approx(150, abs=4)
    assert look.knows_levels
