"""What can be told of a reconstruction from the data alone, on a sample of slices: iterations, resolution.

The sample does not depend on the memory allowed, and neither does what is found: so it is small.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import ArraySource
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.methods import Method
from tomoseg.reconstruction.operators import Floats, Operator
from tomoseg.reconstruction.resolution import ShellCorrelation, halves, shell_correlation
from tomoseg.runtime import slabs

SLICES = 32  # neighbouring ones, where the object is
SIDE_PX = 320  # of the middle of these slices, in which the resolution is measured


@dataclass(frozen=True)
class Sample:
    """Projections (n_tilt, n, n_detector) of neighbouring slices of an aligned series."""

    projections: Floats

    @classmethod
    def taken(cls, aligned: ArraySource, geometry: ParallelGeometry) -> "Sample":
        """Take the slices with the largest signal at the smallest tilt."""
        n = min(aligned.shape[1], SLICES)
        front = int(np.argmin(np.abs(geometry.angles_deg)))
        signal = np.abs(np.asarray(aligned[front : front + 1, :], np.float64)).sum(axis=(0, 2))
        start = int(np.argmax(np.convolve(np.nan_to_num(signal), np.ones(n), mode="valid")))
        return cls(np.asarray(aligned[:, start : start + n], np.float32))


def resolution(
    operator_for: Callable[[ParallelGeometry], Operator],
    geometry: ParallelGeometry,
    sample: Sample,
    method: Method,
    workers: int = 1,
) -> ShellCorrelation:
    """Reconstruct the sample from the even and from the odd tilts, and correlate the middle of both.

    At most `workers` blocks of slices are computed at the same time, where the backend allows threads.
    """
    even, odd = (_middle_from(tilts, operator_for, geometry, sample, method, workers) for tilts in halves(geometry))
    return shell_correlation(even, odd, geometry)


def _middle_from(
    tilts: NDArray[np.int64],
    operator_for: Callable[[ParallelGeometry], Operator],
    geometry: ParallelGeometry,
    sample: Sample,
    method: Method,
    workers: int,
) -> Floats:
    """Reconstruct from some of the tilts; return the middle of the slices."""
    projections = sample.projections[tilts]
    middle = [_middle(n) for n in (geometry.nz, geometry.nx)]
    with closing(operator_for(geometry.of(tilts))) as operator:

        def middle_of(part: slice) -> Floats:
            return method(operator, projections[:, part]).volume[middle[0], :, middle[1]].copy()

        with ThreadPoolExecutor(workers if operator.threads else 1) as pool:
            return np.concatenate(list(pool.map(middle_of, slabs(projections.shape[1], operator.block))), axis=1)


def _middle(n: int) -> slice:
    start = max(0, (n - SIDE_PX) // 2)
    return slice(start, start + min(n, SIDE_PX))
