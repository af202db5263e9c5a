"""Reconstruct a volume from an aligned tilt series: `reconstruct` on arrays, `reconstruct_series` on handles."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomoseg.arrays import ArraySource, MemoryOutputs, Outputs
from tomoseg.errors import InputError, StageFailed
from tomoseg.keywords import takes_parameters
from tomoseg.reconstruction.backends.choice import Choice, choose
from tomoseg.reconstruction.backends.gpu import GpuFailed
from tomoseg.reconstruction.fit import refuse_unexplained
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.method_table import METHODS, BackendName, MethodRow, methods_of
from tomoseg.reconstruction.methods import NotFinite, tv_scale
from tomoseg.reconstruction.operators import Floats
from tomoseg.reconstruction.parameters import ReconstructParameters, check
from tomoseg.reconstruction.resolution import Resolution, halves, middle_of_half, resolution_of
from tomoseg.reconstruction.selection import (
    RESOLUTION_SLICES,
    SAMPLE_SLICES,
    Selection,
    film_depth,
    refuse_non_finite,
    select,
    series_geometry,
    take_sample,
    within,
)
from tomoseg.reconstruction.slab_loop import Checkpoint, Work, reconstruct_slabs
from tomoseg.reconstruction.solver import Recipe
from tomoseg.reconstruction.stopping import choose_iterations, parts_of
from tomoseg.runtime import Runtime

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A reconstructed volume and how far it can be relied on.

    Attributes
    ----------
    volume : (nz, ny, nx) f4
        Density, in units of the images per voxel length; the tilt axis lies along y, the beam along z.
    residuals : (iterations + 1,) f8
        Relative residual ``||p - A v|| / ||p||`` before each iteration and after the last; one for a direct method.
    resolution : Resolution or None
        What the Fourier shell correlation of even and odd tilts tells, with the directions x, y and z; None with
        ``resolution=False``.
    voxel_size_nm : float
        NaN where no pixel size was given.
    iterations : int
        0 for a direct method.
    method, backend, device : str
        What computed the volume.
    stopping_table : structured array or None
        `stopping` as it is stored.
    notes, warnings : list of str
        What was decided on the way, and what needs care.
    """

    volume: Any
    residuals: NDArray[np.float64]
    resolution: Resolution | None
    voxel_size_nm: float
    iterations: int
    method: str
    backend: str
    device: str
    stopping_table: NDArray[Any] | None
    notes: list[str]
    warnings: list[str]

    @property
    def resolution_px(self) -> float:
        """Period at which the correlation falls below 1/7; 2 where it never does, NaN where unknown."""
        return float("nan") if self.resolution is None else self.resolution.px

    @property
    def resolution_nm(self) -> float:
        """The resolution in nm."""
        return self.resolution_px * self.voxel_size_nm

    @property
    def shells(self) -> "pd.DataFrame | None":
        """Shells by `frequency_per_px` with their `correlation` and number of `coefficients`, unless not measured."""
        return _data_frame(None if self.resolution is None else self.resolution.shells)

    @property
    def stopping(self) -> "pd.DataFrame | None":
        """Relative residual of `held_out` tilts after each number of `iterations` that was tried; None if none was."""
        return _data_frame(self.stopping_table)


def _data_frame(table: NDArray[Any] | None) -> "pd.DataFrame | None":
    import pandas as pd

    return None if table is None else pd.DataFrame(table)


