"""Brightness that changes from tilt to tilt for reasons that are not the sample's: beam current, exposure, gain.

What the sample allows depends on how much of it is in view.

whole   Vacuum all around: the counts above background add up to the same in every tilt.
beside  Vacuum on two opposite sides, as around a needle: the same holds for the part between them that all tilts show.
film    No vacuum in any tilt: the mean follows 1 / cos(tilt - t0), t0 up to 20 degrees where the film is inclined.
cut     Anything else: brightness may change with tilt in any way, but slowly. Neighbouring tilts show nearly the same
        where they overlap: what jumps there, or flickers from tilt to tilt, is not the sample.

Brightness is evened out where it changes by more than measurement and such idealisations explain.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.alignment.images.neighbours import RoughPlaces, rough_places
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.arrays import FloatArray

Kind = Literal["whole", "beside", "film", "cut"]
SIDE = 0.04  # part of the frame that counts as a side
# A side is vacuum where it has less than these parts of the sample's brightness, in half of the tilts, in nine tenths.
VACUUM_MEDIAN, VACUUM_MOST = 0.05, 0.2
STRAYED = 0.1
FILM_LEAST = 0.4  # of the median brightness: there is no vacuum where the darkest twentieth of a film is brighter
# Root mean square and largest change, of the logarithm, below which brightness is left alone.
LEAST_CHANGE: dict[Kind, tuple[float, float]] = {
    "whole": (0.02, 0.05),
    "beside": (0.03, 0.15),
    "film": (0.05, 0.15),
    "cut": (0.01, 0.03),
}
MOST_INCLINED_DEG, EXPLAINED = 20.0, 0.025
JUMP, JUMP_SCATTERS = 0.1, 6.0  # least jump of ln brightness between neighbours, also in robust standard deviations
SAME_JUMP = 0.2
FLICKER, FLICKER_ERRORS = 0.02, 1.5  # standard deviation of ln brightness about its trend, also in errors of a step
BLOCKS, FAINT = 5, 0.2  # along each side of an image; a block is too faint below this part of the usual total
TREND_TILTS = 9  # a sample that is cut changes its total slowly; what differs from a median over so many flickers
LARGEST = 20.0  # factor
HOW: dict[Kind, str] = {
    "whole": "the sample is whole in the frame, so that its total is the same in all tilts",
    "beside": "by the part between vacuum on both sides that all tilts show",
    "film": "a film that fills the frame is as bright as 1 / cos(tilt)",
    "cut": "jumps and flicker between neighbouring tilts, which show nearly the same",
}


@dataclass(frozen=True)
class Brightness:
    """Factors (n_tilt,) that even out the images, 1 at low tilt, and how they were found; '' where all are 1."""

    factors: NDArray[np.float64]
    how: str

    @property
    def told(self) -> str:
        """What was done in words, '' for nothing."""
        if not self.how:
            return ""
        return f"brightness evened out: factors {self.factors.min():.2f} to {self.factors.max():.2f} ({self.how})"


def vacuum_sides(images: FloatArray) -> tuple[bool, bool]:
    """Return whether there is vacuum above and below, and whether at the left and right, in (nearly) all images.

    `images` (n_tilt, y, x) have the background 0.
    """
    ends, sides = (
        bool(np.median(worst) < VACUUM_MEDIAN and np.quantile(worst, 0.9) < VACUUM_MOST) for worst in _sides(images)
    )
    return ends, sides


def _sides(images: FloatArray) -> NDArray[np.float64]:
    """Return how far the brighter end and the brighter side of each image are from vacuum, (2, n_tilt)."""
    n_rows, n_columns = (max(1, round(SIDE * n)) for n in images.shape[1:])
    bright = np.maximum(np.quantile(images, 0.95, axis=(1, 2)), 1e-30)
    pairs = (
        (images[:, :n_rows], images[:, -n_rows:]),
        (images[:, :, :n_columns], images[:, :, -n_columns:]),
    )
    return np.stack([np.max([np.abs(part.mean(axis=(1, 2)) / bright) for part in pair], axis=0) for pair in pairs])


def even_out(series: ReducedSeries, *, forced: bool = False) -> Brightness:
    """Find the factors that even out a series, background 0; `forced`: however little it changes."""
    factors = np.ones(series.n_tilt)
    chosen = np.flatnonzero(series.usable)
    if len(chosen) < 2:
        return Brightness(factors, "")
    images, angles = series.images[chosen], series.angles_deg[chosen]
    above, beside = vacuum_sides(images)
    kind: Kind = "whole" if above and beside else "beside" if above or beside else "cut"
    if kind == "cut" and _is_film(images):
        kind = "film"
    rough = rough_places(images, 1, series.workers, series.checkpoint) if kind in ("beside", "cut") else None
    change = _change(images, angles, kind, 1 if above else 0, rough)
    change -= np.median(change[np.abs(angles) <= np.quantile(np.abs(angles), 1 / 3)])
    rms, most = LEAST_CHANGE[kind]
    if not forced and np.sqrt(np.square(change).mean()) < rms and np.abs(change).max() < most:
        return Brightness(factors, "")
    factors[chosen] = np.exp(-np.clip(change, -np.log(LARGEST), np.log(LARGEST)))
    return Brightness(factors, HOW[kind] if np.any(factors != 1) else "")


def _change(
    images: NDArray[np.float32], angles_deg: NDArray[np.float64], kind: Kind, axis: int, rough: RoughPlaces | None
) -> NDArray[np.float64]:
    """Return the logarithm of the brightness that is not the sample's, up to a constant, (n_tilt,)."""
    if kind == "whole":
        totals = _logarithm(images.sum(axis=(1, 2), dtype=float))
        # Of a tilt in which the sample has strayed to the side, a part of the total is missing.
        inside, index = _sides(images).max(axis=0) < STRAYED, np.arange(len(images))
        return np.asarray(np.interp(index, index[inside], totals[inside]))
    if kind == "film":
        return _off_law(_logarithm(images.mean(axis=(1, 2), dtype=float)), angles_deg)
    assert rough is not None
    passed = rough.passed_over
    if kind == "beside" and rough.sure[~passed].all():
        totals = _logarithm(_common_totals(images[~passed], axis, rough.places_px[~passed, axis]))
        return np.asarray(np.interp(np.arange(len(images)), np.flatnonzero(~passed), totals))
    return _jumps(*_steps(images, rough))


