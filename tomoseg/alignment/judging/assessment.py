"""Prediction of held-out tilts: how good an alignment is, judged by the tilts themselves.

Some rows across the tilt axis are reconstructed without every eighth tilt, and the held-out tilts are predicted from
the volume; this is repeated for the eight groups, until every tilt has been predicted from others. What a tilt shows
and the others do not predict is noise, a shortcoming of the reconstruction (few tilts, a sample that extends beyond the
frame), or misalignment. Misalignment alone has the shape of the image's slope, by which it is distinguished and
measured.

These figures do not include what no comparison of the tilts can show: a translation of the sample. They underestimate
what neighbouring tilts share, as a tilt is predicted above all from its neighbours: errors that drift slowly with the
angle, above all where the sample extends beyond the frame and can be anything there, and a wrong direction of the axis.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from tomoseg.alignment.finding.joint import Film, geometry_of
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.arrays import FloatArray
from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.methods import osem
from tomoseg.reconstruction.operators import Floats

LONGEST_PX = 128  # side of the reduced images that are compared
ROWS = 32  # neighbouring ones, where the sample is: two blocks of the projector
FOLDS = 8
MIN_TILTS = 12  # with fewer, gaps between tilts would be assessed, not their alignment
MIN_RANGE_DEG = 20.0  # in a narrower one nearly the same is seen in all tilts, however wrong the axis
# Equivalent to 80 iterations of MLEM: with 20 the volume is still blurred, and what it lacks would count as error.
EFFORT, MOST_SUBSETS, TILTS_PER_SUBSET = 80, 10, 3
# A sample that extends beyond the frame needs room there, or it is pressed into the frame (as in `reproject`).
WIDER = 1.5
LEAST_SEEN = 0.1  # of a tilt's pixels in the rows; with fewer it is not assessed
LEAST_BRIGHTNESS = 0.1  # of an image beside its prediction; below, it shows something else
PREVIEW_EFFORT = 20  # in iterations of MLEM; smoother, for display
PREVIEW_ROWS = 3


@dataclass(frozen=True)
class Assessment:
    """How well the other tilts predict each tilt, in raw pixels.

    Attributes
    ----------
    residual : (n_tilt,) f8
        ||measured - predicted|| / ||measured|| over the pixels that the raw frame shows.
    step_px : (n_tilt, 2) f8
        Move (dy', dx') after rotation that would bring each image nearest to its prediction, to ADD to coordinates:
        measured, to first order. Beyond a pixel or two of the reduced images it is only a sign that it is large.
    deviation_px : (n_tilt, 2) f8
        Standard error of `step_px`, from the residual that is left after the step.

    NaN where nothing is known.
    """

    residual: NDArray[np.float64]
    step_px: NDArray[np.float64]
    deviation_px: NDArray[np.float64]

    @classmethod
    def unknown(cls, n_tilt: int) -> "Assessment":
        """Return an assessment in which nothing is known."""
        return cls(np.full(n_tilt, np.nan), np.full((n_tilt, 2), np.nan), np.full((n_tilt, 2), np.nan))

    def without_error(self) -> "Assessment":
        """Return the same residuals without errors, for a series whose errors mean nothing."""
        nothing = Assessment.unknown(len(self.residual))
        return replace(nothing, residual=self.residual)

    def widened(self, factor: float) -> "Assessment":
        """Return the same residuals with errors `factor` times as large."""
        return replace(self, step_px=factor * self.step_px, deviation_px=factor * self.deviation_px)

    @property
    def uncertainty_px(self) -> NDArray[np.float64]:
        """Standard error of each tilt's position, rms of both directions: smaller errors cannot be detected."""
        return np.asarray(np.sqrt(np.square(self.deviation_px).mean(axis=1)))

    @property
    def error_px(self) -> NDArray[np.float64]:
        """Estimated error of each tilt's position, rms of both directions; never below `uncertainty_px`."""
        return np.asarray(np.maximum(np.sqrt(np.square(self.step_px).mean(axis=1)), self.uncertainty_px))

    def summary(self, inliers: NDArray[np.bool_]) -> "Summary":
        """Return the figures for the series, from the tilts that are `inliers`."""
        known = inliers & np.isfinite(self.residual)
        placed = known & np.isfinite(self.error_px)
        if not placed.any():
            return Summary(float(np.median(self.residual[known])) if known.any() else np.nan, np.nan, np.nan, np.nan)
        step, deviation = (float(np.sqrt(np.square(v[placed]).mean())) for v in (self.step_px, self.deviation_px))
        worst = float(self.error_px[placed].max())
        return Summary(float(np.median(self.residual[known])), max(step, deviation), deviation, worst)


