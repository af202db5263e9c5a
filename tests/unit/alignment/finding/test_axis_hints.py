"""A nominal direction of the tilt axis is a hint: right ones help, wrong ones are overruled and named."""

import numpy as np
import pytest

from tomoseg.alignment.finding import axis
from tomoseg.alignment.finding.axis import Direction, Weight, direction_warnings, distance_deg, find_direction
from tomoseg.alignment.finding.estimate import estimate_alignment
from tomoseg.alignment.finding.track import Band, track_neighbours
from tomoseg.alignment.images.reduced_series import ReducedSeries


@pytest.fixture(scope="module")
def leaning(ellipsoids):
    """A whole sample seen about an axis at 21 degrees, and its tracked shifts."""
    series = ellipsoids(angles_deg=np.arange(-64, 65, 8.0), phi=21.0, offset=1.0, jitter=1.5, seed=8)
    reduced = ReducedSeries(series.raw, series.angles_deg, np.ones(len(series.raw), bool), 1, 2)
    return reduced, track_neighbours(reduced, None, Band(), 20.0)[0]


def _needle(rng):
    """Bodies of a needle along the axis that leaves the frame at one end, with particles in it."""
    particles = [
        (
            np.full(3, rng.uniform(0.02, 0.04)),
            np.eye(3),
            (*rng.uniform(-0.08, 0.08, 1), y, rng.uniform(-0.08, 0.08)),
            1.0,
        )
        for y in np.linspace(-0.25, 0.5, 16)
    ]
    return [((0.14, 0.9, 0.13), np.eye(3), (0.0, 0.55, 0.0), 1.0), *particles]


@pytest.mark.slow
@pytest.mark.parametrize("phi", [82.0])
def test_a_needle_that_leaves_the_frame_turns_about_itself(ellipsoids, phi):
    rng = np.random.default_rng(3)
    angles = np.arange(-52, 53, 4.0)
    series = ellipsoids((72, 72), angles, phi, 0.5, 1.5, seed=5, noise=0.02, bodies=_needle(rng))
    alignment, _ = estimate_alignment(ReducedSeries(series.raw, angles, np.ones(len(angles), bool), 1, 2))
    # The scan is flat near the direction of the needle, and about the other one its shape outside the frame is free.
    assert distance_deg(alignment.axis_angle_deg, phi) < 0.7


@pytest.mark.parametrize("hint", [None, 90.0, pytest.param(51.0, marks=pytest.mark.slow)])
def test_the_true_direction_is_found_whatever_the_hint(leaning, hint):
    reduced, shifts = leaning
    found = find_direction(reduced, shifts, Band(), hint)
    # The direction of the first search; it is refined afterwards.
    assert distance_deg(found.angle_deg, 21.0) < 4
    words = direction_warnings(reduced, shifts, Band(), found, found.angle_deg)
    is_wrong = hint is not None and distance_deg(hint, 21.0) > 45
    assert ["metadata must be wrong" in text for text in words] == [True] * int(is_wrong)


def test_both_directions_are_named_with_the_figures_of_the_result(leaning):
    reduced, shifts = leaning
    # The direction used is not the one of the first search: 20.4 degrees, as if it had been refined.
    (words,) = direction_warnings(reduced, shifts, Band(), Direction(24.0, 90.0, (-72.0,)), 20.4)
    used, rival = (axis.weigh(reduced, shifts, Band(), angle).residual for angle in (20.4, -72.0))
    assert "along x (90 degrees from the vertical)" in words
    assert f"at 20.4 degrees: they explain each other with a residual of {used:.3f} there" in words
    assert f"of {rival:.3f} at -72 degrees" in words
    assert "24" not in words


