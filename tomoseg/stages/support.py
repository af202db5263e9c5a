"""Part of stage `measure`: the support, its surface and pores, and where particles sit on it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tomoseg.arrays import Array, ArraySource, Outputs
from tomoseg.errors import InputError
from tomoseg.runtime import Runtime

if TYPE_CHECKING:
    from tomoseg.measurement.common.surface import Block, LevelFinder, Mesh
    from tomoseg.measurement.particles.particle_environment import Directions
    from tomoseg.measurement.pores.pores import PoreSpace
    from tomoseg.measurement.support.facets import Crystal
    from tomoseg.measurement.support.surface_elements import Elements

# Densities of supports, g/cm3, of the crystals without pores. gamma-alumina: Digne et al., J. Catal. 226 (2004) 54, and
# references there (3.6 to 3.7); the others: CRC Handbook of Chemistry and Physics, 97th ed.
DENSITIES_G_CM3 = {
    "gamma-alumina": 3.65,
    "alpha-alumina": 3.97,
    "silica": 2.2,
    "anatase": 3.9,
    "rutile": 4.23,
    "ceria": 7.22,
    "zirconia": 5.68,
    "magnesia": 3.6,
    "graphite": 2.27,
}
CELL_MEMORY = 0.6  # of the memory allowed


class SupportParameters(Protocol):
    """What of the stage's parameters concerns the support."""

    measure_support: bool
    support_density_g_cm3: float | str | None
    pore_closing_nm: float | None
    crystal_along_z: tuple[int, int, int] | None
    crystal_along_x: tuple[int, int, int] | None
    facet_tolerance_deg: float


def density_g_cm3(value: float | str | None) -> float:
    """Return a density given as a number or by the name of a material; NaN for None."""
    if value is None:
        return math.nan
    if isinstance(value, str) and value in DENSITIES_G_CM3:
        return DENSITIES_G_CM3[value]
    try:
        density = float(value)
    except ValueError:
        density = math.nan
    if not 0 < density < 30:
        raise ValueError(f"a density in g/cm3, or one of {', '.join(DENSITIES_G_CM3)}")
    return density


def begin(
    labels: ArraySource,
    names: Sequence[str],
    particle_class: int | None,
    voxel_size_nm: float,
    params: SupportParameters,
    runtime: Runtime,
) -> "Survey | None":
    """Look for pores, and return what the support's surface is measured with; None where there is no support."""
    from tomoseg.measurement.common.coarse_grid import Cells, cell_side
    from tomoseg.measurement.pores.pores import PoreSpace

    if not params.measure_support:
        return None
    classes = [k for k in range(1, len(names)) if k != particle_class]
    if not classes:
        runtime.say("no support, pores or facets: there is no class between the background and the particles")
        return None
    kinds = np.zeros(256, np.uint8)
    kinds[classes] = 1
    if particle_class is not None:
        kinds[particle_class] = 2
    side = cell_side(labels.shape, CELL_MEMORY * runtime.max_memory)
    if side > 1:
        runtime.say(f"pores are looked for in cells of {side} voxels across: the volume is too large for single voxels")
    cells = Cells.read(labels, kinds, side, runtime.max_memory / 16, runtime.check)
    if not (cells.kinds == 1).any():
        runtime.say("no support, pores or facets: no voxel is of a class between the background and the particles")
        return None
    ball = _ball_cells(params, voxel_size_nm, side, cells.kinds.shape)
    space = PoreSpace.of(cells.kinds, side, ball)
    runtime.check()
    return Survey(classes, [names[k] for k in classes], kinds, space, voxel_size_nm, params, runtime)


def _ball_cells(params: SupportParameters, voxel_size_nm: float, side: int, shape: Sequence[int]) -> float | None:
    if params.pore_closing_nm is None:
        return None
    if math.isnan(voxel_size_nm):
        raise InputError("measure.pore_closing_nm needs the voxel size, which is unknown (--pixel-size NM at import).")
    cells = params.pore_closing_nm / voxel_size_nm / side
    limit = min(max(shape) / 2, 120)
    if cells > limit:
        largest = limit * side * voxel_size_nm
        raise InputError(
            f"measure.pore_closing_nm: {params.pore_closing_nm:g} nm is above {largest:.4g} nm for this volume."
        )
    return cells


