"""Conditioning: what is done to raw images as they are read, before anything is found or resampled.

Spikes, defective pixels and pixels without a number are replaced, borders without data are left out, and bright field
becomes mass thickness. The series itself stays as acquired: `ConditionedSeries` does all this to the images that are
asked for. `condition` looks at every image once and decides. Channels that take the alignment of another signal need
none of it: in a map of a few counts a count would be a spike.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.extent import reduction_factor
from tomoseg.alignment.images import contrast as contrasts
from tomoseg.alignment.images import padding, spikes
from tomoseg.alignment.images.background import fit_vacuum
from tomoseg.alignment.images.neighbours import rough_places, small_image
from tomoseg.arrays import Array, ArraySource
from tomoseg.io.masks import Mask
from tomoseg.runtime import Runtime, slabs

SMALL_PX, SMALL_PIXELS = 128, 180 * 128**2  # longest side of the images that are compared; of all together
FEWEST_PX = 32
DEPTH = 0.25  # part of the frame's longer side by which things lie above or below the axis
MOST_KEPT = 20000  # peaks of an image
MOSTLY = 0.5  # part of an image that has to be known
CLIPPED = 1e-3  # of the beam: only what is saturated, or counts a million electrons, is as even as that
READ_AHEAD = 16  # images


@dataclass(frozen=True)
class Conditioning:
    """What is done to each image.

    Attributes
    ----------
    bad : (n_bad,) flat indices of each image's spikes and defective pixels
    limits : (y, 2) where the data of each image's rows begins and ends, None where it has no border; see `padding`
    n_replaced : (n_tilt,) pixels that are replaced, those without a number too
    bright_field : how counts become mass thickness; None for dark field
    notes, warnings : sentences for the user
    """

    bad: list[NDArray[np.int_]]
    limits: list[NDArray[np.int32] | None]
    n_replaced: NDArray[np.int_]
    bright_field: contrasts.BrightField | None = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def changes_nothing(self) -> bool:
        """Whether the images stay as they are."""
        return not self.n_replaced.any() and not self.has_borders and self.bright_field is None

    @property
    def has_borders(self) -> bool:
        """Whether any image has a border without data."""
        return any(one is not None for one in self.limits)

    def data(self, i: int, width: int) -> NDArray[np.bool_] | None:
        """Return which pixels (y, x) of an image are not in a border; None for all."""
        limits = self.limits[i]
        return None if limits is None else padding.data_of(limits, width)


class ConditionedSeries:
    """A tilt series (`tomoseg.arrays.ArraySource`) as it is after conditioning; NaN where nothing is known."""

    def __init__(self, series: ArraySource, conditioning: Conditioning) -> None:
        self._series, self._done = series, conditioning
        self.shape = tuple(series.shape)
        is_exact = series.dtype.kind == "f" or series.dtype.itemsize <= 2
        self.dtype = np.dtype(np.float32 if is_exact and series.dtype.itemsize <= 4 else np.float64)

    def __getitem__(self, part: slice) -> Array:
        images = np.array(self._series[part], self.dtype)
        for image, i in zip(images, range(*part.indices(self.shape[0])), strict=True):
            self._apply(image, i)
        return images

    def _apply(self, image: Array, i: int) -> None:
        mend(image, self._done.bad[i])
        data = self._done.data(i, image.shape[1])
        if data is not None:
            image[~data] = np.nan
        if self._done.bright_field is not None:
            self._done.bright_field.apply(image, i)


def mend(image: Array, bad: NDArray[np.int_]) -> int:
    """Replace the pixels of an image (y, x) with the flat indices `bad`, and those without a number, in place.

    Returns how many were replaced: none in an image that is mostly without numbers.
    """
    unknown = ~np.isfinite(image)
    image[unknown] = np.nan
    if unknown.mean() > MOSTLY:
        return 0
    unknown.ravel()[bad] = True
    return spikes.mend(image, unknown) if unknown.any() else 0


@dataclass(frozen=True)
class _Look:
    """What one image shows."""

    small: NDArray[np.float32]
    peaks: spikes.Peaks
    lines: spikes.Lines
    limits: NDArray[np.int32] | None  # of a possible border
    has_border: bool
    has_even_corner: bool
    n_mended: int  # pixels without a number


def condition(
    series: ArraySource,
    angles_deg: NDArray[np.float64],
    *,
    despike: Literal["auto", "off"] = "auto",
    contrast: Literal["auto", "dark-field", "bright-field"] = "auto",
    background: Literal["auto", "none"] | float = "auto",
    runtime: Runtime,
    mask: Mask | None = None,
) -> Conditioning:
    """Look at every image of a series (n_tilt, y, x) once, and decide what is to be done to each.

    Parameters
    ----------
    despike : 'auto': replace spikes and defective pixels; 'off': only pixels without a number
    contrast : 'bright-field' becomes mass thickness; 'auto': the images tell
    background : counts without a beam, of bright field; 'auto' and 'none': 0, or the least where counts are negative
    mask : pixels in which nothing is looked for
    """
    n = series.shape[0]
    longest = max(FEWEST_PX, min(SMALL_PX, int(np.sqrt(SMALL_PIXELS / n))))
    factor = reduction_factor(series.shape, longest)
    looks = _looks(series, factor, despike, runtime, mask)
    limits = padding.accepted(
        [one.limits for one in looks], [one.has_border for one in looks], [one.has_even_corner for one in looks]
    )
    bad = [np.zeros(0, np.int_)] * n
    notes: list[str] = []
    if despike == "auto":
        bad, notes = _bad_pixels(series, looks, angles_deg, factor, runtime)
    n_replaced = np.array([len(b) + one.n_mended for b, one in zip(bad, looks, strict=True)])
    if any(one is not None for one in limits):
        n_padded = sum(one is not None for one in limits)
        notes.append(f"{n_padded} of {n} images have a border of one value, which is left out as no data")
    done = Conditioning(bad, limits, n_replaced, None, notes)
    return _with_contrast(series, done, np.stack([one.small for one in looks]), angles_deg, contrast, background)


def _with_contrast(
    series: ArraySource,
    done: Conditioning,
    small: NDArray[np.float32],
    angles_deg: NDArray[np.float64],
    contrast: Literal["auto", "dark-field", "bright-field"],
    background: Literal["auto", "none"] | float,
) -> Conditioning:
    """Decide between dark and bright field, and find the beam of bright field."""
    if contrast == "dark-field":
        return done
    signs = contrasts.read_signs(small, angles_deg)
    if contrast == "auto" and not signs.is_bright_field:
        warnings = []
        if signs.is_doubtful:
            why = f", although {signs.reasons}" if signs.reasons else ""
            warnings.append(
                f"the images do not show clearly whether they are dark field or bright field: dark field is assumed"
                f"{why}; if mass is dark in the images, use --contrast bright-field, else --contrast dark-field"
            )
        return replace(done, warnings=[*done.warnings, *warnings])
    dark, is_known = contrasts.dark_level(small, background)
    noise = _noise(series, done)
    found = contrasts.beam_of(small, angles_deg, signs, dark, noise)
    why = "as given" if contrast == "bright-field" else signs.reasons
    low, high = float(found.beam.min()), float(found.beam.max())
    note = (
        f"contrast: bright field ({why}); made into mass thickness -ln(I / I0), with I0 {low:.6g} to {high:.6g} counts "
        f"from {found.how}"
    )
    warnings = []
    if noise < CLIPPED * (float(np.median(found.beam)) - dark):
        warnings.append(
            "the brightest part of the images are quite even, as where a detector is saturated: what is thin is not "
            "seen there; if mass is bright in the images, use --contrast dark-field"
        )
    if not is_known:
        warnings.append(
            f"bright field with negative counts: {dark:g}, the least of all images, is taken for the counts without a "
            "beam, so that mass thickness is too large where images are dark; give the true number with --background"
        )
    return replace(done, bright_field=found, notes=[*done.notes, note], warnings=[*done.warnings, *warnings])


def _noise(series: ArraySource, done: Conditioning) -> float:
    """Return the standard deviation of a pixel in the brightest flat part of the images, of a few of them."""
    plain = ConditionedSeries(series, done)
    some = np.unique(np.linspace(0, plain.shape[0] - 1, 5).round().astype(int))
    return float(np.median([fit_vacuum(-plain[i : i + 1][0]).noise for i in some]))


def _looks(series: ArraySource, factor: int, despike: str, runtime: Runtime, mask: Mask | None) -> list[_Look]:
    n, height, width = series.shape

    def one(i: int, image: Array) -> _Look:
        runtime.check()
        return _look(np.array(image, np.float32), factor, despike, None if mask is None else mask.used(slice(i, i + 1)))

    looks: list[_Look] = []
    size = runtime.slab_size(height * width * (24 + 16 * runtime.workers), n)
    with ThreadPoolExecutor(max(1, runtime.workers)) as pool:
        for slab in runtime.track(slabs(n, min(size, READ_AHEAD)), "align 1/5: looking for spikes and borders"):
            looks += pool.map(one, range(slab.start, slab.stop), np.asarray(series[slab]))
    return looks


def _look(image: NDArray[np.float32], factor: int, despike: str, used: NDArray[np.bool_] | None) -> _Look:
    limits, even = padding.possible_padding(image), padding.has_even_corner(image)
    has_border = limits is not None and padding.is_padding(image, limits)
    unknown = ~np.isfinite(image)
    n_mended = mend(image, np.zeros(0, np.int_)) if unknown.any() else 0
    if used is not None:
        image[~used[0]] = np.nan
    if limits is not None and has_border:
        image[~padding.data_of(limits, image.shape[1])] = np.nan
    small = small_image(image, factor)
    known = small[np.isfinite(small)]
    if despike != "auto" or known.size == 0:
        return _Look(small, _no_peaks(), spikes.Lines(*[np.zeros(0, np.int_)] * 2), limits, has_border, even, n_mended)
    span = float(np.ptp(np.quantile(known, (0.001, 0.999))))
    peaks = spikes.find_peaks(image, span)
    if len(peaks.table) > MOST_KEPT:
        order = np.argsort(-np.abs(peaks.table["height"]), kind="stable")[:MOST_KEPT]
        peaks = spikes.Peaks(peaks.table[order], peaks.candidate[order])
    return _Look(small, peaks, spikes.find_lines(image), limits, has_border, even, n_mended)


def _no_peaks() -> spikes.Peaks:
    return spikes.Peaks(np.zeros(0, spikes.PEAK_DTYPE), np.zeros(0, bool))


def _bad_pixels(
    series: ArraySource, looks: list[_Look], angles_deg: NDArray[np.float64], factor: int, runtime: Runtime
) -> tuple[list[NDArray[np.int_]], list[str]]:
    """Return the flat indices of what is to be replaced in each image, and what was found in words."""
    n, height, width = series.shape
    always = np.zeros((height, width), bool)
    columns = spikes.fixed_lines([one.lines.columns for one in looks])
    rows = spikes.fixed_lines([one.lines.rows for one in looks])
    always[:, columns] = True
    always[rows] = True
    peaks = [spikes.without(one.peaks, always) for one in looks]
    hot = spikes.fixed_pixels(peaks, (height, width))
    always.ravel()[hot] = True
    peaks = [spikes.without(one, always) for one in peaks]
    found = [np.zeros(0, spikes.PEAK_DTYPE)] * n
    if any(one.candidate.any() for one in peaks):
        rough = rough_places(np.stack([one.small for one in looks]), factor, runtime.workers, runtime.check)
        depths = np.abs(np.diff(np.deg2rad(angles_deg))) * DEPTH * max(height, width)
        near = spikes.Neighbourhood(rough.places_px, rough.sure, 1 + rough.error_px, depths)
        found = spikes.transient(peaks, near)
        found = [_not_shown(series, i, one, near) for i, one in enumerate(found)]
    fixed = np.flatnonzero(always)
    bad = [fixed] * n
    for i, one in enumerate(found):
        if len(one):
            here = always.copy()
            spikes.spread(_image(series, i), one, here)
            bad[i] = np.flatnonzero(here)
    return bad, _told([len(one) for one in found], len(hot), len(columns), len(rows))


def _not_shown(
    series: ArraySource, i: int, candidates: NDArray[np.void], near: spikes.Neighbourhood
) -> NDArray[np.void]:
    """Return the candidates of an image without broad ones that its neighbours show.

    A group of bright pixels need not be a peak in the neighbours: small particles change their look from tilt to tilt.
    """
    broad = ~candidates["is_sharp"]
    if not broad.any():
        return candidates
    beside = near.beside(i)
    times = np.zeros(len(candidates), int)
    for j in beside:
        times += spikes.shown_by(_image(series, j), candidates, near.shift(i, j), near.reach(i, j))
    return candidates[~broad | (times < spikes.needed(beside))]


def _image(series: ArraySource, i: int) -> NDArray[np.float32]:
    return np.array(series[i : i + 1][0], np.float32)


def _told(counts: list[int], n_hot: int, n_columns: int, n_rows: int) -> list[str]:
    parts = []
    if sum(counts):
        parts.append(f"{sum(counts)} spikes, at most {max(counts)} in an image")
    lines = n_columns + n_rows
    if n_hot:
        parts.append(f"{n_hot} defective pixel{'s' if n_hot > 1 else ''}")
    if lines:
        parts.append(f"{lines} defective column{'s' if lines > 1 else ''} or row{'s' if lines > 1 else ''}")
    return [f"replaced in the images by what surrounds them: {', '.join(parts)}"] if parts else []
