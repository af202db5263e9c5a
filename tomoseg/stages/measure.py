"""Stage `measure`: numbers from labels. Volume and surface of each class, each particle, the size distribution."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import field_validator, model_validator

from tomoseg import schema
from tomoseg.arrays import Array, ArraySource, Input, Outputs
from tomoseg.errors import InputError, StageFailed
from tomoseg.parameters import Field, Parameters
from tomoseg.runtime import Runtime, slabs
from tomoseg.stages import support
from tomoseg.stages.base import Stage
from tomoseg.stages.support import density_g_cm3

if TYPE_CHECKING:
    from tomoseg.measurement.common.components import Component, Connectivity
    from tomoseg.measurement.common.surface import Box
    from tomoseg.measurement.particles.gaps import Compact
    from tomoseg.measurement.particles.missing_wedge import MissingWedge
    from tomoseg.measurement.particles.particle_table import Particle, ReadMask, Scene, Table

# The part of the volume above which one particle makes one doubt that it is one.
HUGE_FRACTION = 0.05
MANY_ELONGATED = 0.1  # of the particles, along the missing wedge: worth a warning
# Larger objects, of more than both, are not cut: they are bodies rather than clusters of particles. What has to be held
# of one while it is cut, 24 bytes per voxel, thus fits in the memory allowed for any volume of up to 6 times as much.
MOST_CUT_VOXELS, MOST_CUT_FRACTION = 1 << 22, 0.015
# Of the memory allowed: what cutting may take, what is read of a volume at once, and the surfaces kept.
CUTTING_SHARE, READING_SHARE, SURFACES_SHARE = 0.6, 0.125, 0.125


class MeasureParameters(Parameters):
    """What is counted, and how."""

    particle_class: str = Field(
        "last", min_length=1, description="name of the class whose objects are counted; 'last': the highest class index"
    )
    connectivity: Literal[6, 18, 26] = Field(
        6,
        description="voxels are one object when they share a face (6), a face or an edge (18), or also a corner (26). "
        "6, because two particles that meet at an edge or a corner only are two; what that chips off a particle "
        "is smaller than min_voxels",
    )
    min_voxels: int = Field(
        27, ge=1, description="smaller objects are not counted, voxels; 27 = 3 x 3 x 3, the least that has a shape"
    )
    separate_touching: bool = Field(
        True, description="cut objects into the particles that touch in them, see separate_by"
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
        description="cut where the neck's radius is at most this part of the radius of the smaller particle, and at "
        "least 1 px less; 0.7 cuts two equal spheres when their centres are 1.43 radii apart or more",
    )
    saddle_ratio: float = Field(
        0.8,
        gt=0,
        lt=1,
        description="cut by intensity where the saddle is at most this part as high as the lower one of the two peaks, "
        "above the mean intensity around the object",
    )
    size_bin_nm: float | None = Field(
        None,
        gt=0,
        description="bin width of the size distribution, nm; null: from the data (Freedman-Diaconis, Sturges)",
    )
    atom_diameter_nm: float | None = Field(
        None,
        gt=0,
        description="diameter of the atoms of the particles, nm, for the dispersion; null: that of the metal whose "
        "symbol is the name of the class (Ag, Au, Cu, Ir, Ni, Pd, Pt, Rh), no dispersion for other names",
    )
    measure_support: bool = Field(
        True,
        description="measure the support (all classes but the background and the particles): its surface, facets and "
        "pores, and where particles sit on it",
    )
    support_density_g_cm3: float | str | None = Field(
        None,
        description="density of the support without pores, g/cm3, or the name of a material (gamma-alumina, "
        "alpha-alumina, silica, anatase, rutile, ceria, zirconia, magnesia, graphite): for the specific surface area "
        "in m2/g; null: none",
    )
    pore_closing_nm: float | None = Field(
        None,
        gt=0,
        description="radius, nm, of a ball that comes from outside: what it cannot reach is a pore. null: a pore is "
        "what lies behind something narrower than itself, whatever its size; straight channels and gaps, as wide at "
        "their mouths as inside, need a radius",
    )
    crystal_along_z: tuple[int, int, int] | None = Field(
        None,
        description="direction [h, k, l] of the support's cubic crystal along z of the volume, with crystal_along_x "
        "perpendicular to it: planes are then told by it; null: the orientation is sought in the facets",
    )
    crystal_along_x: tuple[int, int, int] | None = Field(
        None, description="direction [h, k, l] of the cubic crystal along x of the volume, see crystal_along_z"
    )
    facet_tolerance_deg: float = Field(
        10.0, ge=3, le=25, description="surface within this angle of a plane's or facet's normal belongs to it, degrees"
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
                raise ValueError("[0, 0, 0] in crystal_along_z or crystal_along_x is no direction")
            if sum(a * b for a, b in zip(z, x, strict=True)):
                raise ValueError("the directions crystal_along_z and crystal_along_x must be perpendicular")
        return self


@dataclass
class _Counted:
    """Particles as they are measured, and what was left out or needs saying."""

    rows: Array  # of `tomoseg.measurement.particles.particle_table.MEASURED`
    gaps_px: Array  # to the surface of the nearest other one
    n_small: int = 0
    n_cut: int = 0
    n_uncut: int = 0  # too large to be a cluster of particles
    largest_fraction: float = 0.0  # of the volume, before cutting


def run(
    *,
    labels: Input,
    volume: Input,
    params: MeasureParameters,
    runtime: Runtime,
    outputs: Outputs,
    angles_deg: Input | None = None,
    refined_angles_deg: Input | None = None,
    reconstruction_info: Input | None = None,
) -> None:
    """Measure the classes of `labels` and the particles of one of them, with intensities from `volume`.

    The tilts tell which way the reconstruction elongates; without them, no particle is suspected of that.
    """
    from tomoseg.measurement.particles.particle_table import particle_table

    names = class_names(labels)
    voxel_size_nm = float(labels.attrs.get("voxel_size_nm", np.nan))
    if not np.isfinite(voxel_size_nm):
        voxel_size_nm = np.nan
        runtime.warn(
            "the voxel size is unknown: the columns in nm are NaN, those in px are right. "
            "Give it at import (--pixel-size NM)."
        )
    if tuple(labels.shape) != tuple(volume.shape):
        raise InputError(
            f"labels {tuple(labels.shape)} and volume {tuple(volume.shape)} differ in shape; segment again."
        )
    k = _class_to_count(names, params.particle_class)
    where = _in_memory(labels, runtime)
    survey = support.begin(where, names, k, voxel_size_nm, params, runtime)
    classes = _measure_classes(where, names, voxel_size_nm, runtime, survey)
    outputs.put("class_table", classes)
    counted = _no_particles() if k is None else _measure_particles(where, volume, k, params, runtime)
    wedge = _missing_wedge(angles_deg if refined_angles_deg is None else refined_angles_deg)
    table = particle_table(counted.rows, counted.gaps_px, voxel_size_nm, k or 0, wedge)
    if survey is not None:
        table = survey.finish(table, classes["voxels"], outputs)
    outputs.put("particle_table", table)
    info = _counts(table, counted, "" if k is None else names[k], params)
    info |= _sizes(table, voxel_size_nm, params, outputs)
    info |= _dispersion(info, params)
    info |= _limits(voxel_size_nm, wedge, reconstruction_info)
    outputs.set_attrs("measurement_info", info)
    for text in _remarks(info):
        runtime.say(text)
    for text in _doubts(info, table, wedge, counted, params):
        runtime.warn(text)


def class_names(labels: Input) -> list[str]:
    """Return the names of the classes, in class order."""
    stored = labels.attrs.get("class_names")
    if stored is None or len(stored) == 0:
        raise InputError("the labels carry no class names (attribute class_names); segment again.")
    return [name.decode() if isinstance(name, bytes) else str(name) for name in stored]


def _class_to_count(names: Sequence[str], wanted: str) -> int | None:
    """Return the index of the class to count; None where there is nothing but background."""
    if wanted in names:
        return names.index(wanted)
    if wanted == "last":
        return len(names) - 1 if len(names) > 1 else None
    raise InputError(
        f"measure.particle_class: there is no class {wanted!r}; the labels have {', '.join(map(repr, names))}, "
        "or say 'last' for the highest index."
    )


def _in_memory(source: ArraySource, runtime: Runtime) -> ArraySource:
    """Return the whole array where it takes an eighth of the memory allowed at most, else the handle."""
    n_bytes = int(np.prod(source.shape)) * source.dtype.itemsize
    return source[:] if n_bytes <= runtime.max_memory // 8 else source


def _measure_classes(
    labels: ArraySource, names: Sequence[str], voxel_size_nm: float, runtime: Runtime, survey: support.Survey | None
) -> Array:
    from tomoseg.measurement.common import class_table as classes
    from tomoseg.measurement.common.blocks import strips

    pieces = strips(labels.shape, runtime.max_memory * READING_SHARE, labels.dtype.itemsize)
    counter = classes.ClassCounter(len(names))
    for strip in runtime.track(pieces, "counting voxels"):
        values = labels[strip.read]
        if values.max() >= len(names):
            raise InputError(
                f"the labels hold class {values.max()}, but only {len(names)} classes have names; segment again."
            )
        for block, here in strip.parts(values):
            counter.add(here, block)
            if survey is not None:
                survey.count(here, block)
    levels = counter.levels()
    area = np.zeros(len(names))
    for strip in runtime.track(pieces, "meshing surfaces"):
        for block, here in strip.parts(labels[strip.read]):
            runtime.check()
            for k, level in enumerate(levels):
                mesh = classes.block_mesh(here == k, level, block)
                area[k] += mesh.area_px2()
                if survey is not None:
                    survey.take(k, mesh, block, labels)
            if survey is not None:
                survey.take_all(here, block, labels)
    return classes.class_table(names, counter.voxels, area, voxel_size_nm)


def _no_particles() -> _Counted:
    from tomoseg.measurement.particles.particle_table import MEASURED

    return _Counted(np.zeros(0, MEASURED), np.zeros(0))


def _measure_particles(
    labels: ArraySource, volume: ArraySource, k: int, params: MeasureParameters, runtime: Runtime
) -> _Counted:
    from tomoseg.measurement.common.components import find_components
    from tomoseg.measurement.particles.gaps import Compact, Extent, SurfaceStore, surface_gaps
    from tomoseg.measurement.particles.particle_table import MEASURED, Scene

    shape = labels.shape[0], labels.shape[1], labels.shape[2]
    pieces = _slabs_to_label(shape, runtime)
    masks = (labels[z] == k for z in runtime.track(pieces, "finding particles"))
    components, n_small = find_components(masks, params.connectivity, params.min_voxels)
    largest = int(components["voxels"].max(initial=0))
    to_cut = components["voxels"] <= max(MOST_CUT_VOXELS, MOST_CUT_FRACTION * math.prod(shape))
    n_uncut = int(np.count_nonzero(~to_cut)) if params.separate_touching else 0
    if params.separate_touching:
        _check_memory(int(components["voxels"][to_cut].max(initial=0)), runtime)
    objects = _Objects(components, to_cut, Scene(_in_memory(volume, runtime), labels, k), params, runtime)
    rows, home, n_cut = list[Any](), list[int](), 0
    surfaces = SurfaceStore(
        runtime.max_memory * SURFACES_SHARE, lambda n: objects.surfaces(home[n], bisect_left(home, home[n]))
    )
    corners = list[tuple[Array, Array]]()
    for i in runtime.track(range(len(components)), "measuring particles"):
        particles, n_parts = objects.particles(i)
        n_cut += n_parts > 1
        n_small += n_parts - len(particles)
        for particle in particles:
            row, points = particle.measured(objects.scene, runtime.max_memory * READING_SHARE)
            surface = Compact.of(points)
            surfaces.add(len(rows), surface)
            corners.append(surface.corners())
            rows.append(row)
            home.append(i)
    low, high = np.array(corners, dtype=np.float64).reshape(-1, 2, 3).swapaxes(0, 1)
    gaps = surface_gaps(Extent(low, high), surfaces.__getitem__, lambda n: runtime.track(n, "measuring gaps"))
    return _Counted(np.array(rows, MEASURED), gaps, n_small, n_cut, n_uncut, largest / math.prod(shape))


@dataclass(frozen=True)
class _Objects:
    """The connected objects of the class counted, and the particles in each: the same whenever they are asked for."""

    components: Array
    to_cut: Array  # which of them may be cut
    scene: "Scene"
    params: MeasureParameters
    runtime: Runtime

    def particles(self, i: int) -> tuple[list["Particle"], int]:
        """Return the particles of object i that are large enough, and how many there are of any size."""
        from tomoseg.measurement.particles.particle_table import grown_box

        row = self.components[i]
        box = grown_box(row["start"], row["stop"], self.scene.labels.shape)
        labels, k = self.scene.labels, self.scene.class_index
        component = _component(labels, k, row, box, self.params.connectivity, self.runtime)
        if self.params.separate_touching and self.to_cut[i]:
            found = _parts(component, box, self.scene, self.params, self.runtime)
        else:
            found = [_whole(row, component, box)]
        return [p for p in found if p.extent["voxels"] >= self.params.min_voxels], len(found)

    def surfaces(self, i: int, first: int) -> Mapping[int, "Compact"]:
        """Return points of the surfaces of the particles of object i, which are numbered from `first` on."""
        from tomoseg.measurement.particles.gaps import Compact

        strip_bytes = self.runtime.max_memory * READING_SHARE
        particles, _ = self.particles(i)
        return {first + k: Compact.of(p.measured(self.scene, strip_bytes)[1]) for k, p in enumerate(particles)}


def _slabs_to_label(shape: Sequence[int], runtime: Runtime) -> list[slice]:
    from tomoseg.measurement.common.components import BYTES_PER_VOXEL

    return slabs(shape[0], runtime.slab_size(BYTES_PER_VOXEL * math.prod(shape[1:]), shape[0]))


def _check_memory(n_voxels: int, runtime: Runtime) -> None:
    """Refuse to cut an object of `n_voxels` where that does not fit in the memory allowed."""
    from tomoseg.measurement.particles.separation import BYTES_PER_VOXEL

    needed = BYTES_PER_VOXEL * n_voxels / CUTTING_SHARE
    if needed > runtime.max_memory:
        raise StageFailed(
            f"an object of {n_voxels} voxels cannot be cut into touching particles in the memory that --max-memory "
            f"allows ({runtime.max_memory / 2**20:.0f} MiB): give {needed / 2**20:.0f} MiB, or count objects as they "
            "are (measure.separate_touching=false)."
        )


def _component(
    labels: ArraySource, k: int, row: Any, box: "Box", connectivity: "Connectivity", runtime: Runtime
) -> "Component":
    """Return one component of a class, to be looked at in a box around it."""
    from tomoseg.measurement.common.components import Component
    from tomoseg.measurement.particles.particle_table import LARGE_VOXELS, box_voxels

    lengths = [s.stop - s.start for s in box]
    held = labels[box] if box_voxels(box) <= LARGE_VOXELS else None
    pieces = [slice(0, lengths[0])] if held is not None else _slabs_to_label(lengths, runtime)

    def masks() -> Iterator[Array]:
        for z in pieces:
            runtime.check()
            yield (labels[_planes(box, z)] if held is None else held) == k

    return Component(masks, row["seed"] - [s.start for s in box], connectivity)


def _planes(box: "Box", z: slice) -> "Box":
    """Return these planes of a box."""
    return slice(box[0].start + z.start, box[0].start + z.stop), box[1], box[2]


def _whole(row: Any, component: "Component", box: "Box") -> "Particle":
    """Return a component as one particle."""
    from tomoseg.measurement.common.blocks import inside
    from tomoseg.measurement.common.components import BoxReader
    from tomoseg.measurement.particles.particle_table import Particle

    reader = BoxReader(component)
    return Particle(row, lambda wanted: reader.read(inside(wanted, box)))


def _parts(
    component: "Component", box: "Box", scene: "Scene", params: MeasureParameters, runtime: Runtime
) -> list["Particle"]:
    """Return the particles into which a component is cut."""
    from tomoseg.measurement.common.blocks import inside
    from tomoseg.measurement.common.sparse_object import Body
    from tomoseg.measurement.particles.particle_table import Particle
    from tomoseg.measurement.particles.separation import separate_body, separate_by_intensity

    body = Body.of(component, box)
    if params.separate_by == "distance":
        parts = separate_body(body, params.neck_ratio, runtime.check)
    else:
        parts = separate_by_intensity(body, scene.volume, scene.outside, params.saddle_ratio, runtime.check)

    def mask_of(part: int) -> "ReadMask":
        return lambda wanted: body.mask(inside(wanted, box), parts, part)

    return [Particle(extent, mask_of(part)) for part, extent in enumerate(body.extents(parts), start=1)]


def _missing_wedge(angles_deg: Input | None) -> "MissingWedge | None":
    from tomoseg.measurement.particles.missing_wedge import MissingWedge

    return None if angles_deg is None or angles_deg.shape[0] == 0 else MissingWedge.of(angles_deg[:])


def _counts(table: "Table", counted: _Counted, name: str, params: MeasureParameters) -> dict[str, Any]:
    return {
        "particle_class": name,
        "n_particles": len(table),
        "n_touching_border": int(table["touches_border"].sum()),
        "n_in_size_statistics": int((~table["touches_border"]).sum()),
        "n_excluded_small": counted.n_small,
        "n_objects_cut": int(counted.n_cut),
        "n_elongated_along_beam": int(table["elongated_along_beam"].sum()),
        "min_voxels": params.min_voxels,
    }


def _sizes(table: "Table", voxel_size_nm: float, params: MeasureParameters, outputs: Outputs) -> dict[str, Any]:
    """Store the size distribution and return the numbers that sum it up, in nm and in px."""
    from tomoseg.measurement.particles import sizes

    # A particle that the border cuts has no known size.
    whole = table[~table["touches_border"]]
    diameters = whole["diameter_px"]
    outputs.put("size_table", sizes.size_table(diameters, voxel_size_nm, params.size_bin_nm))
    numbers = {_stem(key): value for key, value in sizes.size_summary(diameters).items()}
    for key, (low, high) in sizes.confidence_intervals(diameters).items():
        numbers |= {f"{_stem(key)}_ci95_low": low, f"{_stem(key)}_ci95_high": high}
    for key, change in sizes.half_voxel_changes(diameters, whole["diameter_half_voxel_px"]).items():
        numbers[f"{_stem(key)}_half_voxel"] = change
    info: dict[str, Any] = {}
    for key, value in numbers.items():
        info[f"{key}_nm"], info[f"{key}_px"] = value * voxel_size_nm, value
    return info


def _stem(key: str) -> str:
    return f"{key}_diameter" if key in ("mean", "std", "median") else key


def _dispersion(info: Mapping[str, Any], params: MeasureParameters) -> dict[str, float]:
    """Return the dispersion and its confidence interval; NaN where the atoms' diameter or the voxel size is unknown."""
    from tomoseg.measurement.particles.dispersion import atom_diameter_of, dispersion

    atom = params.atom_diameter_nm or atom_diameter_of(info["particle_class"])
    return {
        "atom_diameter_nm": atom,
        "dispersion": dispersion(info["d32_nm"], atom),
        "dispersion_ci95_low": dispersion(info["d32_ci95_high_nm"], atom),
        "dispersion_ci95_high": dispersion(info["d32_ci95_low_nm"], atom),
    }


