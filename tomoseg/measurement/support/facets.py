"""Which way a surface faces: density of its normals, its strongest directions, and planes of a cubic crystal.

The density of the area over the sphere of outward normals is smoothed by a von Mises-Fisher kernel of `KERNEL_DEG`
(Mardia & Jupp, Directional Statistics, 2000). Two readings of it:

- Facets: its maxima, whatever the material. Nothing is assumed.
- Planes: families {111}, {110} and {100} of a cubic crystal, given how it lies. Where that is not given it is sought:
  the orientation R at which the mean densities of the families' directions explain most of the variance of the density,

      score(R) = sum over families of N_f max(0, mean over its N_f directions d of rho(R d) - rho_0)^2,

  rho_0 being that of normals without any order. It is told from chance by facets of the same areas in random
  directions. Many supports are polycrystals or no crystals: then there is none to be found.

Directions are (z, y, x) unit vectors; volumes show no difference between d and -d for planes.
"""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.measurement.common.surface import FloatArray

KERNEL_DEG = 5.0
N_DIRECTIONS = 16384  # 1.6 degrees apart
FACET_DENSITY = 2.0  # times the density of normals without order, for a maximum to be a facet
LEAST_SHARE = 0.005  # of the area within the tolerance, for a facet
MOST_FACETS = 24
FAMILIES: dict[str, tuple[int, int, int]] = {"{111}": (1, 1, 1), "{110}": (1, 1, 0), "{100}": (1, 0, 0)}
N_RANDOM = 30  # sets of random facets that a crystal is compared with
ABOVE_RANDOM = 3.0  # standard deviations above their mean, and above them all


def sphere_points(n: int = N_DIRECTIONS) -> FloatArray:
    """Return directions (n, 3) spread evenly over the sphere (Fibonacci lattice)."""
    i = np.arange(n) + 0.5
    height, turn = 1 - 2 * i / n, np.pi * (1 + 5**0.5) * i
    radius = np.sqrt(1 - height**2)
    return np.stack([height, radius * np.sin(turn), radius * np.cos(turn)], axis=1)


def family(name: str) -> FloatArray:
    """Return the unit normals (n, 3) of a family of planes in the crystal's own axes."""
    found = {
        tuple(s * h for s, h in zip(signs, p, strict=True))
        for p in permutations(FAMILIES[name])
        for signs in product((1, -1), repeat=3)
    }
    vectors = np.array(sorted(found), float)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@dataclass(frozen=True)
class NormalDensity:
    """Area of a surface over the sphere of its normals.

    `points` (n, 3); `areas` (n,) px^2 of the normals next to each; `density` (n,) 1/sr, smoothed, of the whole area.
    """

    points: FloatArray
    areas: FloatArray
    density: FloatArray

    @classmethod
    def of(cls, normals: FloatArray, areas: FloatArray) -> "NormalDensity":
        """Spread elements of a surface (n, 3), (n,) over the sphere."""
        from scipy.spatial import cKDTree

        points = sphere_points()
        tree = cKDTree(points)
        _, nearest = tree.query(normals) if len(normals) else (0, np.empty(0, int))
        binned = np.bincount(nearest, areas, minlength=len(points)).astype(np.float64)
        return cls(points, binned, smoothed_over_sphere(points, binned))

    def at(self, directions: FloatArray) -> FloatArray:
        """Return the density, 1/sr, at directions (..., 3)."""
        from scipy.spatial import cKDTree

        _, nearest = cKDTree(self.points).query(directions.reshape(-1, 3))
        return np.asarray(self.density[nearest].reshape(directions.shape[:-1]))

    def projected(self, size: int = 129) -> NDArray[np.float32]:
        """Return the map (2, size, size) in Lambert's equal-area projection, towards -z and towards +z; NaN outside.

        A direction at an angle t from the pole lies 2 sin(t / 2) from the centre; the rim, sqrt(2), is the equator.
        """
        axis = (np.arange(size) - (size - 1) / 2) / ((size - 1) / 2) * np.sqrt(2)
        y, x = axis[:, None], axis[None, :]
        square = x**2 + y**2
        inside = square <= 2
        scale = np.sqrt(np.maximum(1 - square / 4, 0))
        out = np.full((2, size, size), np.nan, np.float32)
        for k, sign in enumerate((-1, 1)):
            directions = np.stack(np.broadcast_arrays(sign * (1 - square / 2), y * scale, x * scale), axis=-1)
            out[k][inside] = self.at(directions[inside])
        return out


