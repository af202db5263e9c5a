"""How the cubic crystal of a support lies, given or sought in the density of the surface's normals.

Sought is the orientation R at which the mean densities of the families {111}, {110} and {100} explain most of the
variance of the density rho,

    score(R) = sum over families of N_f max(0, mean over its N_f directions d of rho(R d) - rho_0)^2,

rho_0 being that of normals without any order. It is told from chance by facets of the same areas in random directions.
Many supports are polycrystals or no crystals: then there is none to be found.

Directions are (z, y, x) unit vectors; volumes show no difference between d and -d for planes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from tomoseg.measurement.common.surface import FloatArray
from tomoseg.measurement.support.normals import ISOTROPIC_PER_SR, KERNEL_DEG, NormalDensity, nearest_direction

FAMILIES: dict[str, tuple[int, int, int]] = {"{111}": (1, 1, 1), "{110}": (1, 1, 0), "{100}": (1, 0, 0)}
N_RANDOM = 30  # sets of random facets that a crystal is compared with
ABOVE_RANDOM = 3.0  # standard deviations above their mean, and above them all


def family(name: str) -> FloatArray:
    """Return the unit normals (n, 3) of a family of planes in the crystal's own axes."""
    found = {
        tuple(s * h for s, h in zip(signs, p, strict=True))
        for p in permutations(FAMILIES[name])
        for signs in product((1, -1), repeat=3)
    }
    vectors = np.array(sorted(found), float)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def given_orientation(along_z: Sequence[int], along_x: Sequence[int]) -> FloatArray:
    """Return the matrix (3, 3) that turns crystal axes into (z, y, x), from the directions along +z and +x."""
    z, x = (np.array(v, float) / np.linalg.norm(v) for v in (along_z, along_x))
    return np.stack([z, np.cross(z, x), x])  # x, y, z are right-handed: y = z cross x


@dataclass(frozen=True)
class Crystal:
    """Orientation of a cubic crystal: matrix (3, 3) from crystal axes to (z, y, x); None where none was found.

    `explained` is the part of the variance of the density that it explains; of facets of the same areas in random
    directions the best orientations explain `random_mean` +- `random_std`. `given`: it was not sought.
    """

    matrix: FloatArray | None
    explained: float = np.nan
    random_mean: float = np.nan
    random_std: float = np.nan
    given: bool = False

    def summary(self) -> dict[str, object]:
        """Return the numbers that describe it, by their names in the project file."""
        matrix = np.full((3, 3), np.nan) if self.matrix is None else self.matrix
        return {
            "crystal": "given" if self.given else "none found" if self.matrix is None else "found",
            "crystal_matrix": [float(v) for v in matrix.ravel()],
            "crystal_explained": self.explained,
            "crystal_explained_by_chance": self.random_mean,
            "crystal_explained_by_chance_std": self.random_std,
        }


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
    return float(((density - ISOTROPIC_PER_SR) ** 2).mean() * 4 * np.pi / (np.pi * sigma**2))


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
        above = [np.maximum(density[at].mean(axis=1) - ISOTROPIC_PER_SR, 0) for at in places]
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
