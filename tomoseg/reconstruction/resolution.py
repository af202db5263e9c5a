"""Resolution of a reconstruction: Fourier shell correlation of two volumes made from every other tilt.

Two volumes from halves of the images share the object, but neither the noise nor the streaks of missing tilts. Their
Fourier coefficients are correlated over shells of equal spatial frequency (Harauz & van Heel, Optik 73, 146, 1986);
where the correlation falls below 1/7 = 0.143, that of all data with the object falls below 1/2 (Rosenthal & Henderson,
J. Mol. Biol. 333, 721, 2003). Only directions between the first and the last tilt are counted: nothing was measured in
the missing wedge, which elongates points along the beam (Radermacher, J. Electron Microsc. Tech. 9, 359, 1988).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from tomoseg.lengths import NYQUIST_PX
from tomoseg.missing_wedge import MissingWedge
from tomoseg.reconstruction.geometry import FloatArray, ParallelGeometry
from tomoseg.reconstruction.methods import Method
from tomoseg.reconstruction.operators import Floats, Operator
from tomoseg.reconstruction.shells import shell_correlation
from tomoseg.runtime import slabs

THRESHOLD = 1 / 7
SIDE_PX = 320  # of the middle of the sample's slices, in which the resolution is measured
AT_ONCE = 32  # slices: a GPU holds them that holds those of the sample for the iterations
LEAST_ELONGATION = 1.01  # worth telling
LEAST_SIGNAL = 0.1  # of the brightest part of a profile, below which it counts as vacuum


@dataclass(frozen=True, eq=False)
class Resolution:
    """How fine the details are that reconstructions from even and from odd tilts share.

    Attributes
    ----------
    shells : structured array
        The shell correlation (`tomoseg.reconstruction.shells.shell_correlation`).
    elongation : float
        Length of a point along the beam, by its width across it, for the range of tilts; 1 without a missing wedge.
    crowther_px : float
        Period to which the number of tilts suffices for the width of the sample (Crowther et al., Proc. R. Soc. A 317,
        319, 1970). Constraints such as positive density go beyond it.
    n_slices : int
        Number of slices from which the resolution was measured.
    """

    shells: NDArray[Any]
    elongation: float
    crowther_px: float
    n_slices: int

    @cached_property
    def px(self) -> float:
        """Averaged over the directions that were measured; 2 where it is at least as fine, NaN where nothing agrees."""
        return crossing_px(self.shells, "correlation")

    @cached_property
    def x_px(self) -> float:
        """Across the tilt axis and the beam."""
        return crossing_px(self.shells, "correlation_x")

    @cached_property
    def y_px(self) -> float:
        """Along the tilt axis."""
        return crossing_px(self.shells, "correlation_y")

    @property
    def z_px(self) -> float:
        """Along the beam, where the missing wedge lies: that along x times the elongation."""
        return self.x_px * self.elongation

    def described(self, voxel_size_nm: float) -> str:
        """Say what was found, in nm where the voxel size is known."""
        if np.isnan(self.px):
            return "no resolution found: even and odd tilts give volumes that differ even in their coarsest details"
        in_nm = bool(np.isfinite(voxel_size_nm))

        def length(px: float) -> str:
            return f"{px * voxel_size_nm:.2f} nm" if in_nm else f"{px:.2f} px"

        size = f"{length(self.px)} ({self.px:.2f} px)" if in_nm else length(self.px)
        curve = "the Fourier shell correlation of even and odd tilts"
        text = (
            f"at least as fine as the voxels show, {size}: {curve} never falls below 1/7"
            if self.px == NYQUIST_PX
            else f"{size}: {curve} falls below 1/7 there"
        )
        text = f"resolution {text} ({self.n_slices} slices, measured directions)"
        for axis, px in (("x", self.x_px), ("y", self.y_px)):
            text += f"; along {axis} {length(px)}" if np.isfinite(px) else ""
        if np.isfinite(self.z_px) and self.elongation > LEAST_ELONGATION:
            text += f"; along z {length(self.z_px)}, as the missing wedge elongates by {self.elongation:.2f}"
        if np.isfinite(self.crowther_px):
            text += f"; by the number of tilts alone {length(self.crowther_px)} (Crowther)"
        return text

    def stored(self, voxel_size_nm: float) -> dict[str, float]:
        """Return what `/reconstruction` keeps of it."""
        return {
            "resolution_px": self.px,
            "resolution_nm": self.px * voxel_size_nm,
            "resolution_x_px": self.x_px,
            "resolution_y_px": self.y_px,
            "resolution_z_px": self.z_px,
            "elongation": self.elongation,
            "crowther_px": self.crowther_px,
        }


def measure_resolution(
    operator_for: Callable[[ParallelGeometry], Operator],
    geometry: ParallelGeometry,
    sample: Floats,
    method: Method,
    threads: int = 1,
) -> Resolution:
    """Reconstruct the sample from the even and from the odd tilts, and correlate the middle of both.

    At most `threads` blocks of slices are computed at the same time, where the backend allows threads.
    """
    even, odd = (
        middle_of_half(operator_for, geometry, sample[t], t, method, threads) for t in halves(geometry.angles_deg)
    )
    return resolution_of(even, odd, geometry, sample)


def resolution_of(even: Floats, odd: Floats, geometry: ParallelGeometry, sample: Floats) -> Resolution:
    """Return the resolution by the middles (z, y, x) of both reconstructions of the sample (n_tilt, y, n_detector)."""
    return Resolution(
        shells=shell_correlation(even, odd, geometry),
        elongation=MissingWedge.of(geometry.angles_deg).elongation,
        crowther_px=crowther_px(geometry, sample_width_px(sample)),
        n_slices=sample.shape[1],
    )


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

        parts = slabs(projections.shape[1], min(operator.block, AT_ONCE))
        with ThreadPoolExecutor(threads if operator.threads else 1) as pool:
            return np.concatenate(list(pool.map(middle_of, parts)), axis=1)


def _middle(n: int) -> slice:
    start = max(0, (n - SIDE_PX) // 2)
    return slice(start, start + min(n, SIDE_PX))


def halves(angles_deg: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the tilts of both halves: every other one in the order of their angles (n_tilt,)."""
    order = np.argsort(angles_deg, kind="stable")
    return np.sort(order[::2]), np.sort(order[1::2])