@takes_parameters("reconstruct", ReconstructParameters, check)
def reconstruct(
    aligned: ArrayLike | ArraySource,
    angles_deg: ArrayLike,
    *,
    outliers: ArrayLike | None = None,
    pixel_size_nm: float | None = None,
    film_thickness_px: float | None = None,
    params: ReconstructParameters,
    runtime: Runtime,
) -> Reconstruction:
    """Reconstruct a volume from an aligned tilt series.

    Parameters
    ----------
    aligned : array, shape (n_tilt, ny, nx)
        Aligned images, the tilt axis along y through the middle of x; anything that is sliced like an array. They are
        read a few rows at a time and are not modified.
    angles_deg : array, shape (n_tilt,)
        Tilt angles in degrees. A point at (x, z) from the middle of a slice is seen at ``x*cos(t) + z*sin(t)``.
    outliers : bool array, shape (n_tilt,), optional
        Images to leave out.
    pixel_size_nm : float, optional
        Size of a pixel of `aligned`.
    film_thickness_px : float, optional
        Thickness, in px of `aligned`, of a film that extends beyond the frame on all sides and lies level in the middle
        of the volume (`AlignedSeries.film_thickness_px`; NaN for other samples). It decides `z_size` where that is not
        given, and iterative methods make room beside the frame for what high tilts show of a film.

    Returns
    -------
    Reconstruction
        `volume`, `residuals`, `resolution_px` and more.

    Raises
    ------
    InputError
        A parameter or an array cannot be used.
    StageFailed
        An image contains NaN or infinite values, all images are blank, the volume is not finite or does not explain
        the images, or the GPU asked for failed.

    Notes
    -----
    `mlem`, the default, multiplies the volume v by ``A'(p / A v) / A'1`` in every iteration, with p the images and A
    the projection (Shepp & Vardi, IEEE Trans. Med. Imaging 1, 113, 1982). Each of the methods in
    `tomoseg.reconstruction.methods` states its equation and source. The number of iterations is found by
    cross-validation (Coakley, IEEE Trans. Nucl. Sci. 38, 9, 1991), the resolution by Fourier shell correlation (Harauz
    & van Heel, Optik 73, 146, 1986). Results do not depend on `workers` or `max_memory`.

    Examples
    --------
    A cylinder along the tilt axis, seen from 31 directions:

    >>> import numpy as np
    >>> import tomoseg as ts
    >>> angles_deg = np.linspace(-60, 60, 31)
    >>> x = np.arange(32) - 15.5
    >>> chord = 2 * np.sqrt(np.clip(8**2 - x**2, 0, None))  # the same from every direction
    >>> aligned = np.tile(chord, (31, 4, 1))
    >>> result = ts.reconstruct(aligned, angles_deg, iterations=20, pixel_size_nm=0.5, device="cpu")
    >>> result.volume.shape, result.volume.dtype
    ((32, 4, 32), dtype('float32'))
    >>> print(f"{result.volume[16, 2, 16]:.1f}")
    1.0
    >>> bool(result.residuals[-1] < 0.05 * result.residuals[0])
    True
    """
    series = aligned if hasattr(aligned, "shape") and hasattr(aligned, "dtype") else np.asarray(aligned)
    series = cast(ArraySource, series)
    if len(series.shape) != 3:
        raise InputError(f"An aligned series has the shape (n_tilt, ny, nx), not {tuple(series.shape)}.")
    left_out = None if outliers is None else np.asarray(outliers, bool)
    if left_out is not None and left_out.shape != (series.shape[0],):
        raise InputError(f"outliers must hold one value for each of the {series.shape[0]} images.")
    return reconstruct_series(
        series,
        np.asarray(angles_deg, np.float64),
        outliers=left_out,
        pixel_size_nm=pixel_size_nm,
        params=params,
        runtime=runtime,
        outputs=MemoryOutputs(),
        film_thickness_px=film_thickness_px,
    )


def reconstruct_series(
    aligned: ArraySource,
    angles_deg: NDArray[np.float64],
    *,
    outliers: NDArray[np.bool_] | None,
    pixel_size_nm: float | None,
    params: ReconstructParameters,
    runtime: Runtime,
    outputs: Outputs,
    film_thickness_px: float | None = None,
) -> Reconstruction:
    """Reconstruct an aligned series (n_tilt, y, x); the volume is the array `volume` of `outputs`.

    An interrupted run is continued from `outputs.resumed`.
    """
    left_out = outliers if params.exclude_outliers else None
    series, angles = select(aligned, angles_deg, left_out, params.binning, params.y_range, runtime)
    width, nz = series.shape[2], params.z_size
    is_film = film_thickness_px is not None and bool(np.isfinite(film_thickness_px))
    if nz is None and is_film:
        nz = film_depth(float(film_thickness_px or 0), params.binning, width)
        runtime.say(f"the film is {film_thickness_px:.0f} px thick: {nz} voxels along the beam hold it (z_size)")
    # Beside the frame, high tilts show more of a film than it; a direct method needs no room for that.
    is_wide = is_film and not METHODS[params.method].is_direct
    geometry = series_geometry(width, angles, nz, runtime, is_film=is_wide)
    z, x = within("z_range", params.z_range, geometry.nz), within("x_range", params.x_range, width)
    beside = (geometry.nx - width) // 2
    kept = z, slice(x.start + beside, x.stop + beside)
    voxel_size_nm = float("nan") if pixel_size_nm is None else float(pixel_size_nm) * params.binning
    computed = partial(_reconstruct, series, geometry, kept, voxel_size_nm, params, runtime, outputs)
    volume_with = partial(_finite_volume, computed)
    choice = _choose(params, runtime)
    begun = outputs.resumed
    if choice.device == "cuda" and runtime.device == "auto" and begun is not None and begun.get("gpu_failed"):
        choice = _instead_of_gpu(choice, begun["gpu_failed"], params, runtime)
    done = Checkpoint.resumed(begun, choice)
    try:
        return volume_with(choice, done)
    except GpuFailed as error:
        choice = _instead_of_gpu(choice, str(error), params, runtime)
        done = Checkpoint(choice.backend, choice.device, gpu_failed=str(error))
        outputs.checkpoint(asdict(done))  # before slices from the GPU are written over
        return volume_with(choice, done)


