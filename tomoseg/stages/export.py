"""Stage `export`: files for ParaView, napari, Fiji, IMOD, Blender and spreadsheets, beside the project."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from pydantic import field_validator

from tomoseg import __version__, schema
from tomoseg.arrays import Array, ArraySource, Input, Outputs
from tomoseg.classes import class_names
from tomoseg.errors import InputError, StageFailed
from tomoseg.io.shifts import imod_turns
from tomoseg.parameters import Field, Parameters
from tomoseg.runtime import Runtime, slabs
from tomoseg.stages.base import Stage

if TYPE_CHECKING:
    from tomoseg.export.manifest import Manifest
    from tomoseg.export.surfaces import CoarseLabels
    from tomoseg.measurement.common.surface import Mesh

Format = Literal[
    "vti", "vtkhdf", "vtp", "stl", "ply", "gltf", "multiblock", "paraview",
    "mrc", "tiff", "zarr",
    "csv", "parquet", "json",
    "alignment",
]  # fmt: skip
ALL_FORMATS: tuple[Format, ...] = get_args(Format)
DEFAULT_FORMATS: tuple[Format, ...] = (
    "vti", "vtp", "multiblock", "paraview", "mrc", "csv", "json", "alignment",
)  # fmt: skip
SURFACE_FORMATS: tuple[Format, ...] = ("vtp", "stl", "ply", "gltf")
# Of the memory allowed: what a surface may take, and what is read of a volume at once.
SURFACE_SHARE, READING_SHARE = 0.6, 0.125
BIG_FILE_BYTES = 10_000_000  # the size of such a file is said before it is written
COLORS = ("#000000", "#9a9a9a", "#c8191e", "#3b78b8", "#2e8b57", "#d99a1c")  # where the labels name none
GLASS = 0.25  # opacity of what surrounds the particles
PORES = "surface_pores"
# A table's name as an input, and as a file.
TABLES = {
    "class_table": "classes",
    "particle_table": "particles",
    "size_table": "size_distribution",
    "facet_table": "facets",
    "curvature_table": "curvature",
    "pore_table": "pores",
    "pore_size_table": "pore_sizes",
}


class ExportParameters(Parameters):
    """Where to write, and what."""

    export_dir: str | None = Field(
        None,
        description="Folder to write to; made where it does not exist. Default: <project>_export beside the project.",
    )
    formats: tuple[Format, ...] = Field(
        DEFAULT_FORMATS,
        min_length=1,
        description="What to write, or 'all'. vti, vtkhdf (compressed): volume and labels for ParaView; vtp, stl, ply, "
        "gltf: a surface per class, of closed pores too, and with vtp the particles as points; multiblock: one file "
        "that opens those of vti and vtp together; paraview: a script that draws those of vtp; mrc, tiff (OME-TIFF): "
        "volume and labels; zarr: both as OME-Zarr 0.5; csv, parquet: the tables; json: the summary; alignment: "
        "shifts.csv, and alignment.xf with alignment.tlt for IMOD, each with a line per tilt by ascending angle.",
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

    @field_validator("formats", mode="before")
    @classmethod
    def _all(cls, formats: Any) -> Any:
        """Take 'all' for every format."""
        return ALL_FORMATS if isinstance(formats, (list, tuple)) and "all" in formats else formats


@dataclass(frozen=True)
class _World:
    """Unit of the files, what is said in each of them, and the classes."""

    voxel_size: float  # in `unit`
    unit: str
    voxel_size_nm: float  # NaN where unknown
    facts: dict[str, str | list[str]]
    names: list[str]
    colors: list[str]  # one #rrggbb per class
    particle_class: int


@dataclass(frozen=True)
class _Planned:
    """How the surface of a class is meshed: the size of the cells, and the triangles it has at most."""

    factor: int
    triangles: int


@dataclass(frozen=True)
class _Surface:
    """A surface made: `stem` of its files, what it is called and what it is of, VTK poly data, and its looks."""

    stem: str
    name: str
    facts: dict[str, str]
    data: Any
    color: str
    opacity: float


def check(params: ExportParameters) -> list[str]:
    """List what is wrong with the folder, or missing among the formats."""
    return _missing_formats(params.formats) + _folder_problems(params.export_dir)


def _missing_formats(formats: Sequence[Format]) -> list[str]:
    problems = []
    if "multiblock" in formats and not {"vti", "vtp"} & set(formats):
        problems.append("export.formats: multiblock is an index of the files of vti and vtp; add one of them")
    if "paraview" in formats and "vtp" not in formats:
        problems.append("export.formats: paraview is a script that opens the files of vtp; add vtp")
    return problems


def _folder_problems(export_dir: str | None) -> list[str]:
    if export_dir is None:
        return []
    folder = Path(export_dir)
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
    reconstruction_info: Input | None = None,
    segmentation_info: Input | None = None,
    measurement_info: Input | None = None,
    support_info: Input | None = None,
    facet_table: Input | None = None,
    curvature_table: Input | None = None,
    pore_table: Input | None = None,
    pore_size_table: Input | None = None,
) -> None:
    """Write the files asked for; each appears under its name only when it is complete."""
    if params.export_dir is None:
        raise InputError("export.export_dir: name the folder to write to.")
    if problems := check(params):
        raise InputError.of(problems)
    found = {
        "class_table": class_table,
        "particle_table": particle_table,
        "size_table": size_table,
        "facet_table": facet_table,
        "curvature_table": curvature_table,
        "pore_table": pore_table,
        "pore_size_table": pore_size_table,
    }
    tables = {TABLES[name]: table for name, table in found.items() if table is not None}
    world = _world(labels, measurement_info, tilt_series_info, runtime)
    formats = set(params.formats)
    folder = Path(params.export_dir).absolute()
    manifest = _prepared(folder, _file_names(params.formats, world.names, tables), params.overwrite)
    planned = _planned_surfaces(labels, world.names, params, runtime) if formats & set(SURFACE_FORMATS) else {}
    _check_space(folder, _expected_bytes(volume, labels, world.names, planned, params), runtime)
    try:
        if "vti" in formats:
            _write_images(manifest, volume, labels, world, runtime)
        if "vtkhdf" in formats:
            _write_hdf(manifest, volume, labels, world, runtime)
        if "mrc" in formats:
            _write_mrc(manifest, volume, labels, world, runtime)
        if "tiff" in formats:
            _write_tiff(manifest, volume, labels, world, runtime)
        if "zarr" in formats:
            _write_zarr(manifest, volume, labels, world, runtime)
        _write_tables(manifest, tables, formats, world, runtime)
        if "json" in formats:
            groups = {
                "reconstruction": reconstruction_info,
                "segmentation": segmentation_info,
                "measurement": measurement_info,
                "support": support_info,
            }
            _write_summary(manifest, _summary(volume, world, tilt_series_info, groups, tables), runtime)
        if "alignment" in formats:
            table = _shift_table(angles_deg, shifts_px, tilt_quality)
            rows_up = imod_turns(str(tilt_series_info.attrs.get("source", "")))
            angles = (angles_deg if refined_angles_deg is None else refined_angles_deg)[:]
            _write_alignment(manifest, table, angles, alignment_info, aligned.shape, runtime, rows_up=rows_up)
        if "vtp" in formats:
            _write_points(manifest, particle_table[:], world, runtime)
        shown = _write_surfaces(manifest, labels, planned, world, params, runtime)
        _write_views(manifest, shown, formats, world, runtime)
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


def surface_name(index: int, name: str, ending: str = ".vtp") -> str:
    """Return the file name of a class's surface; the index keeps names apart that differ in odd characters only."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-") or "class"
    return f"surface_{index}_{plain}{ending}"


