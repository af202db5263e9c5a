import numpy as np
import pytest

from tests.unit.measurement.shapes import grid, surface_elements
from tomoseg.measurement.support.curvature import SURFACE_KINDS, surface_kinds
from tomoseg.measurement.support.surface_elements import PARTICLE


# The mean over the surface is far better than any one place: the steps of voxels scatter it by 2% at 6 px, and by the
# same 0.003 / px, 10%, at 35 px.
@pytest.mark.parametrize("radius", [6, 10, 20])
def test_curvature_of_balls_is_1_over_r_and_convex_is_positive(radius):
    q = grid(2 * radius + 25) - 0.3
    ball = ((q**2).sum(axis=0) <= radius**2).astype(np.uint8)
    e = surface_elements(ball)
    assert np.average(e.mean, weights=e.areas) * radius == pytest.approx(1, abs=0.01)
    assert np.average(e.gaussian, weights=e.areas) * radius**2 == pytest.approx(1, abs=0.02)
    hollow = surface_elements(1 - ball)
    assert np.average(hollow.mean, weights=hollow.areas) * radius == pytest.approx(-1, abs=0.01)
    outward = e.centres - ((np.array(ball.shape) - 1) / 2 + 0.3)
    cosines = (e.normals * outward).sum(axis=1) / np.linalg.norm(outward, axis=1)
    assert np.degrees(np.arccos(np.percentile(cosines, 5))) < 2


@pytest.mark.parametrize("radius", [6, 12])
def test_curvature_of_cylinders_is_1_over_2r(radius):
    axis = np.array([1, 0.3, 0.5]) / np.linalg.norm([1, 0.3, 0.5])
    q = grid(64)
    along = np.tensordot(axis, q, 1)
    e = surface_elements(((q**2).sum(axis=0) - along**2 <= radius**2).astype(np.uint8))
    e = e[np.abs((e.centres - 31.5) @ axis) < 20]
    assert np.average(e.mean, weights=e.areas) * 2 * radius == pytest.approx(1, abs=0.015)
    assert np.average(e.gaussian, weights=e.areas) * radius**2 == pytest.approx(0, abs=0.01)


def test_a_particle_on_a_plane_bends_nothing():
    kinds = np.zeros((40, 60, 60), np.uint8)
    kinds[:18] = 1
    z, y, x = np.indices(kinds.shape)
    kinds[(z - 18) ** 2 + (y - 30) ** 2 + (x - 30) ** 2 <= 36] = 2
    e = surface_elements(kinds)
    exposed = e[e.exposed]
    assert (e.facing == PARTICLE).any()
    # Without care the rim of the dent is as sharp as the kernel allows, some 0.2 / px.
    assert np.abs(exposed.mean).max() < 0.05
    assert exposed.normals[:, 0].min() > np.cos(np.radians(8))


def test_kinds_of_surface_of_a_cube_are_flat_but_for_edges_and_corners():
    kinds = np.zeros((60, 60, 60), np.uint8)
    kinds[10:50, 10:50, 10:50] = 1
    e = surface_elements(kinds)
    share = np.bincount(surface_kinds(e.mean, e.gaussian), e.areas, len(SURFACE_KINDS)) / e.areas.sum()
    flat, ridge, valley, peak, pit, saddle = share
    # Edges are rounded over some 4 px on each side of 40.
    assert 0.6 < flat < 0.85
    assert ridge > peak > 0
    assert valley + pit + saddle < 0.01
