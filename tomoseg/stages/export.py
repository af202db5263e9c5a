"""Stage `export`: files for ParaView, IMOD, Fiji and spreadsheets, beside the project."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tomoseg import schema
from tomoseg.arrays import Array, ArraySource, Input, Outputs
from tomoseg.errors import InputError, StageFailed
from tomoseg.io.shifts import imod_turns
from tomoseg.runtime import Runtime, slabs
from tomoseg.stages.base import Field, Parameters, Stage
from tomoseg.stages.measure import class_names

if TYPE_CHECKING:
    from tomoseg.export.manifest import Manifest
    from tomoseg.export.surfaces import CoarseLabels
    from tomoseg.measure.surface import Mesh

Format = Literal["vti", "vtp", "mrc", "csv", "alignment"]
# Of the memory allowed: what a surface may take, and what is read of a volume at once.
SURFACE_SHARE, READING_SHARE = 0.6, 0.125
ALL_FORMATS: tuple[Format, ...] = ("vti", "vtp", "mrc", "csv", "alignment")


class ExportParameters(Parameters):
    """Where to write, and what."""

    export_dir: str | None = Field(
        None,
        description="Folder to write to; made where it does not exist. Default: <project>_export beside the project.",
    )
    formats: tuple[Format, ...] = Field(
        ALL_FORMATS,
        min_length=1,
        description="What to write. vti: volume and labels for ParaView; vtp: a surface per class and the particles as "
        "points, for ParaView; mrc: labels; csv: the tables; alignment: shifts.csv, and alignment.xf with "
        "alignment.tlt for IMOD, each with a line per tilt by ascending angle.",
    )
    smoothing_iterations: int = Field(
        20,
        ge=0,
        le=500,
        description="Iterations of the windowed-sinc filter on the surfaces, which does not shrink them; 0: none.",
    )
    target_triangles: int = Field(
        1_000_000,
        ge=0,
        description="Triangles of a class's surface above which it is meshed from cells of several voxels or thinned "
        "out; 0: never.",
    )
    overwrite: bool = Field(
        False, description="Also replace files in the folder that were not written by an earlier export."
    )


@dataclass(frozen=True)
class _World:
    """Unit of the files and what is said in each of them."""

    voxel_size: float  # in `unit`
    unit: str
    voxel_size_nm: float  # NaN where unknown
    facts: dict[str, str | list[str]]


def check(params: ExportParameters) -> list[str]:
    """List what is wrong with the folder."""
    if params.export_dir is None:
        return []
    folder = Path(params.export_dir)
    existing = next((p for p in (folder, *folder.absolute().parents) if p.exists()), None)
    if existing is not None and not existing.is_dir():
        return [f"export.export_dir: {existing} is a file; name a folder"]
    if existing is not None and not os.access(existing, os.W_OK):
        return [f"export.export_dir: {existing} cannot be written to; name another folder"]
    return []


def run(
    *,
    volume: Input,
    labels: Input,
    class_table: Input,
    particle_table: Input,
    size_table: Input,
    tilt_series_info: Input,
    angles_deg: Input,
    shifts_px: Input,
    alignment_info: Input,
    tilt_quality: Input,
    aligned: Input,
    params: ExportParameters,
    runtime: Runtime,
    outputs: Outputs,
    refined_angles_deg: Input | None = None,
) -> None:
    """Write the files asked for; each appears under its name only when it is complete."""
    if params.export_dir is None:
        raise InputError("export.export_dir: name the folder to write to.")
    if problems := check(params):
        raise InputError.of(problems)
    names = class_names(labels)
    world = _world(labels, names, tilt_series_info, runtime)
    folder = Path(params.export_dir).absolute()
    manifest = _prepared(folder, _file_names(params.formats, names), params.overwrite)
    _check_space(folder, volume, labels, params.formats)
    cells = _cell_sizes(labels, names, params, runtime) if "vtp" in params.formats else {}
    try:
        if "vti" in params.formats:
            _write_images(manifest, volume, labels, world, runtime)
        if "mrc" in params.formats:
            _write_mrc(manifest, labels, world, runtime)
        if "csv" in params.formats:
            tables = {"classes.csv": class_table, "particles.csv": particle_table, "size_distribution.csv": size_table}
            _write_tables(manifest, tables, runtime)
        if "alignment" in params.formats:
            table = _shift_table(angles_deg, shifts_px, tilt_quality)
            rows_up = imod_turns(str(tilt_series_info.attrs.get("source", "")))
            angles = (angles_deg if refined_angles_deg is None else refined_angles_deg)[:]
            _write_alignment(manifest, table, angles, alignment_info, aligned.shape, runtime, rows_up=rows_up)
        if "vtp" in params.formats:
            _write_points(manifest, particle_table[:], world, runtime)
            _write_surfaces(manifest, labels, names, cells, world, params, runtime)
    except OSError as error:
        raise StageFailed(
            f"writing to {folder} failed: {error.strerror or error}. What was complete is kept; make space, or name "
            "another folder (export.export_dir), and run export again."
        ) from error
    _finish(manifest, runtime)
    outputs.set_attrs("export_info", {"directory": str(folder), "files": json.dumps(manifest.written)})


def lost(export_info: dict[str, Any]) -> list[str]:
    """Say which of the files written are gone or changed."""
    from tomoseg.export.manifest import lost_files

    return lost_files(export_info)


def surface_name(index: int, name: str) -> str:
    """Return the file name of a class's surface; the index keeps names apart that differ in odd characters only."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-") or "class"
    return f"surface_{index}_{plain}.vtp"


