"""Stage `reconstruct`: the volume from the aligned tilt series, slab by slab along the tilt axis."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg import schema
from tomoseg.arrays import ArraySource, Input, Outputs
from tomoseg.errors import InputError, StageFailed
from tomoseg.runtime import Runtime, slabs
from tomoseg.stages.base import Field, Parameters, Stage

if TYPE_CHECKING:
    from tomoseg.reconstruct.backends import Choice
    from tomoseg.reconstruct.geometry import ParallelGeometry
    from tomoseg.reconstruct.methods import Method, Result

READ_AHEAD = 64  # slices read together, as the aligned series is chunked; fewer where memory is short
SLICES_PER_CORE = 16  # in a group for TomoPy, which shares them out itself


class ReconstructParameters(Parameters):
    """How the volume is reconstructed."""

    method: Literal["mlem", "sirt", "fbp"] = Field(
        "mlem",
        description="mlem: maximum-likelihood expectation maximisation, the paper's method; sirt: simultaneous "
        "iterative reconstruction; fbp: filtered back projection",
    )
    iterations: int = Field(
        30,
        ge=1,
        le=10_000,
        description="iterations of mlem and sirt. On simulated catalysts mlem is closest to the truth after 20 to 50, "
        "fewer the noisier the images; sirt needs about three times as many",
    )
    backend: Literal["auto", "cpu", "astra", "tomopy"] = Field(
        "auto",
        description="what computes: cpu (tomoseg's own projector), astra (on a GPU, or its CPU projector), tomopy; "
        "auto is astra where there is a GPU that may be used, else cpu",
    )
    z_size: int | None = Field(
        None, ge=1, le=100_000, description="thickness of the volume along the beam, px; null: as wide as the images"
    )
    filter: Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"] = Field(
        "hann", description="window on the ramp filter of fbp; hann is the smoothest, ramp the sharpest and noisiest"
    )
    non_negative: bool = Field(True, description="sirt: set negative voxels to 0 after each iteration")
    support: Literal["all", "cylinder"] = Field(
        "all",
        description="voxels that may be other than 0. all: also those in the corners, which leave the field of view at "
        "high tilt and are set by the tilts that see them; cylinder: only those that every tilt sees, for an "
        "object that lies wholly within the images",
    )
    exclude_outliers: bool = Field(
        True,
        description="leave out images that the alignment marked as outliers: empty ones, which would dim every voxel, "
        "and those that do not agree with their neighbours",
    )


def check(params: ReconstructParameters) -> list[str]:
    """Say what is missing for the backend asked for."""
    from tomoseg.reconstruct.backends import missing

    problem = missing(params.backend)
    return [f"reconstruct.backend: {problem}"] if problem else []


def run(
    *,
    aligned: Input,
    angles_deg: Input,
    tilt_quality: Input,
    tilt_series_info: Input,
    params: ReconstructParameters,
    runtime: Runtime,
    outputs: Outputs,
) -> None:
    """Reconstruct `aligned`, whose tilt axis lies along y through the middle of x."""
    from tomoseg.reconstruct.backends import choose

    images, angles = _chosen(aligned, np.asarray(angles_deg[:], np.float64), tilt_quality, params, runtime)
    geometry = _geometry(images, angles, params, runtime)
    choice = choose(params.backend, runtime.device)
    runtime.device_used = choice.device
    runtime.say(f"reconstructing with backend {choice.backend} on {choice.device}: {choice.reason}")
    n_y = aligned.shape[1]
    volume = outputs.create(
        "volume",
        (geometry.nz, n_y, geometry.nx),
        attrs={"voxel_size_nm": float(tilt_series_info.attrs.get("pixel_size_nm", np.nan))},
    )
    negative = _Negative()
    misfit: NDArray[np.float64] = np.zeros(1)
    power = 0.0
    with _solver(choice, geometry, params, runtime) as (solve, block, at_once):
        groups, ahead = _plan(runtime, geometry, n_y, block, at_once)
        progress = runtime.track(groups, f"{params.method} reconstruction")
        for group, data in zip(progress, _read(images, groups, ahead), strict=True):
            _refuse_nan(data, geometry)
            negative.count(data)
            result = solve(data)
            volume[:, group] = result.volume
            misfit, power = misfit + result.misfit, power + result.power
    residuals = np.sqrt(misfit / power) if power > 0 else np.zeros_like(misfit)
    outputs.put("residuals", residuals)
    outputs.set_attrs(
        "reconstruction_info", {"method": params.method, "backend": choice.backend, "device": choice.device}
    )
    _report(params, residuals, negative, power, runtime)


class _Chosen:
    """Some of the images of the aligned series."""

    def __init__(self, aligned: ArraySource, kept: NDArray[np.bool_]) -> None:
        self._aligned, self._kept = aligned, kept
        self.shape = (int(kept.sum()), *aligned.shape[1:])
        self.dtype = aligned.dtype

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.float32]:
        """Return (n_kept, n_y, n_x) for a key that takes all tilts."""
        return np.asarray(self._aligned[key])[self._kept]


def _chosen(
    aligned: Input,
    angles_deg: NDArray[np.float64],
    tilt_quality: Input,
    params: ReconstructParameters,
    runtime: Runtime,
) -> tuple[ArraySource, NDArray[np.float64]]:
    """Return images and angles without the outliers."""
    outlier = np.asarray(tilt_quality[:]["is_outlier"], bool)
    if not params.exclude_outliers or not outlier.any() or len(outlier) != len(angles_deg):
        return aligned, angles_deg
    listed = ", ".join(f"{a:g}" for a in angles_deg[outlier][:10]) + (" ..." if outlier.sum() > 10 else "")
    runtime.say(f"{outlier.sum()} images that the alignment marked as outliers are left out (tilt {listed} degrees)")
    return _Chosen(aligned, ~outlier), angles_deg[~outlier]


class _Negative:
    """How much of the data is negative."""

    def __init__(self) -> None:
        self.pixels, self.all_pixels = 0, 0
        self.amount, self.all_amount = 0.0, 0.0

    def count(self, data: NDArray[np.float32]) -> None:
        below = np.minimum(data, 0)
        self.pixels += int(np.count_nonzero(below))
        self.all_pixels += data.size
        self.amount -= float(below.sum(dtype=np.float64))
        self.all_amount += float(np.abs(data).sum(dtype=np.float64))


def _geometry(
    aligned: ArraySource, angles_deg: NDArray[np.float64], params: ReconstructParameters, runtime: Runtime
) -> "ParallelGeometry":
    """Return the geometry, or say why there is none."""
    from tomoseg.reconstruct.geometry import ParallelGeometry

    n_tilt, _, n_x = aligned.shape
    if len(angles_deg) != n_tilt:
        raise InputError(
            f"The aligned series has {n_tilt} images but there are {len(angles_deg)} tilt angles; align it again."
        )
    if n_tilt < 2:
        raise InputError(
            f"The tilt series has {'one image only' if n_tilt else 'no image'} that can be used. A volume needs images "
            "from several directions: import all of them."
        )
    span = float(np.ptp(angles_deg))
    if span > 180:
        runtime.say(
            f"the tilts span {span:.1f} degrees: directions more than 180 degrees apart are seen twice, and each "
            "image counts as a measurement of its own"
        )
    return ParallelGeometry(angles_deg, n_detector=n_x, nx=n_x, nz=params.z_size or n_x)


@contextmanager
def _solver(
    choice: "Choice", geometry: "ParallelGeometry", params: ReconstructParameters, runtime: Runtime
) -> Iterator[tuple[Callable[[NDArray[np.float32]], "Result"], int, int]]:
    """Yield what reconstructs a group of slices, the slices of a block, and the blocks computed at once."""
    from tomoseg.reconstruct.backends import operator
    from tomoseg.reconstruct.methods import in_blocks

    support = geometry.cylinder() if params.support == "cylinder" else None
    if choice.backend == "tomopy":
        yield _with_tomopy(geometry, params, support, runtime.workers), SLICES_PER_CORE, runtime.workers
        return
    method = _method(params, support, runtime.check)
    with closing(operator(choice, geometry)) as one:
        at_once = runtime.workers if one.threads else 1
        yield lambda data: in_blocks(one, method, data, at_once), one.block, at_once


def _method(params: ReconstructParameters, support: NDArray[np.bool_] | None, check: Callable[[], None]) -> "Method":
    """Return the method with its parameters filled in; `check` stops it between iterations."""
    from functools import partial

    from tomoseg.reconstruct import methods

    if params.method == "mlem":
        return partial(methods.mlem, iterations=params.iterations, support=support, checkpoint=check)
    if params.method == "sirt":
        return partial(
            methods.sirt,
            iterations=params.iterations,
            support=support,
            non_negative=params.non_negative,
            checkpoint=check,
        )
    return partial(methods.fbp, filter_name=params.filter, support=support)


def _with_tomopy(
    geometry: "ParallelGeometry", params: ReconstructParameters, support: NDArray[np.bool_] | None, workers: int
) -> Callable[[NDArray[np.float32]], "Result"]:
    """Return TomoPy's reconstruction of a group of slices."""
    from tomoseg.reconstruct.tomopy_backend import reconstruct

    def solve(data: NDArray[np.float32]) -> "Result":
        return reconstruct(
            data,
            geometry,
            params.method,
            iterations=params.iterations,
            filter_name=params.filter,
            non_negative=params.non_negative,
            support=support,
            workers=workers,
        )

    return solve


