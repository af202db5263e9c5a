"""TomoPy's own `mlem`, `sirt` and `gridrec`, its back projection for FBP, and ASTRA through it, in tomoseg's geometry.

TomoPy's conventions (1.10 to 1.15), and where they stand in its sources:

- Data are in "sinogram order", (slice, tilt, detector), angles in radians (`recon/algorithm.py`).
- With (a, b) the two axes of its slice, a detector pixel is met by points with ``-a*sin(t) + b*cos(t)`` (`utils.c`,
  `calc_coords`): b is our x, and a is our z mirrored.
- The ray of pixel d passes the axis at ``d - center + 1/2`` (`utils.c`, `preprocessing`), so our axis at
  (n_detector - 1)/2 is ``center = n_detector/2``; with (n_detector - 1)/2 the volume would be half a pixel off.
- Rows are `num_gridx` and columns `num_gridy`.
- In 1.15 `mlem` is `osem.c` with one block, and `sirt` is `bart.c`; earlier versions have `mlem.c` and `sirt.c`.
- `mlem` divides by the computed projection without a test, or adds the least float32 to it: x/0 makes infinity as soon
  as all voxels on a ray are 0, and NaN of these voxels. A voxel that is 0 stays 0 in MLEM, and so it does here, after
  every call; no projection is exactly 0. `accelerated=True` ignores `center` and is not used.
- Its `osem` takes the order of the tilts as floats or integers, depending on the version (`osem.c`), and hands NaN from
  one block to the next: here it is `mlem` on one subset after the other, a call for each, which leaves voxels that a
  subset does not see as they are. That costs nothing more: TomoPy traces the rays of a block anew in every iteration.
- `fbp` only back projects, it does not filter (`fbp.c`), and adds to what it is given.
- A volume is initialised to 1e-6 unless `init_recon` is given, which is then overwritten (`_init_recon`).

`gridrec` (`gridrec.c`, `filters.c`) has rules of its own:

- It shifts pixel d by ``d - center``, so our axis is at ``center = (n_detector - 1)/2``; and the axis goes through
  voxel (n + 1)//2 of each side (once rows are mirrored), not through (n - 1)/2: the data are shifted by the difference.
- It extends the detector to the next power of two only, with zeros: the filter's tails then wrap around. Here data are
  extended to a power of two at least twice their width, and wider than the volume.
- |f| sampled at 1/width repeats the filter's kernel every `width` pixels; its tails, -1/(pi d)^2 at odd d, take
  1/(6 width^2) of the sum of a projection from all of its pixels. That constant is put back.
- Every tilt has the weight pi/n_tilt; ours come with the data (`filters.tilt_weights`).
- `hann` and `hamming` have ``cos(2 pi f / filter_par[0])``, with 0.5 by default, which passes the highest frequencies:
  1 gives the usual windows.
- Its kernel, a prolate spheroidal function, is cut at 2 grid points but corrected as if it were not, and its scale
  contains 2 (the filter) and 1.2^-2: volumes are 1.12 times too bright on the axis and up to 1.5 times at the rim of
  the square of the detector. `gridrec_gain` is that factor.
- Two slices are computed together, as real and imaginary part; an odd one is computed alone.

ASTRA through TomoPy (``algorithm=tomopy.astra``, `recon/wrappers.py`):

- `options` holds ASTRA's algorithm (`method`), `proj_type` ("linear"; "cuda" on a GPU), `num_iter`, and `extra_options`
  for ASTRA itself. ASTRA's EM exists on a GPU only.
- The volume is (rows, columns) and angles are handed on as they are; ASTRA's y points towards smaller rows, so z is
  mirrored here too. `center` is compared with n_detector/2; on the CPU the data are rolled by whole pixels, by 0 here.
- It goes on from `init_recon`; only `FBP` overwrites it. Clearing negatives between iterations is what ASTRA's
  MinConstraint does.
- ASTRA's FBP gives every tilt the weight pi/n_tilt, as `gridrec` does.
- Errors in its threads are raised since 1.12.2 (`_dist_recon`); before, TomoPy discards them and returns the start.
  With ASTRA, which may run out of memory, only one thread is used.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.special import pro_ang1

from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.filters import filtered, tilt_weights
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.method_table import METHODS, MethodName
from tomoseg.reconstruction.methods import Result, finite
from tomoseg.reconstruction.operators import Floats, spread_order
from tomoseg.reconstruction.parameters import Filter
from tomoseg.runtime import slabs

BLOCK = CpuOperator.block  # slices whose residuals are computed together
FAINTEST = 1e-6  # of a slice's brightest projection: replaces 0, which would make NaN
GRIDREC_FILTERS = {"ramp": "ramlak", "shepp-logan": "shepp"}  # the others have the same names
PROLATE, REACH = 7.0, 2.0  # gridrec's kernel: its parameter, and how many grid points it reaches
ASTRA_METHODS = {"mlem": "EM", "sirt": "SIRT", "fbp": "FBP"}  # with _CUDA on a GPU


def to_sinograms(projections: Floats) -> Floats:
    """Return (n_tilt, n, n_detector) in TomoPy's sinogram order (n, n_tilt, n_detector), C-contiguous."""
    return np.array(projections.transpose(1, 0, 2), np.float32, order="C")


