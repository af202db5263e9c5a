"""Stage `measure`: numbers from labels. Volume and surface of each class, each particle, the size distribution."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg import schema
from tomoseg.arrays import Array, ArraySource, Input, Outputs
from tomoseg.errors import InputError
from tomoseg.runtime import Runtime, slabs
from tomoseg.stages.base import Field, Parameters, Stage

# The part of the volume above which one particle makes one doubt that it is one.
HUGE_FRACTION = 0.05


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


@dataclass
class _Counted:
    """Particles as they are measured, and what was left out or needs saying."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    n_small: int = 0
    n_cut: int = 0
    n_uncut: int = 0  # too large to be cut in the memory allowed
    n_unresolved: int = 0  # too large even to be meshed in it
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
    outputs.put("class_table", _measure_classes(where, names, voxel_size_nm, runtime))
    counted = _Counted() if k is None else _measure_particles(where, volume, k, params, runtime)
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
    """Return the whole array where it takes a quarter of the memory allowed at most, else the handle."""
    n_bytes = int(np.prod(source.shape)) * source.dtype.itemsize
    return source[:] if n_bytes <= runtime.max_memory // 4 else source


def _measure_classes(labels: ArraySource, names: Sequence[str], voxel_size_nm: float, runtime: Runtime) -> Array:
    from tomoseg.measure import classes
    from tomoseg.measure.surface import slab_of

    n = labels.shape[0]
    plane = int(np.prod(labels.shape[1:]))
    pieces = [slab_of(z, n) for z in slabs(n, runtime.slab_size(classes.BYTES_PER_VOXEL * plane, n))]
    counter = classes.ClassCounter(len(names))
    for slab in runtime.track(pieces, "counting voxels"):
        block = labels[slab.read]
        if block.max() >= len(names):
            raise InputError(
                f"the labels hold class {block.max()}, but only {len(names)} classes have names; segment again."
            )
        counter.add(block, slab)
    levels = counter.levels()
    area = np.zeros(len(names))
    for slab in runtime.track(pieces, "meshing surfaces"):
        block = labels[slab.read]
        for k, level in enumerate(levels):
            runtime.check()
            area[k] += classes.class_area_px2(block, k, level, slab)
    return classes.class_table(names, counter.voxels, area, voxel_size_nm)


def _measure_particles(
    labels: ArraySource, volume: ArraySource, k: int, params: MeasureParameters, runtime: Runtime
) -> _Counted:
    from tomoseg.measure.components import BYTES_PER_VOXEL, find_components

    n, plane = labels.shape[0], int(np.prod(labels.shape[1:]))
    pieces = slabs(n, runtime.slab_size(BYTES_PER_VOXEL * plane, n))
    masks = (labels[z] == k for z in runtime.track(pieces, "finding particles"))
    components = find_components(masks, params.connectivity)
    large = components[components["voxels"] >= params.min_voxels]
    largest = int(components["voxels"].max(initial=0))
    counted = _Counted(n_small=len(components) - len(large), largest_fraction=largest / (n * plane))
    intensity = _in_memory(volume, runtime)
    for component in runtime.track(list(large), "measuring particles"):
        _measure_component(component, labels, intensity, k, params, runtime, counted)
    return counted


def _measure_component(
    component: Any,
    labels: ArraySource,
    volume: ArraySource,
    k: int,
    params: MeasureParameters,
    runtime: Runtime,
    counted: _Counted,
) -> None:
    from tomoseg.measure import particles, separate
    from tomoseg.measure.components import component_at

    shape = labels.shape[0], labels.shape[1], labels.shape[2]
    box = particles.grown_box(component["start"], component["stop"], shape)
    fits = runtime.max_memory // 2 // int(np.prod([s.stop - s.start for s in box]))  # bytes per voxel
    if fits < particles.BYTES_PER_VOXEL:
        counted.rows.append(particles.unresolved_row(component, shape))
        counted.n_unresolved += 1
        return
    mask = component_at(labels[box] == k, component["seed"] - [s.start for s in box], params.connectivity)
    cut = params.separate_touching and fits >= separate.BYTES_PER_VOXEL
    counted.n_uncut += params.separate_touching and not cut
    parts = separate.separate(mask, params.neck_ratio) if cut else mask.astype(np.int32)
    boxes = _part_boxes(parts)
    counted.n_cut += len(boxes) > 1
    for part, inner in enumerate(boxes, start=1):
        tight = particles.grown_box([s.start for s in inner], [s.stop for s in inner], parts.shape)
        outer = _shifted(tight, box)
        piece = particles.Piece(parts[tight] == part, outer, shape, volume[outer])
        if np.count_nonzero(piece.mask) < params.min_voxels:
            counted.n_small += 1
        else:
            counted.rows.append(particles.particle_row(piece))


def _part_boxes(parts: NDArray[np.int32]) -> list[tuple[slice, slice, slice]]:
    from scipy.ndimage import find_objects

    return list(find_objects(parts))


def _shifted(inner: tuple[slice, slice, slice], outer: tuple[slice, slice, slice]) -> tuple[slice, slice, slice]:
    z, y, x = (slice(o.start + i.start, o.start + i.stop) for i, o in zip(inner, outer, strict=True))
    return z, y, x


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
        yield f"{counted.n_uncut} objects are too large for --max-memory to be cut into touching particles"
    if counted.n_unresolved:
        yield (
            f"{counted.n_unresolved} objects are too large for --max-memory to be meshed: they are counted with their "
            "volume, but not cut, and without surface and intensity"
        )
    if counted.largest_fraction > HUGE_FRACTION:
        yield (
            f"one object of class {info['particle_class']!r} fills {counted.largest_fraction:.0%} of the volume: "
            "it may be a support rather than a particle; choose another measure.particle_class "
            f"(now {params.particle_class!r})"
        )


STAGE = Stage(
    name="measure",
    version=1,
    summary="volume and surface of each class, particles and their sizes",
    parameters=MeasureParameters,
    reads=(schema.LABELS, schema.VOLUME),
    writes=(schema.CLASS_TABLE, schema.PARTICLE_TABLE, schema.SIZE_TABLE, schema.MEASUREMENT_INFO),
    run=run,
)
