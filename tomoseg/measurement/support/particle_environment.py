"""Particle environment: how deep particles lie in their support, in a pore or not, on which facets and curvature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from tomoseg.runtime import slabs

NEAR_PX = 3.0  # beyond a particle's own radius, the surface that it sits on
SHELLS_PX = (1.5, 2.5)  # beyond its radius, where it is looked up whether it faces a pore or the outside
PARTICLES_AT_ONCE = 64  # around which that is looked up at once: 40 kB each
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
N_BINS = len(CURVATURE_EDGES) - 1


def particle_environment(
    elements: SurfaceElements, space: PoreSpace, found: SurfaceFacets, particles: Array, voxel_size_nm: float
) -> tuple[dict[str, NDArray[np.void]], dict[str, Any], dict[str, Array]]:
    """Find where each particle sits on the support, and compare that with the support's surface as a whole.

    Returns `facet_table` and `curvature_table`; numbers by their names in the project file; and more columns (n,) of
    the table of particles, by name.
    """
    centres = np.stack([particles[f"{a}_px"] for a in "zyx"], axis=1)
    radii = particles["diameter_px"] / 2
    ball = max(2 * float(radii.max(initial=0)), 4.0)
    depth = outer_depth(space, centres, ball)
    in_pore = in_pores(space, centres, radii)
    sets = {"facet": found.facets} if found.planes is None else {"facet": found.facets, "plane": found.planes}
    surface = SurfaceAround(elements, {kind: directions.of(elements) for kind, directions in sets.items()})
    near = surface.surroundings(centres, radii + NEAR_PX, sets)
    compared = random_elements(elements) if len(radii) else np.zeros(0, np.int64)
    reach = np.full(len(compared), float(np.median(radii)) + NEAR_PX if len(radii) else 0.0)
    elsewhere = surface.surroundings(elements.centres[compared], reach, sets)
    del surface
    on: dict[str, Sequence[str]] = {kind: [""] * len(particles) for kind in ("facet", "plane")}
    counts = np.zeros(len(particles), int)
    meeting: dict[str, float] = {}
    for kind, directions in sets.items():
        shares, n = near.shares[kind], len(directions.names)
        on[kind] = [directions.names[int(s.argmax())] if n and s.max() >= LEAST_SHARE else "" for s in shares]
        counts = (shares >= LEAST_SHARE).sum(axis=1)
        counts_elsewhere = (elsewhere.shares[kind] >= LEAST_SHARE).sum(axis=1)
        if len(particles):
            meeting[f"particles_where_{kind}s_meet_share"] = float((counts >= 2).mean())
            at_random = float((counts_elsewhere >= 2).mean()) if len(counts_elsewhere) else np.nan
            meeting[f"area_where_{kind}s_meet_share"] = at_random
    curvature = near.curvature
    columns = {
        "depth_nm": depth * voxel_size_nm,
        "depth_px": depth,
        "in_pore": in_pore,
        "support_curvature_per_nm": curvature / voxel_size_nm,
        "support_curvature_per_px": curvature,
        "facet": np.array(on["facet" if found.planes is None else "plane"], "U8"),
        "n_facets": counts.astype("i4"),
    }
    known, exposed = np.isfinite(curvature), elements.exposed
    areas = elements.areas[exposed]
    mean = float(np.average(elements.mean[exposed], weights=areas)) if len(areas) else np.nan
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
        "curvature_table": curvature_table(elements, near.histograms, voxel_size_nm),
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
    out = np.zeros(len(centres_px), bool)
    around = sphere_points(256)
    shells = radii_px[:, None] + np.array(SHELLS_PX) + (space.side - 1)
    for part in slabs(len(out), PARTICLES_AT_ONCE):
        points = centres_px[part, None, None, :] + shells[part, :, None, None] * around
        at = space.look_up(points.reshape(-1, 3))
        shape = points.shape[:-1]
        pore = (space.numbers[at] != 0).reshape(shape).sum(axis=(1, 2))
        free = (space.kinds[at] == 0).reshape(shape).sum(axis=(1, 2))
        out[part] = (pore > 0.5 * free) | (free == 0)
    return out


@dataclass(frozen=True)
class Surroundings:
    """The exposed surface around n places.

    Attributes
    ----------
    curvature : (n,), mean curvature, 1/px; NaN where there is no surface
    shares : (n, k) for each set of k directions, the share of each in the surface
    histograms : (m, bins), shares of the surface by mean curvature, of the m places where there is some
    """

    curvature: FloatArray
    shares: dict[str, FloatArray]
    histograms: FloatArray


class SurfaceAround:
    """Looks at the exposed surface around places, one after the other: together they may see much of it many times.

    `facing` are the directions (n,) that the elements face, for each set of directions.
    """

    def __init__(self, elements: SurfaceElements, facing: Mapping[str, NDArray[np.int32]]) -> None:
        from scipy.spatial import cKDTree

        self._elements, self._facing = elements, facing
        self._exposed = np.flatnonzero(elements.exposed)
        self._tree = cKDTree(elements.centres[self._exposed])
        self._bin = curvature_bins(elements)

    def surroundings(self, centres_px: Array, reach_px: Array, sets: Mapping[str, Directions]) -> Surroundings:
        """Describe the surface within `reach_px` (n,) of points (n, 3)."""
        curvature, histograms = np.full(len(centres_px), np.nan), [np.zeros((0, N_BINS))]
        shares = {kind: np.zeros((len(centres_px), len(directions.names))) for kind, directions in sets.items()}
        for i, (centre, reach) in enumerate(zip(centres_px, reach_px, strict=True)):
            near = self._exposed[np.array(self._tree.query_ball_point(centre, reach, return_sorted=True), np.int64)]
            areas = self._elements.areas[near]
            if not len(near):
                continue
            if areas.sum():
                curvature[i] = np.average(self._elements.mean[near], weights=areas)
            histograms.append(np.bincount(self._bin[near], areas, N_BINS)[None] / areas.sum())
            for kind, share in shares.items():
                facing = self._facing[kind][near]
                share[i] = np.bincount(facing[facing >= 0], areas[facing >= 0], share.shape[1]) / areas.sum()
        return Surroundings(curvature, shares, np.concatenate(histograms))


def random_elements(elements: SurfaceElements, seed: int = 0) -> NDArray[np.int64]:
    """Return exposed elements drawn at random, with probabilities in proportion to their areas."""
    exposed = np.flatnonzero(elements.exposed)
    if not len(exposed):
        return exposed
    areas = elements.areas[exposed].astype(float)
    return np.random.default_rng(seed).choice(exposed, N_COMPARED, p=areas / areas.sum())


def curvature_bins(elements: SurfaceElements) -> NDArray[np.uint8]:
    """Return the bin (n,) of each element by its mean curvature; the outermost bins hold what lies beyond."""
    place = np.searchsorted(CURVATURE_EDGES, elements.mean, side="right") - 1
    return np.clip(place, 0, N_BINS - 1).astype(np.uint8)


def curvature_table(elements: SurfaceElements, histograms: FloatArray, voxel_size_nm: float) -> NDArray[np.void]:
    """Return the histogram of the mean curvature of the exposed surface by area, and around particles.

    `histograms` (m, bins) are those of the surface around each particle, which counts 1, spread over that surface by
    area. `enrichment` is the particles' share over that of the area; NaN where there is no area.
    """
    exposed = elements.exposed
    table = np.zeros(N_BINS, CURVATURE)
    table["from_per_px"], table["to_per_px"] = CURVATURE_EDGES[:-1], CURVATURE_EDGES[1:]
    table["area_px2"] = np.bincount(curvature_bins(elements)[exposed], elements.areas[exposed], N_BINS)
    table["area_share"] = table["area_px2"] / max(float(table["area_px2"].sum()), 1e-12)
    table["particles_share"] = np.mean(histograms, axis=0) if len(histograms) else np.nan
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
