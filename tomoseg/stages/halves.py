"""Reconstructions of the even and of the odd tilts, labelled in the same way as the whole: for uncertainties."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import ArraySource, Input, Outputs
from tomoseg.errors import InputError
from tomoseg.lengths import size_or_nan
from tomoseg.runtime import Runtime
from tomoseg.scratch import ScratchOutputs

if TYPE_CHECKING:
    from tomoseg.reconstruction.api import Reconstruction

Half = tuple[ArraySource, ArraySource]  # labels and volume


@dataclass(frozen=True)
class Series:
    """What a reconstruction is made of: images (n_tilt, y, x), angles (n_tilt,), those to leave out (n_tilt,) or None.

    `film_thickness_px` is NaN for samples that are no films.
    """

    aligned: ArraySource
    angles_deg: NDArray[np.float64]
    is_outlier: NDArray[np.bool_] | None
    film_thickness_px: float

    @classmethod
    def of(
        cls, aligned: ArraySource, angles_deg: Input, tilt_quality: Input | None, alignment_info: Input | None
    ) -> "Series":
        """Take them from what a project holds."""
        return cls(
            aligned,
            np.asarray(angles_deg[:], np.float64),
            None if tilt_quality is None else np.asarray(tilt_quality[:]["is_outlier"], bool),
            size_or_nan(None if alignment_info is None else alignment_info.attrs.get("film_thickness_px")),
        )

    def reconstruct(self, params: Any, pixel_size_nm: float, runtime: Runtime, outputs: Outputs) -> "Reconstruction":
        """Reconstruct it; see `tomoseg.reconstruction.api.reconstruct_series`."""
        from tomoseg.reconstruction.api import reconstruct_series

        return reconstruct_series(
            self.aligned,
            self.angles_deg,
            outliers=self.is_outlier,
            pixel_size_nm=pixel_size_nm,
            params=params,
            runtime=runtime,
            outputs=outputs,
            film_thickness_px=self.film_thickness_px,
        )


@contextmanager
def labelled_halves(
    series: Series,
    voxel_size_nm: float,
    reconstruction: Mapping[str, Any],
    segmentation: Mapping[str, Any],
    runtime: Runtime,
) -> Iterator[list[Half]]:
    """Yield labels and volume of the even and of the odd tilts; large ones lie in temporary files until the end.

    `reconstruction` and `segmentation` are the attributes that the stages left: how the whole volume was made.
    Raises `InputError` where they do not say it, as those of earlier versions.
    """
    for name, info in (("reconstruct", reconstruction), ("segment", segmentation)):
        if "parameters" not in info:
            raise InputError(
                f"measure.uncertainty needs to know how the volume was made, and this project, of an earlier version, "
                f"does not say: run {name} again."
            )
    from tomoseg.reconstruction.parameters import ReconstructParameters

    params = ReconstructParameters.model_validate_json(reconstruction["parameters"])
    if not params.exclude_outliers:
        series = replace(series, is_outlier=None)
    same: dict[str, Any] = {"exclude_outliers": True, "resolution": False}  # half of the tilts count as outliers
    if int(reconstruction["iterations"]):
        same["iterations"] = int(reconstruction["iterations"])
    params = params.model_copy(update=same)
    with ExitStack() as held:
        halves: list[Half] = []
        for name, left_out in zip(("even", "odd"), _left_out(series), strict=True):
            runtime.progress.message(f"uncertainty: the {name} tilts")
            outputs = ScratchOutputs("measure.uncertainty")
            held.callback(outputs.close)
            quiet = replace(runtime, notes=[], warnings=[])
            half = replace(series, is_outlier=left_out)
            half.reconstruct(params, voxel_size_nm / params.binning, quiet, outputs)
            _segment(outputs.arrays["volume"], voxel_size_nm, segmentation, quiet, outputs)
            halves.append((outputs.arrays["labels"], outputs.arrays["volume"]))
        yield halves


def _left_out(series: Series) -> Iterator[NDArray[np.bool_]]:
    """Yield which images to leave out for the even and for the odd tilts."""
    from tomoseg.reconstruction.resolution import halves

    n = len(series.angles_deg)
    used = np.flatnonzero(np.ones(n, bool) if series.is_outlier is None else ~series.is_outlier)
    for half in halves(series.angles_deg[used]):
        left_out = np.ones(n, bool)
        left_out[used[half]] = False
        yield left_out


def _segment(
    volume: ArraySource, voxel_size_nm: float, info: Mapping[str, Any], runtime: Runtime, outputs: ScratchOutputs
) -> None:
    from tomoseg.segmentation.api import segment_volume
    from tomoseg.segmentation.networks.known_models import resolve_model
    from tomoseg.segmentation.parameters import DEFAULT_MODEL, SegmentParameters

    params = SegmentParameters.model_validate_json(info["parameters"])
    how: dict[str, Any] = {"method": info["method"]}  # not one half by a network and the other by thresholds
    if info["method"] == "unet" and params.model is None:
        how["model"] = resolve_model(DEFAULT_MODEL)
    segment_volume(volume, voxel_size_nm, params.model_copy(update=how), runtime, outputs)