@dataclass(frozen=True)
class Summary:
    """Figures of an `Assessment` for a whole series: median residual, errors rms over tilts and both directions."""

    residual: float
    error_px: float
    uncertainty_px: float
    worst_error_px: float

    @property
    def error_is_detected(self) -> bool:
        """Whether the error exceeds its uncertainty, by half as much again for the chance in both."""
        return self.error_px > 1.5 * self.uncertainty_px


def enough(angles_deg: FloatArray, inliers: NDArray[np.bool_]) -> bool:
    """Return whether there are enough tilts, over enough of a range, to predict some of them from the others."""
    angles = np.asarray(angles_deg)[inliers]
    return len(angles) >= MIN_TILTS and float(np.ptp(angles)) >= MIN_RANGE_DEG


def assess(
    series: ReducedSeries,
    moves_px: FloatArray,
    axis_angle_deg: float,
    *,
    whole: bool,
    inliers: NDArray[np.bool_],
    rows: slice,
    scales: FloatArray | None = None,
    film: Film | None = None,
) -> Assessment:
    """Predict each usable tilt from the inliers, and compare.

    Parameters
    ----------
    series, moves_px, axis_angle_deg : as for `ReducedSeries.warped`; moves are 0 for the raw series
    whole : whether the sample ends inside the frame across the axis
    inliers : (n_tilt,) bool, tilts to predict from
    rows : those to compare, from `brightest_rows`
    scales : (n_tilt,), factors for the brightness of the images
    film : what a sample that does not end there is, if that is known
    """
    found = Assessment.unknown(series.n_tilt)
    if not enough(series.angles_deg, inliers & series.usable):
        return found
    small = series.reduced(LONGEST_PX)
    moves = np.asarray(moves_px, float) * series.factor / small.factor
    aligned, seen = small.warped(moves, axis_angle_deg, extend=True)
    measured, seen = aligned[:, rows], seen[:, rows]
    if scales is not None:
        measured = measured * np.asarray(scales, np.float32)[:, None, None]
    predicted = _predicted(small, measured, seen, whole, inliers, film)
    for i in np.flatnonzero(series.usable):
        power = float(np.square(measured[i][seen[i]], dtype=float).sum())
        if seen[i].mean() < LEAST_SEEN or power <= 0:
            continue
        step, deviation = register_to_first_order(predicted[i], measured[i], seen[i])
        missed = float(np.square(measured[i] - predicted[i], dtype=float)[seen[i]].sum())
        found.residual[i] = np.sqrt(missed / power)
        found.step_px[i], found.deviation_px[i] = step * small.factor, deviation * small.factor
    return found


def brightest_rows(series: ReducedSeries, moves_px: FloatArray, axis_angle_deg: float) -> slice:
    """Return the neighbouring rows to compare, of images `LONGEST_PX` long: the brightest that most tilts show."""
    small = series.reduced(LONGEST_PX)
    moves = np.asarray(moves_px, float) * series.factor / small.factor
    return _brightest(*small.warped(moves, axis_angle_deg), small.usable, ROWS)


