"""What a sample of slices tells of a reconstruction, without any truth: the number of iterations, the resolution.

The sample does not depend on the memory allowed, and neither does what is found: so it is small.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import ArraySource
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.methods import Method
from tomoseg.reconstruction.operators import Floats, Operator
from tomoseg.reconstruction.resolution import ShellCorrelation, halves, shell_correlation
from tomoseg.reconstruction.solver import Recipe
from tomoseg.reconstruction.stopping import FEWEST_TILTS, StoppingCurve, cross_validate
from tomoseg.runtime import Runtime, slabs

SAMPLE_SLICES = 32  # neighbouring ones, where the object is
SIDE_PX = 320  # of the middle of these slices, in which the resolution is measured


def take_sample(aligned: ArraySource, geometry: ParallelGeometry) -> Floats:
    """Return the projections (n_tilt, n, n_detector) of neighbouring slices with the largest signal at least tilt."""
    n = min(aligned.shape[1], SAMPLE_SLICES)
    front = int(np.argmin(np.abs(geometry.angles_deg)))
    signal = np.abs(np.asarray(aligned[front : front + 1, :], np.float64)).sum(axis=(0, 2))
    start = int(np.argmax(np.convolve(np.nan_to_num(signal), np.ones(n), mode="valid")))
    return np.asarray(aligned[:, start : start + n], np.float32)


def choose_iterations(
    recipe: Recipe, sample: Floats, threads: int, runtime: Runtime
) -> tuple[int, StoppingCurve | None]:
    """Return the number of iterations that predicts held-out tilts of the sample best, and the curve it is read from.

    Where too few tilts would remain, or the sample is empty, it is the method's usual number, without a curve.
    """
    row, n_tilt = recipe.row, recipe.geometry.n_tilt
    if n_tilt < FEWEST_TILTS or not sample.any():
        why = f"{n_tilt} tilts are too few to hold some out" if n_tilt < FEWEST_TILTS else "the sample is empty"
        runtime.say(f"{row.usual_iterations} iterations, the usual number: {why}")
        return row.usual_iterations, None
    curve = cross_validate(
        recipe.choice.operator,
        recipe.geometry,
        sample,
        recipe.iterative(),
        row.most_iterations,
        threads,
        runtime.check,
    )
    unbounded = "" if curve.is_bounded else f", still falling at {row.most_iterations} iterations"
    runtime.say(
        f"{curve.best} iterations: the fewest that predict held-out tilts within 2 % of the best (relative residual "
        f"{curve.held_out.min():.3f}{unbounded}; {sample.shape[1]} slices)"
    )
    return curve.best, curve


def measure_resolution(
    operator_for: Callable[[ParallelGeometry], Operator],
    geometry: ParallelGeometry,
    sample: Floats,
    method: Method,
    threads: int = 1,
) -> ShellCorrelation:
    """Reconstruct the sample from the even and from the odd tilts, and correlate the middle of both.

    At most `threads` blocks of slices are computed at the same time, where the backend allows threads.
    """
    even, odd = (_middle_from(tilts, operator_for, geometry, sample, method, threads) for tilts in halves(geometry))
    return shell_correlation(even, odd, geometry)


def _middle_from(
    tilts: NDArray[np.int64],
    operator_for: Callable[[ParallelGeometry], Operator],
    geometry: ParallelGeometry,
    sample: Floats,
    method: Method,
    threads: int,
) -> Floats:
    """Reconstruct from some of the tilts; return the middle of the slices."""
    projections = sample[tilts]
    middle = [_middle(n) for n in (geometry.nz, geometry.nx)]
    with closing(operator_for(geometry.of(tilts))) as operator:

        def middle_of(part: slice) -> Floats:
            return method(operator, projections[:, part]).volume[middle[0], :, middle[1]].copy()

        with ThreadPoolExecutor(threads if operator.threads else 1) as pool:
            return np.concatenate(list(pool.map(middle_of, slabs(projections.shape[1], operator.block))), axis=1)


def _middle(n: int) -> slice:
    start = max(0, (n - SIDE_PX) // 2)
    return slice(start, start + min(n, SIDE_PX))


def describe_resolution(resolution_px: float, voxel_size_nm: float, n_slices: int) -> str:
    """Say what the shell correlation found."""
    if np.isnan(resolution_px):
        return "no resolution found: reconstructions from even and from odd tilts differ even in their coarsest details"
    px = f"{resolution_px:.2f} px"
    size = f"{resolution_px * voxel_size_nm:.2f} nm ({px})" if np.isfinite(voxel_size_nm) else px
    limited = resolution_px == 2
    return (
        f"resolution {size}{', limited by the voxel size' if limited else ''}: the Fourier shell correlation of even "
        f"and odd tilts {'stays above' if limited else 'falls below'} 1/7 ({n_slices} slices, measured directions)"
    )
