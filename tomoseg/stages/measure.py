"""Stage `measure`: numbers from labels. Volume and surface of each class, each particle, the size distribution."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import field_validator, model_validator

from tomoseg import schema
from tomoseg.arrays import Array, ArraySource, Input, Outputs
from tomoseg.errors import InputError, StageFailed
from tomoseg.runtime import Runtime, slabs
from tomoseg.stages import support
from tomoseg.stages.base import Field, Parameters, Stage
from tomoseg.stages.support import density_g_cm3

if TYPE_CHECKING:
    from tomoseg.measure.components import Component, Connectivity
    from tomoseg.measure.particles import Particle, ReadMask
    from tomoseg.measure.surface import Box

# The part of the volume above which one particle makes one doubt that it is one.
HUGE_FRACTION = 0.05
# Larger objects, of more than both, are not cut: they are bodies rather than clusters of particles. What has to be held
# of one while it is cut, 24 bytes per voxel, thus fits in the memory allowed for any volume of up to 6 times as much.
MOST_CUT_VOXELS, MOST_CUT_FRACTION = 1 << 22, 0.015
CUTTING_SHARE = 0.6  # of the memory allowed


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
        True, description="cut objects at narrow necks (watershed of the distance to the outside), see neck_ratio"
    )
    neck_ratio: float = Field(
        0.7,
        gt=0,
        lt=1,
        description="cut where the neck's radius is at most this part of the radius of the smaller particle, and at "
        "least 1 px less; 0.7 cuts two equal spheres when their centres are 1.43 radii apart or more",
    )
    size_bin_nm: float | None = Field(
        None,
        gt=0,
        description="bin width of the size distribution, nm; null: from the data (Freedman-Diaconis, Sturges)",
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

    rows: list[dict[str, Any]] = field(default_factory=list)
    n_small: int = 0
    n_cut: int = 0
    n_uncut: int = 0  # too large to be a cluster of particles
    largest_fraction: float = 0.0  # of the volume, before cutting


def run(*, labels: Input, volume: Input, params: MeasureParameters, runtime: Runtime, outputs: Outputs) -> None:
    """Measure the classes of `labels` and the particles of one of them, with intensities from `volume`."""
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
    table = _measure_classes(where, names, voxel_size_nm, runtime, survey)
    outputs.put("class_table", table)
    counted = _Counted() if k is None else _measure_particles(where, volume, k, params, runtime)
    if survey is not None:
        survey.finish(counted.rows, table["voxels"], outputs)
    _store(counted, "" if k is None else names[k], voxel_size_nm, params, runtime, outputs)


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
    from tomoseg.measure import classes
    from tomoseg.measure.blocks import strips

    pieces = strips(labels.shape, runtime.max_memory / 8, labels.dtype.itemsize)
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


def _measure_particles(
    labels: ArraySource, volume: ArraySource, k: int, params: MeasureParameters, runtime: Runtime
) -> _Counted:
    from tomoseg.measure.components import find_components
    from tomoseg.measure.particles import grown_box

    shape = labels.shape[0], labels.shape[1], labels.shape[2]
    pieces = _slabs_to_label(shape, runtime)
    masks = (labels[z] == k for z in runtime.track(pieces, "finding particles"))
    components, n_small = find_components(masks, params.connectivity, params.min_voxels)
    largest = int(components["voxels"].max(initial=0))
    counted = _Counted(n_small=n_small, largest_fraction=largest / math.prod(shape))
    to_cut = components["voxels"] <= max(MOST_CUT_VOXELS, MOST_CUT_FRACTION * math.prod(shape))
    if params.separate_touching:
        counted.n_uncut = int(np.count_nonzero(~to_cut))
        _check_memory(int(components["voxels"][to_cut].max(initial=0)), runtime)
    intensity = _in_memory(volume, runtime)
    for i in runtime.track(range(len(components)), "measuring particles"):
        row = components[i]
        box = grown_box(row["start"], row["stop"], shape)
        component = _component(labels, k, row, box, params.connectivity, runtime)
        cut = params.separate_touching and to_cut[i]
        found = _parts(component, box, params.neck_ratio, runtime) if cut else [_whole(row, component, box)]
        counted.n_cut += len(found) > 1
        for particle in found:
            if particle.extent["voxels"] < params.min_voxels:
                counted.n_small += 1
            else:
                counted.rows.append(particle.measured(intensity, runtime.max_memory / 8))
    return counted


def _slabs_to_label(shape: Sequence[int], runtime: Runtime) -> list[slice]:
    from tomoseg.measure.components import BYTES_PER_VOXEL

    return slabs(shape[0], runtime.slab_size(BYTES_PER_VOXEL * math.prod(shape[1:]), shape[0]))


def _check_memory(n_voxels: int, runtime: Runtime) -> None:
    """Refuse to cut an object of `n_voxels` where that does not fit in the memory allowed."""
    from tomoseg.measure.separate import BYTES_PER_VOXEL

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
    from tomoseg.measure.components import Component
    from tomoseg.measure.particles import LARGE_VOXELS, box_voxels

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
    from tomoseg.measure.blocks import inside
    from tomoseg.measure.components import BoxReader
    from tomoseg.measure.particles import Particle

    reader = BoxReader(component)
    return Particle(row, lambda wanted: reader.read(inside(wanted, box)))


def _parts(component: "Component", box: "Box", neck_ratio: float, runtime: Runtime) -> list["Particle"]:
    """Return the particles into which a component is cut."""
    from tomoseg.measure.blocks import inside
    from tomoseg.measure.body import Body
    from tomoseg.measure.particles import Particle
    from tomoseg.measure.separate import separate_body

    body = Body.of(component, box)
    parts = separate_body(body, neck_ratio, runtime.check)

    def mask_of(part: int) -> "ReadMask":
        return lambda wanted: body.mask(inside(wanted, box), parts, part)

    return [Particle(extent, mask_of(part)) for part, extent in enumerate(body.extents(parts), start=1)]


def _store(
    counted: _Counted,
    name: str,
    voxel_size_nm: float,
    params: MeasureParameters,
    runtime: Runtime,
    outputs: Outputs,
) -> None:
    from tomoseg.measure.particles import particle_table
    from tomoseg.measure.sizes import size_summary, size_table

    table = particle_table(counted.rows, voxel_size_nm)
    # A particle that the border cuts has no known size.
    whole = table["diameter_px"][~table["touches_border"]]
    outputs.put("particle_table", table)
    outputs.put("size_table", size_table(whole, voxel_size_nm, params.size_bin_nm))
    info: dict[str, Any] = {
        "particle_class": name,
        "n_particles": len(table),
        "n_touching_border": int(table["touches_border"].sum()),
        "n_in_size_statistics": len(whole),
        "n_excluded_small": counted.n_small,
        "n_objects_cut": int(counted.n_cut),
        "min_voxels": params.min_voxels,
        "voxel_size_nm": voxel_size_nm,
    }
    for key, value in size_summary(whole).items():
        stem = f"{key}_diameter" if key in ("mean", "std", "median") else key
        info[f"{stem}_nm"], info[f"{stem}_px"] = value * voxel_size_nm, value
    outputs.set_attrs("measurement_info", info)
    for text in _remarks(info, counted):
        runtime.say(text)
    for text in _doubts(info, counted, params):
        runtime.warn(text)


def _remarks(info: dict[str, Any], counted: _Counted) -> Iterator[str]:
    """Yield what was counted, in words."""
    yield (
        f"{info['n_particles']} particles of class {info['particle_class']!r}; {info['n_touching_border']} of them "
        "touch the border of the volume and are left out of the size statistics"
    )
    if counted.n_small:
        yield f"{counted.n_small} objects of fewer than {info['min_voxels']} voxels (min_voxels) were not counted"
    if counted.n_cut:
        yield f"{counted.n_cut} objects were cut into touching particles (separate_touching)"
    if info["n_in_size_statistics"]:
        unit = "px" if np.isnan(info["voxel_size_nm"]) else "nm"
        mean, median = info[f"mean_diameter_{unit}"], info[f"median_diameter_{unit}"]
        yield f"mean diameter {mean:.4g} {unit}, median {median:.4g} {unit}"


def _doubts(info: dict[str, Any], counted: _Counted, params: MeasureParameters) -> Iterator[str]:
    """Yield what needs care in the numbers, in words."""
    if info["n_particles"] and not info["n_in_size_statistics"]:
        yield "every particle touches the border of the volume: there are no size statistics"
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


STAGE = Stage(
    name="measure",
    version=3,
    summary="volume and surface of each class, particles and their sizes",
    parameters=MeasureParameters,
    reads=(schema.LABELS, schema.VOLUME),
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
