"""Stage `align`: background, shifts, tilt axis, and every raw image resampled once into the aligned frame."""

from tomoseg import schema
from tomoseg.alignment.extent import memory_needed, reduction_of
from tomoseg.alignment.parameters import AlignParameters, check
from tomoseg.arrays import Input, Outputs
from tomoseg.io.shifts import GivenAlignment
from tomoseg.lengths import size_or_nan
from tomoseg.runtime import Runtime
from tomoseg.stages.base import Doubt, Prospect, Stage


def run(
    *,
    tilt_series: Input,
    angles_deg: Input,
    tilt_series_info: Input,
    params: AlignParameters,
    runtime: Runtime,
    outputs: Outputs,
    from_project: GivenAlignment | None = None,
    further_signals: Input | None = None,
) -> None:
    """Align `tilt_series`; see `tomoseg.alignment.images.warp` for what the numbers mean."""
    from tomoseg.alignment.api import align_series, align_signals

    known = tilt_series_info.attrs
    found = align_series(
        tilt_series,
        angles_deg[:],
        tilt_axis=known.get("tilt_axis"),
        pixel_size_nm=size_or_nan(known.get("pixel_size_nm")),
        source=str(known.get("source", "")),
        given=from_project,
        params=params,
        runtime=runtime,
        outputs=outputs,
    )
    outputs.put("shifts_px", found.shifts_px)
    if found.has_refined_angles:
        outputs.put("refined_angles_deg", found.angles_deg)
    outputs.put("tilt_quality", found.table)
    if (markers := found.markers) is not None:
        outputs.put("marker_places_px", markers.places_px.astype("f4"))
        outputs.put("marker_residuals_px", markers.residuals_px.astype("f4"))
    axis = {"tilt_axis_angle_deg": found.tilt_axis_angle_deg, "tilt_axis_offset_px": found.tilt_axis_offset_px}
    outputs.set_attrs("alignment_info", {**axis, "method": found.method, **found.figures})
    if further_signals is not None:
        align_signals(further_signals, found, runtime=runtime, outputs=outputs)
    if (preview := found.preview) is not None:
        outputs.put("alignment_preview", preview.slices, {"voxel_size_px": float(preview.factor), "row": preview.row})


def foresee(params: AlignParameters, prospect: Prospect) -> list[Doubt]:
    """Say where finding an alignment takes more memory than there is."""
    if params.method == "none" or params.shifts_file is not None or params.from_project is not None:
        return []
    shape = prospect.series_shape
    patch = params.x_range is not None or params.y_range is not None
    needed = memory_needed(shape, reduction_of(shape), patch=patch)
    if needed <= prospect.memory:
        return []
    text = (
        f"align: finding the alignment of {shape[0]} images takes about {needed / 2**30:.1f} GiB of memory, and this "
        f"process may use {prospect.memory / 2**30:.1f} GiB: run it where there is more"
    )
    return [Doubt(text, stops=True)]


STAGE = Stage(
    name="align",
    version=7,
    summary="Bring the tilt series into register: background, shifts, tilt axis.",
    parameters=AlignParameters,
    reads=(schema.TILT_SERIES, schema.ANGLES, schema.TILT_SERIES_INFO, schema.FURTHER_SIGNALS),
    writes=(
        schema.SHIFTS,
        schema.ALIGNMENT_INFO,
        schema.TILT_QUALITY,
        schema.MARKERS,
        schema.MARKER_RESIDUALS,
        schema.REFINED_ANGLES,
        schema.ALIGNED,
        schema.ALIGNED_SIGNALS,
        schema.ALIGNMENT_PREVIEW,
    ),
    run=run,
    check=check,
    foresee=foresee,
)