@dataclass
class Survey:
    """The support while its surface passes by in blocks."""

    classes: list[int]
    names: list[str]
    kinds: Array  # of each class
    space: "PoreSpace"
    voxel_size_nm: float
    params: SupportParameters
    runtime: Runtime
    voxels: int = 0
    parts: list["Elements"] = field(default_factory=list)
    finder: "LevelFinder | None" = None

    def __post_init__(self) -> None:
        from tomoseg.measurement.common.surface import LevelFinder

        self._numbers = self.space.numbers_of_volume()
        if len(self.classes) > 1:
            self.finder = LevelFinder()

    def count(self, labels: Array, block: "Block") -> None:
        """First pass: the level of the surface, where the support is of several classes."""
        if self.finder is not None:
            self.finder.add(self.kinds[labels] == 1, block)

    def take(self, k: int, mesh: "Mesh", block: "Block", labels: ArraySource) -> None:
        """Second pass: take in the surface of class `k` in a block, where that is the support."""
        from tomoseg.measurement.support.surface_elements import SIDE_PX, block_elements, grown

        if [k] != self.classes or not len(mesh.faces):
            return
        z, y, x = labels.shape
        box = grown(block, (z, y, x))
        side = self.space.side
        part = block_elements(mesh, block, box, self.kinds[labels[box]], self._numbers, side, SIDE_PX * side)
        self.parts.append(part)

    def take_all(self, here: Array, block: "Block", labels: ArraySource) -> None:
        """Second pass: mesh the surface of several classes together."""
        from tomoseg.measurement.common.class_table import block_mesh

        if self.finder is None:
            return
        mesh = block_mesh(self.kinds[here] == 1, self.finder.level(), block)
        single, self.classes = self.classes, [-1]
        self.take(-1, mesh, block, labels)
        self.classes = single

    def finish(self, particles: Array, voxels: Array, outputs: Outputs) -> Array:
        """Leave the tables of support and pores, and return that of the particles with columns of where each sits.

        `voxels` is the number of each class.
        """
        from tomoseg.measurement.support.surface_elements import Elements

        self.voxels = int(sum(voxels[k] for k in self.classes))
        elements = Elements.joined(self.parts)
        self.parts.clear()
        watch = self.runtime.track(["pores", "facets", "particles"], "measuring the support")
        info: dict[str, Any] = {"support_classes": list(self.names), "cell_px": self.space.side}
        found: _Found | None = None
        for step in watch:
            if step == "facets":
                found = _find_facets(elements, self.params, outputs)
                info |= _pores(self, elements, found.facets.normals, outputs)
            elif step == "particles" and found is not None:
                places, columns = _places(self, elements, found, particles, outputs)
                info |= _surface(self, elements, info) | places
                particles = with_columns(particles, columns)
                info |= _orientation(found)
        outputs.set_attrs("support_info", info)
        for text in _remarks(info, found):
            self.runtime.say(text)
        return particles


@dataclass(frozen=True)
class _Found:
    """Facets of a surface and planes of its crystal."""

    facets: "Directions"
    planes: "Directions | None"
    crystal: "Crystal"
    given: bool