def _limits(voxel_size_nm: float, wedge: "MissingWedge | None", reconstruction_info: Input | None) -> dict[str, float]:
    """Return what limits the numbers: voxel size, resolution and missing wedge; NaN where unknown."""
    known = {} if reconstruction_info is None else reconstruction_info.attrs
    limits = {"voxel_size_nm": voxel_size_nm}
    limits |= {key: float(known.get(key, np.nan)) for key in ("resolution_nm", "resolution_px")}
    return limits | {"missing_wedge_deg": np.nan if wedge is None else wedge.gap_deg}


def _remarks(info: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was counted, in words."""
    yield (
        f"{info['n_particles']} particles of class {info['particle_class']!r}; {info['n_touching_border']} of them "
        "touch the border of the volume and are left out of the size statistics"
    )
    if info["n_excluded_small"]:
        n = info["n_excluded_small"]
        yield f"{n} objects of fewer than {info['min_voxels']} voxels (min_voxels) were not counted"
    if info["n_objects_cut"]:
        yield f"{info['n_objects_cut']} objects were cut into touching particles (separate_touching)"
    if not info["n_in_size_statistics"]:
        return
    unit = "px" if np.isnan(info["voxel_size_nm"]) else "nm"
    mean, low, high, half = (
        info[f"mean_diameter{what}_{unit}"] for what in ("", "_ci95_low", "_ci95_high", "_half_voxel")
    )
    sure = "" if np.isnan(low) else f" (95% confidence {low:.4g} to {high:.4g})"
    median, d32 = info[f"median_diameter_{unit}"], info[f"d32_{unit}"]
    yield f"mean diameter {mean:.4g} {unit}{sure}, median {median:.4g} {unit}, d32 {d32:.4g} {unit}"
    if np.isfinite(info["dispersion"]):
        yield f"dispersion {info['dispersion']:.2g}, from d32 and atoms of {info['atom_diameter_nm']:g} nm"
    resolution = info[f"resolution_{unit}"]
    known = f"; the resolution by shell correlation is {resolution:.3g} {unit}" if np.isfinite(resolution) else ""
    yield f"a surface that lies half a voxel further out makes the mean diameter {half:.2g} {unit} larger{known}"


def _doubts(
    info: Mapping[str, Any],
    table: "Table",
    wedge: "MissingWedge | None",
    counted: _Counted,
    params: MeasureParameters,
) -> Iterator[str]:
    """Yield what needs care in the numbers, in words."""
    if info["n_particles"] and not info["n_in_size_statistics"]:
        yield "every particle touches the border of the volume: there are no size statistics"
    if wedge is not None:
        yield from _elongation_doubts(table[~table["touches_border"]], wedge)
    if counted.n_uncut:
        yield (
            f"{counted.n_uncut} objects of more than {MOST_CUT_FRACTION:.1%} of the volume were not cut: they are "
            "bodies rather than clusters of touching particles (separate_touching)"
        )
    if counted.largest_fraction > HUGE_FRACTION:
        yield (
            f"one object of class {info['particle_class']!r} fills {counted.largest_fraction:.0%} of the volume: "
            "it may be a support rather than a particle; choose another measure.particle_class "
            f"(now {params.particle_class!r})"
        )


def _elongation_doubts(whole: "Table", wedge: "MissingWedge") -> Iterator[str]:
    """Yield a warning where many particles, and more than by chance, are elongated along the missing wedge."""
    from tomoseg.measurement.particles.missing_wedge import more_than_chance

    n, n_long = int(whole["elongated_along_beam"].sum()), int(wedge.elongated(whole["elongation"]).sum())
    if n >= MANY_ELONGATED * len(whole) and more_than_chance(n, n_long):
        yield (
            f"{n} of {len(whole)} particles are elongated along the direction that the tilts did not measure (a gap of "
            f"{wedge.gap_deg:.0f} degrees), {n} of the {n_long} that are elongated at all: their shape, and in part "
            "their size, is that of the missing wedge (elongated_along_beam)"
        )


STAGE = Stage(
    name="measure",
    version=3,
    summary="volume and surface of each class, particles and their sizes",
    parameters=MeasureParameters,
    reads=(schema.LABELS, schema.VOLUME, schema.ANGLES, schema.REFINED_ANGLES, schema.RECONSTRUCTION_INFO),
    writes=(
        schema.CLASS_TABLE,
        schema.PARTICLE_TABLE,
        schema.SIZE_TABLE,
        schema.SUPPORT_INFO,
        schema.FACET_TABLE,
        schema.ORIENTATION_MAP,
        schema.CURVATURE_TABLE,
        schema.PORE_TABLE,
        schema.PORE_SIZE_TABLE,
        schema.MEASUREMENT_INFO,
    ),
    run=run,
)
