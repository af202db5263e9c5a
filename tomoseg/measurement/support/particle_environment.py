"""Particle environment: how deep particles lie in their support, in a pore or not, on which facets and curvature."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.measurement.common.columns import fill_nm, in_nm_and_px, row_type
from tomoseg.measurement.common.surface import FloatArray
from tomoseg.measurement.pores.pore_space import PoreSpace
from tomoseg.measurement.pores.porosimetry import distances
from tomoseg.measurement.support.facets import Directions, SurfaceFacets, cap_share
from tomoseg.measurement.support.normals import sphere_points
from tomoseg.measurement.support.surface_elements import PORE, SurfaceElements

NEAR_PX = 3.0  # beyond a particle's own radius, the surface that it sits on
SHELLS_PX = (1.5, 2.5)  # beyond its radius, where it is looked up whether it faces a pore or the outside
LEAST_SHARE = 0.15  # of the surface around a particle, for a facet to count as one that it sits on
N_COMPARED = 2000  # elements of the surface that particles are compared with

FACET = row_type(
    """
    name:U8 kind:U8 plane:U8 plane_angle_deg normal_z normal_y normal_x area_nm2 area_px2 pore_wall_area_nm2
    pore_wall_area_px2 area_share expected_share n_particles:i8 particles_share particles_per_nm2
    particles_per_px2
    """
)
CURVATURE = row_type(
    """
    from_per_nm to_per_nm from_per_px to_per_px area_nm2 area_px2 area_share particles_share enrichment
    """
)
CURVATURE_EDGES = np.linspace(-0.3, 0.3, 25)  # 1/px


def particle_environment(
    elements: SurfaceElements, space: PoreSpace, found: SurfaceFacets, particles: Array, voxel_size_nm: float
) -> tuple[dict[str, NDArray[np.void]], dict[str, Any], dict[str, Array]]:
    """Find where each particle sits on the support, and compare that with the support's surface as a whole.

    Returns `facet_table` and `curvature_table`; numbers by their names in the project file; and more columns (n,) of
    the table of particles, by name.
    """
    centres = np.stack([particles[f"{a}_px"] for a in "zyx"], axis=1)
    radii = particles["diameter_px"] / 2
    near = neighbourhoods(elements, centres, radii + NEAR_PX)
    ball = max(2 * float(radii.max(initial=0)), 4.0)
    depth = outer_depth(space, centres, ball)
    in_pore = in_pores(space, centres, radii)
    curvature = curvature_at(elements, near)
    compared = random_elements(elements)
    reach = np.full(len(compared), float(np.median(radii)) + NEAR_PX if len(radii) else 0.0)
    elsewhere = neighbourhoods(elements, elements.centres[compared], reach) if len(radii) else []
    on: dict[str, Sequence[str]] = {kind: [""] * len(particles) for kind in ("facet", "plane")}
    counts = np.zeros(len(particles), int)
    meeting: dict[str, float] = {}
    for kind, directions in (("facet", found.facets), ("plane", found.planes)):
        if directions is None:
            continue
        facing, n = directions.of(elements), len(directions.names)
        shares = facet_shares(elements, near, facing, n)
        on[kind] = [directions.names[int(s.argmax())] if n and s.max() >= LEAST_SHARE else "" for s in shares]
        counts = (shares >= LEAST_SHARE).sum(axis=1)
        counts_elsewhere = (facet_shares(elements, elsewhere, facing, n) >= LEAST_SHARE).sum(axis=1)
        if len(particles):
            meeting[f"particles_where_{kind}s_meet_share"] = float((counts >= 2).mean())
            at_random = float((counts_elsewhere >= 2).mean()) if len(elsewhere) else np.nan
            meeting[f"area_where_{kind}s_meet_share"] = at_random
    columns = {
        "depth_nm": depth * voxel_size_nm,
        "depth_px": depth,
        "in_pore": in_pore,
        "support_curvature_per_nm": curvature / voxel_size_nm,
        "support_curvature_per_px": curvature,
        "facet": np.array(on["facet" if found.planes is None else "plane"], "U8"),
        "n_facets": counts.astype("i4"),
    }
    known = np.isfinite(curvature)
    exposed = elements[elements.exposed]
    mean = float(np.average(exposed.mean, weights=exposed.areas)) if len(exposed) else np.nan
    at = float(curvature[known].mean()) if known.any() else np.nan
    summary = {
        "n_particles_in_pores": int(in_pore.sum()),
        "n_facets": len(found.facets.names),
        **meeting,
        **in_nm_and_px("depth_ball", ball, voxel_size_nm),
        "mean_curvature_per_px": mean,
        "mean_curvature_per_nm": mean / voxel_size_nm,
        "particles_curvature_per_px": at,
        "particles_curvature_per_nm": at / voxel_size_nm,
    }
    tables = {
        "facet_table": facet_table(elements, found.facets, found.planes, on["facet"], on["plane"], voxel_size_nm),
        "curvature_table": curvature_table(elements, near, voxel_size_nm),
    }
    return tables, summary, columns


def outer_depth(space: PoreSpace, points_px: FloatArray, ball_px: float) -> FloatArray:
    """Return how deep points (n, 3) lie under the outer surface, px; negative outside.

    The outer surface is that of the support closed by a ball of `ball_px`: it bridges the mouths of pores, the dents
    that particles leave in it, and gaps narrower than the ball.
    """
    closed = space.free.not_reached(ball_px / space.side)
    at = space.look_up(points_px)
    inside, outside = distances(closed)[at], distances(~closed)[at]
    # The surface lies half a cell before the nearest centre on its other side.
    return np.where(closed[at], inside - 0.5, 0.5 - outside) * space.side


def in_pores(space: PoreSpace, centres_px: FloatArray, radii_px: FloatArray) -> NDArray[np.bool_]:
    """Return whether most of the free space around each particle (n,) is that of pores.

    Points on spheres around it decide, `SHELLS_PX` beyond its radius; those in the support or in particles do not
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