def _find_facets(elements: "Elements", params: SupportParameters, outputs: Outputs) -> _Found:
    from tomoseg.measurement.particles.particle_environment import Directions
    from tomoseg.measurement.support import facets as f

    tolerance = params.facet_tolerance_deg
    free = elements[elements.exposed]
    density = f.NormalDensity.of(free.normals.astype(float), free.areas.astype(float))
    outputs.put(
        "orientation_map", density.projected(), {"kernel_deg": f.KERNEL_DEG, "isotropic_per_sr": 1 / (4 * np.pi)}
    )
    directions = f.facet_directions(density, tolerance)
    if params.crystal_along_z is not None and params.crystal_along_x is not None:
        crystal, given = f.Crystal(f.given_orientation(params.crystal_along_z, params.crystal_along_x)), True
    else:
        crystal, given = f.find_crystal(density, directions, tolerance), False
    planes = None
    if crystal.matrix is not None:
        normals = [f.family(name) @ crystal.matrix.T for name in f.FAMILIES]
        names = tuple(name for name, group in zip(f.FAMILIES, normals, strict=True) for _ in group)
        planes = Directions(np.concatenate(normals), names, tolerance)
    numbered = tuple(f"facet {i}" for i in range(1, len(directions) + 1))
    return _Found(Directions(directions, numbered, tolerance), planes, crystal, given)


def _pores(survey: Survey, elements: "Elements", facets: Array, outputs: Outputs) -> dict[str, Any]:
    from tomoseg.measurement.pores import pores as p
    from tomoseg.measurement.pores.tortuosity import tortuosity

    space, nm = survey.space, survey.voxel_size_nm
    walls = np.bincount(np.maximum(elements.pore, 0), elements.areas, minlength=len(space.closed) + 1)[1:]
    table = p.pore_table(space, walls, facets, nm)
    sizes = p.pore_sizes(space, nm)
    outputs.put("pore_table", table)
    outputs.put("pore_size_table", sizes)
    survey.runtime.check()
    cell = float(space.side) ** 3
    here = space.in_volume()
    pore_cells = int(space.pores[here].sum())
    inside = int((space.inside | space.pores)[here].sum())
    closed = float(table["volume_px3"][table["closed"]].sum())
    volume = pore_cells * cell
    info: dict[str, Any] = {
        "n_pores": len(table),
        "n_open_pores": int((~table["closed"]).sum()),
        "n_closed_pores": int(table["closed"].sum()),
        "n_pores_touching_border": int(table["touches_border"].sum()),
        "least_pore_voxels": p.LEAST_PORE * space.side**3,
        "pore_closing_nm": math.nan if survey.params.pore_closing_nm is None else survey.params.pore_closing_nm,
        "porosity": pore_cells / max(inside, 1),
        "closed_porosity": closed / max(inside * cell, 1),
        "open_porosity": (volume - closed) / max(inside * cell, 1),
        "largest_pore_share": float(table["volume_px3"].max(initial=0) / volume) if volume else math.nan,
        "pore_euler_number": p.euler_number(space),
    }
    ball = float(table["inscribed_diameter_px"].max(initial=0)) / 2
    info["porosity_with_gaps"] = p.with_gaps(space, ball / space.side) if ball else info["porosity"]
    _add_units(info, "gap_ball", ball, 1, nm)
    for name, joined in zip("zyx", p.connected_sides(space), strict=True):
        info[f"pores_join_sides_{name}"] = joined
    box = p.box_within(space)
    part = np.zeros((1, 1, 1), bool) if box is None else space.pores[box]
    info["tortuosity_box_px"] = [0, 0, 0] if box is None else [n * space.side for n in part.shape]
    for axis, name in enumerate("zyx"):
        survey.runtime.check()
        info[f"tortuosity_{name}"] = tortuosity(part, axis)
    _add_units(info, "pore_volume", volume, 3, nm)
    _add_units(info, "body_volume", inside * cell, 3, nm)
    _add_units(info, "mean_pore_diameter", p.mean_pore_diameter(sizes), 1, nm)
    return info


