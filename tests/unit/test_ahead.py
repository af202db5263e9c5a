"""Items that are worked on while the caller is busy with others."""

import threading

import pytest

from tomoseg.ahead import ahead
from tomoseg.runtime import slabs


def test_the_next_part_is_read_while_one_is_worked_on():
    begun = [threading.Event() for _ in range(4)]

    def read(part):
        begun[part.start].set()
        return part.start

    parts = slabs(4, 1)
    for i, value in enumerate(ahead(read, parts)):
        assert value == i
        if i < 3:
            assert begun[i + 1].wait(10)  # although nobody has asked for it yet
        assert not any(event.is_set() for event in begun[i + 2 :])  # and no more than one is held


def test_what_goes_wrong_in_reading_is_raised_where_the_part_is_wanted():
    def read(part):
        if part.start == 2:
            raise ValueError("no such slab")
        return part.start

    values = ahead(read, slabs(4, 1))
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(ValueError, match="no such slab"):
        next(values)


def test_nothing_is_read_of_nothing():
    assert list(ahead(lambda part: part, [])) == []


def test_several_are_worked_on_at_once_and_come_in_order():
    together = threading.Barrier(3)

    def slow_first(i):
        together.wait(10)  # passes only if three are in work
        return i

    assert list(ahead(slow_first, range(9), 3)) == list(range(9))


def test_what_is_not_wanted_is_not_begun():
    begun = []
    values = ahead(begun.append, range(100), 2)
    next(values)
    values.close()
    assert len(begun) <= 3
