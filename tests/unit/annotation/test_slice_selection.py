"""Which slices are chosen to be painted."""

import numpy as np
import pytest

from tomoseg.annotation.slice_selection import SliceDescriptions, describe_slices, select_slices
from tomoseg.arrays import MemoryInput
from tomoseg.errors import StageFailed
from tomoseg.runtime import Runtime


def seen(volume, axis=1, confidence=None):
    given = None if confidence is None else MemoryInput(confidence)
    return describe_slices(MemoryInput(volume), given, axis, Runtime())


def test_entropy_of_known_slices():
    """In blocks of 4 px: one level has 0 bits, two equal halves 1 bit, four equal quarters 2 bits."""
    volume = np.zeros((32, 3, 32), np.float32)
    volume[16:, 1] = 1.0
    volume[:, 2] = np.kron([[0, 1], [2, 3]], np.ones((16, 16))) / 3
    found = seen(volume)
    assert found.criterion == "entropy"
    np.testing.assert_allclose(found.worth, [0, 1, 2], atol=1e-12)


def test_noise_counts_less_than_structure():
    rng = np.random.default_rng(0)
    volume = np.zeros((64, 2, 64), np.float32)
    volume[:, 0] = 0.1 * rng.normal(size=(64, 64))
    volume[:, 1] = np.hypot(*np.indices((64, 64)) - 31.5) / 64
    found = seen(volume)
    assert found.worth[0] < 0.7 * found.worth[1]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_network_s_doubt_is_the_worth(axis):
    volume = np.random.default_rng(0).random((20, 22, 24)).astype(np.float32)
    confidence = np.full(volume.shape, 255, np.uint8)
    np.moveaxis(confidence, axis, 0)[5] = 51  # 0.2
    found = seen(volume, axis, confidence)
    assert found.criterion == "uncertainty"
    expected = np.zeros(volume.shape[axis])
    expected[5] = 0.8
    np.testing.assert_allclose(found.worth, expected, atol=1e-6)
    assert select_slices(found, 1) == [5]


def test_empty_slices_are_not_chosen_and_the_others_spread():
    rng = np.random.default_rng(1)
    volume = np.zeros((32, 100, 32), np.float32)
    volume[:, 30:80] = rng.random((32, 50, 32))
    chosen = select_slices(seen(volume), 5)
    assert len(chosen) == 5
    assert all(30 <= n < 80 for n in chosen)
    assert min(np.diff(chosen)) > 100 // 10  # half of an even spacing


def test_slices_that_differ_come_before_more_of_the_same():
    """Three kinds of slices, one of them rare: of three chosen, one is of each kind."""
    looks = np.eye(3)[[0] * 40 + [1] * 5 + [2] * 40]
    found = SliceDescriptions(np.linspace(1, 1.1, 85), looks, "entropy")
    assert sorted(int(looks[n].argmax()) for n in select_slices(found, 3)) == [0, 1, 2]


def test_painted_slices_are_not_chosen_again_nor_their_neighbours():
    rng = np.random.default_rng(2)
    found = seen(rng.random((16, 40, 16)).astype(np.float32))
    first = select_slices(found, 4)
    more = select_slices(found, 4, first)
    assert not set(first) & set(more)
    assert min(abs(a - b) for a in first for b in more) > 40 // 16


def test_more_than_there_are():
    found = seen(np.random.default_rng(3).random((16, 6, 16)).astype(np.float32))
    assert select_slices(found, 10) == [0, 1, 2, 3, 4, 5]
    assert select_slices(found, 10, [2, 4]) == [0, 1, 3, 5]


def test_a_volume_of_nothing_is_refused():
    with pytest.raises(StageFailed, match="nothing but the value"):
        seen(np.zeros((8, 8, 8), np.float32))