def _world(labels: Input, measurement_info: Input | None, tilt_series_info: Input, runtime: Runtime) -> _World:
    names = class_names(labels)
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
    colors = [str(color) for color in labels.attrs.get("class_colors", ())]
    if len(colors) != len(names):
        colors = [COLORS[k % len(COLORS)] for k in range(len(names))]
    counted = str((measurement_info.attrs if measurement_info else {}).get("particle_class", ""))
    particles = names.index(counted) if counted in names else len(names) - 1
    return _World(voxel_size_nm if known else 1.0, unit, voxel_size_nm, facts, names, colors, particles)


def _file_names(formats: Iterable[Format], names: Sequence[str], tables: Iterable[str]) -> list[str]:
    """Return every name that an export may write."""
    stems = [*(surface_name(k, name, "") for k, name in enumerate(names) if k > 0), PORES]
    of: dict[Format, list[str]] = {
        "vti": ["volume.vti", "labels.vti"],
        "vtkhdf": ["volume.vtkhdf", "labels.vtkhdf"],
        "vtp": ["particles.vtp", *(f"{stem}.vtp" for stem in stems)],
        "stl": [f"{stem}.stl" for stem in stems],
        "ply": [f"{stem}.ply" for stem in stems],
        "gltf": ["surfaces.glb"],
        "multiblock": ["all.vtm"],
        "paraview": ["paraview_view.py"],
        "mrc": ["labels.mrc", "volume.mrc"],
        "tiff": ["volume.ome.tif", "labels.ome.tif"],
        "zarr": ["volume.ome.zarr"],
        "csv": [f"{name}.csv" for name in tables],
        "parquet": [f"{name}.parquet" for name in tables],
        "json": ["summary.json"],
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


def _expected_bytes(
    volume: Input, labels: Input, names: Sequence[str], planned: Mapping[int, _Planned], params: ExportParameters
) -> dict[str, int]:
    """Estimate the size of each file of a volume or a surface."""
    from tomoseg.export import sizes
    from tomoseg.export.omezarr import stored_voxels

    formats = set(params.formats)
    whole = {"volume": sizes.raw_bytes(volume), "labels": sizes.raw_bytes(labels)}
    packed = dict.fromkeys(whole, 0)
    if formats & {"vti", "vtkhdf", "tiff", "zarr"}:
        packed = {"volume": sizes.compressed_bytes(volume), "labels": sizes.compressed_bytes(labels)}
    of_format = {
        "vti": {"volume.vti": whole["volume"], "labels.vti": packed["labels"]},
        "vtkhdf": {f"{name}.vtkhdf": size for name, size in packed.items()},
        "mrc": {f"{name}.mrc": size for name, size in whole.items()},
        "tiff": {f"{name}.ome.tif": size for name, size in packed.items()},
        "zarr": {"volume.ome.zarr": int(sum(packed.values()) * stored_voxels(volume.shape) / np.prod(volume.shape))},
    }
    expected = {name: size for f, files in of_format.items() if f in formats for name, size in files.items()}
    for f in formats & {"vtp", "stl", "ply"}:
        for k, plan in planned.items():
            expected[surface_name(k, names[k], f".{f}")] = plan.triangles * sizes.TRIANGLE_BYTES[f]
    if "gltf" in formats:
        # Collected in a file without a name before it is written.
        expected["surfaces.glb"] = 2 * sum(p.triangles for p in planned.values()) * sizes.TRIANGLE_BYTES["gltf"]
    return expected


def _check_space(folder: Path, expected: Mapping[str, int], runtime: Runtime) -> None:
    """Say how large files will be; refuse where they do not fit on the disk, beside older ones until each is whole."""
    free = shutil.disk_usage(folder).free
    needed = sum(expected.values())
    if needed > free:
        raise StageFailed(
            f"{folder} has {_size(free)} of free space and the files need {_size(needed)}; make space, or name "
            "another folder (export.export_dir) or fewer formats."
        )
    for name, size in expected.items():
        if size >= BIG_FILE_BYTES:
            runtime.say(f"{name} will have about {_size(size)}")
    if expected:
        runtime.say(f"the files will have about {_size(needed)} in all; {_size(free)} are free")


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


def _write_hdf(manifest: "Manifest", volume: Input, labels: Input, world: _World, runtime: Runtime) -> None:
    from tomoseg.export.vtkhdf import write_vtkhdf

    for name, data in (("volume", volume), ("labels", labels)):
        with manifest.writing(f"{name}.vtkhdf") as path:
            write_vtkhdf(
                path,
                data,
                world.voxel_size,
                name,
                facts=world.facts,
                slab_bytes=int(READING_SHARE * runtime.max_memory),
                track=runtime.track,
            )
        _say(manifest, runtime)


def _write_mrc(manifest: "Manifest", volume: Input, labels: Input, world: _World, runtime: Runtime) -> None:
    from tomoseg.io.mrc import write_mrc

    for name, data in (("labels", labels), ("volume", volume)):
        with manifest.writing(f"{name}.mrc") as path:
            track = partial(_track_as, runtime, f"writing {name}.mrc")
            write_mrc(path, data, world.voxel_size_nm, label=f"tomoseg {name}", track=track)
        _say(manifest, runtime)


def _track_as(runtime: Runtime, what: str, pieces: Sequence[slice], _shown: str) -> Iterator[slice]:
    """Show another text than a writer would, which is given the name of the temporary file."""
    return runtime.track(pieces, what)


def _write_tiff(manifest: "Manifest", volume: Input, labels: Input, world: _World, runtime: Runtime) -> None:
    from tomoseg.export.tiff import write_ome_tiff

    for name, data in (("volume", volume), ("labels", labels)):
        with manifest.writing(f"{name}.ome.tif") as path:
            write_ome_tiff(
                path,
                data,
                world.voxel_size_nm,
                name,
                facts=world.facts,
                slab_bytes=int(READING_SHARE * runtime.max_memory),
                track=runtime.track,
            )
        _say(manifest, runtime)


def _write_zarr(manifest: "Manifest", volume: Input, labels: Input, world: _World, runtime: Runtime) -> None:
    from tomoseg.export.omezarr import write_ome_zarr

    with manifest.writing_folder("volume.ome.zarr") as folder:
        write_ome_zarr(
            folder,
            volume,
            labels,
            world.voxel_size_nm,
            world.names,
            world.colors,
            slab_bytes=int(READING_SHARE * runtime.max_memory),
            track=runtime.track,
        )
    _say(manifest, runtime)


def _write_tables(
    manifest: "Manifest", tables: Mapping[str, Input], formats: set[Format], world: _World, runtime: Runtime
) -> None:
    from tomoseg.export.tables import write_csv, write_parquet

    for name, table in tables.items():
        if "csv" in formats:
            with manifest.writing(f"{name}.csv") as path:
                write_csv(path, table[:])
            _say(manifest, runtime)
        if "parquet" in formats:
            facts = {k: v if isinstance(v, str) else ", ".join(v) for k, v in world.facts.items()}
            with manifest.writing(f"{name}.parquet") as path:
                write_parquet(path, table[:], facts)
            _say(manifest, runtime)


def _summary(
    volume: Input,
    world: _World,
    tilt_series_info: Input,
    groups: Mapping[str, Input | None],
    tables: Mapping[str, Input],
) -> dict[str, Any]:
    """Return what is known in a few numbers. Tables with a row per object are files of their own."""
    source = ("source", "source_sha256", "pixel_size_nm", "pixel_size_source", "angles_source", "tilt_axis")
    return {
        "written_by": f"tomoseg {__version__}",
        "units": "in the names: _nm, _nm2, _nm3, _px (of the reconstruction) and so on; null: unknown or none",
        "tilt_series": {name: tilt_series_info.attrs.get(name) for name in source},
        "voxel_size_nm": world.voxel_size_nm,
        "volume_zyx_px": list(volume.shape),
        **{name: dict(group.attrs) for name, group in groups.items() if group is not None},
        "tables": {name: table[:] for name, table in tables.items() if name not in ("particles", "pores")},
    }


def _write_summary(manifest: "Manifest", summary: Mapping[str, Any], runtime: Runtime) -> None:
    from tomoseg.export.tables import write_json

    with manifest.writing("summary.json") as path:
        write_json(path, summary)
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
    from tomoseg.export.tables import columns_of

    points = np.stack([table[f"{axis}_px"] for axis in "zyx"], axis=1)
    with manifest.writing("particles.vtp") as path:
        write_vtp(path, points_polydata(points, world.voxel_size, columns_of(table)), world.facts)
    _say(manifest, runtime, f", {len(table)} points")


def _planned_surfaces(
    labels: Input, names: Sequence[str], params: ExportParameters, runtime: Runtime
) -> dict[int, _Planned]:
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
    return {k: _Planned(factor, int(2 * faces[k] // factor**2)) for k, factor in cells.items()}


def _write_surfaces(
    manifest: "Manifest",
    labels: Input,
    planned: Mapping[int, _Planned],
    world: _World,
    params: ExportParameters,
    runtime: Runtime,
) -> list[_Surface]:
    """Mesh each surface once and write it in each format; return what was made, without the meshes."""
    from tomoseg.export.glb import Scene
    from tomoseg.export.polydata import surface_arrays, write_ply, write_stl, write_vtp

    shown = []
    with ExitStack() as stack:
        scene = None
        if "gltf" in params.formats:
            spool = stack.enter_context(tempfile.TemporaryFile(dir=manifest.directory))
            scene = Scene(spool, world.unit, world.facts)
        for surface in _surfaces(labels, planned, world, params, runtime) if planned else ():
            for ending in [f for f in params.formats if f in ("vtp", "stl", "ply")]:
                with manifest.writing(f"{surface.stem}.{ending}") as path:
                    if ending == "vtp":
                        write_vtp(path, surface.data, {**world.facts, **surface.facts})
                    elif ending == "stl":
                        write_stl(path, surface.data, world.unit)
                    else:
                        write_ply(path, surface.data, world.unit, surface.color)
                _say(manifest, runtime, f", {surface.data.GetNumberOfPolys()} triangles")
            if scene is not None:
                scene.add(surface.name, *surface_arrays(surface.data), surface.color, surface.opacity)
            shown.append(replace(surface, data=None))
        if scene is not None and shown:
            with manifest.writing("surfaces.glb") as path:
                scene.write(path)
            _say(manifest, runtime)
    return shown


def _surfaces(
    labels: Input, planned: Mapping[int, _Planned], world: _World, params: ExportParameters, runtime: Runtime
) -> Iterator[_Surface]:
    """Mesh the classes one after the other, and the closed pores."""
    from tomoseg.export import surfaces
    from tomoseg.export.polydata import surface_polydata

    n_bytes = int(np.prod(labels.shape)) * labels.dtype.itemsize
    source: ArraySource = labels[:] if n_bytes <= READING_SHARE * runtime.max_memory else labels

    def polydata(mesh: "Mesh") -> Any:
        return surface_polydata(
            mesh,
            tuple(labels.shape),
            world.voxel_size,
            smoothing_iterations=params.smoothing_iterations,
            target_triangles=params.target_triangles if len(mesh.faces) <= surfaces.MOST_THINNED else 0,
        )

    for k, plan in planned.items():
        name = world.names[k]
        if plan.factor > 1:
            runtime.say(
                f"the surface of {name} is meshed from cells of {plan.factor}^3 voxels to stay near "
                "export.target_triangles"
            )
        mesh = _class_mesh(surfaces.CoarseLabels(source, plan.factor), k, f"surface of {name}", runtime)
        if not len(mesh.faces):
            runtime.say(f"{name} is no more than scattered voxels, which have no surface: no file is written for it")
            continue
        stem, facts = surface_name(k, name, ""), {"class_name": name}
        yield _Surface(stem, name, facts, polydata(mesh), *_looks(k, world))
    mesh_of_pores = _pore_mesh(source, runtime)
    if mesh_of_pores is not None:
        from tomoseg.export.paraview import BLUE

        name = f"closed pores of {world.names[0]}"
        yield _Surface(PORES, name, {"class_name": name}, polydata(mesh_of_pores), BLUE, 1.0)


def _looks(k: int, world: _World) -> tuple[str, float]:
    """Return colour and opacity of a class: particles red, what surrounds them glass, grey where there is one class."""
    from tomoseg.export.paraview import GREY, RED

    if k == world.particle_class:
        return RED, 1.0
    return GREY if len(world.names) <= 3 else world.colors[k], GLASS


def _pore_mesh(labels: ArraySource, runtime: Runtime) -> "Mesh | None":
    """Return the surface of all closed pores; None where there are none, or too many for the memory allowed."""
    from tomoseg.components import BYTES_PER_VOXEL
    from tomoseg.export import pores, surfaces

    shape = labels.shape
    pieces = slabs(shape[0], runtime.slab_size(BYTES_PER_VOXEL * int(np.prod(shape[1:])), shape[0]))
    found = pores.closed_pores((labels[z] == 0 for z in runtime.track(pieces, "finding closed pores")), shape)
    if not len(found):
        return None
    largest = pores.BYTES_PER_VOXEL * int(pores.box_voxels(found).max())
    meshes: list[Mesh] = []
    most, triangles = int(SURFACE_SHARE * runtime.max_memory / surfaces.BYTES_PER_TRIANGLE), 0
    if largest <= SURFACE_SHARE * runtime.max_memory:
        for pore in runtime.track(list(found), "surface of pores"):
            meshes.append(pores.pore_surface(labels, pore))
            triangles += len(meshes[-1].faces)
            if triangles > most:
                break
        else:
            return pores.together(meshes)
    runtime.say(
        f"the surface of {len(found)} closed pores does not fit in the memory that --max-memory allows: no file is "
        "written for them"
    )
    return None


def _class_mesh(coarse: "CoarseLabels", k: int, what: str, runtime: Runtime) -> "Mesh":
    from tomoseg.export import surfaces
    from tomoseg.measurement.common.surface import LevelFinder

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


def _write_views(
    manifest: "Manifest", shown: Sequence[_Surface], formats: set[Format], world: _World, runtime: Runtime
) -> None:
    """Write what opens the other files: the index, and the script for ParaView."""
    from tomoseg.export.multiblock import write_vtm
    from tomoseg.export.paraview import Shown, write_script

    if "multiblock" in formats:
        images = {name: f"{name}.vti" for name in ("volume", "labels") if "vti" in formats}
        surfaces = {surface.name: f"{surface.stem}.vtp" for surface in shown if "vtp" in formats}
        points = {"particles as points": "particles.vtp"} if "vtp" in formats else {}
        with manifest.writing("all.vtm") as path:
            write_vtm(path, {"surfaces": surfaces, "points": points, "images": images})
        _say(manifest, runtime)
    if "paraview" in formats:
        listed = [Shown(f"{s.stem}.vtp", s.name, s.color, s.opacity) for s in shown]
        unit = "nm" if np.isfinite(world.voxel_size_nm) else "voxels"
        with manifest.writing("paraview_view.py") as path:
            write_script(path, listed, "particles.vtp", unit)
        _say(manifest, runtime, ", for ParaView: Tools > Python Shell > Run Script")


def _finish(manifest: "Manifest", runtime: Runtime) -> None:
    manifest.finish()
    if old := manifest.left_over():
        runtime.say(f"left as earlier exports wrote them, from earlier results perhaps: {', '.join(old)}")


STAGE = Stage(
    name="export",
    version=3,
    summary="files for ParaView, napari, Fiji, IMOD, Blender and spreadsheets",
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
        schema.RECONSTRUCTION_INFO,
        schema.SEGMENTATION_INFO,
        schema.MEASUREMENT_INFO,
        replace(schema.SUPPORT_INFO, optional=True),  # older projects have none
        schema.FACET_TABLE,
        schema.CURVATURE_TABLE,
        schema.PORE_TABLE,
        schema.PORE_SIZE_TABLE,
    ),
    writes=(schema.EXPORT_INFO,),
    run=run,
    check=check,
    lost=lost,
)
