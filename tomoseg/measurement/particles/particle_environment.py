"""Where particles sit on their support: how deep, in a pore or outside, on which facets, on what curvature."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.measurement.common.surface import FloatArray
from tomoseg.measurement.pores.pores import PoreSpace
from tomoseg.measurement.pores.porosimetry import distances
from tomoseg.measurement.support.facets import cap_share, nearest_direction, sphere_points
from tomoseg.measurement.support.surface_elements import PORE, Elements

NEAR_PX = 3.0  # beyond a particle's own radius, the surface that it sits on
SHELLS_PX = (1.5, 2.5)  # beyond its radius, where one looks whether it faces a pore or the outside
LEAST_PART = 0.15  # of the surface around a particle, for a facet to count as one that it sits on
N_COMPARED = 2000  # places on the surface that particles are compared with

FACET = np.dtype(
    [
        ("name", "U8"),
        ("kind", "U8"),
        ("plane", "U8"),
        ("plane_angle_deg", "f8"),
        ("normal_z", "f8"),
        ("normal_y", "f8"),
        ("normal_x", "f8"),
        ("area_nm2", "f8"),
        ("area_px2", "f8"),
        ("pore_wall_area_nm2", "f8"),
        ("pore_wall_area_px2", "f8"),
        ("area_share", "f8"),
        ("expected_share", "f8"),
        ("n_particles", "i8"),
        ("particles_share", "f8"),
        ("particles_per_nm2", "f8"),
        ("particles_per_px2", "f8"),
    ]
)
CURVATURE = np.dtype(
    [
        ("from_per_nm", "f8"),
        ("to_per_nm", "f8"),
        ("from_per_px", "f8"),
        ("to_per_px", "f8"),
        ("area_nm2", "f8"),
        ("area_px2", "f8"),
        ("area_share", "f8"),
        ("particles_share", "f8"),
        ("enrichment", "f8"),
    ]
)
CURVATURE_EDGES = np.linspace(-0.3, 0.3, 25)  # 1/px


@dataclass(frozen=True)
class Directions:
    """Directions that facets are counted by: `normals` (n, 3), their `names`, and the tolerance in degrees."""

    normals: FloatArray
    names: tuple[str, ...]
    tolerance_deg: float

    def of(self, elements: Elements) -> NDArray[np.int32]:
        """Return the direction (n,) that each element faces, or -1."""
        return nearest_direction(elements.normals, self.normals, self.tolerance_deg)


def outer_depth(space: PoreSpace, points_px: FloatArray, ball_px: float) -> FloatArray:
    """Return how deep points (n, 3) lie under the outer surface, px; negative outside.

    The outer surface is that of the support closed by a ball of `ball_px`: it bridges the mouths of pores, the dents
    that particles leave in it, and gaps narrower than the ball.
    """
    closed = space.ways.not_reached(ball_px / space.side)
    at = space.look_up(points_px)
    inside, outside = distances(closed)[at], distances(~closed)[at]
    # The surface lies half a cell before the nearest centre on its other side.
    return np.where(closed[at], inside - 0.5, 0.5 - outside) * space.side


def in_pores(space: PoreSpace, centres_px: FloatArray, radii_px: FloatArray) -> NDArray[np.bool_]:
    """Tell of particles (n,) whether most of the free space around each is that of pores.

    One looks at points on spheres about it, `SHELLS_PX` beyond its radius; those in the support or in particles do not
    count. A particle that is shut in completely is in a pore as large as itself.
    """
    if not len(centres_px):
        return np.zeros(0, bool)
    around = sphere_points(256)
    shells = radii_px[:, None] + np.array(SHELLS_PX) + (space.side - 1)
    points = centres_px[:, None, None, :] + shells[:, :, None, None] * around
    at = space.look_up(points.reshape(-1, 3))
    shape = points.shape[:-1]
    pore = space.pores[at].reshape(shape).sum(axis=(1, 2))
    free = (space.kinds[at] == 0).reshape(shape).sum(axis=(1, 2))
    return np.asarray((pore > 0.5 * free) | (free == 0))


def neighbourhoods(elements: Elements, centres_px: Array, reach_px: Array) -> list[NDArray[np.int64]]:
    """Return the exposed elements within `reach_px` (n,) of points (n, 3)."""
    from scipy.spatial import cKDTree

    exposed = np.flatnonzero(elements.exposed)
    if not len(exposed) or not len(centres_px):
        return [np.empty(0, np.int64)] * len(centres_px)
    found = cKDTree(elements.centres[exposed]).query_ball_point(centres_px, reach_px)
    return [exposed[np.array(f, np.int64)] for f in found]


def facets_near(elements: Elements, near: Sequence[NDArray[np.int64]], facing: NDArray[np.int32], n: int) -> FloatArray:
    """Return what part of the surface around each place belongs to each of n directions, (places, n)."""
    out = np.zeros((len(near), n))
    for i, chosen in enumerate(near):
        known = facing[chosen] >= 0
        area = elements.areas[chosen]
        if len(chosen):
            out[i] = np.bincount(facing[chosen][known], area[known], n) / area.sum()
    return out


def random_places(elements: Elements, seed: int = 0) -> NDArray[np.int64]:
    """Return exposed elements at random, each as likely as it is large."""
    exposed = np.flatnonzero(elements.exposed)
    if not len(exposed):
        return exposed
    areas = elements.areas[exposed].astype(float)
    return np.random.default_rng(seed).choice(exposed, N_COMPARED, p=areas / areas.sum())


def curvature_at(elements: Elements, near: Sequence[NDArray[np.int64]]) -> FloatArray:
    """Return the mean curvature, 1/px, of the surface around each place; NaN where there is none."""
    means = [
        np.average(elements.mean[c], weights=elements.areas[c]) if elements.areas[c].sum() else np.nan for c in near
    ]
    return np.array(means, float)


def curvature_table(elements: Elements, near: Sequence[NDArray[np.int64]], voxel_size_nm: float) -> NDArray[np.void]:
    """Return the histogram of the mean curvature of the exposed surface by area, and around particles.

    Each particle that has surface around it counts 1, spread over that surface by area. `enrichment` is the particles'
    share over that of the area; NaN where there is no area. The outermost bins hold what lies beyond.
    """
    edges, n = CURVATURE_EDGES, len(CURVATURE_EDGES) - 1
    place = np.clip(np.searchsorted(edges, elements.mean, side="right") - 1, 0, n - 1)
    exposed = elements.exposed
    table = np.zeros(n, CURVATURE)
    table["from_per_px"], table["to_per_px"] = edges[:-1], edges[1:]
    table["area_px2"] = np.bincount(place[exposed], elements.areas[exposed], n)
    table["area_share"] = table["area_px2"] / max(float(table["area_px2"].sum()), 1e-12)
    shares = [np.bincount(place[c], elements.areas[c], n) / elements.areas[c].sum() for c in near if len(c)]
    table["particles_share"] = np.mean(shares, axis=0) if shares else np.nan
    some = table["area_px2"] > 0
    table["enrichment"] = np.nan
    table["enrichment"][some] = table["particles_share"][some] / table["area_share"][some]
    table["area_nm2"] = table["area_px2"] * voxel_size_nm**2
    for name in ("from", "to"):
        table[f"{name}_per_nm"] = table[f"{name}_per_px"] / voxel_size_nm
    return table


def facet_table(
    elements: Elements,
    facets: Directions,
    planes: Directions | None,
    on_facet: Sequence[str],
    on_plane: Sequence[str],
    voxel_size_nm: float,
) -> NDArray[np.void]:
    """Return one row per family of planes, where the crystal's orientation is known, and one per facet found.

    `on_facet` and `on_plane` name where each particle sits ("" for none). The expected share is that of normals without
    any order. The last row of each kind holds the rest.
    """
    rows: list[dict[str, Any]] = []
    if planes is not None:
        rows += _rows("family", elements, planes, on_plane)
    rows += _rows("facet", elements, facets, on_facet)
    table = np.zeros(len(rows), FACET)
    for i, row in enumerate(rows):
        for name, value in row.items():
            table[name][i] = value
    if planes is not None:
        for k in np.flatnonzero((table["kind"] == "facet") & np.isfinite(table["normal_z"])):
            cosines = planes.normals @ np.array([table[f"normal_{a}"][k] for a in "zyx"])
            nearest = int(np.argmax(cosines))
            table["plane"][k] = planes.names[nearest]
            table["plane_angle_deg"][k] = np.degrees(np.arccos(min(1.0, float(cosines[nearest]))))
    table["particles_share"] = table["n_particles"] / max(len(on_facet), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        table["particles_per_px2"] = table["n_particles"] / table["area_px2"]
    table["area_nm2"] = table["area_px2"] * voxel_size_nm**2
    table["pore_wall_area_nm2"] = table["pore_wall_area_px2"] * voxel_size_nm**2
    table["particles_per_nm2"] = table["particles_per_px2"] / voxel_size_nm**2
    return table


def _rows(kind: str, elements: Elements, directions: Directions, where: Sequence[str]) -> list[dict[str, Any]]:
    facing = directions.of(elements)
    exposed = elements.exposed
    total = max(float(elements.areas[exposed].sum()), 1e-12)
    names = list(dict.fromkeys(directions.names))
    part_of_sphere = cap_share(directions.tolerance_deg)
    rows: list[dict[str, Any]] = []
    for name in [*names, ""]:
        members = [i for i, other in enumerate(directions.names) if other == name]
        chosen = exposed & (np.isin(facing, members) if name else facing < 0)
        area = float(elements.areas[chosen].sum())
        single = len(members) == 1
        normal = directions.normals[members[0]] if single else np.full(3, np.nan)
        expected = part_of_sphere * (len(members) if name else -len(directions.names))
        rows.append(
            {
                "name": name or "rest",
                "kind": kind,
                "plane_angle_deg": np.nan,
                **{f"normal_{a}": v for a, v in zip("zyx", normal, strict=True)},
                "area_px2": area,
                "pore_wall_area_px2": float(elements.areas[chosen & (elements.facing == PORE)].sum()),
                "area_share": area / total,
                "expected_share": expected if name else 1 + expected,
                "n_particles": sum(w == name for w in where),
            }
        )
    return rows
