"""Stage `reconstruct`: the volume from the aligned tilt series, slab by slab along the tilt axis."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator

from tomoseg import schema
from tomoseg.arrays import ArraySource, Input, Outputs
from tomoseg.errors import InputError, StageFailed
from tomoseg.parameters import Field, Parameters
from tomoseg.runtime import Runtime, slabs
from tomoseg.stages.base import Stage

if TYPE_CHECKING:
    from tomoseg.reconstruction.assessment import Sample
    from tomoseg.reconstruction.backends.choice import Choice
    from tomoseg.reconstruction.geometry import ParallelGeometry
    from tomoseg.reconstruction.methods import Method, Result
    from tomoseg.reconstruction.selection import Selection
    from tomoseg.reconstruction.stopping import Iterative

MANY = 10_000  # iterations
MOST = {"mlem": 120, "osem": 20, "sirt": 240, "tv": 120}  # iterations that 'auto' tries
USUAL = {"mlem": 30, "osem": 5, "sirt": 100, "tv": 60}  # where there are too few tilts to leave some out
DIRECT = ("fbp", "gridrec")  # methods without iterations
READ_AHEAD = 64  # slices read together, as the aligned series is chunked; fewer where memory is short
STOPPING_DTYPE = np.dtype([("iterations", "i8"), ("held_out", "f8")])
SHELL_DTYPE = np.dtype([("frequency_per_px", "f8"), ("correlation", "f8"), ("coefficients", "i8")])
SAMPLE_BLOCK = 16  # slices that are computed at the same time by a thread
WRITTEN = 16  # slices written together, as the volume is chunked


def _count_or_auto(value: Any) -> Any:
    """Refuse anything but 'auto' and a sensible number of iterations."""
    if isinstance(value, str) and value.isdecimal():  # from the command line
        value = int(value)
    if value != "auto" and not (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MANY):
        raise ValueError(f"must be auto, or a whole number from 1 to {MANY}")
    return value


def _rising(limits: tuple[int, int]) -> tuple[int, int]:
    """Refuse a range without a voxel."""
    if not 0 <= limits[0] < limits[1]:
        raise ValueError("must be two whole numbers from 0 on, the second larger than the first")
    return limits


Range = Annotated[tuple[int, int], AfterValidator(_rising)]


class ReconstructParameters(Parameters):
    """How the volume is reconstructed."""

    method: Literal["mlem", "osem", "sirt", "tv", "fbp", "gridrec"] = Field(
        "mlem",
        description="mlem: maximum-likelihood expectation maximisation, the paper's method; osem: the same with "
        "ordered subsets of the tilts, in fewer iterations; sirt: simultaneous iterative reconstruction; tv: least "
        "squares with total variation, which suppresses noise and the missing wedge of objects with sharp surfaces; "
        "fbp: filtered back projection; gridrec: fbp by TomoPy's Fourier gridding, with backend tomopy",
    )
    iterations: Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)] = Field(
        "auto",
        description="iterations of mlem, osem, sirt and tv. auto: as many as predict best the tilts that are left out "
        "of a reconstruction of some slices",
    )
    subsets: int = Field(6, ge=1, le=1000, description="osem: subsets of the tilts in an iteration")
    tv_weight: float = Field(
        0.02,
        ge=0,
        le=10,
        description="tv: weight of the total variation relative to the data's pull; 0.01 keeps more detail, 0.05 is "
        "for few or noisy tilts",
    )
    resolution: bool = Field(
        True,
        description="estimate the resolution by Fourier shell correlation of some slices, reconstructed from the even "
        "and from the odd tilts",
    )
    backend: Literal["auto", "cpu", "astra", "tomopy", "tomopy-astra"] = Field(
        "auto",
        description="what computes: cpu (tomoseg's own projector), astra (on a GPU, or its CPU projector), tomopy, "
        "tomopy-astra (ASTRA's own mlem, on a GPU, sirt and fbp, through TomoPy); auto is astra where there is a GPU "
        "that may be used, else cpu",
    )
    binning: int = Field(
        1,
        ge=1,
        le=64,
        description="average so many aligned pixels in each direction; all sizes and ranges are then in the larger "
        "voxels",
    )
    z_size: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="thickness along the beam in which density is looked for, voxels; null: as wide as the images. It "
        "must hold all that is seen",
    )
    x_range: Range | None = Field(
        None, description="part of the volume that is kept across the tilt axis: first voxel, and one past the last"
    )
    y_range: Range | None = Field(None, description="part along the tilt axis: only these slices are computed")
    z_range: Range | None = Field(None, description="part that is kept along the beam, out of z_size")
    filter: Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"] = Field(
        "hann",
        description="window on the ramp filter of fbp and gridrec; hann is the smoothest, ramp the sharpest and "
        "noisiest",
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
    from tomoseg.reconstruction.backends.choice import missing

    problem = missing(params.backend)
    problems = [f"reconstruct.backend: {problem}"] if problem else []
    if params.method == "gridrec" and params.backend != "tomopy":
        problems.append(
            "reconstruct.method: gridrec is TomoPy's own and is made with backend tomopy only; use that backend, or "
            "fbp, which every backend has"
        )
    elif params.backend == "tomopy" and params.method == "tv":
        problems.append("reconstruct.method: tv is not made with TomoPy here; use backend cpu or astra, or mlem")
    elif params.backend == "tomopy-astra" and params.method not in ("mlem", "sirt", "fbp"):
        problems.append(
            f"reconstruct.method: {params.method} is not made with backend tomopy-astra; use mlem (on a GPU), sirt or "
            f"fbp, or backend astra, which has {params.method}"
        )
    return problems


def run(
    *,
    aligned: Input,
    angles_deg: Input,
    tilt_quality: Input,
    tilt_series_info: Input,
    params: ReconstructParameters,
    runtime: Runtime,
    outputs: Outputs,
    refined_angles_deg: Input | None = None,
) -> None:
    """Reconstruct `aligned`, whose tilt axis lies along y through the middle of x."""
    from tomoseg.reconstruction.backends.choice import choose
    from tomoseg.reconstruction.backends.gpu import GpuFailed

    tilts = np.asarray((angles_deg if refined_angles_deg is None else refined_angles_deg)[:], np.float64)
    images, angles = _select(aligned, tilts, tilt_quality, params, runtime)
    geometry = _geometry(images, angles, params, runtime)
    kept_z, kept_x = _within("z_range", params.z_range, geometry.nz), _within("x_range", params.x_range, geometry.nx)
    voxel_size_nm = float(tilt_series_info.attrs.get("pixel_size_nm", np.nan)) * params.binning
    job = _Job(images, geometry, kept_z, kept_x, voxel_size_nm)
    choice, begun = choose(params.backend, runtime.device), outputs.resumed
    if choice.backend == "tomopy-astra" and choice.device == "cpu" and params.method == "mlem":
        raise InputError(
            "ASTRA has mlem of its own on a GPU only, so that backend tomopy-astra cannot make it here "
            f"({choice.reason}). Use backend astra, cpu or tomopy, or sirt."
        )
    if choice.warning:
        runtime.warn(choice.warning)
    if choice.device == "cuda" and runtime.device == "auto" and begun is not None and begun.get("gpu_failed"):
        choice = _instead_of_gpu(choice, begun["gpu_failed"], params, runtime)
    done = _Done.of(begun, choice)
    try:
        _reconstruct(choice, job, done, params, runtime, outputs)
    except GpuFailed as error:
        choice = _instead_of_gpu(choice, str(error), params, runtime)
        done = _Done(choice.backend, choice.device, gpu_failed=str(error))
        outputs.checkpoint(asdict(done))  # before slices from the GPU are written over
        _reconstruct(choice, job, done, params, runtime, outputs)


def _instead_of_gpu(choice: "Choice", failure: str, params: ReconstructParameters, runtime: Runtime) -> "Choice":
    """Return what computes all of the volume where the GPU failed, now or before an interruption; raise if none may."""
    from tomoseg.reconstruction.backends.choice import without_gpu

    if runtime.device == "cuda":
        raise StageFailed(
            f"The reconstruction failed on the GPU: {failure}. See with `nvidia-smi` whether another process takes its "
            "memory, or use --device auto or cpu."
        )
    runtime.warn(f"the reconstruction failed on the GPU ({failure}): all of it is computed on the CPU instead")
    return without_gpu(choice, params.backend)


@dataclass(frozen=True)
class _Job:
    """What is reconstructed, how it was seen, and the part of each slice that is kept."""

    images: "Selection"
    geometry: "ParallelGeometry"
    kept_z: slice
    kept_x: slice
    voxel_size_nm: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the volume that is stored."""
        return self.kept_z.stop - self.kept_z.start, self.images.shape[1], self.kept_x.stop - self.kept_x.start


