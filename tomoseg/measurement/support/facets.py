"""Facets of a surface, and the planes of a cubic crystal that they lie along.

Facets are the maxima of the density of the surface's normals, whatever the material: nothing is assumed. Smooth bodies
have maxima, too: a cylinder's normals lie on a great circle, those of a small ball on the axes of the voxels. So the
density must fall on all sides of a facet, it must hold several times the area that it would on a ball, and some of
that area must be one compact patch. Planes are those of the families {111}, {110} and {100}, where the orientation of
the crystal is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.measurement.common.surface import FloatArray
from tomoseg.measurement.support.crystal import FAMILIES, Crystal, family, find_crystal, given_orientation
from tomoseg.measurement.support.normals import KERNEL_DEG, NormalDensity, nearest_direction
from tomoseg.measurement.support.surface_elements import SurfaceElements

FACET_DENSITY = 2.0  # times the density of normals without order, for a maximum to be a facet
LEAST_SHARE = 0.03  # of the area within the tolerance, for a facet; a ball has 0.008 within 10 degrees
MOST_AROUND = 0.3  # of a facet's density, anywhere at two tolerances from it
LEAST_WIDTH_PX, LEAST_FILL = 8.0, 0.5  # of a facet's largest patch, and its area by that of the ellipse of its moments
NEIGHBOURS_PX = 3.1  # elements of one patch are no further apart
MOST_FACETS = 24


@dataclass(frozen=True)
class Directions:
    """Directions that facets are counted by: `normals` (n, 3), their `names`, and the tolerance in degrees."""

    normals: FloatArray
    names: tuple[str, ...]
    tolerance_deg: float

    def of(self, elements: SurfaceElements) -> NDArray[np.int32]:
        """Return the direction (n,) that each surface element faces, or -1."""
        return nearest_direction(elements.normals, self.normals, self.tolerance_deg)


@dataclass(frozen=True)
class SurfaceFacets:
    """Facets of a surface, its crystal, and the crystal's planes; None for planes where no crystal is known.

    `orientation_map` is the density of normals, see `NormalDensity.projected`.
    """

    facets: Directions
    planes: Directions | None
    crystal: Crystal
    orientation_map: NDArray[np.float32]


def find_facets(
    elements: SurfaceElements,
    tolerance_deg: float,
    crystal_along_z: Sequence[int] | None = None,
    crystal_along_x: Sequence[int] | None = None,
) -> SurfaceFacets:
    """Find the facets of the exposed surface and the orientation of its crystal, unless that is given.

    Surface within `tolerance_deg` of a normal belongs to it. `crystal_along_z` and `crystal_along_x` are the directions
    [h, k, l] of a cubic crystal along z and x of the volume; None where unknown.
    """
    exposed = elements.exposed
    density = NormalDensity.of(elements.normals[exposed], elements.areas[exposed])
    directions = facet_directions(density, tolerance_deg)
    kept = [has_patch(elements[exposed], normal, tolerance_deg) for normal in directions]
    directions = directions[np.array(kept, bool)]
    if crystal_along_z is not None and crystal_along_x is not None:
        crystal = Crystal(given_orientation(crystal_along_z, crystal_along_x), given=True)
    else:
        crystal = find_crystal(density, directions, tolerance_deg)
    planes = None
    if crystal.matrix is not None:
        normals = [family(name) @ crystal.matrix.T for name in FAMILIES]
        names = tuple(name for name, group in zip(FAMILIES, normals, strict=True) for _ in group)
        planes = Directions(np.concatenate(normals), names, tolerance_deg)
    numbered = tuple(f"facet {i}" for i in range(1, len(directions) + 1))
    return SurfaceFacets(Directions(directions, numbered, tolerance_deg), planes, crystal, density.projected())


def cap_share(tolerance_deg: float) -> float:
    """Return the fraction of the sphere within an angle of one direction."""
    return float((1 - np.cos(np.radians(tolerance_deg))) / 2)


def facet_directions(density: NormalDensity, tolerance_deg: float) -> FloatArray:
    """Return the normals (n, 3) of what may be facets, strongest first: maxima of the density, two tolerances apart.

    On all sides, the density falls to `MOST_AROUND` of the maximum.
    """
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
        if density.at(_ring(density.points[i], 2 * tolerance_deg)).max() > MOST_AROUND * density.density[i]:
            continue  # on the ridge of something curved in one direction only, or on a broad hill
        centre = (density.points[around] * density.density[around, None]).sum(axis=0)
        centre /= np.linalg.norm(centre)
        if density.areas[tree.query_ball_point(centre, near)].sum() >= LEAST_SHARE * density.areas.sum():
            chosen.append(centre)
    return np.array(chosen).reshape(-1, 3)


def _ring(normal: FloatArray, angle_deg: float, n: int = 24) -> FloatArray:
    """Return n directions (n, 3) all around a normal, at an angle to it."""
    across = np.linalg.svd(normal[None])[2][1:]  # two vectors perpendicular to it and to each other
    turn = 2 * np.pi * np.arange(n) / n
    sides = np.cos(turn)[:, None] * across[0] + np.sin(turn)[:, None] * across[1]
    return np.asarray(np.cos(np.radians(angle_deg)) * normal + np.sin(np.radians(angle_deg)) * sides)


def has_patch(elements: SurfaceElements, normal: FloatArray, tolerance_deg: float) -> bool:
    """Return whether some of the surface that faces along a normal is one compact patch of `LEAST_WIDTH_PX` or more.

    The width is that of the rectangle with the patch's second moments. A ring, as on top of a torus, is not compact.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    near = elements.normals @ normal.astype(np.float32) >= np.cos(np.radians(tolerance_deg))
    centres, areas = elements.centres[near].astype(np.float64), elements.areas[near].astype(np.float64)
    if not len(centres):
        return False
    pairs = cKDTree(centres).query_pairs(NEIGHBOURS_PX, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (len(centres), len(centres)))
    _, patch = connected_components(graph, directed=False)
    total = np.bincount(patch, areas)
    for k in np.argsort(-total):
        if total[k] < LEAST_FILL * LEAST_WIDTH_PX**2:
            return False
        own, weights = centres[patch == k], areas[patch == k]
        spread = np.cov(own, rowvar=False, aweights=weights, bias=True) if len(own) > 1 else np.zeros((3, 3))
        _, short, long = np.linalg.eigvalsh(spread)  # the first is its thickness
        is_wide = short > 0 and np.sqrt(12 * short) >= LEAST_WIDTH_PX
        if is_wide and total[k] >= LEAST_FILL * 4 * np.pi * np.sqrt(short * long):
            return True
    return False