def _surface(survey: Survey, elements: "Elements", pores: dict[str, Any]) -> dict[str, Any]:
    """Return volume and areas, and what they would be with the surface half a voxel out and in (Steiner's formula)."""
    from tomoseg.measurement.support.curvature import PLACES, SIGMA_PX, place_kinds
    from tomoseg.measurement.support.surface_elements import OUTSIDE, PARTICLE, PORE

    nm, volume = survey.voxel_size_nm, float(survey.voxels)
    area, bend = float(elements.areas.sum()), float((elements.mean * elements.areas).sum())
    density = density_g_cm3(survey.params.support_density_g_cm3)
    info: dict[str, Any] = {"support_density_g_cm3": density, "curvature_sigma_px": SIGMA_PX}
    _add_units(info, "support_volume", volume, 3, nm)
    _add_units(info, "support_area", area, 2, nm)
    of = {kind: float(elements.areas[elements.facing == kind].sum()) for kind in (OUTSIDE, PORE, PARTICLE)}
    _add_units(info, "outer_area", of[OUTSIDE], 2, nm)
    _add_units(info, "pore_wall_area", of[PORE], 2, nm)
    _add_units(info, "covered_area", of[PARTICLE], 2, nm)
    _add_units(info, "exposed_area", of[OUTSIDE] + of[PORE], 2, nm)
    # 1 nm2 / (nm3 g/cm3) = 1000 m2/g
    info["specific_area_m2_g"] = 1000 * area / (volume * nm * density)
    info["specific_exposed_area_m2_g"] = 1000 * (of[OUTSIDE] + of[PORE]) / (volume * nm * density)
    body, hollow = pores["body_volume_px3"], pores["pore_volume_px3"]
    for word, d in (("out", 0.5), ("in", -0.5)):
        moved, spread = volume + area * d + bend * d * d, area + 2 * bend * d
        _add_units(info, f"support_volume_half_voxel_{word}", moved, 3, nm)
        _add_units(info, f"support_area_half_voxel_{word}", spread, 2, nm)
        info[f"specific_area_half_voxel_{word}_m2_g"] = (
            1000 * spread / (moved * nm * density) if moved > 0 else math.nan
        )
        filled = max(0.0, hollow - of[PORE] * d)
        info[f"porosity_half_voxel_{word}"] = filled / max(body + (of[OUTSIDE] + of[PARTICLE]) * d, 1.0)
    exposed = elements.exposed
    kinds = place_kinds(elements.mean[exposed], elements.gaussian[exposed])
    shares = np.bincount(kinds, elements.areas[exposed], len(PLACES)) / max(float(elements.areas[exposed].sum()), 1e-12)
    return info | {f"{name}_share": float(share) for name, share in zip(PLACES, shares, strict=True)}