def _reconstruct(
    choice: "Choice", job: _Job, done: "_Done", params: ReconstructParameters, runtime: Runtime, outputs: Outputs
) -> None:
    """Reconstruct with one backend, going on from what is done."""
    from tomoseg.reconstruction.assessment import Sample
    from tomoseg.reconstruction.methods import joined

    images, geometry = job.images, job.geometry
    runtime.device_used = choice.device
    runtime.say(f"reconstructing with backend {choice.backend} on {choice.device}: {choice.reason}")
    n_y = images.shape[1]
    sample = Sample.taken(images, geometry)
    _refuse_nan(sample.projections, geometry)
    if done.slices:
        runtime.say(f"continuing after {done.slices} of {n_y} slices")
    elif params.method not in DIRECT:
        _decide_iterations(done, choice, geometry, sample, params, runtime)
    volume = outputs.create("volume", job.shape, attrs={"voxel_size_nm": job.voxel_size_nm})
    with _solver(choice, geometry, params, sample, done, runtime) as solver:
        done.block = solver.block
        groups, ahead = _plan(runtime, geometry, done.slices, images, solver)
        progress = runtime.track(groups, f"{params.method} reconstruction")
        for group, data in zip(progress, _read(images, groups, ahead), strict=True):
            _refuse_nan(data, geometry)
            for results in _chunks(solver.solve(data), math.lcm(solver.block, WRITTEN) // solver.block):
                start = done.slices
                for result in results:
                    done.add(result, data[:, done.slices - group.start :])
                volume[:, start : done.slices] = joined(results).volume[job.kept_z, :, job.kept_x]
                outputs.checkpoint(asdict(done))
    residuals = np.sqrt(np.array(done.misfit) / done.power) if done.power > 0 else np.zeros(len(done.misfit))
    outputs.put("residuals", residuals)
    info: dict[str, str | float] = {"method": params.method, "backend": choice.backend, "device": choice.device}
    info["iterations"] = done.iterations
    if done.tried:
        outputs.put("stopping", np.array(list(zip(done.tried, done.held_out, strict=True)), STOPPING_DTYPE))
    if params.resolution:
        info |= _assess_resolution(
            choice, geometry, sample, params, done.iterations, runtime, outputs, job.voxel_size_nm
        )
    outputs.set_attrs("reconstruction_info", info)
    _report(params, residuals, done, runtime)


@dataclass
class _Done:
    """What is known of the slices finished so far.

    Sums are added block by block in order, and blocks are the same however many are computed at once or after an
    interruption: so the sums are the same to the last bit. On a GPU, blocks depend on how much of its memory is free: a
    run that is continued goes on with those it began with.
    """

    backend: str
    device: str
    block: int = 0  # slices; 0 where nothing is decided yet
    gpu_failed: str = ""  # why it is not computed on the GPU that is there
    iterations: int = 0
    tried: list[int] = field(default_factory=list)  # numbers of iterations by which they were chosen
    held_out: list[float] = field(default_factory=list)  # and the residual of the tilts left out
    slices: int = 0
    misfit: list[float] = field(default_factory=list)
    power: float = 0.0
    pixels: int = 0
    negative_pixels: int = 0
    amount: float = 0.0
    negative_amount: float = 0.0

    @classmethod
    def of(cls, state: Mapping[str, Any] | None, choice: "Choice") -> "_Done":
        """Return where an interrupted run stood; nothing is done yet if it used another backend or device."""
        fresh = cls(choice.backend, choice.device)
        if state is None or (state["backend"], state["device"]) != (fresh.backend, fresh.device):
            return fresh
        return cls(**state)

    def add(self, result: "Result", data: NDArray[np.float32]) -> None:
        """Add the next block: its result, and the projections from its first slice on."""
        data = data[:, : result.volume.shape[1]]
        below = np.minimum(data, 0)
        misfit = result.misfit.tolist()
        self.slices += data.shape[1]
        self.misfit = [a + b for a, b in zip(self.misfit or [0.0] * len(misfit), misfit, strict=True)]
        self.power += result.power
        self.pixels += data.size
        self.negative_pixels += int(np.count_nonzero(below))
        self.amount += float(np.abs(data).sum(dtype=np.float64))
        self.negative_amount -= float(below.sum(dtype=np.float64))


def _decide_iterations(
    done: _Done,
    choice: "Choice",
    geometry: "ParallelGeometry",
    sample: "Sample",
    params: ReconstructParameters,
    runtime: Runtime,
) -> None:
    """Settle the number of iterations, and note how it was chosen."""
    from tomoseg.reconstruction.backends.choice import operator
    from tomoseg.reconstruction.stopping import FEWEST_TILTS, cross_validate

    if params.iterations != "auto":
        done.iterations = params.iterations
        return
    if geometry.n_tilt < FEWEST_TILTS or not sample.projections.any():
        done.iterations = USUAL[params.method]
        runtime.say(f"{done.iterations} iterations, the usual number: there are too few tilts to leave some out")
        return
    curve = cross_validate(
        lambda some: operator(choice, some),
        geometry,
        sample.projections,
        _iterative(params, geometry, sample),
        MOST[params.method],
        _workers(choice, geometry, params, runtime),
        runtime.check,
    )
    done.iterations, done.tried, done.held_out = curve.best, curve.iterations.tolist(), curve.held_out.tolist()
    runtime.say(
        f"{curve.best} iterations: tilts left out of {sample.projections.shape[1]} slices are predicted with a "
        f"residual of {curve.held_out.min():.3f} at best" + ("" if curve.is_bounded else "; more may be better still")
    )


def _assess_resolution(
    choice: "Choice",
    geometry: "ParallelGeometry",
    sample: "Sample",
    params: ReconstructParameters,
    iterations: int,
    runtime: Runtime,
    outputs: Outputs,
    voxel_size_nm: float,
) -> dict[str, float]:
    """Correlate reconstructions of both halves of the tilts; store the curve and return the resolution."""
    from tomoseg.reconstruction.assessment import resolution
    from tomoseg.reconstruction.backends.choice import operator

    found = resolution(
        lambda some: operator(choice, some),
        geometry,
        sample,
        _method(params, geometry, sample, iterations, runtime),
        _workers(choice, geometry, params, runtime),
    )
    rows = zip(found.frequency, found.correlation, found.n_coefficients, strict=True)
    outputs.put("shells", np.array(list(rows), SHELL_DTYPE))
    px = found.resolution_px
    unit = f"{px * voxel_size_nm:.2f} nm ({px:.2f} px)" if np.isfinite(voxel_size_nm) else f"{px:.2f} px"
    limit = ", the finest that the pixels can show" if px == 2 else ""
    runtime.say(
        f"resolution {unit}{limit}: Fourier shell correlation of even and odd tilts falls below 1/7, in "
        f"{sample.projections.shape[1]} slices and the directions that were measured"
    )
    return {"resolution_px": px, "resolution_nm": px * voxel_size_nm}


def _select(
    aligned: Input,
    angles_deg: NDArray[np.float64],
    tilt_quality: Input,
    params: ReconstructParameters,
    runtime: Runtime,
) -> "tuple[Selection, NDArray[np.float64]]":
    """Return what is reconstructed of the aligned series, and its angles."""
    from tomoseg.reconstruction.selection import Selection

    n_tilt, n_y, n_x = aligned.shape
    if len(angles_deg) != n_tilt:
        raise InputError(
            f"The aligned series has {n_tilt} images but there are {len(angles_deg)} tilt angles; align it again."
        )
    if min(n_y, n_x) < params.binning:
        raise InputError(
            f"Images of {n_y} x {n_x} px cannot be binned by {params.binning}; choose a smaller reconstruct.binning."
        )
    kept = np.arange(n_tilt)
    outlier = np.asarray(tilt_quality[:]["is_outlier"], bool)
    if params.exclude_outliers and outlier.any() and len(outlier) == n_tilt:
        listed = ", ".join(f"{a:g}" for a in angles_deg[outlier][:10]) + (" ..." if outlier.sum() > 10 else "")
        runtime.say(
            f"{outlier.sum()} images that the alignment marked as outliers are left out (tilt {listed} degrees)"
        )
        kept = np.flatnonzero(~outlier)
    rows = _within("y_range", params.y_range, n_y // params.binning)
    selected = Selection(aligned, kept, params.binning, rows.start, rows.stop - rows.start)
    return selected, angles_deg[kept]


def _within(name: str, limits: tuple[int, int] | None, n: int) -> slice:
    """Return the part of `n` voxels that a range asks for."""
    if limits is None:
        return slice(0, n)
    if limits[1] > n:
        raise InputError(
            f"reconstruct.{name} is {limits[0]},{limits[1]}, but in that direction the volume has {n} voxels."
        )
    return slice(*limits)


def _geometry(
    aligned: ArraySource, angles_deg: NDArray[np.float64], params: ReconstructParameters, runtime: Runtime
) -> "ParallelGeometry":
    """Return the geometry, or say why there is none."""
    from tomoseg.reconstruction.geometry import ParallelGeometry

    n_tilt, _, n_x = aligned.shape
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


@dataclass(frozen=True)
class _Solver:
    """What reconstructs slices, and what it takes.

    `solve` returns a result for each `block` of slices, and computes `at_once` blocks at the same time. While it
    computes it holds `volumes` copies of their voxels, the result among them, and `sinograms` copies of their data.
    """

    solve: "Callable[[NDArray[np.float32]], list[Result]]"
    block: int
    at_once: int
    volumes: int
    sinograms: int


@contextmanager
def _solver(
    choice: "Choice",
    geometry: "ParallelGeometry",
    params: ReconstructParameters,
    sample: "Sample",
    done: _Done,
    runtime: Runtime,
) -> "Iterator[_Solver]":
    """Yield what reconstructs slices."""
    from tomoseg.reconstruction.backends import fallback
    from tomoseg.reconstruction.backends.choice import operator
    from tomoseg.reconstruction.methods import by_block

    # As read, without negatives or filtered (with its spectrum), measured, computed.
    # gridrec doubles the width, up to the next power of two.
    sinograms = {"fbp": 10, "osem": 6, "gridrec": 18}.get(params.method, 4)
    if choice.backend in ("tomopy", "tomopy-astra"):
        solve, block = _with_tomopy(choice, geometry, params, done.iterations, runtime)
        # A core has a complex grid of gridrec_width squared, at most 32 slices' worth, for each block of 16.
        volumes = 7 if params.method == "gridrec" else 5
        yield _Solver(solve, block, runtime.workers, volumes, sinograms + 2)
        return
    method = _method(params, geometry, sample, done.iterations, runtime)
    volumes = _volumes(choice, params)
    with closing(operator(choice, geometry)) as one:
        if choice.device == "cuda":
            one.block = done.block or _slab(one.block, geometry, volumes, sinograms, runtime)
            runtime.say(f"{one.block} slices at a time on the GPU")
            yield _Solver(
                lambda data: fallback.by_block(one, method, data, runtime.warn), one.block, 1, volumes, sinograms
            )
            return
        at_once = runtime.workers if one.threads else 1
        yield _Solver(lambda data: by_block(one, method, data, at_once), one.block, at_once, volumes, sinograms)


def _slab(most: int, geometry: "ParallelGeometry", volumes: int, sinograms: int, runtime: Runtime) -> int:
    """Return `most` slices, halved until they fit in the memory allowed here, as `_plan` counts it."""
    plane, sinogram = 4 * geometry.nz * geometry.nx, 4 * geometry.n_tilt * geometry.n_detector  # bytes
    per_slice, fixed = (volumes + 1) * plane + (sinograms + 2) * sinogram, 6 * plane + 4 * sinogram
    while most > WRITTEN and most * per_slice + fixed > runtime.max_memory / 2:
        most //= 2
    return most


def _volumes(choice: "Choice", params: ReconstructParameters) -> int:
    """Return how many copies of a block of slices a method holds."""
    in_place = 1 if choice.backend == "cpu" else 2  # tomoseg's own projector updates a volume in place
    return in_place + {"tv": 4, "osem": 1}.get(params.method, 0)  # the one before, the point ahead, the dual field


def _workers(choice: "Choice", geometry: "ParallelGeometry", params: ReconstructParameters, runtime: Runtime) -> int:
    """Return how many blocks of the sample may be computed at the same time."""
    # The result, or its middle, is there besides.
    block = 4 * (_volumes(choice, params) + 1) * SAMPLE_BLOCK * geometry.nz * geometry.nx
    return max(1, min(runtime.workers, int(runtime.max_memory / 2 / block)))


def _method(
    params: ReconstructParameters, geometry: "ParallelGeometry", sample: "Sample", iterations: int, runtime: Runtime
) -> "Method":
    """Return the method with its parameters filled in; a signal stops it between iterations."""
    from functools import partial

    from tomoseg.reconstruction import methods

    if params.method in DIRECT:
        return partial(methods.fbp, filter_name=params.filter, support=_support(params, geometry))
    return partial(
        _iterative(params, geometry, sample), iterations=iterations, watch=lambda _number, _volume: runtime.check()
    )


def _iterative(params: ReconstructParameters, geometry: "ParallelGeometry", sample: "Sample") -> "Iterative":
    """Return the method with all but the number of iterations."""
    from functools import partial

    from tomoseg.reconstruction import methods

    support = _support(params, geometry)
    if params.method == "osem":
        return partial(methods.osem, subsets=params.subsets, support=support)
    if params.method == "sirt":
        return partial(methods.sirt, support=support, non_negative=params.non_negative)
    if params.method == "tv":
        weight = params.tv_weight * methods.tv_scale(geometry, sample.projections)
        return partial(methods.tv, weight=weight, support=support)
    return partial(methods.mlem, support=support)


def _support(params: ReconstructParameters, geometry: "ParallelGeometry") -> NDArray[np.bool_] | None:
    return geometry.cylinder() if params.support == "cylinder" else None


def _with_tomopy(
    choice: "Choice", geometry: "ParallelGeometry", params: ReconstructParameters, iterations: int, runtime: Runtime
) -> "tuple[Callable[[NDArray[np.float32]], list[Result]], int]":
    """Return TomoPy's reconstruction of a group of slices, which it shares out itself, and its blocks."""
    from tomoseg.reconstruction.backends.tomopy import BLOCK, reconstruct

    def solve(data: NDArray[np.float32]) -> "list[Result]":
        return reconstruct(
            data,
            geometry,
            params.method,
            astra=choice.device if choice.backend == "tomopy-astra" else None,
            iterations=iterations,
            subsets=params.subsets,
            filter_name=params.filter,
            non_negative=params.non_negative,
            support=_support(params, geometry),
            workers=runtime.workers,
            checkpoint=runtime.check,
        )

    return solve, BLOCK


def _plan(
    runtime: Runtime, geometry: "ParallelGeometry", first: int, images: "Selection", solver: _Solver
) -> tuple[list[slice], int]:
    """Return the groups of slices to compute from `first` on, and how many slices to read ahead.

    A group is as many blocks as are computed at once, or as fit in the memory allowed.
    """
    unit = math.lcm(solver.block, WRITTEN)
    plane, sinogram = 4 * geometry.nz * geometry.nx, 4 * geometry.n_tilt * geometry.n_detector  # bytes
    # Every block has its own weights of the voxels, made with two more copies of them.
    per_slice = solver.volumes * plane + solver.sinograms * sinogram + 3 * plane / solver.block
    # Tables of the projector for rays and voxels; weights; the slices on their way to the disk; two groups of data.
    fixed = 4 * sinogram + 3 * plane + unit * plane + 2 * unit * sinogram + images.buffer_bytes
    fits = int((runtime.max_memory / 2 - fixed) / per_slice) // unit * unit
    if fits < unit and unit * per_slice + fixed > runtime.max_memory:
        runtime.progress.message(
            f"{unit} slices take about {(unit * per_slice + fixed) / 2**20:.0f} MiB to reconstruct, more than "
            f"--max-memory allows ({runtime.max_memory / 2**20:.0f} MiB): as much as that is used"
        )
    size = max(unit, min(fits, math.ceil(solver.block * solver.at_once / unit) * unit))
    # While data are read there are those before them too, and a copy where images are left out.
    spare = int((runtime.max_memory / 2 - fixed - size * per_slice) / (3 * sinogram))
    ahead = max(1, min(READ_AHEAD, spare) // size) * size
    return slabs(images.shape[1], size, first), ahead


def _read(aligned: ArraySource, groups: Sequence[slice], ahead: int) -> Iterator[NDArray[np.float32]]:
    """Yield the projections of each group, (n_tilt, n, n_x), reading `ahead` slices at a time."""
    data = np.empty((0, 0, 0), np.float32)
    start = stop = 0
    for group in groups:
        if group.stop > stop:
            start, stop = group.start, min((group.start // ahead + 1) * ahead, groups[-1].stop)
            data = np.asarray(aligned[:, start:stop], np.float32)
        yield data[:, group.start - start : group.stop - start]


def _chunks(results: "list[Result]", size: int) -> "Iterator[list[Result]]":
    """Yield `size` results at a time."""
    for part in slabs(len(results), size):
        yield results[part]


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


def _report(params: ReconstructParameters, residuals: NDArray[np.float64], done: _Done, runtime: Runtime) -> None:
    """Say what the user should know about the result."""
    if done.power == 0:
        runtime.warn("the aligned series is empty (all zero), and so is the volume")
        return
    if params.method == "mlem" and done.negative_pixels > 5e-4 * done.pixels:
        text = (
            f"{done.negative_pixels / done.pixels:.1%} of the aligned pixels are negative "
            f"({done.negative_amount / done.amount:.2%} of the signal) and count as 0 in mlem"
        )
        if done.negative_amount > 0.05 * done.amount:
            runtime.warn(f"{text}; check the background that the alignment took away")
        else:
            runtime.say(text)
    if len(residuals) == 1:
        runtime.say(f"relative residual {residuals[-1]:.3f}")
        return
    runtime.say(f"relative residual {residuals[0]:.3f}, after {done.iterations} iterations {residuals[-1]:.3f}")
    if residuals[-1] > residuals[0]:
        runtime.warn("the residual grew: the volume explains the images worse than the start did")


STAGE: Stage = Stage(
    name="reconstruct",
    version=2,
    summary="volume from the aligned series (MLEM, OSEM, SIRT, TV, FBP or TomoPy's gridrec; CPU or GPU)",
    parameters=ReconstructParameters,
    reads=(schema.ALIGNED, schema.ANGLES, schema.REFINED_ANGLES, schema.TILT_QUALITY, schema.TILT_SERIES_INFO),
    writes=(schema.VOLUME, schema.RESIDUALS, schema.STOPPING, schema.SHELLS, schema.RECONSTRUCTION_INFO),
    run=run,
    check=check,
)
