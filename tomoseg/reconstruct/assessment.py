"""What can be told of a reconstruction from the data alone, on a sample of slices: iterations, resolution."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tomoseg.arrays import ArraySource
from tomoseg.reconstruct.geometry import ParallelGeometry
from tomoseg.reconstruct.methods import Method, in_blocks
from tomoseg.reconstruct.operators import Floats, Operator
from tomoseg.reconstruct.resolution import BYTES_PER_VOXEL, ShellCorrelation, halves, shell_correlation

SLICES = 64  # neighbouring ones, where the object is; fewer where memory is short
FEWEST_SLICES = 8


@dataclass(frozen=True)
class Sample:
    """Neighbouring slices of an aligned series: which, and their projections (n_tilt, n, n_detector)."""

    slices: slice
    projections: Floats

    @classmethod
    def taken(cls, aligned: ArraySource, geometry: ParallelGeometry, max_memory: float) -> "Sample":
        """Take the slices with the largest signal at the smallest tilt, as many as `max_memory` bytes allow."""
        per_slice = BYTES_PER_VOXEL * geometry.nz * geometry.nx + 12 * geometry.n_tilt * geometry.n_detector
        n = min(aligned.shape[1], SLICES, max(FEWEST_SLICES, int(max_memory / 4 / per_slice)))
        front = int(np.argmin(np.abs(geometry.angles_deg)))
        signal = np.abs(np.asarray(aligned[front : front + 1, :], np.float64)).sum(axis=(0, 2))
        start = int(np.argmax(np.convolve(signal, np.ones(n), mode="valid")))
        slices = slice(start, start + n)
        return cls(slices, np.asarray(aligned[:, slices], np.float32))


def resolution(
    operator_for: Callable[[ParallelGeometry], Operator],
    geometry: ParallelGeometry,
    sample: Sample,
    method: Method,
    workers: int,
) -> ShellCorrelation:
    """Reconstruct the sample from the even and from the odd tilts, and correlate both."""
    volumes = [_from(tilts, operator_for, geometry, sample, method, workers) for tilts in halves(geometry)]
    return shell_correlation(volumes[0], volumes[1], geometry, workers)


def _from(
    tilts: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int64]],
    operator_for: Callable[[ParallelGeometry], Operator],
    geometry: ParallelGeometry,
    sample: Sample,
    method: Method,
    workers: int,
) -> Floats:
    operator = operator_for(geometry.of(np.asarray(tilts)))
    try:
        return in_blocks(operator, method, sample.projections[tilts], workers).volume
    finally:
        operator.close()