def from_tomopy(slices: Floats) -> Floats:
    """Return TomoPy's slices (n, -z, x) as (nz, n, nx), a view."""
    return slices[:, ::-1].transpose(1, 0, 2)


def rotation_centre(geometry: ParallelGeometry) -> float:
    """Return what TomoPy calls `center` for an axis at detector coordinate (n_detector - 1)/2."""
    return geometry.n_detector / 2


def reconstruct(
    projections: Floats,
    geometry: ParallelGeometry,
    method: MethodName,
    *,
    astra: Literal["cpu", "cuda"] | None = None,
    iterations: int = 1,
    subsets: int = 1,
    filter_name: Filter = "ramp",
    non_negative: bool = True,
    voxel_mask: NDArray[np.bool_] | None = None,
    workers: int = 1,
    checkpoint: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Reconstruct a slab with TomoPy; return a result for each block of `BLOCK` slices.

    Iterations are asked for one at a time: that costs TomoPy nothing (ASTRA computes its weights again), and lets the
    residual before each be computed (with tomoseg's projector). TomoPy weights voxels by the length of the ray within
    them, tomoseg by linear interpolation, and TomoPy's `sirt` scales rays by the sum of squared lengths: volumes agree
    closely, not exactly.

    Parameters
    ----------
    projections : array, shape (n_tilt, n, n_detector)
    method : ``mlem``, ``osem``, ``sirt``, ``fbp`` or ``gridrec``; with `astra` ``mlem`` (on a GPU), ``sirt`` or ``fbp``
    astra : device on which ASTRA computes for TomoPy; by default TomoPy itself computes
    iterations, subsets, filter_name, non_negative, voxel_mask : as in `methods`
    workers : cores for TomoPy
    checkpoint : called before each iteration; may raise to stop

    Raises
    ------
    NotFinite
        TomoPy returned NaN or infinity where no division by 0 explains it. Nothing goes on from there.
    """
    subsets = min(subsets, geometry.n_tilt)
    is_likelihood, is_direct = method in ("mlem", "osem"), METHODS[method].is_direct
    measured = np.maximum(projections, 0) if is_likelihood else projections
    judge = CpuOperator(geometry)
    seen = judge.column_sums > 0 if voxel_mask is None else voxel_mask & (judge.column_sums > 0)
    sinograms = _prepared(measured, geometry, method, astra, filter_name)
    slices = np.zeros((len(sinograms), geometry.nz, geometry.nx), np.float32)
    if is_likelihood:
        np.maximum(sinograms, FAINTEST * sinograms.max(axis=(1, 2), keepdims=True), out=sinograms)
        slices += (sinograms.mean(axis=(1, 2)) / geometry.nz)[:, None, None]
    fits = [] if is_direct else [_fit(judge, slices, measured)]
    parts = [slice(start, None, subsets) for start in spread_order(subsets)] if method == "osem" else [slice(None)]
    for i in range(1 if is_direct else iterations):
        checkpoint()
        for part in parts:
            if method == "gridrec":
                slices = gridrec(sinograms, geometry, filter_name, workers)
            else:
                slices = _once(sinograms[:, part], geometry.of(part), slices, method, astra, filter_name, workers)
            refuse_non_finite(slices, 0 if is_direct else i + 1)
        slices = cleaned(slices, seen, non_negative and method == "sirt")
        fits.append(_fit(judge, slices, measured))
    volume, (misfit, computed) = from_tomopy(slices), np.array(fits).transpose(1, 2, 0)
    return [
        Result(
            volume[:, block],
            misfit[i],
            float(np.square(measured[:, block], dtype=np.float64).sum()),
            float(computed[i, -1]) if is_direct else 0.0,
        )
        for i, block in enumerate(slabs(len(slices), BLOCK))
    ]


def _prepared(
    measured: Floats, geometry: ParallelGeometry, method: str, astra: str | None, filter_name: Filter
) -> Floats:
    """Return the sinograms as `method` needs them: filtered, weighted or as they are."""
    if method == "fbp" and astra is None:
        return to_sinograms(filtered(measured, geometry.angles_deg, filter_name))
    sinograms = to_sinograms(measured)
    if METHODS[method].is_direct:  # to give each tilt our weight instead of pi/n_tilt
        sinograms *= (tilt_weights(geometry.angles_deg) * geometry.n_tilt / np.pi).astype(np.float32)[:, None]
    return sinograms


def _once(
    sinograms: Floats,
    geometry: ParallelGeometry,
    slices: Floats,
    method: str,
    astra: Literal["cpu", "cuda"] | None,
    filter_name: Filter,
    workers: int,
) -> Floats:
    """Return TomoPy's slices after one iteration from `slices`, or after its back projection."""
    import tomopy

    empty = slices == 0 if method in ("mlem", "osem") else None  # TomoPy overwrites `slices`
    how: dict[str, Any] = {"algorithm": "mlem" if method == "osem" else method, "ncore": workers}
    if astra:
        how = {"algorithm": tomopy.astra, "ncore": 1, "options": astra_options(method, astra, filter_name)}
    elif method != "fbp":
        how["num_iter"] = 1
    found = np.asarray(
        tomopy.recon(
            sinograms,
            np.deg2rad(geometry.angles_deg),
            center=rotation_centre(geometry),
            sinogram_order=True,
            init_recon=slices,
            num_gridx=geometry.nz,
            num_gridy=geometry.nx,
            **how,
        )
    )
    if empty is not None:
        found[empty] = 0
    return found


def astra_options(method: str, device: Literal["cpu", "cuda"], filter_name: Filter) -> dict[str, Any]:
    """Return the `options` of ``tomopy.astra`` for an iteration, or for FBP."""
    options: dict[str, Any] = {
        "method": ASTRA_METHODS[method] + ("_CUDA" if device == "cuda" else ""),
        "proj_type": "cuda" if device == "cuda" else "linear",
        "num_iter": 1,
    }
    if method == "fbp":
        options["extra_options"] = {"FilterType": "ram-lak" if filter_name == "ramp" else filter_name}
    return options


def gridrec(sinograms: Floats, geometry: ParallelGeometry, filter_name: Filter, workers: int) -> Floats:
    """Return slices reconstructed by TomoPy's `gridrec`, in its orientation, with our scale and axis.

    `sinograms` (n, n_tilt, n_detector) have the weight of each tilt, relative to pi/n_tilt. Each of the `workers` takes
    a grid of `gridrec_width` squared.
    """
    import tomopy

    width = gridrec_width(geometry)
    extended, centre = gridrec_sinograms(sinograms, geometry, width)
    slices = tomopy.recon(
        extended,
        np.deg2rad(geometry.angles_deg),
        center=centre,
        sinogram_order=True,
        algorithm="gridrec",
        filter_name=GRIDREC_FILTERS.get(filter_name, filter_name),
        filter_par=[1.0, 8.0],
        ncore=min(workers, -(-len(sinograms) // BLOCK)),
        num_gridx=geometry.nz,
        num_gridy=geometry.nx,
    )
    # Rows of TomoPy's are mirrored.
    gain = np.outer(gridrec_gain(geometry.nz, width)[::-1], gridrec_gain(geometry.nx, width))
    total = sinograms.sum(axis=(1, 2), dtype=np.float64) * np.pi / geometry.n_tilt
    return np.asarray(slices / gain + (total / (6 * width**2))[:, None, None], np.float32)


def gridrec_width(geometry: ParallelGeometry) -> int:
    """Return the number of detector pixels that `gridrec` is given: a power of two."""
    return int(2 ** np.ceil(np.log2(max(16, 2 * geometry.n_detector, geometry.nx + 2, geometry.nz + 2))))


def gridrec_sinograms(sinograms: Floats, geometry: ParallelGeometry, width: int) -> tuple[Floats, float]:
    """Return sinograms extended with zeros to `width` and shifted to where `gridrec` has its axis, and its `center`."""
    margin = (width - geometry.n_detector) // 2
    extended = np.pad(sinograms, ((0, 0), (0, 0), (margin, width - geometry.n_detector - margin)))
    x, z = ((n - 1) / 2 - (n + 1) // 2 for n in (geometry.nx, geometry.nz))  # from its axis to ours, voxels
    shifts = x * geometry.cosines + z * geometry.sines
    spectrum = scipy.fft.rfft(extended, axis=-1)
    spectrum *= np.exp(-2j * np.pi * shifts[:, None] * scipy.fft.rfftfreq(width)).astype(np.complex64)
    return np.asarray(scipy.fft.irfft(spectrum, width, axis=-1), np.float32), margin + (geometry.n_detector - 1) / 2


def gridrec_gain(n: int, width: int) -> NDArray[np.float64]:
    """Return the factor by which `gridrec` makes each of `n` voxels along an axis too bright.

    It is the transform of the kernel as far as it reaches, over that of the whole kernel, which `gridrec` divides by:
    the prolate function again (Slepian & Pollak, Bell Syst. Tech. J. 40, 43, 1961), one voxel off.
    """
    x = np.arange(n) - (n + 1) // 2
    u = np.linspace(-REACH, REACH, 1001)  # grid points
    seen = trapezoid(_prolate(u / REACH) * np.cos(2 * np.pi * u * x[:, None] / width), u, axis=1)
    norm = np.sqrt(2) / 1.2 * np.sqrt(np.pi / (2 * PROLATE))
    return np.asarray(norm * seen / _prolate((x + 1) / (width / 2 - 0.5)))


def _prolate(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the prolate spheroidal wave function of order zero at `x` in [-1, 1], 1 at 0."""
    inside = np.minimum(np.abs(x), 1 - 1e-9)
    return np.asarray(pro_ang1(0, 0, PROLATE, inside)[0] / pro_ang1(0, 0, PROLATE, 0.0)[0])


def refuse_non_finite(slices: Floats, iterations: int = 0) -> None:
    """Raise `NotFinite` where TomoPy's slices hold NaN or infinity; takes no memory for it."""
    finite(float(slices.min()) + float(slices.max()), iterations)


def cleaned(slices: Floats, seen: NDArray[np.bool_], non_negative: bool) -> Floats:
    """Return TomoPy's slices with 0 where not `seen` (nz, nx) and, if asked, for negatives."""
    slices = np.where(seen[::-1], slices, np.float32(0))
    return np.maximum(slices, 0) if non_negative else slices


def _fit(judge: CpuOperator, slices: Floats, measured: Floats) -> tuple[list[float], list[float]]:
    """Return sums of squares for each block: of `measured` minus the projections of TomoPy's slices, and of these."""
    volume, misfit, power = from_tomopy(slices), [], []
    for block in slabs(len(slices), BLOCK):
        projections = judge.forward(judge.load_volume(volume[:, block]))
        computed = judge.unload_projections(projections, block.stop - block.start)
        misfit.append(float(np.square(measured[:, block] - computed, dtype=np.float64).sum()))
        power.append(float(np.square(computed, dtype=np.float64).sum()))
    return misfit, power
