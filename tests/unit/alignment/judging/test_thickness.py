"""The faces of a film, from how much detail there is at each depth."""

import numpy as np
import pytest

from tomoseg.alignment.judging.thickness import _faces


def profile(first, last, n=48, floor=0.2):
    detail = np.full(n, floor)
    detail[first : last + 1] = 1.0
    detail[[0, -1]] = 3.0  # the faces of the volume
    return detail


@pytest.mark.parametrize(("first", "last", "faces"), [(18, 29, 12), (15, 26, 18), (21, 33, 20), (23, 24, 2)])
def test_both_faces_are_within(first, last, faces):
    assert _faces(profile(first, last)) == faces


def test_what_fills_the_depth_is_no_film():
    assert _faces(profile(4, 44)) is None
    assert _faces(np.ones(40)) is None
