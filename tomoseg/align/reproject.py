"""Alignment against what the other tilts predict: a quick reconstruction, projected back to each tilt."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tomoseg.align.copies import Copies
from tomoseg.align.correlate import padded_shape, register, taper
from tomoseg.align.projector import back_project, project, ramp_filter
from tomoseg.align.track import Band
from tomoseg.arrays import FloatArray
from tomoseg.runtime import slabs

# Reconstructing further out than the frame catches part of what a sample larger than the frame holds there.
WIDER = 1.5
# Rows along the axis are independent of each other: as many are reconstructed at once as take this much, whatever the
# memory allowed, so that the result does not depend on it.
BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class Prediction:
    """What the series as a whole says each tilt should look like.

    Attributes
    ----------
    images : (n_tilt, y, x) f4, each tilt predicted by the other tilts
    residual : float
        Root mean square of measured minus fitted images, as part of that of the measured ones; the fit is a
        reconstruction without negative densities, which only an aligned series allows to agree.
    """

    images: NDArray[np.float32]
    residual: float


def predict(
    aligned: NDArray[np.float32],
    seen: NDArray[np.bool_],
    angles_deg: FloatArray,
    usable: NDArray[np.bool_],
    *,
    whole: bool,
    workers: int,
    scales: FloatArray | None = None,
    checkpoint: Callable[[], None] = lambda: None,
) -> Prediction:
    """Predict every tilt from the others by filtered back-projection and projection.

    Parameters
    ----------
    aligned, seen : (n_tilt, y, x) from `Copies.warped` (extended outwards where the sample is not `whole`)
    angles_deg : (n_tilt,)
    usable : (n_tilt,) bool; other tilts take no part
    whole : bool
        Whether the sample ends inside the frame across the axis.
    workers : threads
    scales : (n_tilt,), optional
        Factors for the brightness of the images before they are compared.
    checkpoint : callable
        Called between pieces of work; may raise to stop.
    """
    height, width = aligned.shape[1:]
    margin = 0 if whole else round(width * (WIDER - 1) / 2)
    n = width + 2 * margin
    keep = slice(margin, n - margin)
    chosen = np.flatnonzero(usable)
    angles = np.asarray(angles_deg, float)[usable]
    factors = np.ones(len(chosen)) if scales is None else np.asarray(scales)[usable]
    x = np.arange(n) - (n - 1) / 2
    disc = (x[:, None] ** 2 + x**2 <= (n / 2) ** 2).astype(np.float32)[:, :, None]
    ray_lengths = project(disc, angles, workers)
    window = taper((height, width), 0.3)
    images, residual = np.zeros_like(aligned), _Residual()
    row_bytes = 4 * n * (n + 6 * len(chosen))  # the volume, and six arrays of projections
    for rows in slabs(height, max(1, BLOCK_BYTES // row_bytes)):
        checkpoint()
        # (tilt, s, y) for the projector; border columns repeated outwards where the sample goes on.
        measured = np.ascontiguousarray(aligned[chosen, rows].transpose(0, 2, 1))
        measured *= factors[:, None, None].astype(np.float32)
        filtered = ramp_filter(np.pad(measured, ((0, 0), (margin, margin), (0, 0)), "edge"), angles)
        volume = back_project(filtered, angles, n, workers)
        volume *= disc
        # A tilt's own share in its prediction is its filtered image times the ray's length, which is taken out:
        # otherwise each image is compared with itself and stays where it is.
        filtered *= ray_lengths
        images[chosen, rows] = (project(volume, angles, workers) - filtered)[:, keep].transpose(0, 2, 1)
        fitted = project(np.maximum(volume, 0, out=volume), angles, workers)[:, keep]
        residual.add(fitted, measured, seen[chosen, rows].transpose(0, 2, 1) * window[rows].T)
    return Prediction(images, residual.value)


@dataclass
class _Residual:
    """Relative root mean square difference of fitted and measured, best common scale, from parts of both."""

    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    def add(self, fitted: FloatArray, measured: FloatArray, weight: FloatArray) -> None:
        """Take in a part; the arrays have one shape."""
        for i, (a, b) in enumerate(((fitted, fitted), (fitted, measured), (measured, measured))):
            self.sums[i] += (weight * a * b).sum(dtype=float)

    @property
    def value(self) -> float:
        """The difference as a part of the measured; 1 where nothing was measured."""
        ff, fm, mm = self.sums
        # min over s of sum w (s f - m)^2 = mm - fm^2 / ff
        return float(np.sqrt(max(mm - fm**2 / max(ff, 1e-30), 0) / mm)) if mm > 0 else 1.0


def register_with(
    copies: Copies,
    prediction: Prediction,
    aligned: NDArray[np.float32],
    seen: NDArray[np.bool_],
    band: Band,
    max_shift_px: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the moves (dy', dx') that bring each image into register with its prediction.

    Returns
    -------
    moves : (n_tilt, 2) px, 0 for unusable tilts
    scores : (n_tilt,) normalised correlation, NaN for unusable tilts
    """
    shape = aligned.shape[1:]
    padded = padded_shape(shape, 1.0)
    response = band.response(padded, max(shape), copies.factor)
    window = taper(shape, 0.4)

    def one(i: int) -> tuple[NDArray[np.float64], float]:
        if not copies.usable[i]:
            return np.zeros(2), np.nan
        w = window * seen[i]
        return register(prediction.images[i] * w, aligned[i] * w, response, max_shift_px)

    found = copies.each(one)
    return np.array([f[0] for f in found]), np.array([f[1] for f in found])
