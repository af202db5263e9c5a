"""The part of an aligned series that is reconstructed: some of the tilts, some of the slices, binned or not."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import ArraySource
from tomoseg.errors import InputError, StageFailed
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.operators import Floats
from tomoseg.runtime import Runtime, slabs

SAMPLE_SLICES = 32  # neighbouring ones, where the object is, that tell the number of iterations
RESOLUTION_SLICES = 96  # that tell the resolution
STEEPEST_DEG = 75.0  # tilt up to which all is reconstructed that is seen of a film
DEEPER, MARGIN = 4 / 3, 4  # than a film: times its thickness, and voxels
PIXELS_AT_ONCE = 64  # along y, read of the stored series to be binned


@dataclass(frozen=True, eq=False)
class Selection:
    """A view of an aligned series (tilt, y, x) that reads no more than it is asked for.

    Parameters
    ----------
    tilts : tilts that are used, rising
    binning : pixels averaged in each direction, see `binned`
    first, n_slices : rows that are used, in binned pixels
    """

    aligned: ArraySource
    tilts: NDArray[np.int64]
    binning: int
    first: int
    n_slices: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of tilts, slices and detector pixels."""
        return len(self.tilts), self.n_slices, self.aligned.shape[2] // self.binning

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Element type of what is read."""
        return np.dtype(np.float32)

    @property
    def buffer_bytes(self) -> int:
        """Bytes held while reading, besides the array that is returned."""
        rows = 0 if self.binning == 1 else max(PIXELS_AT_ONCE, self.binning)
        return 2 * 4 * rows * len(self.tilts) * self.aligned.shape[2]

    def __getitem__(self, key: tuple[slice, slice]) -> Floats:
        """Return (n, rows, n_detector), float32: consecutive tilts of the selected ones, and consecutive rows."""
        tilts = self.tilts[key[0]]
        start, stop, _ = key[1].indices(self.n_slices)
        if self.binning == 1:
            return self._rows(tilts, self.first + start, self.first + stop)
        images = np.empty((len(tilts), stop - start, self.shape[2]), np.float32)
        for part in slabs(stop, max(1, PIXELS_AT_ONCE // self.binning), start):
            rows = self._rows(tilts, (self.first + part.start) * self.binning, (self.first + part.stop) * self.binning)
            images[:, part.start - start : part.stop - start] = binned(rows, self.binning)
        return images

    def _rows(self, tilts: NDArray[np.int64], start: int, stop: int) -> Floats:
        """Return rows of the aligned series as they are stored."""
        images = np.asarray(self.aligned[tilts[0] : tilts[-1] + 1, start:stop], np.float32)
        return images if len(images) == len(tilts) else images[tilts - tilts[0]]


def binned(images: Floats, factor: int) -> Floats:
    """Return the means over `factor` x `factor` pixels, shape (n, ny // factor, nx // factor).

    Rows are taken from the first on. Along x the binned pixels lie about the middle of the image, where the tilt axis
    is: where nx is no multiple of the factor they begin and end within pixels, which then count in part.
    """
    n, ny, nx = images.shape
    rows = images[:, : ny // factor * factor].reshape(n, ny // factor, factor, nx).mean(axis=2)
    edges = nx / 2 + factor * (np.arange(nx // factor + 1) - nx // factor / 2)
    low, high = np.maximum(edges[:-1], np.arange(nx)[:, None]), np.minimum(edges[1:], np.arange(1, nx + 1)[:, None])
    overlap = np.maximum(high - low, 0) / factor  # of each pixel (row) with each binned one (column)
    return np.asarray(rows @ overlap.astype(np.float32), np.float32)


def select(
    aligned: ArraySource,
    angles_deg: NDArray[np.float64],
    outliers: NDArray[np.bool_] | None,
    binning: int,
    y_range: tuple[int, int] | None,
    runtime: Runtime,
) -> tuple[Selection, NDArray[np.float64]]:
    """Return the part of an aligned series (n_tilt, y, x) without outliers within `y_range`, and its angles."""
    n_tilt, n_y, n_x = aligned.shape
    if len(angles_deg) != n_tilt:
        raise InputError(
            f"The aligned series has {n_tilt} images but there are {len(angles_deg)} tilt angles: one for each image "
            "is needed. Align the series again."
        )
    if min(n_y, n_x) < binning:
        raise InputError(
            f"Images of {n_y} x {n_x} px cannot be binned by {binning}; choose a smaller reconstruct.binning."
        )
    kept = np.arange(n_tilt)
    if outliers is not None and outliers.any():
        n = int(outliers.sum())
        listed = ", ".join(f"{angle:g}" for angle in angles_deg[outliers][:10]) + (" ..." if n > 10 else "")
        runtime.say(f"leaving out {n} outlier image{'s' if n > 1 else ''} (tilt {listed} degrees)")
        kept = np.flatnonzero(~outliers)
    rows = within("y_range", y_range, n_y // binning)
    return Selection(aligned, kept, binning, rows.start, rows.stop - rows.start), angles_deg[kept]


def take_sample(aligned: ArraySource, geometry: ParallelGeometry, most: int) -> Floats:
    """Return the projections (n_tilt, n, n_detector) of neighbouring slices with the largest signal at least tilt.

    They do not depend on the memory allowed, and neither does what is found from them: so they are few.
    """
    n = min(aligned.shape[1], most)
    front = int(np.argmin(np.abs(geometry.angles_deg)))
    signal = np.abs(np.asarray(aligned[front : front + 1, :], np.float64)).sum(axis=(0, 2))
    start = int(np.argmax(np.convolve(np.nan_to_num(signal), np.ones(n), mode="valid")))
    return np.asarray(aligned[:, start : start + n], np.float32)


def within(name: str, limits: tuple[int, int] | None, n: int) -> slice:
    """Return the part of `n` voxels that the parameter `name` asks for."""
    if limits is None:
        return slice(0, n)
    if limits[1] > n:
        raise InputError(
            f"reconstruct.{name} is {limits[0]},{limits[1]}, but the volume has {n} voxels in that direction."
        )
    return slice(*limits)


def film_depth(thickness_px: float, binning: int, most: int) -> int:
    """Return how many voxels along the beam hold a film of `thickness_px` aligned pixels, `most` at most."""
    return min(math.ceil(DEEPER * thickness_px / binning) + MARGIN, most)


def series_geometry(
    n_detector: int,
    angles_deg: NDArray[np.float64],
    nz: int | None,
    runtime: Runtime,
    *,
    is_film: bool = False,
) -> ParallelGeometry:
    """Return the geometry of slices of (nz, n_detector) voxels; square ones where `nz` is None.

    With `is_film`, slices are as wide as any tilt shows a film of that thickness, by an even number of voxels more.
    """
    n_tilt = len(angles_deg)
    if n_tilt < 2:
        raise InputError(
            f"The tilt series has {'only one usable image' if n_tilt else 'no usable image'}. A volume needs images "
            "from several directions: import the whole series."
        )
    span = float(np.ptp(angles_deg))
    if span > 180:
        runtime.say(
            f"the tilts span {span:.1f} degrees: directions 180 degrees apart are the same, and each image counts as "
            "a measurement of its own"
        )
    nz = nz or n_detector
    wider = 0
    if is_film:
        t = np.deg2rad(min(float(np.abs(angles_deg).max()), STEEPEST_DEG))
        wider = math.ceil((n_detector * (1 / np.cos(t) - 1) + nz * np.tan(t)) / 2)
    return ParallelGeometry(angles_deg, n_detector=n_detector, nx=n_detector + 2 * wider, nz=nz)


def refuse_non_finite(data: Floats, angles_deg: NDArray[np.floating]) -> None:
    """Raise where projections (n_tilt, n, n_detector) are NaN or infinite."""
    bad = np.flatnonzero(~np.isfinite(data).all(axis=(1, 2)))
    if len(bad):
        names = ", ".join(f"number {i + 1} at {angles_deg[i]:g} degrees" for i in bad[:5])
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise StageFailed(
            f"The aligned tilt series contains non-finite values (NaN or infinity) in image {names}{more}. Align it "
            "again; if the raw images contain them, leave those images out at import."
        )