def crossing_px(shells: NDArray[Any], name: str) -> float:
    """Return the length of a period, px, from which on a correlation stays below 1/7.

    A curve that dips and rises again, as that of equal spheres does, is first replaced by the falling one next to it
    (isotonic regression, each shell weighted by its coefficients). 2 where that never falls below 1/7, NaN where even
    the coarsest details do not correlate.
    """
    known = shells[np.isfinite(shells[name])]
    if not len(known):
        return float("nan")
    weights = np.maximum(known["coefficients"], 1)
    falling = isotonic_regression(known[name], weights=weights, increasing=False).x
    below = np.flatnonzero(falling < THRESHOLD)
    if not len(below):
        return NYQUIST_PX
    i = int(below[0])
    if i == 0:
        return float("nan")
    (f0, f1), (c0, c1) = known["frequency_per_px"][i - 1 : i + 1], falling[i - 1 : i + 1]
    return float(1 / (f0 + (f1 - f0) * (c0 - THRESHOLD) / (c0 - c1)))


def crowther_px(geometry: ParallelGeometry, width_px: float) -> float:
    """Return the period to which the tilts suffice, px: the width of the sample times their mean step in radians."""
    if geometry.n_tilt < 2:
        return float("nan")
    return width_px * float(np.deg2rad(np.ptp(geometry.angles_deg)) / (geometry.n_tilt - 1))


def sample_width_px(sample: Floats) -> float:
    """Return the diameter of the disc whose images are as wide as those of the sample (n_tilt, n, n_detector), px.

    The standard deviation of a disc's profile is a quarter of its diameter. NaN for an empty sample.
    """
    profiles = np.clip(sample.mean(axis=1, dtype=np.float64), 0, None)
    profiles[profiles < LEAST_SIGNAL * profiles.max(axis=1, keepdims=True)] = 0
    total = profiles.sum(axis=1)
    profiles, total = profiles[total > 0], total[total > 0]
    if not len(total):
        return float("nan")
    x = np.arange(profiles.shape[1])
    mean = profiles @ x / total
    spread = np.sqrt(np.maximum(profiles @ x.astype(np.float64) ** 2 / total - mean**2, 0))
    return float(4 * np.median(spread))
