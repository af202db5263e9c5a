import numpy as np

from tests.unit.measurement.shapes import grid, surface_elements
from tomoseg.measurement.support.crystal import family
from tomoseg.measurement.support.facets import Directions
from tomoseg.measurement.support.particle_environment import N_BINS, SurfaceAround, curvature_bins


def test_the_surface_around_places_is_that_within_reach_of_them():
    kinds = (np.sqrt(sum(g**2 for g in grid(64))) < 22).astype(np.uint8)
    kinds[:32][kinds[:32] == 1] = 2  # one half is a particle: what faces it does not count
    e = surface_elements(kinds)
    cubes = Directions(family("{100}"), tuple("abcdef"), 20.0)
    facing = cubes.of(e)
    places, reach = np.array([[50.0, 31, 31], [32, 10, 31], [31, 31, 31], [0, 0, 0]]), np.array([6.0, 8, 40, 5])
    around = SurfaceAround(e, {"facet": facing}).surroundings(places, reach, {"facet": cubes})
    assert around.shares["facet"].shape == (4, 6)
    assert around.histograms.shape == (3, N_BINS)  # there is no surface around the last place
    assert np.isnan(around.curvature[3])
    assert not around.shares["facet"][3].any()
    for i in range(3):
        near = np.flatnonzero(e.exposed & (np.linalg.norm(e.centres - places[i], axis=1) <= reach[i]))
        assert len(near) > 20
        areas = e.areas[near]
        np.testing.assert_allclose(around.curvature[i], np.average(e.mean[near], weights=areas), rtol=1e-5)
        shares = [areas[facing[near] == k].sum() / areas.sum() for k in range(6)]
        np.testing.assert_allclose(around.shares["facet"][i], shares, rtol=1e-5)
        expected = np.bincount(curvature_bins(e)[near], areas, N_BINS) / areas.sum()
        np.testing.assert_allclose(around.histograms[i], expected, rtol=1e-5)