def _choose(params: ReconstructParameters, runtime: Runtime) -> Choice:
    """Choose backend and device, or say why the method cannot be computed there."""
    choice, row = _common_choice(params.backend, runtime), METHODS[params.method]
    if choice.device == "cpu" and choice.backend in row.on_gpu_only:
        backends = " or ".join(name for name in row.backends if name not in ("auto", *row.on_gpu_only))
        others = " or ".join(name for name in methods_of(choice.backend) if name != row.name)
        raise InputError(
            f"Backend {choice.backend} computes {row.name} on a GPU only, and there is none to use "
            f"({choice.reason}). Use backend {backends}, or method {others}."
        )
    if choice.warning:
        runtime.warn(choice.warning)
    return choice


def _common_choice(backend: BackendName, runtime: Runtime) -> Choice:
    """Choose for this machine, or for all workers of a cluster: a GPU only where each of them has one."""
    if runtime.cluster is None:
        return choose(backend, runtime.device)
    choices = runtime.cluster.everywhere(_choose_far, backend, runtime)
    on_cpu = [choice for choice in choices if choice.device == "cpu"]
    if 0 < len(on_cpu) < len(choices):
        runtime.warn(f"{len(on_cpu)} of the {len(choices)} workers have no GPU that can be used: all compute on CPUs")
    return (on_cpu or choices)[0]


def _choose_far(backend: BackendName, runtime: Runtime) -> Choice:
    return choose(backend, runtime.device)


def _instead_of_gpu(choice: Choice, failure: str, params: ReconstructParameters, runtime: Runtime) -> Choice:
    """Return what computes all of the volume where the GPU failed, now or before an interruption; raise if none may."""
    if runtime.device == "cuda":
        raise StageFailed(
            f"The reconstruction failed on the GPU: {failure}. Check with `nvidia-smi` whether another process uses "
            "its memory, or use --device auto or cpu."
        )
    runtime.warn(f"the reconstruction failed on the GPU ({failure}): the whole volume is computed on the CPU instead")
    return choice.without_gpu(params.backend)


def _finite_volume(
    reconstruct: Callable[[Choice, Checkpoint], Reconstruction], choice: Choice, done: Checkpoint
) -> Reconstruction:
    """Return what `reconstruct` does; where values that are not finite arise, blame the GPU or say what to do."""
    try:
        return reconstruct(choice, done)
    except NotFinite as error:
        if choice.device == "cuda":
            raise GpuFailed(str(error)) from error
        raise StageFailed(
            f"The reconstruction with backend {choice.backend} failed: {error}. Pixels beyond 1e18, whose squares are "
            "too large for single precision, make it so: divide the images by a constant before they are imported. If "
            "they are smaller, use another backend or method."
        ) from error