def _places(
    survey: Survey, elements: "Elements", found: _Found, particles: Array, outputs: Outputs
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return how the particles sit compared with the whole surface, and the columns that tell it of each."""
    from tomoseg.measurement.particles import particle_environment as q

    nm, space = survey.voxel_size_nm, survey.space
    centres = np.stack([particles[f"{a}_px"] for a in "zyx"], axis=1)
    radii = particles["diameter_px"] / 2
    near = q.neighbourhoods(elements, centres, radii + q.NEAR_PX)
    ball = max(2 * float(radii.max(initial=0)), 4.0)
    depth = q.outer_depth(space, centres, ball)
    in_pore = q.in_pores(space, centres, radii)
    curvature = q.curvature_at(elements, near)
    compared = q.random_places(elements)
    reach = np.full(len(compared), float(np.median(radii)) + q.NEAR_PX if len(radii) else 0.0)
    usual = q.neighbourhoods(elements, elements.centres[compared], reach) if len(radii) else []
    edges: dict[str, Any] = {}
    sits: dict[str, list[str]] = {"facet": [""] * len(particles), "plane": [""] * len(particles)}
    counts = np.zeros(len(particles), int)
    for kind, directions in (("facet", found.facets), ("plane", found.planes)):
        if directions is None:
            continue
        facing = directions.of(elements)
        n = len(directions.names)
        parts = q.facets_near(elements, near, facing, n)
        sits[kind] = [directions.names[int(p.argmax())] if n and p.max() >= q.LEAST_PART else "" for p in parts]
        counts = (parts >= q.LEAST_PART).sum(axis=1)
        elsewhere = (q.facets_near(elements, usual, facing, n) >= q.LEAST_PART).sum(axis=1)
        if len(particles):
            edges[f"particles_where_{kind}s_meet_share"] = float((counts >= 2).mean())
            edges[f"area_where_{kind}s_meet_share"] = float((elsewhere >= 2).mean()) if len(usual) else math.nan
    columns = {
        "depth_nm": depth * nm,
        "depth_px": depth,
        "in_pore": in_pore,
        "support_curvature_per_nm": curvature / nm,
        "support_curvature_per_px": curvature,
        "facet": np.array(sits["facet" if found.planes is None else "plane"], "U8"),
        "n_facets": counts.astype("i4"),
    }
    on_facet, on_plane = sits["facet"], sits["plane"]
    outputs.put("facet_table", q.facet_table(elements, found.facets, found.planes, on_facet, on_plane, nm))
    outputs.put("curvature_table", q.curvature_table(elements, near, nm))
    known = np.isfinite(curvature)
    exposed = elements[elements.exposed]
    info = {"n_particles_in_pores": int(in_pore.sum()), "n_facets": len(found.facets.names), **edges}
    mean = float(np.average(exposed.mean, weights=exposed.areas)) if len(exposed) else math.nan
    at = float(curvature[known].mean()) if known.any() else math.nan
    _add_units(info, "depth_ball", ball, 1, nm)
    info |= {"mean_curvature_per_px": mean, "mean_curvature_per_nm": mean / nm}
    info |= {"particles_curvature_per_px": at, "particles_curvature_per_nm": at / nm}
    return info, columns


def with_columns(table: Array, columns: dict[str, Array]) -> Array:
    """Return a table with more columns."""
    out = np.empty(len(table), [*table.dtype.descr, *((name, column.dtype) for name, column in columns.items())])
    for name in table.dtype.names or ():
        out[name] = table[name]
    for name, column in columns.items():
        out[name] = column
    return out


def _orientation(found: _Found) -> dict[str, Any]:
    crystal = found.crystal
    matrix = np.full((3, 3), np.nan) if crystal.matrix is None else crystal.matrix
    return {
        "crystal": "given" if found.given else "none found" if crystal.matrix is None else "found",
        "crystal_matrix": [float(v) for v in matrix.ravel()],
        "crystal_explained": crystal.explained,
        "crystal_explained_by_chance": crystal.random_mean,
        "crystal_explained_by_chance_std": crystal.random_std,
        "facet_tolerance_deg": found.facets.tolerance_deg,
    }


def _add_units(info: dict[str, Any], name: str, value_px: float, power: int, nm: float) -> None:
    digit = "" if power == 1 else str(power)
    info[f"{name}_nm{digit}"], info[f"{name}_px{digit}"] = value_px * nm**power, value_px


def _remarks(info: dict[str, Any], found: _Found | None) -> Iterator[str]:
    yield (
        f"support ({', '.join(info['support_classes'])}): porosity {info['porosity']:.1%} (with the surface half a "
        f"voxel out {info['porosity_half_voxel_out']:.1%}, in {info['porosity_half_voxel_in']:.1%}), "
        f"{info['n_open_pores']} open and {info['n_closed_pores']} closed pores"
    )
    if info["porosity_with_gaps"] > 1.25 * info["porosity"]:
        yield (
            f"with all that a ball as large as the widest pore cannot reach (gaps and corners as well) the porosity "
            f"would be {info['porosity_with_gaps']:.1%}: choose what is a pore with measure.pore_closing_nm"
        )
    if not math.isnan(info["specific_area_m2_g"]):
        yield f"specific surface area {info['specific_area_m2_g']:.4g} m2/g"
    if all(math.isnan(info[f"tortuosity_{a}"]) for a in "zyx"):
        yield "no tortuosity: no pore leads through the support"
    if found is not None and info["crystal"] == "none found":
        yield (
            f"{info['n_facets']} facets; they do not lie as those of one cubic crystal do (a polycrystal, or none): "
            "facets are numbered and have no planes"
        )
    elif found is not None:
        yield f"{info['n_facets']} facets, of a cubic crystal whose orientation was {info['crystal']}"