def _brightest(aligned: NDArray[np.float32], seen: NDArray[np.bool_], usable: NDArray[np.bool_], n_rows: int) -> slice:
    n = min(n_rows, aligned.shape[1])
    signal = np.where(seen[usable], aligned[usable], 0).clip(0).sum(axis=(0, 2), dtype=float)
    shown = (seen[usable].mean(axis=2) > 0.5).mean(axis=0)
    windows = np.lib.stride_tricks.sliding_window_view
    # Tilts that do not show a row spoil it: rows that 3 % of them miss have to be twice as bright.
    worth = windows(signal, n).sum(axis=1) * windows(shown, n).min(axis=1) ** 20
    start = int(np.argmax(worth))
    return slice(start, start + n)


def _predicted(
    small: ReducedSeries,
    measured: Floats,
    seen: NDArray[np.bool_],
    whole: bool,
    inliers: NDArray[np.bool_],
    film: Film | None,
) -> Floats:
    """Return (n_tilt, rows, x) predictions of the usable tilts from the inliers ones among the others."""
    rays = _rays(seen)
    usable = np.flatnonzero(small.usable)
    predicted = np.zeros_like(measured)
    width = measured.shape[2]
    if film is None:
        geometry = _geometry(small.angles_deg, width, whole)
    else:
        geometry = geometry_of(small.angles_deg, width, whole=False, film=film)

    def fold(first: int) -> None:
        left_out = usable[first::FOLDS]
        others = np.setdiff1d(np.flatnonzero(small.usable & inliers), left_out)
        with (
            closing(CpuOperator(geometry.of(others))) as training,
            closing(CpuOperator(geometry.of(left_out))) as test,
        ):
            for start in range(0, measured.shape[1], training.block):
                part = slice(start, start + training.block)
                volume = _reconstructed(training, measured[others, part], rays[others], EFFORT, small)
                images = test.forward(test.load_volume(volume))
                predicted[left_out, part] = test.unload_projections(images, volume.shape[1])

    with ThreadPoolExecutor(small.workers) as pool:
        list(pool.map(fold, range(min(FOLDS, len(usable)))))
    return predicted


def _rays(seen: NDArray[np.bool_]) -> Floats:
    """Return which rays (n_tilt, x) were measured, in most rows."""
    return np.asarray(seen.mean(axis=1) > 0.5, np.float32)


def _geometry(angles_deg: FloatArray, width: int, whole: bool) -> ParallelGeometry:
    return ParallelGeometry(angles_deg, width, width if whole else round(WIDER * width), width)