def _reconstruct(
    series: Selection,
    geometry: ParallelGeometry,
    kept: tuple[slice, slice],
    voxel_size_nm: float,
    params: ReconstructParameters,
    runtime: Runtime,
    outputs: Outputs,
    choice: Choice,
    done: Checkpoint,
) -> Reconstruction:
    """Reconstruct with one backend, going on from what is done; keep part of each slice, along z and along x."""
    row, n_y = METHODS[params.method], series.shape[1]
    runtime.device_used = choice.device
    runtime.say(f"reconstructing with backend {choice.backend} on {choice.device}: {choice.reason}")
    sample = take_sample(series, geometry, SAMPLE_SLICES)
    refuse_non_finite(sample, geometry.angles_deg)
    options = _options(row, geometry, sample, params)
    recipe = Recipe(row, choice, geometry, params.support == "cylinder", options)
    if done.slices:
        runtime.say(f"continuing after {done.slices} of {n_y} slices")
    elif params.iterations != "auto" and not row.is_direct:
        done.iterations = params.iterations
    elif not row.is_direct:
        done.set_iterations(*choose_iterations(recipe, sample, runtime))
    z, x = kept
    shape = (z.stop - z.start, n_y, x.stop - x.start)
    beside = (geometry.nx - geometry.n_detector) // 2  # room beside the frame, where there is some
    offset_px = [z.start, series.first, x.start - beside]
    volume = outputs.create("volume", shape, attrs={"voxel_size_nm": voxel_size_nm, "offset_px": offset_px})
    reconstruct_slabs(series, Work(recipe, done.iterations, done.block, kept), done, volume, runtime, outputs)
    refuse_unexplained(done, row, geometry)
    resolution = None
    if params.resolution:
        larger = take_sample(series, geometry, RESOLUTION_SLICES)
        resolution = _measure_resolution(recipe, done.iterations, larger, runtime)
        runtime.say(resolution.described(voxel_size_nm))
    _report_fit(done, row, runtime)
    return Reconstruction(
        volume=volume,
        residuals=done.residuals,
        resolution=resolution,
        voxel_size_nm=voxel_size_nm,
        iterations=done.iterations,
        method=row.name,
        backend=choice.backend,
        device=choice.device,
        stopping_table=done.stopping,
        notes=list(runtime.notes),
        warnings=list(runtime.warnings),
    )


def _measure_resolution(recipe: Recipe, iterations: int, sample: Floats, runtime: Runtime) -> Resolution:
    """Measure the resolution by the sample's reconstructions from even and from odd tilts."""
    parts, both = parts_of(recipe, sample.shape[1], runtime), halves(recipe.geometry.angles_deg)
    items = [(f"the resolution of slices {p.start} to {p.stop - 1}", (t, sample[t, p])) for t in both for p in parts]
    middles = list(runtime.each(_middle_of_sample, (recipe, iterations), items))
    even, odd = (np.concatenate(one, axis=1) for one in (middles[: len(parts)], middles[len(parts) :]))
    return resolution_of(even, odd, recipe.geometry, sample)


def _middle_of_sample(work: tuple[Recipe, int], half: tuple[NDArray[np.int64], Floats], runtime: Runtime) -> Floats:
    (recipe, iterations), (tilts, projections) = work, half
    method = recipe.method(iterations, runtime.check)
    threads = recipe.sample_threads(runtime)
    return middle_of_half(recipe.choice.operator, recipe.geometry, projections, tilts, method, threads)


def _options(
    row: MethodRow, geometry: ParallelGeometry, sample: Floats, params: ReconstructParameters
) -> dict[str, Any]:
    """Return the keywords of the method's function that parameters and data decide."""
    every: dict[str, Any] = {
        "subsets": params.subsets,
        "non_negative": params.non_negative,
        "filter_name": params.filter,
    }
    if "weight" in row.options:
        every["weight"] = params.tv_weight * tv_scale(geometry, sample)
    return {name: every[name] for name in row.options}


def _report_fit(done: Checkpoint, row: MethodRow, runtime: Runtime) -> None:
    """Say how well the volume explains the images, and what the user should know about them."""
    if row.name == "mlem" and done.negative_pixels > 5e-4 * done.pixels:
        text = (
            f"{done.negative_pixels / done.pixels:.1%} of the aligned pixels are negative "
            f"({done.negative_amount / done.amount:.2%} of the signal) and count as 0 in mlem"
        )
        if done.negative_amount > 0.05 * done.amount:
            runtime.warn(f"{text}; check the background that the alignment subtracted")
        else:
            runtime.say(text)
    first, last = done.residuals[0], done.residuals[-1]
    if row.is_direct:
        runtime.say(f"relative residual {last:.3f}")
        return
    runtime.say(f"relative residual {first:.3f} at the start, {last:.3f} after {done.iterations} iterations")
