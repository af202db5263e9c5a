"""Sizes and shapes of particles in 2D: discs, ellipses, neighbours, and the weights of those inside the frame."""

import numpy as np
import pytest

from tomoseg.micrographs.shapes import inside_weights, particle_table


def _disc(shape, centre, diameter):
    y, x = np.indices(shape)
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (diameter / 2) ** 2


@pytest.mark.parametrize(("diameter", "allowed"), [(6, 0.03), (10, 0.015), (20, 0.01), (60, 0.01)])
def test_a_disc_has_its_diameter_and_its_perimeter(diameter, allowed):
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(20):
        labels = _disc((80, 80), rng.uniform(38, 42, 2), diameter).astype(np.int32)
        rows.append(particle_table(labels, labels.astype(float), 0.5)[0])
    rows = np.array(rows)
    assert abs(rows["diameter_px"].mean() / diameter - 1) < allowed
    assert abs(rows["perimeter_px"].mean() / (np.pi * diameter) - 1) < allowed
    np.testing.assert_allclose(rows["diameter_nm"], 0.5 * rows["diameter_px"])
    np.testing.assert_allclose(rows["area_nm2"], 0.25 * rows["area_px2"])
    assert rows["circularity"].min() > 0.96
    assert abs(rows["max_feret_px"].mean() / diameter - 1) < 0.06


@pytest.mark.parametrize("angle", [0.0, 30.0, 80.0, -40.0])
def test_an_ellipse_has_its_axes_and_direction(angle):
    y, x = np.indices((120, 120)) - 59.5
    phi = np.deg2rad(angle)
    along, across = x * np.cos(phi) - y * np.sin(phi), x * np.sin(phi) + y * np.cos(phi)
    labels = ((along / 40) ** 2 + (across / 15) ** 2 < 1).astype(np.int32)
    (row,) = particle_table(labels, 7.0 * labels)
    assert abs(row["orientation_deg"] - angle) < 0.5
    assert abs(row["max_feret_px"] - 80) < 1.2
    assert abs(row["min_feret_px"] - 30) < 1.2
    assert row["contrast"] == 7
    assert np.isnan(row["neighbour_gap_px"])
    assert np.isnan(row["diameter_nm"])


def test_neighbours_by_centre_and_by_contour():
    labels = np.zeros((100, 200), np.int32)
    for number, (column, diameter) in enumerate([(30, 20), (70, 30), (160, 10)], 1):
        labels[_disc(labels.shape, (49.5, column + 0.5), diameter)] = number
    table = particle_table(labels, labels)
    np.testing.assert_allclose(table["neighbour_centre_px"], [40, 40, 90], atol=0.1)
    np.testing.assert_allclose(table["neighbour_gap_px"], [15, 15, 70], atol=0.6)


def test_what_the_border_or_a_footer_cuts_is_told():
    labels = np.zeros((100, 100), np.int32)
    for number, centre in enumerate([(50, 2), (50, 50), (78, 20)], 1):
        labels[_disc(labels.shape, centre, 12)] = number
    footer = np.zeros(labels.shape, bool)
    footer[84:] = True
    labels[footer] = 0
    assert particle_table(labels, labels, left_out=footer)["touches_border"].tolist() == [True, False, True]


def test_weights_undo_that_large_particles_are_cut_more_often():
    # Squares of two sizes thrown at random onto a frame: those wholly inside, weighted, are as many of each.
    rng, side, footer = np.random.default_rng(2), 256, np.zeros((256, 256), bool)
    footer[-40:] = True
    for left_out, height in ((np.zeros_like(footer), 256), (footer, 216)):
        sums = []
        for size in (10, 90):
            top, left = rng.uniform(-size, side, (2, 200_000))
            # Those whose reference point (their upper left corner) is in the frame would be counted by a fair count.
            fair = ((top >= 0) & (top < height) & (left >= 0) & (left < side)).sum()
            inside = (top >= 0) & (top + size <= height) & (left >= 0) & (left + size <= side)
            weight = inside_weights(np.array([size]), np.array([size]), left_out)[0]
            sums.append(inside.sum() * weight / fair)
        np.testing.assert_allclose(sums, 1.0, atol=0.05)
