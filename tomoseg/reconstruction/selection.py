"""What of the aligned series is reconstructed: some of the tilts, some of the slices, binned or not."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import ArraySource
from tomoseg.reconstruction.operators import Floats
from tomoseg.runtime import slabs

PIXELS_AT_ONCE = 64  # along y, read of the stored series to be binned


@dataclass(frozen=True, eq=False)
class Selection:
    """A view of an aligned series (tilt, y, x) that reads no more than it is asked for.

    Parameters
    ----------
    aligned : array source, shape (n_tilt, ny, nx)
    tilts : int array, shape (n,)
        Tilts that are used, rising.
    binning : int
        Pixels averaged in each direction. What is left over at the far end along y is not used; across the axis, the
        binned pixels stay centred about it.
    first, n_slices : int
        Rows that are used, in binned pixels.
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
        """Bytes held while reading, beside what is returned."""
        rows = 0 if self.binning == 1 else max(PIXELS_AT_ONCE, self.binning)
        return 2 * 4 * rows * len(self.tilts) * self.aligned.shape[2]

    def __getitem__(self, key: tuple[slice, slice]) -> Floats:
        """Return (n, rows, n_detector), float32, of consecutive ones among the tilts and of consecutive rows."""
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
