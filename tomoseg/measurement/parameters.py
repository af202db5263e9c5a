"""Parameters of the measurement: what is counted, and how."""

from typing import Literal, Self

from pydantic import field_validator, model_validator

from tomoseg.lengths import Nanometres
from tomoseg.measurement.support.densities import density_g_cm3
from tomoseg.parameters import Field, Parameters


class MeasureParameters(Parameters):
    """What is counted, and how."""

    particle_class: str = Field(
        "last",
        min_length=1,
        description="name of the class whose objects are counted; 'last' is the class of the highest index",
    )
    connectivity: Literal[6, 18, 26] = Field(
        6,
        description="voxels belong to one object when they share a face (6), a face or an edge (18), or also a corner "
        "(26). 6 by default: two particles that meet only at an edge or a corner are two, and what this chips off a "
        "particle is smaller than min_voxels",
    )
    min_voxels: int = Field(
        27,
        ge=1,
        description="objects of fewer voxels are not counted; 27 = 3 x 3 x 3 is the smallest object that has a shape",
    )
    separate_touching: bool = Field(
        True, description="cut objects in which particles touch into these particles, see separate_by"
    )
    separate_by: Literal["distance", "intensity"] = Field(
        "distance",
        description="where to cut. distance: at narrow necks (watershed of the distance to the outside), see "
        "neck_ratio; intensity: at dim saddles (watershed of the intensity, smoothed by 1 px), see saddle_ratio, for "
        "bright particles that the labels run together",
    )
    neck_ratio: float = Field(
        0.7,
        gt=0,
        lt=1,
        description="cut where the radius of the neck is at most this fraction of the radius of the smaller particle, "
        "and at least 1 px less; 0.7 cuts two equal spheres when their centres are at least 1.43 radii apart",
    )
    saddle_ratio: float = Field(
        0.8,
        gt=0,
        lt=1,
        description="cut by intensity where the height of the saddle is at most this fraction of that of the lower "
        "peak; heights are above the mean intensity around the object",
    )
    uncertainty: bool = Field(
        False,
        description="find the uncertainty of every number from reconstructions of the even and of the odd tilts, which "
        "are made, labelled and measured in the same way; takes as long as reconstructing once and segmenting twice",
    )
    size_bin_nm: Nanometres | None = Field(
        None,
        description="bin width of the size distribution, nm; null: chosen from the data (the finer of the rules of "
        "Freedman-Diaconis and Sturges)",
    )
    atom_diameter_nm: Nanometres | None = Field(
        None,
        description="diameter of the particles' atoms for the dispersion, nm; null: that of the metal whose symbol is "
        "the name of the class (Ag, Au, Cu, Ir, Ni, Pd, Pt, Rh), and no dispersion for other names",
    )
    measure_support: bool = Field(
        True,
        description="measure the support (all classes but the background and the particles): its surface, facets and "
        "pores, and where particles sit on it",
    )
    support_density_g_cm3: float | str | None = Field(
        None,
        description="density of the support without pores, for the specific surface area in m2/g: a number in g/cm3, "
        "or the name of a material (gamma-alumina, alpha-alumina, silica, anatase, rutile, ceria, zirconia, magnesia, "
        "graphite); null: no specific surface area",
    )
    pore_closing_nm: Nanometres | None = Field(
        None,
        description="radius, nm, of a ball that comes from outside: what it cannot reach is a pore. null: a pore is "
        "what lies behind something narrower than itself, whatever its size. Straight channels and gaps, which are as "
        "wide at their mouths as inside, need a radius",
    )
    crystal_along_z: tuple[int, int, int] | None = Field(
        None,
        description="direction [h, k, l] of the support's cubic crystal along z of the volume; planes are then "
        "assigned by it. Needs crystal_along_x, perpendicular to it; null: the orientation is sought in the facets",
    )
    crystal_along_x: tuple[int, int, int] | None = Field(
        None, description="direction [h, k, l] of the cubic crystal along x of the volume, see crystal_along_z"
    )
    facet_tolerance_deg: float = Field(
        10.0,
        ge=3,
        le=25,
        description="surface whose normal is within this angle of that of a plane or facet belongs to it, degrees",
    )

    @field_validator("support_density_g_cm3")
    @classmethod
    def _known_density(cls, value: float | str | None) -> float | str | None:
        density_g_cm3(value)
        return value

    @model_validator(mode="after")
    def _perpendicular(self) -> Self:
        z, x = self.crystal_along_z, self.crystal_along_x
        if (z is None) != (x is None):
            raise ValueError("crystal_along_z and crystal_along_x are given together or not at all")
        if z is not None and x is not None:
            if not any(z) or not any(x):
                raise ValueError("[0, 0, 0] is not a direction: crystal_along_z and crystal_along_x need other values")
            if sum(a * b for a, b in zip(z, x, strict=True)):
                raise ValueError("the directions crystal_along_z and crystal_along_x must be perpendicular")
        return self
