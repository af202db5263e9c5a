"""Stage `measure`: numbers from labels. Volume and surface of each class, each particle, the size distribution."""

from contextlib import ExitStack

import numpy as np

from tomoseg import schema
from tomoseg.arrays import Input, Outputs
from tomoseg.classes import class_names
from tomoseg.lengths import size_or_nan
from tomoseg.measurement.parameters import MeasureParameters
from tomoseg.runtime import Runtime
from tomoseg.stages.base import Stage
from tomoseg.stages.halves import Half, Series, labelled_halves


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
    segmentation_info: Input | None = None,
    aligned: Input | None = None,
    alignment_info: Input | None = None,
    tilt_quality: Input | None = None,
) -> None:
    """Measure the classes of `labels` and the particles of one of them, with intensities from `volume`.

    The tilts tell which way the reconstruction elongates; without them, no particle is suspected of that. For the
    uncertainty, the aligned series is reconstructed, labelled and measured twice more, by halves.
    """
    from tomoseg.measurement.api import measure_labels
    from tomoseg.measurement.support.normals import ISOTROPIC_PER_SR, KERNEL_DEG

    given = angles_deg if refined_angles_deg is None else refined_angles_deg
    made, labelled = ({} if info is None else info.attrs for info in (reconstruction_info, segmentation_info))
    voxel_size_nm = size_or_nan(labels.attrs.get("voxel_size_nm"))
    with ExitStack() as held:
        halves: list[Half] = []
        if params.uncertainty and aligned is not None and given is not None:
            series = Series.of(aligned, given, tilt_quality, alignment_info)
            halves = held.enter_context(labelled_halves(series, voxel_size_nm, made, labelled, runtime))
        found = measure_labels(
            labels,
            volume,
            class_names(labels),
            voxel_size_nm,
            params,
            runtime,
            angles_deg=None if given is None else given[:],
            resolution_px=float(made.get("resolution_px", np.nan)),
            resolution_nm=float(made.get("resolution_nm", np.nan)),
            halves=halves,
        )
    for name, table in found.tables.items():
        outputs.put(name, table)
    outputs.set_attrs("measurement_info", found.summary)
    if found.orientation_map is not None:
        map_attrs = {"kernel_deg": KERNEL_DEG, "isotropic_per_sr": ISOTROPIC_PER_SR}
        outputs.put("orientation_map", found.orientation_map, map_attrs)
        outputs.set_attrs("support_info", found.support)


STAGE = Stage(
    name="measure",
    version=5,
    summary="volume and surface of each class, particles and their sizes",
    parameters=MeasureParameters,
    reads=(
        schema.LABELS,
        schema.VOLUME,
        schema.ANGLES,
        schema.REFINED_ANGLES,
        schema.RECONSTRUCTION_INFO,
        schema.SEGMENTATION_INFO,
        schema.ALIGNED,
        schema.ALIGNMENT_INFO,
        schema.TILT_QUALITY,
    ),
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
        schema.LAYER_TABLE,
        schema.MEASUREMENT_INFO,
    ),
    run=run,
)