def smoothed_over_sphere(points: FloatArray, areas: FloatArray) -> FloatArray:
    """Return the density of areas at points (n,), 1/sr: convolved with the kernel and divided by the whole area."""
    from scipy.spatial import cKDTree

    sigma = np.radians(KERNEL_DEG)
    full = np.flatnonzero(areas > 0)
    if not len(full):
        return np.zeros(len(points))
    pairs = cKDTree(points[full]).sparse_distance_matrix(
        cKDTree(points), 2 * np.sin(2 * sigma), output_type="coo_matrix"
    )  # 4 sigma
    # exp(kappa (cos t - 1)), and chord^2 = 2 - 2 cos t
    kernel = np.exp(-(pairs.data**2) / (2 * sigma**2))
    norm = 2 * np.pi * sigma**2 * (1 - np.exp(-2 / sigma**2))
    total = np.bincount(pairs.col, kernel * areas[full][pairs.row], minlength=len(points))
    return np.asarray(total / norm / areas.sum())


def cap_share(tolerance_deg: float) -> float:
    """Return the part of the sphere within an angle of one direction."""
    return float((1 - np.cos(np.radians(tolerance_deg))) / 2)


def facet_directions(density: NormalDensity, tolerance_deg: float) -> FloatArray:
    """Return the normals (n, 3) of the facets, strongest first: maxima of the density, two tolerances apart."""
    from scipy.spatial import cKDTree

    limit = FACET_DENSITY / (4 * np.pi)
    order = np.argsort(-density.density, kind="stable")
    order = order[density.density[order] > limit]
    tree = cKDTree(density.points)
    free = np.ones(len(density.points), bool)
    chosen: list[FloatArray] = []
    apart, near = 2 * np.sin(np.radians(tolerance_deg)), 2 * np.sin(np.radians(tolerance_deg) / 2)
    for i in order:
        if not free[i] or len(chosen) >= MOST_FACETS:
            continue
        around = np.array(tree.query_ball_point(density.points[i], 2 * np.sin(np.radians(KERNEL_DEG) / 2)))
        free[tree.query_ball_point(density.points[i], apart)] = False
        if density.density[i] < density.density[around].max():
            continue  # on the flank of another
        centre = (density.points[around] * density.density[around, None]).sum(axis=0)
        centre /= np.linalg.norm(centre)
        if density.areas[tree.query_ball_point(centre, near)].sum() >= LEAST_SHARE * density.areas.sum():
            chosen.append(centre)
    return np.array(chosen).reshape(-1, 3)


def nearest_direction(normals: Array, directions: FloatArray, tolerance_deg: float) -> NDArray[np.int32]:
    """Return for each normal (n, 3) the direction next to it, (n,), or -1 where none is within the tolerance."""
    from scipy.spatial import cKDTree

    if not len(directions):
        return np.full(len(normals), -1, np.int32)
    chord, nearest = cKDTree(directions).query(normals)
    return np.where(chord <= 2 * np.sin(np.radians(tolerance_deg) / 2), nearest, -1).astype(np.int32)


def given_orientation(along_z: tuple[int, ...], along_x: tuple[int, ...]) -> FloatArray:
    """Return the matrix (3, 3) that turns crystal axes into (z, y, x), from the directions along +z and +x."""
    z, x = (np.array(v, float) / np.linalg.norm(v) for v in (along_z, along_x))
    return np.stack([z, np.cross(z, x), x])  # x, y, z are right-handed: y = z cross x


def angle_between(first: FloatArray, second: FloatArray) -> float:
    """Return the least angle, degrees, between two orientations of a cubic crystal."""
    turned = first.T @ second
    best = max(
        float(sum(signs[i] * turned[i, p[i]] for i in range(3)))
        for p in permutations(range(3))
        for signs in product((1, -1), repeat=3)
        if _determinant(p, signs) > 0
    )
    return float(np.degrees(np.arccos(np.clip((best - 1) / 2, -1, 1))))


def _determinant(order: tuple[int, ...], signs: tuple[int, ...]) -> float:
    matrix = np.zeros((3, 3))
    matrix[range(3), order] = signs
    return float(np.linalg.det(matrix))


@dataclass(frozen=True)
class Crystal:
    """Orientation of a cubic crystal: matrix (3, 3) from crystal axes to (z, y, x); None where none was found.

    `explained` is the part of the variance of the density that it explains; of facets of the same areas in random
    directions the best orientations explain `random_mean` +- `random_std`.
    """

    matrix: FloatArray | None
    explained: float = np.nan
    random_mean: float = np.nan
    random_std: float = np.nan


