"""Resolution of a reconstruction: Fourier shell correlation of two volumes made from every other tilt.

Two volumes from halves of the images share the object, but neither the noise nor the streaks of missing tilts. Their
Fourier coefficients are correlated over shells of equal spatial frequency (Harauz & van Heel, Optik 73, 146, 1986);
where the correlation falls below 1/7 = 0.143 the full data no longer tell signal from noise (Rosenthal & Henderson,
J. Mol. Biol. 333, 721, 2003). Only directions between the first and the last tilt are counted: nothing was measured in
the missing wedge.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from tomoseg.reconstruction.geometry import FloatArray, ParallelGeometry
from tomoseg.reconstruction.methods import Method
from tomoseg.reconstruction.operators import Floats, Operator
from tomoseg.runtime import slabs

THRESHOLD = 1 / 7
SHELL_DTYPE = np.dtype([("frequency_per_px", "f8"), ("correlation", "f8"), ("coefficients", "i8")])
SIDE_PX = 320  # of the middle of the sample's slices, in which the resolution is measured
TAPER = 0.1  # share of each side that is tapered at either end, so that the border does not count as detail


def measure_resolution(
    operator_for: Callable[[ParallelGeometry], Operator],
    geometry: ParallelGeometry,
    sample: Floats,
    method: Method,
    threads: int = 1,
) -> NDArray[Any]:
    """Reconstruct the sample from the even and from the odd tilts; return `shell_correlation` of the middle of both.

    At most `threads` blocks of slices are computed at the same time, where the backend allows threads.
    """
    even, odd = (middle_of_half(operator_for, geometry, sample[t], t, method, threads) for t in halves(geometry))
    return shell_correlation(even, odd, geometry)


def middle_of_half(
    operator_for: Callable[[ParallelGeometry], Operator],
    geometry: ParallelGeometry,
    projections: Floats,
    tilts: NDArray[np.int64],
    method: Method,
    threads: int,
) -> Floats:
    """Return the middle of slices, (z, n, x), reconstructed from the projections (n_tilt, n, n_detector) of `tilts`."""
    z, x = (_middle(n) for n in (geometry.nz, geometry.nx))
    with closing(operator_for(geometry.of(tilts))) as operator:

        def middle_of(part: slice) -> Floats:
            return method(operator, projections[:, part]).volume[z, :, x].copy()

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


def resolution_px(shells: NDArray[Any]) -> float:
    """Length of a period, px, at which the correlation first falls below 1/7; 2 where it never does.

    NaN where even the coarsest details do not correlate.
    """
    below = np.flatnonzero(shells["correlation"] < THRESHOLD)
    if not len(below) and len(shells):
        return 2.0
    i = int(below[0]) if len(below) else 0
    if i == 0:
        return float("nan")
    (f0, f1), (c0, c1) = (shells[name][i - 1 : i + 1] for name in ("frequency_per_px", "correlation"))
    return float(1 / (f0 + (f1 - f0) * (c0 - THRESHOLD) / (c0 - c1)))


def halves(geometry: ParallelGeometry) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the tilts of both halves: every other one in the order of their angles."""
    order = np.argsort(geometry.angles_deg, kind="stable")
    return np.sort(order[::2]), np.sort(order[1::2])


def shell_correlation(a: Floats, b: Floats, geometry: ParallelGeometry) -> NDArray[Any]:
    """Correlate two volumes (z, y, x) shell by shell, in the directions that the tilts saw.

    Returns a row for each shell: its middle in cycles per px, the correlation, the number of Fourier coefficients.
    """
    window = [_taper(n) for n in a.shape]
    spectra = [_spectrum(volume, window) for volume in (a, b)]
    shells = min(a.shape[0], a.shape[2]) // 2
    fy, fx = fft.fftfreq(a.shape[1]), fft.rfftfreq(a.shape[2])
    cross, first, second = (np.zeros(shells + 1) for _ in range(3))
    count = np.zeros(shells + 1, np.int64)
    for z, fz in enumerate(fft.fftfreq(a.shape[0])):  # plane by plane: a table of the volume would exceed it
        radius = np.sqrt(fz**2 + fy[:, None] ** 2 + fx[None, :] ** 2)
        shell = np.minimum((2 * shells * radius).astype(np.int64), shells)  # the last one holds the corners
        shell[:, ~_seen(fz, fx, geometry)] = shells
        p, q = spectra[0][z], spectra[1][z]
        cross += np.bincount(shell.ravel(), (p.real * q.real + p.imag * q.imag).ravel(), shells + 1)
        first += np.bincount(shell.ravel(), (p.real**2 + p.imag**2).ravel(), shells + 1)
        second += np.bincount(shell.ravel(), (q.real**2 + q.imag**2).ravel(), shells + 1)
        count += np.bincount(shell.ravel(), minlength=shells + 1)
    used = slice(1, shells)  # the first shell holds the mean, which was subtracted, the last one the corners
    product = np.sqrt(first * second)[used]
    correlation = np.where(product > 0, cross[used] / np.where(product > 0, product, 1), 0)
    table = np.empty(len(correlation), SHELL_DTYPE)
    table["frequency_per_px"] = (np.arange(1, shells) + 0.5) / (2 * shells)
    table["correlation"], table["coefficients"] = correlation, count[used]
    return table


def _spectrum(volume: Floats, window: list[FloatArray]) -> NDArray[np.complex64]:
    tapered = volume - volume.mean(dtype=np.float64).astype(np.float32)
    for axis, weights in enumerate(window):
        tapered *= np.expand_dims(weights, [i for i in range(3) if i != axis]).astype(np.float32)
    return np.asarray(fft.rfftn(tapered), np.complex64)


def _taper(n: int) -> FloatArray:
    """Return a window of n weights that falls to 0 at both ends over a share of it (Tukey)."""
    edge = max(1, round(TAPER * n))
    distance = np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5
    return np.where(distance < edge, 0.5 - 0.5 * np.cos(np.pi * distance / edge), 1.0)


def _seen(fz: float, fx: FloatArray, geometry: ParallelGeometry) -> NDArray[np.bool_]:
    """Return whether the directions of frequencies (fx, fz) lie between the first and the last tilt.

    A tilt t measures the spectrum along (cos t, sin t) in (x, z); see `ParallelGeometry`.
    """
    low, high = float(geometry.angles_deg.min()), float(geometry.angles_deg.max())
    if high - low >= 180:
        return np.ones(len(fx), np.bool_)
    direction = np.rad2deg(np.arctan2(fz, fx))
    return np.asarray(((direction - low) % 180 <= high - low) | ((fx == 0) & (fz == 0)))
