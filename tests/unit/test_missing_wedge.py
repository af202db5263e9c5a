import numpy as np
import pytest

from tomoseg.missing_wedge import CHANCE, MissingWedge, more_than_chance


@pytest.mark.parametrize(
    ("angles", "gap", "direction"),
    [
        (np.arange(-70, 71, 2), 40, (1, 0, 0)),  # the beam at zero tilt
        (np.arange(70, -71, -2), 40, (1, 0, 0)),  # in any order
        (np.arange(-90, 90, 2), 2, None),
        # The middle of 80 and 140: (x, z) = (cos 110, sin 110).
        (np.arange(-40, 81, 2), 60, (np.sin(np.deg2rad(110)), 0, np.cos(np.deg2rad(110)))),
        # Half a turn further, the images show the same.
        (np.arange(140, 261, 2), 60, (np.sin(np.deg2rad(110)), 0, np.cos(np.deg2rad(110)))),
        ([12.0], 180, (np.sin(np.deg2rad(102)), 0, np.cos(np.deg2rad(102)))),
    ],
)
def test_largest_gap_and_its_direction(angles, gap, direction):
    wedge = MissingWedge.of(angles)
    assert wedge.gap_deg == pytest.approx(gap)
    if direction is not None:
        np.testing.assert_allclose(wedge.direction, direction, atol=1e-12)


def test_elongation_by_radermacher():
    # The values that the literature gives for +-60 and +-70 degrees.
    assert MissingWedge(60, (1, 0, 0)).elongation == pytest.approx(1.55, abs=0.005)
    assert MissingWedge(40, (1, 0, 0)).elongation == pytest.approx(1.31, abs=0.005)
    assert MissingWedge(0, (1, 0, 0)).elongation == pytest.approx(1)
    assert MissingWedge(180, (1, 0, 0)).elongation == np.inf


def test_suspects_are_long_and_along():
    wedge = MissingWedge(60, (1.0, 0.0, 0.0))  # threshold 1.245
    directions = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [np.cos(0.5), 0, np.sin(0.5)], [0.8, 0.6, 0]])
    assert wedge.suspects([1.3, 1.2, 1.3, 1.3, 1.3], directions).tolist() == [True, False, False, True, False]
    small = MissingWedge(20, (1.0, 0.0, 0.0))
    assert not small.suspects([9.0] * 5, directions).any()


def test_chance():
    random = np.random.default_rng(0).normal(size=(200_000, 3))
    random /= np.linalg.norm(random, axis=1)[:, None]
    found = MissingWedge(60, (1.0, 0.0, 0.0)).suspects(np.full(len(random), 2.0), random).mean()
    assert found == pytest.approx(CHANCE, abs=0.003)  # four standard errors
    assert not more_than_chance(0, 0)
    assert not more_than_chance(round(100 * CHANCE), 100)
    assert not more_than_chance(2, 2)  # 0.018
    assert more_than_chance(30, 100)
