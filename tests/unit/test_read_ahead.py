"""Slabs that are read while others are worked on."""

import threading

import pytest

from tomoseg.read_ahead import read_ahead
from tomoseg.runtime import slabs


def test_the_next_part_is_read_while_one_is_worked_on():
    begun = [threading.Event() for _ in range(4)]

    def read(part):
        begun[part.start].set()
        return part.start

    parts = slabs(4, 1)
    for i, value in enumerate(read_ahead(read, parts)):
        assert value == i
        if i < 3:
            assert begun[i + 1].wait(10)  # although nobody has asked for it yet
        assert not any(event.is_set() for event in begun[i + 2 :])  # and no more than one is held


def test_what_goes_wrong_in_reading_is_raised_where_the_part_is_wanted():
    def read(part):
        if part.start == 2:
            raise ValueError("no such slab")
        return part.start

    values = read_ahead(read, slabs(4, 1))
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(ValueError, match="no such slab"):
        next(values)


def test_nothing_is_read_of_nothing():
    assert list(read_ahead(lambda part: part, [])) == []