def test_a_rival_is_named_beside_the_direction_used(leaning, monkeypatch):
    reduced, shifts = leaning
    residuals = {21.3: 0.200, -60.0: 0.210, 70.0: 0.300, 30.0: 0.100}
    monkeypatch.setattr(axis, "weigh", lambda *given: Weight(residuals[given[-1]], True))
    found = Direction(19.0, 0.0, (-60.0, 70.0, 30.0))  # 30 is the same minimum as 21.3, and 70 far worse
    (words,) = direction_warnings(reduced, shifts, Band(), found, 21.3)
    assert "-60 degrees explains the images about as well (residual 0.210) as the 21.3 degrees used" in words
    assert "(residual 0.200), which are nearer to the nominal direction, 0 degrees" in words


@pytest.mark.parametrize(
    ("residuals", "hinted", "expected"),
    [
        ((0.10, 0.07), [True, False], 1),  # clearly better than the hint
        ((0.10, 0.09), [True, False], 0),  # better, but not clearly: the hint counts
        ((0.10, 0.09), [False, False], 1),
        ((1.80, 1.10), [True, False], 0),  # neither explains the images
        ((0.10, 0.13, 0.09), [True, False, True], 2),  # two near the hint
    ],
)
def test_elsewhere_has_to_be_clearly_better_than_near_the_hint(residuals, hinted, expected):
    assert axis._chosen([Weight(r, True) for r in residuals], np.array(hinted)) == expected


@pytest.mark.parametrize(("residuals", "expected"), [((0.10, 0.09), 0), ((0.10, 0.08), 1), ((0.09, 0.10), 0)])
def test_a_sample_that_goes_on_outside_the_frame_has_to_be_clearly_better(residuals, expected):
    weights = [Weight(residual, whole) for residual, whole in zip(residuals, (True, False), strict=True)]
    assert axis._chosen(weights, np.zeros(2, bool)) == expected


def test_a_rival_that_is_whole_is_named_sooner(leaning, monkeypatch):
    reduced, shifts = leaning
    weights = {20.0: Weight(0.10, False), -60.0: Weight(0.14, True), 70.0: Weight(0.14, False)}
    monkeypatch.setattr(axis, "weigh", lambda *given: weights[given[-1]])
    (words,) = direction_warnings(reduced, shifts, Band(), Direction(20.0, None, (-60.0, 70.0)), 20.0)
    assert "-60 degrees explains" in words


def test_a_slope_is_no_minimum():
    parabola = axis.walk_to_minima(lambda angles: [(a - 31.3) ** 2 for a in angles], [12.0, 80.0], 6.0, 9)
    assert parabola == pytest.approx([31.3, 31.3])
    assert axis.walk_to_minima(lambda angles: [-a for a in angles], [12.0], 6.0, 6) == [12.0]
    assert axis.walk_to_minima(lambda angles: [], [], 6.0, 6) == []


def test_walks_are_asked_for_together_and_each_ends_on_its_own():
    asked = []

    def costs(angles):
        asked.append(list(angles))
        return [min((a - 30) ** 2, (a + 40) ** 2) for a in angles]

    assert axis.walk_to_minima(costs, [30.0, -16.0], 6.0, 9) == pytest.approx([30, -40])
    assert len(asked[0]) == 6  # both begin together
    assert all(angle < 0 for angles in asked[1:] for angle in angles)  # the first has arrived


def test_a_minimum_at_the_edge_of_a_range_is_none(monkeypatch):
    tried = []

    class Solved:
        whole = True

        def __init__(self, angle):
            tried.append(angle)
            self.residual = 0.1 + (angle - 31.0) ** 2

    assert abs(axis._descend(Solved, 12.0, 6.0, 0.05) - 31.0) < 0.2
    assert max(tried) > 31


def test_a_given_direction_is_not_searched(leaning, monkeypatch):
    reduced, _ = leaning
    monkeypatch.setattr("tomoseg.alignment.finding.estimate.find_direction", None)
    found, _ = estimate_alignment(reduced, axis_angle_deg=-10.0, axis_near_deg=90.0, method="common-line")
    assert found.axis_angle_deg == -10.0
    assert not found.warnings