def _plan(
    runtime: Runtime, geometry: "ParallelGeometry", n_y: int, block: int, at_once: int
) -> tuple[list[slice], int]:
    """Return the groups of slices to compute, each as many blocks as run at once, and how many slices to read ahead."""
    plane, sinogram = geometry.nz * geometry.nx, geometry.n_tilt * geometry.n_detector
    # Volume: the result, the backend's own and one in the making; projections: as read, filtered, measured, computed.
    fits = runtime.slab_size(4 * (3 * plane + 4 * sinogram), n_y, multiple=block)
    size = min(fits, block * at_once)
    return slabs(n_y, size), max(1, min(fits, READ_AHEAD) // size) * size


def _read(aligned: ArraySource, groups: Sequence[slice], ahead: int) -> Iterator[NDArray[np.float32]]:
    """Yield the projections of each group, (n_tilt, n, n_x), reading `ahead` slices at a time."""
    data = np.empty((0, 0, 0), np.float32)
    start = stop = 0
    for group in groups:
        if group.stop > stop:
            start, stop = group.start, min(group.start + ahead, groups[-1].stop)
            data = np.asarray(aligned[:, start:stop], np.float32)
        yield data[:, group.start - start : group.stop - start]


def _refuse_nan(data: NDArray[np.float32], geometry: "ParallelGeometry") -> None:
    """Raise where a projection is not a number."""
    bad = np.flatnonzero(~np.isfinite(data).all(axis=(1, 2)))
    if len(bad):
        names = ", ".join(f"number {i + 1} at {geometry.angles_deg[i]:g} degrees" for i in bad[:5])
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise StageFailed(
            f"The aligned tilt series holds values that are not numbers (NaN or infinite) in image {names}{more}. "
            "Align it again; if the raw images hold them, leave those images out at import."
        )


def _report(
    params: ReconstructParameters, residuals: NDArray[np.float64], negative: _Negative, power: float, runtime: Runtime
) -> None:
    """Say what the user should know about the result."""
    if power == 0:
        runtime.warn("the aligned series is empty (all zero), and so is the volume")
        return
    if params.method == "mlem" and negative.pixels > 5e-4 * negative.all_pixels:
        text = (
            f"{negative.pixels / negative.all_pixels:.1%} of the aligned pixels are negative "
            f"({negative.amount / negative.all_amount:.2%} of the signal) and count as 0 in mlem"
        )
        if negative.amount > 0.05 * negative.all_amount:
            runtime.warn(f"{text}; check the background that the alignment took away")
        else:
            runtime.say(text)
    if len(residuals) == 1:
        runtime.say(f"relative residual {residuals[-1]:.3f}")
        return
    runtime.say(f"relative residual {residuals[0]:.3f}, after {params.iterations} iterations {residuals[-1]:.3f}")
    if residuals[-1] > residuals[0]:
        runtime.warn("the residual grew: the volume explains the images worse than the start did")


STAGE: Stage = Stage(
    name="reconstruct",
    version=1,
    summary="volume from the aligned series (MLEM, SIRT or FBP; CPU or GPU)",
    parameters=ReconstructParameters,
    reads=(schema.ALIGNED, schema.ANGLES, schema.TILT_QUALITY, schema.TILT_SERIES_INFO),
    writes=(schema.VOLUME, schema.RESIDUALS, schema.RECONSTRUCTION_INFO),
    run=run,
    check=check,
)