def _world(labels: Input, names: list[str], tilt_series_info: Input, runtime: Runtime) -> _World:
    voxel_size_nm = float(labels.attrs.get("voxel_size_nm", np.nan))
    known = bool(np.isfinite(voxel_size_nm))
    if not known:
        runtime.warn(
            "the voxel size is unknown: exported files have a voxel as their unit of length, and say so. "
            "Give it at import (--pixel-size NM)."
        )
    unit = "nm" if known else "voxel (size unknown)"
    facts: dict[str, str | list[str]] = {
        "unit_of_length": unit,
        "pixel_size_source": str(tilt_series_info.attrs.get("pixel_size_source", "unknown")),
        "raw_file": str(tilt_series_info.attrs.get("source", "unknown")),
        "class_names": names,
    }
    return _World(voxel_size_nm if known else 1.0, unit, voxel_size_nm, facts)


def _file_names(formats: Iterable[Format], names: Sequence[str]) -> list[str]:
    """Return every name that an export may write."""
    surfaces = [surface_name(k, name) for k, name in enumerate(names) if k > 0]
    of = {
        "vti": ["volume.vti", "labels.vti"],
        "vtp": ["particles.vtp", *surfaces],
        "mrc": ["labels.mrc"],
        "csv": ["classes.csv", "particles.csv", "size_distribution.csv"],
        "alignment": ["shifts.csv", "alignment.xf", "alignment.tlt"],
    }
    return [name for f in formats for name in of[f]]


def _prepared(folder: Path, names: list[str], overwrite: bool) -> "Manifest":
    """Make the folder, and refuse to replace files that an export did not write."""
    from tomoseg.export.manifest import Manifest

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"export.export_dir: cannot make the folder {folder}: {error.strerror}.") from error
    manifest = Manifest(folder)
    foreign = [] if overwrite else manifest.foreign(names)
    if foreign:
        raise InputError(
            f"{folder} holds files that an export did not write, or that were changed since: {', '.join(foreign)}. "
            "Move them, name another folder (export.export_dir), or replace them by export.overwrite=true."
        )
    return manifest


def _check_space(folder: Path, volume: ArraySource, labels: ArraySource, formats: Iterable[Format]) -> None:
    sizes = [int(np.prod(a.shape)) * a.dtype.itemsize for a in (volume, labels)]
    needed = sizes[0] * ("vti" in formats) + sizes[1] * ("mrc" in formats)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StageFailed(
            f"{folder} has {_size(free)} of free space and the volumes need {_size(needed)}; make space, or name "
            "another folder (export.export_dir) or fewer formats."
        )


