"""One reading of the whole tilt series: the background of each image, usable images, and the reduced series."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.alignment.extent import reduction_of
from tomoseg.alignment.images.background import Backgrounds, VacuumFit, combine_levels, fit_vacuum
from tomoseg.alignment.images.brightness import vacuum_sides
from tomoseg.alignment.images.conditioning import Conditioning
from tomoseg.alignment.images.reduced_series import ReducedSeries, reduce, reduce_with_gaps
from tomoseg.arrays import ArraySource, FloatArray
from tomoseg.errors import InputError, StageFailed
from tomoseg.io.masks import Mask
from tomoseg.runtime import Runtime, slabs

# The alignment is found from images of at most this side and, for very many tilts, this many pixels in all: the same
# whatever memory is allowed, so that the result is.
KNOWN = 0.5  # part of the pixels within mask and borders that must be finite
SEEN = 0.99  # part of a reduced pixel that is no border
LEAST_KNOWN = 0.05  # of the image
LEAST_SIGNAL = 0.1  # of the usual brightness above background
QUIET_PX = 1.5  # over which bright field is averaged to tell vacuum from sample
READ_AHEAD = 16  # images


def survey_series(
    tilt_series: ArraySource,
    angles_deg: NDArray[np.float64],
    background: Literal["auto", "none"] | float,
    runtime: Runtime,
    mask: Mask | None = None,
    conditioning: Conditioning | None = None,
    left_out: NDArray[np.bool_] | None = None,
) -> tuple[Backgrounds, ReducedSeries]:
    """Read every image once: find its background, and reduce it; images that are empty or damaged become 0.

    Parameters
    ----------
    tilt_series : (n_tilt, y, x); pixels that are not finite count as missing
    background : level in counts to subtract; 'auto': the darkest flat part of each image, 'none': 0
    mask : what `tilt_series` was masked with
    conditioning : what was done to `tilt_series`, of which the borders count here
    left_out : (n_tilt,) images that are not to be used, and are treated as empty ones

    Raises
    ------
    StageFailed
        Every image is empty.
    InputError
        Every other image is left out.
    """
    n = tilt_series.shape[0]
    factor = reduction_of(tilt_series.shape)
    fits: list[VacuumFit] = []
    finite = np.zeros(n, bool)
    images = np.empty((0, 0, 0), np.float32)
    borders = conditioning if conditioning is not None and conditioning.has_borders else None
    seen: NDArray[np.bool_] | None = None
    for i, image in _images(tilt_series, runtime):
        known = np.isfinite(image)
        used = 1.0 if mask is None else float(mask.used(slice(i, i + 1)).mean())
        data = None if borders is None else borders.data(i, image.shape[1])
        used *= 1.0 if data is None else float(data.mean())
        finite[i] = known.mean() > max(KNOWN * used, LEAST_KNOWN)
        fits.append(fit_vacuum(image))
        small = reduce(image, factor) if known.all() else reduce_with_gaps(image, factor)
        if i == 0:
            images = np.empty((n, *small.shape), np.float32)
            seen = None if borders is None else np.ones(images.shape, bool)
        images[i] = small
        if data is not None and seen is not None:
            seen[i] = reduce(data, factor) > SEEN
    usable = usable_tilts(np.array([f.signal for f in fits]), finite)
    if not usable.any():
        raise StageFailed(
            "every image of the tilt series is empty: no image holds anything brighter than its background. Check the "
            "raw file in another viewer and import it again."
        )
    usable = usable if left_out is None else usable & ~left_out
    if not usable.any():
        raise InputError("align.exclude_tilt leaves out every image that is not empty: keep some.")
    own = np.array([f.level for f in fits], np.float32)[:, None, None]
    is_vacuum = any(vacuum_sides(images[usable] - own[usable]))
    backgrounds = _backgrounds(fits, usable, angles_deg, background, is_vacuum=is_vacuum)
    images -= backgrounds.levels[:, None, None].astype(np.float32)
    images[~usable] = 0
    if conditioning is not None and conditioning.bright_field is not None:
        _quieten(images, [f.noise / factor for f in fits])
    # One scale for all: correlations do not depend on it.
    images /= max(float(np.quantile(images[usable], 0.999, overwrite_input=True)), 1e-30)
    return backgrounds, ReducedSeries(images, angles_deg, usable, factor, runtime.workers, runtime.check, seen=seen)


def _quieten(images: NDArray[np.float32], noise: list[float]) -> None:
    """Take the noise out of the vacuum of bright-field images (n_tilt, y, x), in place; `noise` is that of a pixel.

    Vacuum is the brightest part of bright field, and as noisy as the sample. Counts below 0 cannot be part of a volume:
    of noise about 0, only the half above it would be explained, by a haze that fills the frame.
    """
    for image, one in zip(images, noise, strict=True):
        smooth = ndimage.gaussian_filter(image, QUIET_PX)
        scatter = max(one / (2 * np.sqrt(np.pi) * QUIET_PX), 1e-30)
        image[:] *= np.clip(smooth / scatter - 1, 0, 2) / 2


def _images(tilt_series: ArraySource, runtime: Runtime) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield index and image, reading as many at once as memory allows."""
    n, height, width = tilt_series.shape
    size = runtime.slab_size(height * width * 40, n)  # raw, f4, and the f8 copies of one image at a time
    for slab in runtime.track(slabs(n, min(size, READ_AHEAD)), "align 2/5: reading the tilt series"):
        for i, image in enumerate(tilt_series[slab], slab.start):
            runtime.check()
            yield i, np.asarray(image, np.float32)


def fill_missing(image: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """Replace non-finite pixels with the background level."""
    return np.where(np.isfinite(image), image, np.float32(level))


def usable_tilts(signals: FloatArray, finite: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which tilts show something: finite, and at least a tenth as bright above background as usual."""
    bright = np.asarray(signals)[finite & (np.asarray(signals) > 0)]
    if len(bright) == 0:
        return np.zeros(len(signals), bool)
    return np.asarray(finite & (np.asarray(signals) > LEAST_SIGNAL * np.median(bright)))


def _backgrounds(
    fits: list[VacuumFit],
    usable: NDArray[np.bool_],
    angles_deg: NDArray[np.float64],
    background: Literal["auto", "none"] | float,
    *,
    is_vacuum: bool,
) -> Backgrounds:
    """Return the level of every tilt: as given, or found from the usable tilts."""
    if background == "none":
        return Backgrounds(np.zeros(len(fits)), "nothing subtracted, as asked", certain=True)
    if background != "auto":
        return Backgrounds(np.full(len(fits), float(background)), f"{background:g} counts as given", certain=True)
    known = np.flatnonzero(usable)
    found = combine_levels([fits[i] for i in known], angles_deg[known], is_vacuum=is_vacuum)
    return Backgrounds(np.interp(np.arange(len(fits)), known, found.levels), found.how, found.certain)
