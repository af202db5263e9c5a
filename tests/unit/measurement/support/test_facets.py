from itertools import permutations, product

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tests.unit.measurement.shapes import grid, polyhedron, surface_elements
from tomoseg.measurement.support import normals
from tomoseg.measurement.support.crystal import FAMILIES, family, find_crystal, given_orientation
from tomoseg.measurement.support.facets import facet_directions, find_facets
from tomoseg.measurement.support.normals import NormalDensity, nearest_direction

TOLERANCE_DEG = 10.0


def density_of(e):
    return NormalDensity.of(e.normals.astype(float), e.areas.astype(float))


def angle_between(first, second):
    """Return the least angle, degrees, between two orientations of a cubic crystal."""
    turns = [np.eye(3)[list(p)] * signs for p in permutations(range(3)) for signs in product((1, -1), repeat=3)]
    best = max(np.trace(first.T @ second @ turn) for turn in turns if np.linalg.det(turn) > 0)
    return np.degrees(np.arccos(np.clip((best - 1) / 2, -1, 1)))


@pytest.mark.parametrize(
    ("sizes", "n_facets", "shares"),
    [
        ({"cube": 26}, 6, (0, 0, 1)),
        ({"octahedron": 44}, 8, (1, 0, 0)),
        # Edge of the octahedron 44 sqrt 2, cut off at 28 of 44: six squares of edge 16 sqrt 2, 6 * 512 px^2; of the
        # eight triangles of (sqrt 3 / 4) (44 sqrt 2)^2 px^2 the corners of edge 16 sqrt 2 are gone.
        ({"cube": 28, "octahedron": 44}, 14, None),
    ],
)
def test_orientation_and_planes_of_polyhedra(sizes, n_facets, shares):
    for seed in (5, 6):
        matrix = Rotation.random(random_state=seed).as_matrix()
        e = surface_elements(polyhedron(110, matrix, **sizes).astype(np.uint8))
        density = density_of(e)
        facets = facet_directions(density, TOLERANCE_DEG)
        assert len(facets) == n_facets
        crystal = find_crystal(density, facets, TOLERANCE_DEG)
        assert crystal.matrix is not None
        assert angle_between(matrix, crystal.matrix) < 1
        if shares is None:
            triangles = 8 * 3**0.5 / 4 * ((44 * 2**0.5) ** 2 - 3 * (16 * 2**0.5) ** 2)
            shares = triangles / (triangles + 6 * 512), 0, 6 * 512 / (triangles + 6 * 512)
        for name, share in zip(FAMILIES, shares, strict=True):
            near = nearest_direction(e.normals, family(name) @ crystal.matrix.T, TOLERANCE_DEG) >= 0
            measured = float(e.areas[near].sum() / e.areas.sum())
            # Found within 1.4 points; what is missing are corners.
            assert measured == pytest.approx(share, abs=0.02)
        assert float(e.areas[nearest_direction(e.normals, facets, TOLERANCE_DEG) >= 0].sum() / e.areas.sum()) > 0.97


def test_a_ball_has_no_facets_and_no_crystal():
    e = surface_elements(((grid(80) ** 2).sum(axis=0) <= 30**2).astype(np.uint8))
    density = density_of(e)
    facets = facet_directions(density, TOLERANCE_DEG)
    assert len(facets) == 0
    assert find_crystal(density, facets, TOLERANCE_DEG).matrix is None


def smooth_bodies(radius):
    """Yield names and signed distances, px, of smooth bodies of a radius, some of them cut by the frame."""
    for k in range(3):
        n = int(min(110, max(5 * radius, 40) + 12))
        turned = np.einsum(
            "ij,jabc->iabc", np.eye(3) if k == 0 else Rotation.random(random_state=k).as_matrix(), grid(n)
        )
        z, y, x = turned + 0.23
        yield f"ball {k}", np.sqrt(z**2 + y**2 + x**2) - radius
        yield f"cylinder {k}", np.hypot(z, y) - radius
        yield f"capsule {k}", np.sqrt(z**2 + y**2 + np.maximum(np.abs(x) - n / 4, 0) ** 2) - radius
        yield f"ellipsoid {k}", radius * (np.sqrt((z / radius) ** 2 + (y / radius / 1.5) ** 2 + (x / radius) ** 2) - 1)
        if radius <= 10:
            yield f"torus {k}", np.hypot(np.hypot(z, y) - 2.2 * radius, x) - radius


