"""Spots followed from image to image, without knowing shifts or axis."""

import numpy as np
import pytest

from tomoseg.alignment.markers.bundle import search_direction
from tomoseg.alignment.markers.follow import follow, located, matched
from tomoseg.alignment.markers.spots import Spots


def spots_of(made, clutter=0, seed=0):
    """Return the spots of every image in no order, with some that are no markers."""
    rng = np.random.default_rng(seed)
    spots = []
    for i in range(len(made.angles_deg)):
        places = made.observed_px[np.isfinite(made.observed_px[:, i, 0]), i]
        places = rng.permutation(np.concatenate([places, rng.uniform(-100, 100, (clutter, 2))]))
        spots.append(Spots(places, np.full(len(places), 2)))
    return spots


@pytest.mark.parametrize(
    ("options", "clutter"),
    [
        ({"noise": 0.3}, 10),
        ({"noise": 0.3, "angle": 77.0, "jitter": 12.0}, 0),
        ({"noise": 0.3, "angles_deg": np.arange(-60, 61, 5.0), "depth": 50.0}, 0),
        ({"noise": 0.3, "angles_deg": np.setdiff1d(np.arange(-60, 61, 3.0), [-33, -30, -27, 15])}, 5),
    ],
)
def test_most_spots_of_a_marker_are_followed(scene, options, clutter):
    made = scene(n=90, **options)
    found = follow(spots_of(made, clutter), made.angles_deg, 60.0, 200.0)
    assert found.joined.all()
    often = np.isfinite(found.observed_px[..., 0]).sum(axis=1) >= 6
    assert often.sum() >= 30
    bundle = search_direction(found.observed_px[often], made.angles_deg, found.shifts_px)
    assert (bundle.axis_angle_deg - made.axis_angle_deg + 90) % 180 - 90 == pytest.approx(0, abs=0.3)
    flip = -1 if abs(bundle.axis_angle_deg - made.axis_angle_deg) > 90 else 1
    assert made.error(bundle.axis_angle_deg - 90 * (1 - flip), flip * bundle.moves_px) < 0.2


def test_an_image_of_something_else_is_left_out(scene):
    made = scene(n=90, noise=0.2)
    spots = spots_of(made)
    spots[30] = Spots(np.random.default_rng(4).uniform(-100, 100, (4, 2)), np.full(4, 2))
    found = follow(spots, made.angles_deg, 60.0, 200.0)
    assert not found.joined[30]
    assert found.joined.sum() == len(made.angles_deg) - 1


def test_an_offset_among_false_spots():
    rng = np.random.default_rng(0)
    expected = rng.uniform(-80, 80, (40, 2))
    moved = expected[:25] + np.array([17.3, -22.6]) + rng.normal(0, 0.2, (25, 2))
    found = np.concatenate([moved, rng.uniform(-80, 80, (30, 2))])
    pairs, offset = located(expected, found, np.zeros(2), 40.0)
    assert offset == pytest.approx([17.3, -22.6], abs=1.5)
    assert {(k, k) for k in range(25)} <= {tuple(pair) for pair in pairs.tolist()}
    assert located(expected, found[:3], np.zeros(2), 40.0)[1] is None


def test_only_mutual_nearest_points_match():
    a, b = np.array([[0.0, 0], [1, 0], [50, 50]]), np.array([[0.2, 0], [51, 50]])
    assert matched(a, b, 2.0).tolist() == [[0, 0], [2, 1]]
    assert len(matched(a, np.zeros((0, 2)), 2.0)) == 0