def _size(n_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"


def _say(manifest: "Manifest", runtime: Runtime, what: str = "") -> None:
    entry = manifest.written[-1]
    runtime.say(f"wrote {manifest.directory / entry['name']} ({_size(entry['bytes'])}{what})")


def _write_images(manifest: "Manifest", volume: Input, labels: Input, world: _World, runtime: Runtime) -> None:
    from tomoseg.export.vti import write_vti

    for name, data, compress in (("volume", volume, False), ("labels", labels, True)):
        with manifest.writing(f"{name}.vti") as path:
            write_vti(
                path,
                data,
                world.voxel_size,
                name,
                facts=world.facts,
                compress=compress,
                slab_bytes=int(READING_SHARE * runtime.max_memory),
                track=runtime.track,
            )
        _say(manifest, runtime)


def _write_mrc(manifest: "Manifest", labels: Input, world: _World, runtime: Runtime) -> None:
    from tomoseg.io.mrc import write_mrc

    with manifest.writing("labels.mrc") as path:
        # The name it would show is that of the temporary file.
        track = partial(runtime.track, what="writing labels.mrc")
        write_mrc(path, labels, world.voxel_size_nm, label="tomoseg labels", track=lambda pieces, _: track(pieces))
    _say(manifest, runtime)


def _write_tables(manifest: "Manifest", tables: dict[str, Input], runtime: Runtime) -> None:
    from tomoseg.export.tables import write_csv

    for name, table in tables.items():
        with manifest.writing(name) as path:
            write_csv(path, table[:])
        _say(manifest, runtime)


def _shift_table(angles_deg: Input, shifts_px: Input, tilt_quality: Input) -> Array:
    """Return the alignment with a row per tilt; what single images need besides only where they need something."""
    shifts, quality = shifts_px[:], tilt_quality[:]
    columns = [("angle_deg", "f8"), ("dy_px", "f8"), ("dx_px", "f8"), ("outlier", "?")]
    usual = {"rotation_deg": 0.0, "magnification": 1.0, "tilt_error_deg": 0.0}
    known = usual.keys() <= set(quality.dtype.names or ())  # older projects know nothing of it
    besides = known and any(np.any(quality[name] != value) for name, value in usual.items())
    table = np.zeros(len(shifts), columns + [(name, "f8") for name in usual if besides])
    table["angle_deg"], table["dy_px"], table["dx_px"] = angles_deg[:], shifts[:, 0], shifts[:, 1]
    table["outlier"] = quality["is_outlier"]
    for name in usual if besides else ():
        table[name] = quality[name]
    return table


def _write_alignment(
    manifest: "Manifest",
    table: Array,
    angles_deg: Array,
    alignment_info: Input,
    aligned_shape: tuple[int, ...],
    runtime: Runtime,
    *,
    rows_up: bool,
) -> None:
    from tomoseg.export.tables import write_csv
    from tomoseg.io.mrc import write_angles
    from tomoseg.io.shifts import transforms, write_transforms

    with manifest.writing("shifts.csv") as path:
        write_csv(path, table)
    _say(manifest, runtime)
    axis = (float(alignment_info.attrs[f"tilt_axis_{name}"]) for name in ("angle_deg", "offset_px"))
    shifts = np.stack([table["dy_px"], table["dx_px"]], axis=1)
    besides = [table[name] for name in ("rotation_deg", "magnification") if name in (table.dtype.names or ())]
    with manifest.writing("alignment.xf") as path:
        write_transforms(path, transforms(shifts, *axis, *besides, rows_up=rows_up))
    _say(manifest, runtime, f", for newstack -xform alignment.xf -size {aligned_shape[2]},{aligned_shape[1]}")
    with manifest.writing("alignment.tlt") as path:
        write_angles(path, angles_deg)
    _say(manifest, runtime)


def _write_points(manifest: "Manifest", table: Array, world: _World, runtime: Runtime) -> None:
    from tomoseg.export.polydata import points_polydata, write_vtp

    points = np.stack([table[f"{axis}_px"] for axis in "zyx"], axis=1)
    columns = {name: table[name] for name in table.dtype.names or ()}
    with manifest.writing("particles.vtp") as path:
        write_vtp(path, points_polydata(points, world.voxel_size, columns), world.facts)
    _say(manifest, runtime, f", {len(table)} points")


def _cell_sizes(labels: Input, names: Sequence[str], params: ExportParameters, runtime: Runtime) -> dict[int, int]:
    """Return for each class that has a surface the size of the cells that it is meshed from.

    Refuses, before anything is written, where a surface does not fit in the memory allowed.
    """
    from tomoseg.export import surfaces

    plane = int(np.prod(labels.shape[1:]))
    pieces = slabs(labels.shape[0], runtime.slab_size(surfaces.BYTES_PER_VOXEL * plane, labels.shape[0]))
    faces = surfaces.boundary_faces((labels[z] for z in runtime.track(pieces, "counting voxel faces")), len(names))
    cells = {k: surfaces.coarsening(int(n), params.target_triangles) for k, n in enumerate(faces) if k and n}
    for k, factor in cells.items():
        needed = surfaces.bytes_needed(int(faces[k]), factor) / SURFACE_SHARE
        if needed > runtime.max_memory:
            fits = int(SURFACE_SHARE * runtime.max_memory / surfaces.BYTES_PER_TRIANGLE)
            raise StageFailed(
                f"the surface of {names[k]}, of up to {2 * faces[k] // factor**2} triangles, does not fit in the "
                f"memory that --max-memory allows ({runtime.max_memory / 2**20:.0f} MiB): give "
                f"{needed / 2**20:.0f} MiB, or set export.target_triangles to {fits} or fewer."
            )
    return cells


def _write_surfaces(
    manifest: "Manifest",
    labels: Input,
    names: Sequence[str],
    cells: dict[int, int],
    world: _World,
    params: ExportParameters,
    runtime: Runtime,
) -> None:
    from tomoseg.export import surfaces
    from tomoseg.export.polydata import surface_polydata, write_vtp

    shape = tuple(labels.shape)
    n_bytes = int(np.prod(shape)) * labels.dtype.itemsize
    source: ArraySource = labels[:] if n_bytes <= READING_SHARE * runtime.max_memory else labels
    for k, factor in cells.items():
        if factor > 1:
            runtime.say(
                f"the surface of {names[k]} is meshed from cells of {factor}^3 voxels to stay near "
                "export.target_triangles"
            )
        mesh = _class_mesh(surfaces.CoarseLabels(source, factor), k, f"surface of {names[k]}", runtime)
        if not len(mesh.faces):
            runtime.say(
                f"{names[k]} is no more than scattered voxels, which have no surface: no file is written for it"
            )
            continue
        data = surface_polydata(
            mesh,
            shape,
            world.voxel_size,
            smoothing_iterations=params.smoothing_iterations,
            target_triangles=params.target_triangles if len(mesh.faces) <= surfaces.MOST_THINNED else 0,
        )
        with manifest.writing(surface_name(k, names[k])) as path:
            write_vtp(path, data, {**world.facts, "class_name": names[k]})
        _say(manifest, runtime, f", {data.GetNumberOfPolys()} triangles")


def _class_mesh(coarse: "CoarseLabels", k: int, what: str, runtime: Runtime) -> "Mesh":
    from tomoseg.export import surfaces
    from tomoseg.measure.surface import LevelFinder

    pieces = coarse.strips(READING_SHARE * runtime.max_memory)
    finder = LevelFinder()
    for strip in runtime.track(pieces, f"{what}: level"):
        for block, fraction in strip.parts(coarse.fraction(strip.read, k)):
            finder.add(fraction, block)
    level = finder.level()
    patches: list[surfaces.Patch] = []
    for strip in runtime.track(pieces, what):
        for block, fraction in strip.parts(coarse.fraction(strip.read, k)):
            patch = surfaces.block_surface(fraction, level, block)
            patches += [patch] if patch else []
    return surfaces.joined(patches, coarse)


def _finish(manifest: "Manifest", runtime: Runtime) -> None:
    manifest.finish()
    if old := manifest.left_over():
        runtime.say(f"left as earlier exports wrote them, from earlier results perhaps: {', '.join(old)}")


STAGE = Stage(
    name="export",
    version=2,
    summary="files for ParaView, IMOD, Fiji and spreadsheets",
    parameters=ExportParameters,
    reads=(
        schema.VOLUME,
        schema.LABELS,
        schema.CLASS_TABLE,
        schema.PARTICLE_TABLE,
        schema.SIZE_TABLE,
        schema.TILT_SERIES_INFO,
        schema.ANGLES,
        schema.REFINED_ANGLES,
        schema.SHIFTS,
        schema.ALIGNMENT_INFO,
        schema.TILT_QUALITY,
        schema.ALIGNED,
    ),
    writes=(schema.EXPORT_INFO,),
    run=run,
    check=check,
    lost=lost,
)
