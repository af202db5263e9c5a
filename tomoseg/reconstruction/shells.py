"""Fourier shell correlation of two volumes, shell by shell, averaged over the directions that the tilts saw.

A shell holds strong directions and weak ones: along the tilt axis more is known than across it, and an iterative
method that is stopped early damps some directions more than others. One correlation of the whole shell is that of the
strongest of them. So each shell is divided into directions of equal solid angle, and their correlations are averaged.

What the window adds, which is the same for both volumes, is measured and taken out: the phases of both are randomised
beyond a frequency, and what still correlates there came from elsewhere (Chen et al., Ultramicroscopy 135, 24, 2013).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from tomoseg.reconstruction.geometry import FloatArray, ParallelGeometry
from tomoseg.reconstruction.operators import Floats

SHELL_DTYPE = np.dtype(
    [
        ("frequency_per_px", "f8"),
        ("correlation", "f8"),
        ("correlation_x", "f8"),
        ("correlation_y", "f8"),
        ("coefficients", "i8"),
    ]
)
TAPER = 0.25  # share of each side that is tapered at either end, so that the border does not count as detail
BANDS, SECTORS = 4, 5  # directions: bands between the tilt axis and the slice, and sectors between the outermost tilts
CONE = np.cos(np.deg2rad(30))  # of directions that count as along an axis
LEAST_SHELLS = 16
SURE = 0.8  # phases are randomised beyond the frequency at which the correlation falls below this


def shell_correlation(a: Floats, b: Floats, geometry: ParallelGeometry) -> NDArray[Any]:
    """Correlate two volumes (z, y, x) shell by shell, in the directions that the tilts saw.

    Returns a row for each shell: its middle in cycles per px; the correlation, averaged over directions; those of
    directions within 30 degrees of x (as it lies in the middle of the tilt range) and of y, the tilt axis, NaN where
    there are none; the number of Fourier coefficients. The correlations are corrected for what the window adds.
    """
    table = _correlate(a, b, geometry)
    below = np.flatnonzero(table["correlation"] < SURE)
    if not len(below) or below[0] == 0:
        return table
    first = int(below[0])
    beyond = float(table["frequency_per_px"][first])
    by_window = _correlate(_randomised(a, beyond, 0), _randomised(b, beyond, 1), geometry)
    rows = slice(min(first + 2, len(table)), None)  # the window spreads what was kept over the next shells
    for name in ("correlation", "correlation_x", "correlation_y"):
        shared = np.clip(by_window[name][rows], 0, 0.99)
        table[name][rows] = (table[name][rows] - shared) / (1 - shared)
    return table


def _correlate(a: Floats, b: Floats, geometry: ParallelGeometry) -> NDArray[Any]:
    """Return the table of `shell_correlation`, without the correction."""
    p, q = _spectrum(a), _spectrum(b)
    shells, directions = _n_shells(a.shape), BANDS * SECTORS
    sums = np.zeros((4, (directions + 2) * shells))  # of p q, p p, q q and 1
    for z, groups in enumerate(_groups(a.shape, shells, geometry)):
        cross = p[z].real * q[z].real + p[z].imag * q[z].imag
        powers = [v[z].real ** 2 + v[z].imag ** 2 for v in (p, q)]
        for which, index in groups:
            for total, values in zip(sums, (cross, *powers, np.ones_like(cross)), strict=True):
                np.add(total, np.bincount(index, values[which], total.size), out=total)
    # The first shell holds the mean, which was subtracted.
    cross, first, second, count = (total.reshape(-1, shells)[:, 1:] for total in sums)
    product = np.sqrt(first * second)
    correlation = np.where(product > 0, cross / np.where(product > 0, product, 1), 0)
    table = np.empty(shells - 1, SHELL_DTYPE)
    table["frequency_per_px"] = (np.arange(1, shells) + 0.5) / (2 * shells)
    everywhere = count[:directions].sum(axis=0)
    table["coefficients"] = everywhere
    table["correlation"] = (count * correlation)[:directions].sum(axis=0) / np.maximum(everywhere, 1)
    for name, row in (("correlation_x", directions), ("correlation_y", directions + 1)):
        table[name] = np.where(count[row] > 0, correlation[row], np.nan)
    return table


def _n_shells(shape: tuple[int, ...]) -> int:
    """Return the number of shells: none is thinner than the distance of Fourier coefficients along any axis.

    Of few slices, where that would leave too few shells, along z and x.
    """
    nz, ny, nx = shape
    return min(nz // 2, nx // 2, max(ny // 2, LEAST_SHELLS))


def _groups(
    shape: tuple[int, ...], shells: int, geometry: ParallelGeometry
) -> Iterator[list[tuple[NDArray[np.bool_], NDArray[np.int64]]]]:
    """Yield for each plane of a spectrum which coefficients count where.

    The groups are the directions of `_correlate`, then the cone about x and that about y, each with its shells.
    """
    low, high = float(geometry.angles_deg.min()), float(geometry.angles_deg.max())
    across = np.deg2rad((low + high) / 2)  # where x lies in the middle of the tilt range
    span = min(high - low, 180.0)
    fy, fx = fft.fftfreq(shape[1])[:, None], fft.rfftfreq(shape[2])[None, :]
    for fz in fft.fftfreq(shape[0]):  # plane by plane: a table of the volume would exceed it
        radius = np.sqrt(fz**2 + fy**2 + fx**2)
        shell = (2 * shells * radius).astype(np.int64)
        length = np.maximum(radius, 1e-12)
        # A tilt t measures the spectrum along (cos t, sin t) in (x, z); see `ParallelGeometry`.
        angle = (np.rad2deg(np.arctan2(fz, fx)) - low) % 180
        known = (shell < shells) & ((angle <= span) | ((fz == 0) & (fx == 0)))
        band = np.minimum((BANDS * np.abs(fy) / length).astype(np.int64), BANDS - 1)
        sector = np.minimum((SECTORS * angle / max(span, 1e-12)).astype(np.int64), SECTORS - 1)
        direction = np.broadcast_to(band * SECTORS + np.where(angle <= span, sector, 0), shell.shape)
        along_x = np.abs(fx * np.cos(across) + fz * np.sin(across)) >= CONE * length
        along_y = np.abs(fy) >= CONE * length
        yield [
            (which, group[which] * shells + shell[which])
            for which, group in (
                (known, direction),
                (known & along_x, np.full(shell.shape, BANDS * SECTORS)),
                (known & along_y, np.full(shell.shape, BANDS * SECTORS + 1)),
            )
        ]


def _spectrum(volume: Floats) -> NDArray[np.complex64]:
    tapered = volume - volume.mean(dtype=np.float64).astype(np.float32)
    for axis, n in enumerate(volume.shape):
        tapered *= np.expand_dims(_taper(n), [i for i in range(3) if i != axis]).astype(np.float32)
    return np.asarray(fft.rfftn(tapered), np.complex64)


def _taper(n: int) -> FloatArray:
    """Return a window of n weights that falls to 0 at both ends over a share of it (Tukey)."""
    edge = max(1, round(TAPER * n))
    distance = np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5
    return np.where(distance < edge, 0.5 - 0.5 * np.cos(np.pi * distance / edge), 1.0)


def _randomised(volume: Floats, beyond: float, seed: int) -> Floats:
    """Return the volume with random phases at frequencies from `beyond` on, cycles per px."""
    rng = np.random.default_rng(seed)
    spectrum = np.asarray(fft.rfftn(volume), np.complex64)
    fy, fx = fft.fftfreq(volume.shape[1])[:, None], fft.rfftfreq(volume.shape[2])[None, :]
    for plane, fz in zip(spectrum, fft.fftfreq(volume.shape[0]), strict=True):
        turned = fz**2 + fy**2 + fx**2 >= beyond**2
        phases = rng.uniform(0, 2 * np.pi, int(turned.sum())).astype(np.float32)
        plane[turned] = np.abs(plane[turned]) * np.exp(1j * phases)
    return np.asarray(fft.irfftn(spectrum, volume.shape), np.float32)
