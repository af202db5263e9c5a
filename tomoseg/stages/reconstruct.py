"""Stage `reconstruct`: the volume from the aligned tilt series, slab by slab along the tilt axis."""

import numpy as np

from tomoseg import schema
from tomoseg.arrays import Input, Outputs
from tomoseg.lengths import size_or_nan
from tomoseg.reconstruction.parameters import ReconstructParameters, check
from tomoseg.runtime import Runtime
from tomoseg.stages.base import Stage


def run(
    *,
    aligned: Input,
    angles_deg: Input,
    tilt_quality: Input,
    tilt_series_info: Input,
    params: ReconstructParameters,
    runtime: Runtime,
    outputs: Outputs,
    alignment_info: Input | None = None,
    refined_angles_deg: Input | None = None,
    aligned_signals: Input | None = None,
) -> None:
    """Reconstruct `aligned`, whose tilt axis lies along y through the middle of x."""
    from tomoseg.reconstruction.api import reconstruct_series
    from tomoseg.reconstruction.signals import chosen_signals, reconstruct_signals

    is_outlier = np.asarray(tilt_quality[:]["is_outlier"], bool)
    outliers = is_outlier if len(is_outlier) == aligned.shape[0] else None
    angles = np.asarray((angles_deg if refined_angles_deg is None else refined_angles_deg)[:], np.float64)
    pixel_size_nm = size_or_nan(tilt_series_info.attrs.get("pixel_size_nm"))
    thickness_px = size_or_nan(None if alignment_info is None else alignment_info.attrs.get("film_thickness_px"))
    chosen = chosen_signals(params.signals, aligned_signals)
    done = reconstruct_series(
        aligned,
        angles,
        outliers=outliers,
        pixel_size_nm=pixel_size_nm,
        params=params,
        runtime=runtime,
        outputs=outputs,
        film_thickness_px=thickness_px,
    )
    if aligned_signals is not None and chosen:
        reconstruct_signals(
            aligned_signals,
            chosen,
            angles,
            outliers=outliers,
            pixel_size_nm=pixel_size_nm,
            shape=done.volume.shape,
            params=params,
            runtime=runtime,
            outputs=outputs,
            film_thickness_px=thickness_px,
        )
    info: dict[str, str | float] = {
        "method": done.method,
        "backend": done.backend,
        "device": done.device,
        "iterations": done.iterations,
        "parameters": params.model_dump_json(),
    }
    outputs.put("residuals", done.residuals)
    if done.stopping_table is not None:
        outputs.put("stopping", done.stopping_table)
    if done.resolution is not None:
        outputs.put("shells", done.resolution.shells)
        info |= done.resolution.stored(done.voxel_size_nm)
    outputs.set_attrs("reconstruction_info", info)


STAGE: Stage = Stage(
    name="reconstruct",
    version=3,
    summary="volume from the aligned series (MLEM, OSEM, SIRT, TV, FBP or TomoPy's gridrec; CPU or GPU)",
    parameters=ReconstructParameters,
    reads=(
        schema.ALIGNED,
        schema.ALIGNED_SIGNALS,
        schema.ALIGNMENT_INFO,
        schema.ANGLES,
        schema.REFINED_ANGLES,
        schema.TILT_QUALITY,
        schema.TILT_SERIES_INFO,
    ),
    writes=(
        schema.VOLUME,
        schema.SIGNAL_VOLUMES,
        schema.RESIDUALS,
        schema.STOPPING,
        schema.SHELLS,
        schema.RECONSTRUCTION_INFO,
    ),
    run=run,
    check=check,
)
