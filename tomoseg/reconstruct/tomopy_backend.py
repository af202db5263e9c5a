"""TomoPy's own `mlem` and `sirt`, and its back projection for FBP, in tomoseg's geometry.

What has to be said to TomoPy (1.10 to 1.15), and where it stands in its sources:

- Data are in "sinogram order", (slice, tilt, detector), angles in radians (`recon/algorithm.py`).
- With (a, b) the two axes of its slice, a detector pixel is met by points with ``-a*sin(t) + b*cos(t)`` (`utils.c`,
  `calc_coords`): b is our x, and a is our z mirrored.
- The ray of pixel d passes the axis at ``d - center + 1/2`` (`utils.c`, `preprocessing`), so our axis at
  (n_detector - 1)/2 is ``center = n_detector/2``; with (n_detector - 1)/2 the volume would be half a pixel off.
- Rows are `num_gridx` and columns `num_gridy`.
- `mlem` divides by the computed projection without a test (`mlem.c`): 0/0 makes NaN as soon as all voxels on a ray are
  0, so no projection may be exactly 0. `accelerated=True` ignores `center` and is not used.
- Its `osem` takes the order of the tilts as floats or integers, depending on the version (`osem.c`): here it is `mlem`
  on one subset after the other, which leaves alone what a subset does not see (`mlem.c`).
- `fbp` only back projects, it does not filter (`fbp.c`), and adds to what it is given.
- A volume is initialised to 1e-6 unless `init_recon` is given.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.reconstruct.cpu_backend import CpuOperator
from tomoseg.reconstruct.filters import Filter, filtered
from tomoseg.reconstruct.geometry import ParallelGeometry
from tomoseg.reconstruct.methods import Result
from tomoseg.reconstruct.operators import Floats, spread_order

BLOCK = CpuOperator.block  # slices whose residuals are computed together
FAINTEST = 1e-6  # of a slice's brightest projection: what stands for "nothing measured", since 0 would make NaN


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
    method: Literal["mlem", "osem", "sirt", "tv", "fbp"],
    *,
    iterations: int = 1,
    subsets: int = 1,
    filter_name: Filter = "ramp",
    non_negative: bool = True,
    support: NDArray[np.bool_] | None = None,
    workers: int = 1,
    checkpoint: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Reconstruct a slab with TomoPy; return a result for each block of `BLOCK` slices.

    Iterations are asked for one at a time: that costs TomoPy nothing, and lets the residual before each be computed
    (with tomoseg's projector). TomoPy weights voxels by the length of the ray within them, tomoseg by linear
    interpolation, and TomoPy's `sirt` scales rays by the sum of squared lengths: volumes agree closely, not exactly.

    Parameters
    ----------
    projections : array, shape (n_tilt, n, n_detector)
    geometry : ParallelGeometry
    method : str
        ``mlem``, ``osem``, ``sirt`` or ``fbp``.
    iterations, subsets, filter_name, non_negative, support
        As in `methods`.
    workers : int
        Cores for TomoPy.
    checkpoint : callable
        Called before each iteration; may raise to stop.
    """
    import tomopy

    subsets = min(subsets, geometry.n_tilt)
    is_likelihood = method in ("mlem", "osem")
    measured = np.maximum(projections, 0) if is_likelihood else projections
    judge = CpuOperator(geometry)
    seen = judge.column_sums > 0 if support is None else support & (judge.column_sums > 0)
    sinograms = to_sinograms(filtered(projections, geometry.angles_deg, filter_name) if method == "fbp" else measured)
    slices = np.zeros((len(sinograms), geometry.nz, geometry.nx), np.float32)
    if is_likelihood:
        np.maximum(sinograms, FAINTEST * sinograms.max(axis=(1, 2), keepdims=True), out=sinograms)
        slices += (sinograms.mean(axis=(1, 2)) / geometry.nz)[:, None, None]
    misfit = [_misfit(judge, slices, measured)]
    parts = [slice(start, None, subsets) for start in spread_order(subsets)] if method == "osem" else [slice(None)]
    for _ in range(1 if method == "fbp" else iterations):
        checkpoint()
        for part in parts:
            slices = tomopy.recon(
                sinograms[:, part],
                np.deg2rad(geometry.angles_deg[part]),
                center=rotation_centre(geometry),
                sinogram_order=True,
                algorithm="mlem" if method == "osem" else method,
                init_recon=slices,
                ncore=workers,
                num_gridx=geometry.nz,
                num_gridy=geometry.nx,
                **({} if method == "fbp" else {"num_iter": 1}),
            )
        slices = cleaned(slices, seen, non_negative and method == "sirt")
        misfit.append(_misfit(judge, slices, measured))
    volume, residuals = from_tomopy(slices), np.array(misfit[-1:] if method == "fbp" else misfit)
    return [
        Result(volume[:, block], residuals[:, i], float(np.square(measured[:, block], dtype=np.float64).sum()))
        for i, block in enumerate(_blocks(len(slices)))
    ]


def cleaned(slices: Floats, seen: NDArray[np.bool_], non_negative: bool) -> Floats:
    """Return TomoPy's slices with 0 for NaN (empty slices), where not `seen` (nz, nx) and, if asked, for negatives."""
    slices = np.where(seen[::-1] & np.isfinite(slices), slices, np.float32(0))
    return np.maximum(slices, 0) if non_negative else slices


def _blocks(n: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]


def _misfit(judge: CpuOperator, slices: Floats, measured: Floats) -> list[float]:
    """Return, for each block, the sum of squares of `measured` minus the projections of TomoPy's slices."""
    volume, sums = from_tomopy(slices), []
    for block in _blocks(len(slices)):
        computed = judge.forward(judge.load_volume(volume[:, block]))
        left = measured[:, block] - judge.unload_projections(computed, block.stop - block.start)
        sums.append(float(np.square(left, dtype=np.float64).sum()))
    return sums