@pytest.mark.parametrize("radius", [3, 4, 6, 9, 14, 22])
def test_smooth_bodies_of_every_size_have_no_facets(radius):
    found = {}
    for name, distance in smooth_bodies(radius):
        facets = find_facets(surface_elements((distance < 0).astype(np.uint8)), TOLERANCE_DEG).facets
        found[name] = len(facets.names)
    assert found == dict.fromkeys(found, 0)


def test_a_slightly_rough_ball_has_no_facets():
    rng = np.random.default_rng(0)
    rough = ndimage.gaussian_filter(rng.standard_normal((80, 80, 80)), 1.5)
    ball = np.sqrt((grid(80) ** 2).sum(axis=0)) + 0.4 * rough / rough.std() < 30
    kept = ndimage.label(ball)[0] == 1
    assert len(find_facets(surface_elements(kept.astype(np.uint8)), TOLERANCE_DEG).facets.names) == 0


@pytest.mark.parametrize(("edge", "n_facets"), [(8, 0), (16, 6), (40, 6)])
def test_a_turned_cube_has_six_facets_unless_it_is_tiny(edge, n_facets):
    matrix = Rotation.random(random_state=2).as_matrix()
    e = surface_elements(polyhedron(edge * 2 + 10, matrix, cube=edge / 2).astype(np.uint8))
    assert len(find_facets(e, TOLERANCE_DEG).facets.names) == n_facets


def test_facets_in_random_directions_are_no_crystal():
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(5):
        normals = rng.standard_normal((9, 3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        scattered = np.repeat(normals, 400, axis=0) + 0.05 * rng.standard_normal((3600, 3))
        scattered /= np.linalg.norm(scattered, axis=1, keepdims=True)
        density = NormalDensity.of(scattered, np.ones(len(scattered)))
        found += find_crystal(density, facet_directions(density, TOLERANCE_DEG), TOLERANCE_DEG).matrix is not None
    assert found == 0


def test_density_of_normals_is_that_of_the_area_per_steradian():
    e = surface_elements(((grid(80) ** 2).sum(axis=0) <= 30**2).astype(np.uint8))
    image = density_of(e).projected()
    # Equal area: the mean over the two discs is that over the sphere.
    assert np.nanmean(image) == pytest.approx(1 / (4 * np.pi), rel=0.01)
    assert np.nanstd(image) < 0.15 / (4 * np.pi)  # voxels favour some directions a little


def test_map_shows_a_direction_where_it_is():
    direction = np.array([0.8, 0.0, 0.6])  # towards +z and +x
    density = NormalDensity.of(np.repeat(direction[None], 10, axis=0), np.ones(10))
    image = density.projected(101)
    hemisphere, row, column = np.unravel_index(np.nanargmax(image), image.shape)
    assert hemisphere == 1
    assert row == 50
    # 2 sin(t / 2) with cos t = 0.8, in units of sqrt 2 / 50
    assert column - 50 == pytest.approx(2 * np.sqrt(0.1) / np.sqrt(2) * 50, abs=2)


def test_given_directions_lie_along_their_axes():
    matrix = given_orientation((0, 0, 1), (1, 1, 0))
    assert matrix @ [0, 0, 1] == pytest.approx([1, 0, 0])
    assert matrix @ (np.array([1, 1, 0]) / 2**0.5) == pytest.approx([0, 0, 1])
    assert angle_between(matrix, given_orientation((0, 0, 1), (1, -1, 0))) == pytest.approx(0, abs=1e-5)
    assert angle_between(matrix, given_orientation((0, 0, 1), (1, 0, 0))) == pytest.approx(45)


def test_densities_and_directions_do_not_depend_on_how_many_are_looked_up_at_once(monkeypatch):
    rng = np.random.default_rng(3)
    found = rng.standard_normal((5000, 3)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    areas = rng.random(5000).astype(np.float32)
    facets = family("{111}")

    def all_at(n_normals, n_points):
        monkeypatch.setattr(normals, "AT_ONCE", n_normals)
        monkeypatch.setattr(normals, "POINTS_AT_ONCE", n_points)
        return NormalDensity.of(found, areas), nearest_direction(found, facets, TOLERANCE_DEG)

    (whole, nearest), (parts, nearest_in_parts) = all_at(1 << 20, 1 << 20), all_at(77, 1000)
    np.testing.assert_array_equal(parts.areas, whole.areas)
    np.testing.assert_array_equal(parts.density, whole.density)
    np.testing.assert_array_equal(nearest_in_parts, nearest)
    assert (nearest >= 0).any()
    assert (nearest < 0).any()
