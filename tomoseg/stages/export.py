"""Stage `export`: files for ParaView, napari, Fiji, IMOD, Blender and spreadsheets, beside the project."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tomoseg import schema
from tomoseg.arrays import Input, Outputs, volumes_by_name
from tomoseg.errors import InputError, named
from tomoseg.export.manifest import default_folder, doubt_about, lost_files
from tomoseg.export.parameters import ExportParameters, problems
from tomoseg.lengths import size_or_nan
from tomoseg.runtime import Runtime
from tomoseg.stages.base import Stage


def run(
    *,
    volume: Input,
    labels: Input,
    tilt_series_info: Input,
    angles_deg: Input,
    shifts_px: Input,
    alignment_info: Input,
    tilt_quality: Input,
    aligned: Input,
    params: ExportParameters,
    runtime: Runtime,
    outputs: Outputs,
    class_table: Input,
    particle_table: Input,
    size_table: Input,
    facet_table: Input | None = None,
    curvature_table: Input | None = None,
    pore_table: Input | None = None,
    pore_size_table: Input | None = None,
    layer_table: Input | None = None,
    refined_angles_deg: Input | None = None,
    reconstruction_info: Input | None = None,
    segmentation_info: Input | None = None,
    measurement_info: Input | None = None,
    support_info: Input | None = None,
    signal_volumes: Input | None = None,
) -> None:
    """Write the files asked for; each appears under its name only when it is complete."""
    from tomoseg.classes import class_names, colors_in
    from tomoseg.export.api import export_files
    from tomoseg.export.context import AlignmentRecord, corrections_in
    from tomoseg.export.tables import FILES

    if params.export_dir is None:
        raise InputError("export.export_dir: name the folder to write to.")
    quality, axis, names = tilt_quality[:], alignment_info.attrs, class_names(labels)
    tables = {
        "class_table": class_table,
        "particle_table": particle_table,
        "size_table": size_table,
        "facet_table": facet_table,
        "curvature_table": curvature_table,
        "pore_table": pore_table,
        "pore_size_table": pore_size_table,
        "layer_table": layer_table,
    }
    records = {
        "tilt_series": tilt_series_info,
        "reconstruction": reconstruction_info,
        "segmentation": segmentation_info,
        "measurement": measurement_info,
        "support": support_info,
    }
    written = export_files(
        Path(params.export_dir),
        volume,
        labels,
        voxel_size_nm=size_or_nan(labels.attrs.get("voxel_size_nm")),
        class_names=names,
        class_colors=colors_in(labels.attrs, len(names)) or (),
        particle_class=str(measurement_info.attrs.get("particle_class", "")) if measurement_info else "",
        tables={FILES[name]: table for name, table in tables.items() if table is not None},
        records={topic: group.attrs for topic, group in records.items() if group is not None},
        alignment=AlignmentRecord(
            angles_deg[:],
            shifts_px[:],
            float(axis["tilt_axis_angle_deg"]),
            float(axis["tilt_axis_offset_px"]),
            (aligned.shape[1], aligned.shape[2]),
            quality["is_outlier"],
            None if refined_angles_deg is None else refined_angles_deg[:],
            corrections_in(quality),
        ),
        params=params,
        runtime=runtime,
        signals={} if signal_volumes is None else volumes_by_name(signal_volumes),
        made_from=outputs.consumed,
    )
    facts = {"directory": str(written.directory), "files": json.dumps(written.entries), "manifest": written.manifest_id}
    outputs.set_attrs("export_info", facts)


def beside(params: ExportParameters, project: Path) -> ExportParameters:
    """Choose a folder beside the project where none is named."""
    if params.export_dir is not None:
        return params
    return params.model_copy(update={"export_dir": str(default_folder(project))})


def doubts(params: ExportParameters, project: Path, export_info: Mapping[str, Any]) -> list[str]:
    """Say why the folder that a project names, or the one beside it, is not to be written to unasked."""
    folder = default_folder(project) if params.export_dir is None else Path(params.export_dir)
    why = doubt_about(folder, project, export_info)
    what = "export folder of the project is" if params.export_dir is None else "project names the export folder"
    return [f"The {what} {named(folder)}, which {why}; add --export-dir {named(folder)} to use it."] if why else []


STAGE = Stage(
    name="export",
    version=5,
    summary="files for ParaView, napari, Fiji, IMOD, Blender and spreadsheets",
    parameters=ExportParameters,
    reads=(
        schema.VOLUME,
        schema.SIGNAL_VOLUMES,
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
        schema.SUPPORT_INFO,
        schema.FACET_TABLE,
        schema.CURVATURE_TABLE,
        schema.PORE_TABLE,
        schema.PORE_SIZE_TABLE,
        schema.LAYER_TABLE,
    ),
    writes=(schema.EXPORT_INFO,),
    run=run,
    check=lambda params: problems(params, params.export_dir),
    beside=beside,
    writes_to="export_dir",
    doubts=doubts,
    lost=lost_files,
)
