"""Export of volume, labels, tables and alignment to files for other programs."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tomoseg.arrays import Array, ArraySource
from tomoseg.classes import colors_in, names_in, problems_with_colors
from tomoseg.errors import InputError, StageFailed
from tomoseg.export.context import AlignmentRecord, ExportContext, signal_stem
from tomoseg.export.formats import FORMATS
from tomoseg.export.formats.base import Format
from tomoseg.export.manifest import Manifest
from tomoseg.export.meshing import make_surfaces, plan_surfaces
from tomoseg.export.parameters import ExportOptions, problems
from tomoseg.export.tables import FILES
from tomoseg.keywords import takes_parameters
from tomoseg.lengths import size_or_nan
from tomoseg.runtime import Runtime
from tomoseg.words import bytes_as_text

BIG_FILE_BYTES = 10_000_000  # the expected size of such a file is said before it is written
STORED_AS_GIVEN = ("u1", "i1", "u2", "i2", "f4")  # dtypes of volumes that every format can hold


@dataclass(frozen=True)
class ExportedFiles:
    """What an export wrote.

    Attributes
    ----------
    directory : the folder, as an absolute path
    files : paths of the files (and of folders such as volume.ome.zarr), in the order in which they were written
    entries : name, bytes and time of change of each file, as `tomoseg-export.json` lists them
    notes, warnings : what the user was told
    manifest_id : random name of the folder, by which a project that was exported to it is known there
    """

    directory: Path
    files: list[Path]
    entries: list[dict[str, Any]]
    notes: list[str]
    warnings: list[str]
    manifest_id: str = ""


@takes_parameters("export", ExportOptions, problems)
def export(
    folder: str | Path,
    volume: ArrayLike | ArraySource,
    labels: ArrayLike | ArraySource,
    *,
    voxel_size_nm: float | None = None,
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[str] | None = None,
    particle_class: str | None = None,
    tables: Mapping[str, Any] | None = None,
    records: Mapping[str, Mapping[str, Any]] | None = None,
    alignment: Any = None,
    params: ExportOptions,
    runtime: Runtime,
) -> ExportedFiles:
    """Write a segmented volume to files for ParaView, napari, Fiji, IMOD, Blender and spreadsheets.

    Parameters
    ----------
    folder : str or Path
        Folder to write to, created if missing. Files that an earlier export wrote there are replaced.
    volume : (z, y, x) array or handle
        The reconstruction. Arrays that are not float32 or integers of at most 16 bits are written as float32.
    labels : (z, y, x) array or handle of integers from 0 to 255
        The class of each voxel; 0 is the background.
    voxel_size_nm : float, optional
        Edge length of a voxel, nm; by default the attribute `voxel_size_nm` of the labels if they are a handle.
        If unknown, lengths in the files are in voxels.
    class_names : sequence of str, optional
        Names in class order; by default the attribute `class_names` of the labels, or background, class_1, ...
    class_colors : sequence of str, optional
        Colours in class order, #rrggbb.
    particle_class : str, optional
        Name of the class that is drawn as particles, opaque and red; by default the last class.
    tables : mapping of str to structured array or pandas.DataFrame, optional
        Tables by file name without ending, or under the names of `Measurement.tables`. The rows of `particles` (columns
        z_px, y_px, x_px) are also written as points.
    records : mapping of str to mapping, optional
        Numbers for the summary, by topic, for example {"reconstruction": {"iterations": 40}}.
    alignment : result of tomoseg.alignment.api.align, or tomoseg.export.context.AlignmentRecord, optional
        The alignment, for the format `alignment`, which writes nothing without it.

    Returns
    -------
    ExportedFiles
        Paths of the files written, the folder, and notes.

    Raises
    ------
    InputError
        An array, an option or the folder cannot be used, or files in the folder were not written by an export.
    StageFailed
        The files do not fit on the disk, or a surface does not fit in the memory allowed.

    Notes
    -----
    Each file appears under its name only when it is complete. For axes, units and the contents of each format see the
    page "Export" of the documentation.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from tomoseg.export.api import export
    >>> labels = np.zeros((16, 20, 24), np.uint8)
    >>> labels[4:10, 5:12, 6:14] = 1
    >>> volume = 100.0 * labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = export(folder, volume, labels, voxel_size_nm=0.5, formats=["vti", "mrc"])
    >>> [path.name for path in written.files]
    ['volume.vti', 'labels.vti', 'labels.mrc', 'volume.mrc']
    """
    volume, labels = _as_volume(volume), _as_labels(labels)
    if volume.shape != labels.shape:
        raise InputError(f"volume and labels must have the same shape, and have {volume.shape} and {labels.shape}.")
    attrs: Mapping[str, Any] = getattr(labels, "attrs", {})
    names = _class_names(labels, attrs, class_names)
    if class_colors and (wrong := problems_with_colors(class_colors, len(names))):
        raise InputError.of(wrong)
    if alignment is not None and not isinstance(alignment, AlignmentRecord):
        alignment = AlignmentRecord.of(alignment)
    return export_files(
        Path(folder),
        volume,
        labels,
        voxel_size_nm=size_or_nan(attrs.get("voxel_size_nm") if voxel_size_nm is None else voxel_size_nm),
        class_names=names,
        class_colors=class_colors or colors_in(attrs, len(names)) or (),
        particle_class=particle_class or "",
        tables={FILES.get(name, name): _as_table(table) for name, table in (tables or {}).items()},
        records=records or {},
        alignment=alignment,
        params=params,
        runtime=runtime,
    )


def export_files(
    folder: Path,
    volume: ArraySource,
    labels: ArraySource,
    *,
    voxel_size_nm: float,
    class_names: Sequence[str],
    class_colors: Sequence[str],
    particle_class: str,
    tables: Mapping[str, ArraySource],
    records: Mapping[str, Mapping[str, Any]],
    alignment: AlignmentRecord | None,
    params: ExportOptions,
    runtime: Runtime,
    signals: Mapping[str, ArraySource] | None = None,
    made_from: Mapping[str, str] | None = None,
) -> ExportedFiles:
    """Write the formats asked for; arguments and errors as for `export`, without its defaults.

    `voxel_size_nm` is NaN if unknown; `signals` are volumes of further signals (z, y, x), by name. Each surface is
    meshed once and written in every format that holds surfaces. `made_from` are the run ids of the results, by stage:
    files of the same series that were made from earlier results, and are not written again, are removed.
    """
    if found := problems(params, folder):
        raise InputError.of(found)
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"export.export_dir: cannot create the folder {folder}: {error.strerror}.") from error
    formats = _possible([f for f in FORMATS if f.name in params.formats], runtime)
    names = [f.name for f in formats]
    manifest, described = Manifest(folder, made_from), (class_names, class_colors, particle_class)
    context = ExportContext(
        manifest, volume, labels, voxel_size_nm, *described, tables, records, alignment, names, runtime
    )
    context.signals = {signal_stem(k, name): data for k, (name, data) in enumerate((signals or {}).items(), 1)}
    if not context.size_is_known:
        runtime.warn(
            "the voxel size is unknown, so lengths in the exported files are in voxels, and the files say so. Give the "
            "pixel size at import (--pixel-size NM)."
        )
    files = {name: size for f in formats for name, size in f.files(context).items()}
    if not params.overwrite and (foreign := manifest.foreign(files)):
        raise InputError(
            f"{folder} holds files that no export wrote, or that were changed since: {', '.join(foreign)}. Move them, "
            "name another folder (export.export_dir), or replace them with export.overwrite=true."
        )
    if any(f.surface_writer for f in formats):
        context.planned = plan_surfaces(context, params.target_triangles)
    _check_space(context, formats)
    try:
        _write(context, formats, params)
    except OSError as error:
        raise StageFailed(
            f"writing to {folder} failed: {error.strerror or error}. Complete files are kept. Free some space or name "
            "another folder (export.export_dir), then run export again."
        ) from error
    if outdated := manifest.remove_outdated():
        runtime.say(f"removed files of an earlier export, which showed earlier results: {', '.join(outdated)}")
    if old := manifest.left_over():
        runtime.say(f"files of earlier exports remain and may show earlier results: {', '.join(old)}")
    manifest.finish()
    return ExportedFiles(
        folder,
        [folder / entry["name"] for entry in manifest.written],
        manifest.written,
        list(runtime.notes),
        list(runtime.warnings),
        manifest.id,
    )


def _possible(formats: Sequence[Format], runtime: Runtime) -> list[Format]:
    """Return the formats that can be written on this machine; of each other, say what to install."""
    possible = []
    for f in formats:
        if why := f.why_missing():
            runtime.warn(f"{why}, and export again; the other formats are written")
        else:
            possible.append(f)
    return possible


def _write(context: ExportContext, formats: Sequence[Format], params: ExportOptions) -> None:
    for f in formats:
        if f.write and not f.refers_to:
            f.write(context)
    with ExitStack() as stack:
        writers = [stack.enter_context(f.surface_writer(context)) for f in formats if f.surface_writer]
        if context.planned:
            for surface in make_surfaces(context, params.smoothing_iterations, params.target_triangles):
                for write in writers:
                    write(surface)
                context.surfaces.append(replace(surface, data=None))
    for f in formats:
        if f.write and f.refers_to:
            f.write(context)


def _check_space(context: ExportContext, formats: Sequence[Format]) -> None:
    """Say how large files will be, and refuse if they do not fit beside the older ones, which stay until replaced."""
    folder, runtime = context.manifest.directory, context.runtime
    expected = {name: size for f in formats for name, size in f.files(context).items()}
    needed, free = sum(expected.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise StageFailed(
            f"{folder} has {bytes_as_text(free)} of free space, and the files need {bytes_as_text(needed)}. Free some "
            "space, name another folder (export.export_dir), or choose fewer formats."
        )
    for name, size in expected.items():
        if size >= BIG_FILE_BYTES:
            runtime.say(f"{name} will take about {bytes_as_text(size)}")
    if needed:
        runtime.say(f"the files will take about {bytes_as_text(needed)} in all; {bytes_as_text(free)} are free")


def _as_volume(volume: Any) -> ArraySource:
    values = _array_or_handle(volume, "volume")
    if isinstance(values, np.ndarray) and values.dtype.newbyteorder("=").str[1:] not in STORED_AS_GIVEN:
        return values.astype(np.float32)
    return values


def _as_labels(labels: Any) -> ArraySource:
    values = _array_or_handle(labels, "labels")
    if isinstance(values, np.ndarray) and values.dtype != np.uint8:
        if values.dtype.kind not in "iub" or (values.size and not 0 <= values.min() <= values.max() <= 255):
            raise InputError("labels must be integers from 0 to 255, the class of each voxel.")
        return values.astype(np.uint8)
    return values


def _array_or_handle(data: Any, name: str) -> ArraySource:
    values: ArraySource = data if hasattr(data, "shape") and hasattr(data, "dtype") else np.asarray(data)
    if len(values.shape) != 3 or 0 in values.shape:
        raise InputError(f"{name} must be a non-empty array (z, y, x), and has shape {tuple(values.shape)}.")
    return values


def _class_names(labels: ArraySource, attrs: Mapping[str, Any], given: Sequence[str] | None) -> list[str]:
    names = list(given) if given is not None else names_in(attrs)
    if names is not None and not isinstance(labels, np.ndarray):
        return names  # not worth a pass over a file
    highest = max(int(np.max(labels[z : z + 1])) for z in range(labels.shape[0]))
    if names is None:
        return ["background", *(f"class_{k}" for k in range(1, highest + 1))]
    if highest >= len(names):
        raise InputError(f"class_names has {len(names)} names, but the labels hold class {highest}; name every class.")
    return names


def _as_table(table: Any) -> Array:
    """Return a structured array, also of a pandas.DataFrame."""
    return np.asarray(table.to_records(index=False) if hasattr(table, "to_records") else table)