def _reconstructed(
    operator: CpuOperator, projections: Floats, rays: Floats, effort: int, series: ReducedSeries
) -> Floats:
    """Return (z, n, x) slices after about as many iterations of MLEM as `effort` says."""
    subsets = int(np.clip(len(projections) // TILTS_PER_SUBSET, 1, MOST_SUBSETS))

    def watch(_iteration: int, _volume: Floats) -> None:
        series.checkpoint()

    images = np.ascontiguousarray(projections, np.float32)
    return osem(operator, images, max(1, round(effort / subsets)), subsets, weights=rays, watch=watch).volume


def register_to_first_order(
    predicted: FloatArray, measured: FloatArray, seen: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the small move that brings an image into register with its prediction, and how certain it is.

    Gauss-Newton: with g the slopes of the prediction p and p itself (brightness may differ), the difference d = m - p
    is explained best by the coefficients c = (g'g)^-1 g'd. An image b times as bright and moved by s has
    c = (-b s, b - 1). Neighbouring pixels of the rest r = d - g c are not independent; with C their covariance, that
    of c is (g'g)^-1 g'C g (g'g)^-1. C depends on the distance of two pixels only and is taken from r itself, so that
    g'C g is the product of both power spectra, summed.

    Returns
    -------
    step : (2,) px (dy, dx) to ADD to coordinates of `measured`, -s; NaN where the prediction has no slope, or the image
        nothing of it
    deviation : (2,) px, its standard error
    """
    inside = ndimage.binary_erosion(seen, border_value=1)  # slopes beside what was not seen are not known
    slopes = np.stack([*np.gradient(np.asarray(predicted, float)), np.asarray(predicted, float)]) * inside
    flat = slopes.reshape(3, -1)
    normal = flat @ flat.T
    if not np.linalg.cond(normal / max(float(np.trace(normal)), 1e-300)) < 1e10:
        return np.full(2, np.nan), np.full(2, np.nan)
    inverse = np.linalg.inv(normal)
    difference = (np.asarray(measured, float) - predicted) * inside
    found = inverse @ (flat @ difference.ravel())
    covariance = inverse @ _covariance(slopes, difference - np.tensordot(found, slopes, 1), inside) @ inverse
    brightness = 1 + found[2]
    if brightness < LEAST_BRIGHTNESS:
        return np.full(2, np.nan), np.full(2, np.nan)
    return found[:2] / brightness, np.sqrt(np.maximum(np.diag(covariance)[:2], 0)) / brightness


def _covariance(slopes: FloatArray, rest: FloatArray, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the (3, 3) covariance of the sums `slopes` times noise like `rest`, both (..., y, x) and 0 outside."""
    padded = tuple(2 * n for n in rest.shape)
    power = np.abs(fft.rfft2(rest, padded)) ** 2
    power[:, 1:-1] *= 2  # frequencies of which rfft2 keeps one of two
    spectra = fft.rfft2(slopes, padded)
    summed = np.einsum("ayx,byx,yx->ab", spectra, spectra.conj(), power).real
    return np.asarray(summed / np.prod(padded) / max(int(inside.sum()), 1))


@dataclass(frozen=True)
class Preview:
    """A slice across the tilt axis before and after alignment, (2, z, x) f4.

    A pixel is `factor` raw pixels wide; the slices lie through this `row` of the aligned images at full size.
    """

    slices: NDArray[np.float32]
    factor: int
    row: int


def preview(
    series: ReducedSeries,
    moves_px: FloatArray,
    axis_angle_deg: float,
    *,
    whole: bool,
    inliers: NDArray[np.bool_],
    full_height: int,
    corrected: ReducedSeries | None = None,
) -> Preview:
    """Reconstruct the brightest slice quickly, from the raw and from the aligned images.

    `full_height` is that of an aligned image at full size, `corrected` the series with image corrections applied, where
    there are any; the rest is as for `assess`.
    """
    corrected = series if corrected is None else corrected
    aligned, seen = corrected.warped(np.asarray(moves_px, float), axis_angle_deg, extend=True)
    rows = _brightest(aligned, seen, series.usable, PREVIEW_ROWS)
    after = _slice(corrected, aligned[:, rows], seen[:, rows], whole, inliers)
    if np.any(moves_px) or corrected is not series:
        aligned, seen = series.warped(np.zeros_like(moves_px), axis_angle_deg, extend=True)
        before = _slice(series, aligned[:, rows], seen[:, rows], whole, inliers)
    else:
        before = after
    from_middle = (rows.start + rows.stop - 1) / 2 - (aligned.shape[1] - 1) / 2
    row = round((full_height - 1) / 2 + from_middle * series.factor)
    return Preview(np.stack([before, after]), series.factor, int(np.clip(row, 0, full_height - 1)))


def _slice(
    series: ReducedSeries, lines: Floats, seen: NDArray[np.bool_], whole: bool, inliers: NDArray[np.bool_]
) -> Floats:
    """Return the mean slice (z, x), as wide as the images, of a few rows (n_tilt, rows, x)."""
    used = np.flatnonzero(series.usable & inliers)
    geometry = _geometry(series.angles_deg[used], lines.shape[2], whole)
    with closing(CpuOperator(geometry)) as operator:
        mean = lines[used].mean(axis=1, keepdims=True)
        volume = _reconstructed(operator, mean, _rays(seen[used]), PREVIEW_EFFORT, series)
        margin = (geometry.nx - lines.shape[2]) // 2
        return np.array(volume[:, 0, margin : margin + lines.shape[2]], np.float32)
