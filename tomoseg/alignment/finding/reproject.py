"""Alignment with reprojections: each tilt as a quick reconstruction from the other tilts predicts it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.finding.track import Band
from tomoseg.alignment.images.correlation import padded_shape, register, taper
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.arrays import FloatArray
from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.filters import filtered
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.runtime import slabs

# Reconstructing further out than the frame catches part of what a sample larger than the frame holds there.
WIDER = 1.5


@dataclass(frozen=True)
class Prediction:
    """The images (n_tilt, y, x) of all tilts, each as the other tilts predict it.

    `residual` is the root mean square of measured minus fitted images, as part of that of the measured ones; the fit is
    a reconstruction without negative densities, which only an aligned series allows to agree.
    """

    images: NDArray[np.float32]
    residual: float


def predict(
    series: ReducedSeries,
    aligned: NDArray[np.float32],
    seen: NDArray[np.bool_],
    *,
    whole: bool,
    scales: FloatArray | None = None,
) -> Prediction:
    """Predict every usable tilt from the others by filtered back-projection and projection.

    `aligned` and `seen` (n_tilt, y, x) are from `ReducedSeries.warped` (extended outwards where the sample is not
    `whole`); `scales` (n_tilt,) are factors for the brightness of the images before they are compared.
    """
    height, width = aligned.shape[1:]
    margin = 0 if whole else round(width * (WIDER - 1) / 2)
    n = width + 2 * margin
    keep = slice(margin, n - margin)
    chosen = np.flatnonzero(series.usable)
    factors = np.ones(len(chosen)) if scales is None else np.asarray(scales)[series.usable]
    geometry = ParallelGeometry(series.angles_deg[series.usable], n, n, n)
    operator = CpuOperator(geometry)
    disc = geometry.cylinder().astype(np.float32)
    ray_lengths = operator.unload_projections(operator.forward(operator.load_volume(disc[:, None])), 1)
    window = taper((height, width), 0.3)
    images = np.zeros_like(aligned)

    def one(rows: slice) -> NDArray[np.float64]:
        series.checkpoint()
        measured = aligned[chosen, rows] * factors[:, None, None].astype(np.float32)
        # Border columns are repeated outwards where the sample extends beyond the frame.
        extended = np.pad(measured, ((0, 0), (0, 0), (margin, margin)), "edge")
        smooth = filtered(extended, geometry.angles_deg, "shepp-logan")
        volume = operator.interpolate(operator.load(smooth), disc)
        # A tilt's own share in its prediction is its filtered image times the ray's length, which is taken out:
        # otherwise each image is compared with itself and stays where it is.
        smooth *= ray_lengths
        expected = operator.unload_projections(operator.forward(volume), measured.shape[1])
        images[chosen, rows] = (expected - smooth)[:, :, keep]
        computed = operator.forward(np.maximum(volume, 0, out=volume))
        fitted = operator.unload_projections(computed, measured.shape[1])[:, :, keep]
        weight = seen[chosen, rows] * window[rows]
        pairs = ((fitted, fitted), (fitted, measured), (measured, measured))
        return np.array([float((weight * a * b).sum(dtype=float)) for a, b in pairs])

    with ThreadPoolExecutor(max(1, series.workers)) as pool:
        ff, fm, mm = np.sum(list(pool.map(one, slabs(height, operator.block))), axis=0)
    # min over s of sum w (s f - m)^2 = mm - fm^2 / ff
    residual = float(np.sqrt(max(mm - fm**2 / max(ff, 1e-30), 0) / mm)) if mm > 0 else 1.0
    return Prediction(images, residual)


def register_with(
    series: ReducedSeries,
    prediction: Prediction,
    aligned: NDArray[np.float32],
    seen: NDArray[np.bool_],
    band: Band,
    max_shift_px: float,
) -> NDArray[np.float64]:
    """Find the moves (dy', dx') that bring each image into register with its prediction, (n_tilt, 2) px."""
    shape = aligned.shape[1:]
    padded = padded_shape(shape, 1.0)
    response = band.response(padded, max(shape), series.factor)
    window = taper(shape, 0.4)

    def one(i: int) -> NDArray[np.float64]:
        if not series.usable[i]:
            return np.zeros(2)
        w = window * seen[i]
        return register(prediction.images[i] * w, aligned[i] * w, response, max_shift_px)[0]

    return np.array(series.each(one))
