"""Alignment against what the other tilts predict: a quick reconstruction, projected back to each tilt."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.align.copies import Copies
from tomoseg.align.correlate import padded_shape, register, taper
from tomoseg.align.projector import back_project, project, ramp_filter
from tomoseg.align.track import Band
from tomoseg.arrays import FloatArray

# Memory of the quick volume is bounded by its copy; reconstructing further out than the frame catches part of what a
# sample larger than the frame holds there.
WIDER = 1.5


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
    seen: NDArray[np.float32],
    angles_deg: FloatArray,
    usable: NDArray[np.bool_],
    *,
    whole: bool,
    workers: int,
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
    """
    width = aligned.shape[2]
    margin = 0 if whole else round(width * (WIDER - 1) / 2)
    # (tilt, s, y) for the projector; border columns repeated outwards where the sample goes on.
    lines = np.ascontiguousarray(np.pad(aligned[usable].transpose(0, 2, 1), ((0, 0), (margin, margin), (0, 0)), "edge"))
    angles = np.asarray(angles_deg, float)[usable]
    filtered = ramp_filter(lines, angles)
    n = lines.shape[1]
    x = np.arange(n) - (n - 1) / 2
    disc = (x[:, None] ** 2 + x**2 <= (n / 2) ** 2).astype(np.float32)[:, :, None]
    volume = back_project(filtered, angles, n, workers) * disc
    # A tilt's own share in its prediction is its filtered image times the ray's length, which is taken out: otherwise
    # each image is compared with itself and stays where it is.
    others = project(volume, angles, workers) - project(disc, angles, workers) * filtered
    fitted = project(np.maximum(volume, 0), angles, workers)
    keep = slice(margin, n - margin)
    images = np.zeros_like(aligned)
    images[usable] = others[:, keep].transpose(0, 2, 1)
    return Prediction(images, _residual(fitted[:, keep].transpose(0, 2, 1), aligned[usable], seen[usable]))


def _residual(fitted: FloatArray, measured: FloatArray, seen: FloatArray) -> float:
    """Return the relative root mean square difference where the frame shows something, best common scale."""
    weight = seen * taper(seen.shape[1:], 0.3)
    scale = float((weight * fitted * measured).sum()) / max(float((weight * fitted**2).sum()), 1e-30)
    power = float((weight * measured**2).sum())
    return float(np.sqrt((weight * (scale * fitted - measured) ** 2).sum() / power)) if power > 0 else 1.0


def register_with(
    copies: Copies,
    prediction: Prediction,
    aligned: NDArray[np.float32],
    seen: NDArray[np.float32],
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