def neighbourhoods(elements: SurfaceElements, centres_px: Array, reach_px: Array) -> list[NDArray[np.int64]]:
    """Return the exposed elements within `reach_px` (n,) of points (n, 3)."""
    from scipy.spatial import cKDTree

    exposed = np.flatnonzero(elements.exposed)
    if not len(exposed) or not len(centres_px):
        return [np.empty(0, np.int64)] * len(centres_px)
    found = cKDTree(elements.centres[exposed]).query_ball_point(centres_px, reach_px)
    return [exposed[np.array(f, np.int64)] for f in found]


def facet_shares(
    elements: SurfaceElements, near: Sequence[NDArray[np.int64]], facing: NDArray[np.int32], n: int
) -> FloatArray:
    """Return the share (places, n) of each of n directions in the surface around each place."""
    out = np.zeros((len(near), n))
    for i, chosen in enumerate(near):
        known = facing[chosen] >= 0
        area = elements.areas[chosen]
        if len(chosen):
            out[i] = np.bincount(facing[chosen][known], area[known], n) / area.sum()
    return out


def random_elements(elements: SurfaceElements, seed: int = 0) -> NDArray[np.int64]:
    """Return exposed elements drawn at random, with probabilities in proportion to their areas."""
    exposed = np.flatnonzero(elements.exposed)
    if not len(exposed):
        return exposed
    areas = elements.areas[exposed].astype(float)
    return np.random.default_rng(seed).choice(exposed, N_COMPARED, p=areas / areas.sum())


def curvature_at(elements: SurfaceElements, near: Sequence[NDArray[np.int64]]) -> FloatArray:
    """Return the mean curvature, 1/px, of the surface around each place; NaN where there is none."""
    means = [
        np.average(elements.mean[c], weights=elements.areas[c]) if elements.areas[c].sum() else np.nan for c in near
    ]
    return np.array(means, float)


def curvature_table(
    elements: SurfaceElements, near: Sequence[NDArray[np.int64]], voxel_size_nm: float
) -> NDArray[np.void]:
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
    fill_nm(table, voxel_size_nm)
    return table


def facet_table(
    elements: SurfaceElements,
    facets: Directions,
    planes: Directions | None,
    on_facet: Sequence[str],
    on_plane: Sequence[str],
    voxel_size_nm: float,
) -> NDArray[np.void]:
    """Return one row per family of planes, where the crystal's orientation is known, and one per facet found.

    `on_facet` and `on_plane` name the facet and the family of planes that each particle sits on ("" for none). The
    expected share is that of normals without any order. The last row of each kind holds the rest.
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
    fill_nm(table, voxel_size_nm)
    return table


def _rows(kind: str, elements: SurfaceElements, directions: Directions, where: Sequence[str]) -> list[dict[str, Any]]:
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
