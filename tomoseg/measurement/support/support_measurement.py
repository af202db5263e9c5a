"""The support measured as a whole: its pores, its surface and facets, and where particles sit on it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.measurement.parameters import MeasureParameters
from tomoseg.measurement.pores.pore_space import PoreSpace
from tomoseg.measurement.pores.pore_summary import pore_summary
from tomoseg.measurement.pores.pore_table import pore_size_table, pore_table
from tomoseg.measurement.support.densities import density_g_cm3
from tomoseg.measurement.support.facets import find_facets
from tomoseg.measurement.support.particle_environment import particle_environment
from tomoseg.measurement.support.surface_elements import SurfaceElements
from tomoseg.measurement.support.surface_summary import surface_summary
from tomoseg.runtime import Runtime
from tomoseg.words import count


@dataclass(frozen=True)
class SupportMeasurement:
    """What is measured of the support.

    Attributes
    ----------
    tables : of facets, curvature, pores and pore sizes, by their names in the project file
    orientation_map : (2, size, size) f4, density of the normals, 1/sr
    summary : numbers, by their names in the project file
    particle_columns : more columns (n,) of the table of particles, by name
    """

    tables: dict[str, NDArray[np.void]]
    orientation_map: NDArray[np.float32]
    summary: dict[str, Any]
    particle_columns: dict[str, Array]


def measure_support(
    elements: SurfaceElements,
    space: PoreSpace,
    class_names: Sequence[str],
    n_voxels: int,
    particles: Array,
    voxel_size_nm: float,
    resolved_px: float,
    params: MeasureParameters,
    runtime: Runtime,
) -> SupportMeasurement:
    """Measure the support, given its surface, its pores, the names of its classes, and how many voxels are of them.

    Pores narrower than `resolved_px` are not resolved.
    """
    steps = runtime.track(("facets", "pores", "particles"), "measuring the support")
    next(steps)
    found = find_facets(elements, params.facet_tolerance_deg, params.crystal_along_z, params.crystal_along_x)
    next(steps)
    walls = np.bincount(np.maximum(elements.pore, 0), elements.areas, minlength=len(space.closed) + 1)[1:]
    pores = pore_table(space, walls, found.facets.normals, voxel_size_nm, resolved_px)
    sizes = pore_size_table(space, pores["id"][~pores["below_resolution"]], voxel_size_nm)
    runtime.check()
    summary: dict[str, Any] = {"support_classes": list(class_names), "cell_px": space.side}
    summary |= pore_summary(space, pores, sizes, voxel_size_nm, params.pore_closing_nm, runtime.check)
    next(steps)
    tables, numbers, columns = particle_environment(elements, space, found, particles, voxel_size_nm)
    density = density_g_cm3(params.support_density_g_cm3)
    body_px3, pores_px3 = summary["body_volume_px3"], summary["pore_volume_px3"]
    summary |= surface_summary(elements, float(n_voxels), body_px3, pores_px3, voxel_size_nm, density)
    summary |= numbers | found.crystal.summary() | {"facet_tolerance_deg": params.facet_tolerance_deg}
    next(steps, None)  # ends the progress
    for text in support_remarks(summary):
        runtime.say(text)
    tables |= {"pore_table": pores, "pore_size_table": sizes}
    return SupportMeasurement(tables, found.orientation_map, summary, columns)


def support_remarks(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was found, in words."""
    yield (
        f"support ({', '.join(summary['support_classes'])}): porosity {summary['porosity']:.1%} "
        f"({summary['porosity_half_voxel_out']:.1%} with the surface half a voxel further out, "
        f"{summary['porosity_half_voxel_in']:.1%} half a voxel further in), "
        f"{summary['n_open_pores']} open and {summary['n_closed_pores']} closed pores; counted apart: "
        f"{summary['n_pores_touching_border']} cut by the border of the volume, {summary['n_pores_below_resolution']} "
        "narrower than the resolution"
    )
    if summary["porosity_with_gaps"] > 1.25 * summary["porosity"]:
        yield (
            f"the porosity would be {summary['porosity_with_gaps']:.1%} with everything that a ball as wide as the "
            "widest pore cannot reach, gaps and corners included: measure.pore_closing_nm sets what counts as a pore"
        )
    if not np.isnan(summary["specific_area_m2_g"]):
        yield f"specific surface area {summary['specific_area_m2_g']:.4g} m2/g"
    if all(np.isnan(summary[f"tortuosity_{axis}"]) for axis in "zyx"):
        yield "no tortuosity: no pore leads through the support"
    if summary["crystal"] == "none found":
        yield (
            f"{count(summary['n_facets'], 'facet')}, which fit no single cubic crystal (the support may be a "
            "polycrystal or amorphous): they are numbered and have no planes"
            if summary["n_facets"]
            else "no facets: the surface is nowhere flat over 8 px and more"
        )
    else:
        yield f"{count(summary['n_facets'], 'facet')}; the orientation of the cubic crystal was {summary['crystal']}"