def _logarithm(values: FloatArray) -> NDArray[np.float64]:
    positive = values > 0
    least = values[positive].min() if positive.any() else 1.0
    return np.asarray(np.log(np.where(positive, values, least)))


def _is_film(images: NDArray[np.float32]) -> bool:
    """Return whether no image shows vacuum."""
    low, middle = np.quantile(images, (0.05, 0.5), axis=(1, 2))
    return bool(np.quantile(low / np.maximum(middle, 1e-30), 0.1) > FILM_LEAST)


def _off_law(means: NDArray[np.float64], angles_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far ln brightness lies from -ln cos(t - t0), with the t0 that explains it, or 0 if none does."""

    def rest(inclined: float) -> NDArray[np.float64]:
        off = means + np.log(np.maximum(np.cos(np.deg2rad(angles_deg - inclined)), 0.05))
        return np.asarray(off - np.median(off))

    inclined = [rest(t0) for t0 in np.arange(-MOST_INCLINED_DEG, MOST_INCLINED_DEG + 0.5, 1.0)]
    best = min(inclined, key=lambda off: float(np.abs(off).mean()))
    # A beam that drifts looks a little like an inclined film, and is not one.
    return best if np.sqrt(np.square(best).mean()) < EXPLAINED else rest(0.0)


def _common_totals(images: NDArray[np.float32], axis: int, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the totals (n_tilt,) over the rows (axis 0) or columns (1) that nine tenths of the tilts show."""
    lines = images.sum(axis=2 - axis, dtype=float)
    n = lines.shape[1]
    at = np.arange(-n, 2 * n)
    moved = np.stack(
        [np.interp(at, np.arange(n) + p, line, np.nan, np.nan) for p, line in zip(places, lines, strict=True)]
    )
    known = np.isfinite(moved)
    common = known.mean(axis=0) >= 0.9
    if common.sum() < n // 4:
        return np.ones(len(images))
    # Where a tilt does not show all of it, the others say how much of the total that is.
    profile = np.nanmean(np.where(known, moved, np.nan)[:, common], axis=0)
    part = (known[:, common] * profile).sum(axis=1) / max(float(profile.sum()), 1e-30)
    return np.asarray(np.nansum(moved[:, common], axis=1) / np.maximum(part, 1e-6))


def _steps(images: NDArray[np.float32], rough: RoughPlaces) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ln of the brightness of each image beside the one before, where both overlap, (n_tilt,), and its error.

    An exposure changes all parts of an image alike: the step is the median over blocks of the image, and its error
    comes from how they differ. 0 and infinite where neighbours are not in register.
    """
    steps, errors = np.zeros(len(images)), np.full(len(images), np.inf)
    moves = np.round(rough.places_px - rough.places_px[rough.before]).astype(int)
    height, width = images.shape[1:]
    for i, (dy, dx) in enumerate(moves[1:], 1):
        if not rough.sure[i] or abs(dy) > height // 2 or abs(dx) > width // 2:
            continue
        # A thing at p in this image is at p + (dy, dx) in the one before.
        here = images[i][max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)]
        before = images[rough.before[i]][max(dy, 0) : height - max(-dy, 0), max(dx, 0) : width - max(-dx, 0)]
        a, b = _block_totals(here), _block_totals(before)
        bright = (a > 0) & (b > 0) & (a + b > FAINT * np.median(a + b))
        if bright.sum() >= 4:
            ratios = np.log(a[bright] / b[bright])
            steps[i] = np.median(ratios)
            errors[i] = 1.4826 * np.median(np.abs(ratios - steps[i])) / np.sqrt(len(ratios))
    return steps, errors


def _block_totals(image: NDArray[np.float32]) -> NDArray[np.float64]:
    rows, columns = (np.linspace(0, n, BLOCKS + 1).astype(int)[:-1] for n in image.shape)
    return np.add.reduceat(np.add.reduceat(image.astype(float), rows, axis=0), columns, axis=1).ravel()


def _jumps(steps: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the part of ln brightness that jumps or flickers, from its `steps` between neighbours."""
    usual = ndimage.median_filter(steps, min(TREND_TILTS, len(steps)), mode="nearest")
    scatter = 1.4826 * float(np.median(np.abs(steps - usual)))
    beyond = np.maximum(np.maximum(JUMP, JUMP_SCATTERS * scatter), JUMP_SCATTERS * errors)
    jump = np.where(np.abs(steps - usual) > beyond, steps - usual, 0)
    for i in range(len(jump) - 1):  # of a single image there and back: the two are one and the same
        there, back = jump[i], jump[i + 1]
        if there * back < 0 and abs(there + back) < SAME_JUMP * abs(there - back):
            jump[i], jump[i + 1] = (there - back) / 2, (back - there) / 2
    rest = np.cumsum(steps - jump)
    flicker = rest - ndimage.median_filter(rest, min(TREND_TILTS, len(rest)), mode="nearest")
    if 1.4826 * np.median(np.abs(flicker)) < max(FLICKER, FLICKER_ERRORS * float(np.median(errors))):
        flicker = np.zeros(len(rest))
    return np.asarray(np.cumsum(jump) + flicker)
