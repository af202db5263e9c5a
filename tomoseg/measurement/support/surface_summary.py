"""Numbers that sum up the support's surface: areas, specific areas, what half a voxel changes, kinds of surface."""

import math

import numpy as np

from tomoseg.measurement.common.columns import in_nm_and_px
from tomoseg.measurement.support.curvature import SIGMA_PX, SURFACE_KINDS, surface_kinds
from tomoseg.measurement.support.surface_elements import OUTSIDE, PARTICLE, PORE, SurfaceElements


def surface_summary(
    elements: SurfaceElements,
    volume_px3: float,
    body_px3: float,
    pores_px3: float,
    voxel_size_nm: float,
    density_g_cm3: float,
) -> dict[str, float]:
    """Return the numbers that sum up the surface, by their names in the project file.

    Where the surface would lie half a voxel further out or in, volume and area follow from Steiner's formula,
    V(d) = V + A d + M d^2 and A(d) = A + 2 M d, with the integral M of the mean curvature over the surface.

    The volumes are those of the support, of the body (the support with its pores and what of particles lies in it), and
    of the pores; the density is NaN where unknown.
    """
    nm = voxel_size_nm
    area, bend = float(elements.areas.sum()), float((elements.mean * elements.areas).sum())
    outer, walls, covered = (float(elements.areas[elements.facing == kind].sum()) for kind in (OUTSIDE, PORE, PARTICLE))

    def specific(area_px2: float, volume_px3: float) -> float:
        """Return m2/g: 1 nm2 / (nm3 g/cm3) = 1000 m2/g."""
        return 1000 * area_px2 / (volume_px3 * nm * density_g_cm3) if volume_px3 > 0 else math.nan

    found = {
        "support_density_g_cm3": density_g_cm3,
        "curvature_sigma_px": SIGMA_PX,
        **in_nm_and_px("support_volume", volume_px3, nm, 3),
        **in_nm_and_px("support_area", area, nm, 2),
        **in_nm_and_px("outer_area", outer, nm, 2),
        **in_nm_and_px("pore_wall_area", walls, nm, 2),
        **in_nm_and_px("covered_area", covered, nm, 2),
        **in_nm_and_px("exposed_area", outer + walls, nm, 2),
        "specific_area_m2_g": specific(area, volume_px3),
        "specific_exposed_area_m2_g": specific(outer + walls, volume_px3),
    }
    for word, d in (("out", 0.5), ("in", -0.5)):
        moved, spread = volume_px3 + area * d + bend * d * d, area + 2 * bend * d
        left = max(0.0, pores_px3 - walls * d)
        found |= in_nm_and_px(f"support_volume_half_voxel_{word}", moved, nm, 3)
        found |= in_nm_and_px(f"support_area_half_voxel_{word}", spread, nm, 2)
        found[f"specific_area_half_voxel_{word}_m2_g"] = specific(spread, moved)
        found[f"porosity_half_voxel_{word}"] = left / max(body_px3 + (outer + covered) * d, 1.0)
    exposed = elements.exposed
    areas = elements.areas[exposed]
    kinds = surface_kinds(elements.mean[exposed], elements.gaussian[exposed])
    shares = np.bincount(kinds, areas, len(SURFACE_KINDS)) / max(float(areas.sum()), 1e-12)
    return found | {f"{name}_share": float(share) for name, share in zip(SURFACE_KINDS, shares, strict=True)}