def find_crystal(density: NormalDensity, facets: FloatArray, tolerance_deg: float, seed: int = 0) -> Crystal:
    """Find the orientation of a cubic crystal that explains the density best, if it does so better than chance."""
    if len(facets) < 3:
        return Crystal(None)
    rng = np.random.default_rng(seed)
    lookup = _Lookup(density.points)
    grid = _rotations()
    places = lookup.places(grid)
    coarse = np.argsort(-lookup.scores(places, density.density))[:8]
    matrix, score = max((_refined(grid[i], density.density, lookup) for i in coarse), key=lambda found: found[1])
    variance = _variance(density.density)
    near = nearest_direction(density.points, facets, tolerance_deg)
    shares = np.array([density.areas[near == k].sum() for k in range(len(facets))]) / density.areas.sum()
    chance = []
    for _ in range(N_RANDOM):
        random = _random_density(facets, shares, rng, density.points)
        best = grid[int(np.argmax(lookup.scores(places, random)))]
        chance.append(_refined(best, random, lookup)[1] / _variance(random))
    explained, mean, std = score / variance, float(np.mean(chance)), float(np.std(chance))
    found = explained > max(mean + ABOVE_RANDOM * std, *chance)
    return Crystal(_centred(matrix, density) if found else None, explained, mean, std)


def _variance(density: FloatArray) -> float:
    """Return the variance of a density in the unit of the score: a sharp peak at each of n directions gives n p^2."""
    sigma = np.radians(KERNEL_DEG)
    # The integral of the square of a kernel of height p is p^2 pi sigma^2.
    return float(((density - 1 / (4 * np.pi)) ** 2).mean() * 4 * np.pi / (np.pi * sigma**2))


def _random_density(facets: FloatArray, shares: FloatArray, rng: np.random.Generator, points: FloatArray) -> FloatArray:
    """Return a density with facets of these shares in random directions; opposite facets stay opposite."""
    sigma = np.radians(KERNEL_DEG)
    density = np.full(len(points), max(0.0, 1 - float(shares.sum())) / (4 * np.pi))
    turned = np.empty_like(facets)
    opposite = facets @ facets.T < -np.cos(np.radians(2 * KERNEL_DEG))
    for k in range(len(facets)):
        partner = np.flatnonzero(opposite[k, :k])
        draw = rng.standard_normal(3)
        turned[k] = -turned[partner[0]] if len(partner) else draw / np.linalg.norm(draw)
    for direction, share in zip(turned, shares, strict=True):
        density += share * np.exp((points @ direction - 1) / sigma**2) / (2 * np.pi * sigma**2)
    return density


class _Lookup:
    """Scores of many orientations at once."""

    def __init__(self, points: FloatArray) -> None:
        from scipy.spatial import cKDTree

        self._tree = cKDTree(points)
        self._families = [family(name) for name in FAMILIES]

    def places(self, matrices: FloatArray) -> list[NDArray[np.int64]]:
        """Return the points next to the directions of each family in orientations (n, 3, 3)."""
        return [self._tree.query(np.einsum("nij,dj->ndi", matrices, d))[1] for d in self._families]

    def scores(self, places: list[NDArray[np.int64]], density: FloatArray) -> FloatArray:
        """Return the score (n,) of orientations, given their places."""
        above = [np.maximum(density[at].mean(axis=1) - 1 / (4 * np.pi), 0) for at in places]
        return np.asarray(sum(at.shape[1] * a**2 for at, a in zip(places, above, strict=True)))


def _rotations(spacing_deg: float = 6.0) -> FloatArray:
    """Return orientations (n, 3, 3) of a cubic crystal some `spacing_deg` apart, from random ones, the same always."""
    from scipy.spatial.transform import Rotation

    n = int(2.5 * 8 * np.pi**2 / np.radians(spacing_deg) ** 3 / 24)
    return np.asarray(Rotation.random(n, random_state=np.random.RandomState(0)).as_matrix())


def _refined(matrix: FloatArray, density: FloatArray, lookup: _Lookup) -> tuple[FloatArray, float]:
    """Return the best orientation near one and its score: turned by ever smaller steps about the three axes."""
    from scipy.spatial.transform import Rotation

    best, best_score = matrix, -1.0
    for step in np.radians([4.0, 2.0, 1.0, 0.5]):
        turns = np.array(list(product((-1, 0, 1), repeat=3))) * step
        while True:
            tried = Rotation.from_rotvec(turns).as_matrix() @ best
            scores = lookup.scores(lookup.places(tried), density)
            top = int(np.argmax(scores))
            if scores[top] <= best_score * (1 + 1e-9):
                break
            best, best_score = tried[top], float(scores[top])
    return best, best_score


def _centred(matrix: FloatArray, density: NormalDensity) -> FloatArray:
    """Turn an orientation so that its directions are the mean normals near them (Kabsch; weights are areas)."""
    directions = np.concatenate([family(name) for name in FAMILIES])
    for _ in range(5):
        nearest = nearest_direction(density.points, directions @ matrix.T, 2 * KERNEL_DEG)
        near = (nearest >= 0) & (density.areas > 0)
        if not near.any():
            return matrix
        weighted = (density.points[near] * density.areas[near, None]).T @ directions[nearest[near]]
        u, _, vt = np.linalg.svd(weighted)
        matrix = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    return np.asarray(matrix)
