"""Dark field or bright field, and bright field made into mass thickness.

A dark-field detector counts what the sample scatters: mass is bright, vacuum dark. In bright field mass takes away from
the beam: by Beer and Lambert I = I0 exp(-m), and the mass thickness m = -ln(I / I0) is what adds up along a ray, as
dark-field counts do. Everything after this module expects that.

Which of the two a series is shows in four ways, each worth some points for bright field, or against it.

border  Around a sample that is whole in the frame is vacuum: the border is the darkest part of the images, or the
        brightest.
flat    The level of a part that is vacuum is the same in all tilts; that of a flat part of the sample changes.
tilt    A film that fills the frame becomes thicker by 1 / cos(tilt): brighter in dark field, darker in bright field.
detail  Small dense things stand out to the bright side, or to the dark one.

A film may have pores, a detector may be saturated, an exposure may grow with the tilt: one sign alone decides nothing.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.alignment.extent import reduction_factor
from tomoseg.alignment.images.background import fit_vacuum
from tomoseg.alignment.images.reduced_series import reduce
from tomoseg.arrays import Array, FloatArray

LONGEST_PX = 32  # of the images whose borders and details are looked at: noise is averaged out
ENOUGH, DOUBTFUL = 3, -1  # points for bright field: to decide, to warn
BORDER_PX = 2
LEAST_FLAT = 0.05  # part of the image that is flat
STEADY_LEVEL, CLEARLY = 0.08, 4.0  # change of a level beside the brightness range; how much more the other one changes
TREND, LEAST_TREND = 0.8, 0.15  # correlation with ln(1 / cos); change of the mean, in the range of the images, per unit
FEWEST_TILTS, LEAST_THICKENING = 5, 0.15
SKEW = 0.3
LAW = 0.95  # part of the variance that Beer's law must explain for one intensity of the beam to hold for all tilts
BEYOND_DOUBT = 0.99  # the same, for the law alone to show that a film is seen in bright field
BRIGHT_PART = 0.98  # quantile taken for the beam where a film fills the frame


@dataclass(frozen=True)
class Signs:
    """What speaks for bright field (positive) or against it, in points, and the words for it."""

    border: int
    flat: int
    tilt: int
    detail: int

    @property
    def points(self) -> int:
        """All together."""
        return self.border + self.flat + self.tilt + self.detail

    @property
    def is_bright_field(self) -> bool:
        """Whether the series is bright field beyond doubt."""
        return self.points >= ENOUGH and min(self.border, self.tilt, self.flat) >= 0

    @property
    def is_doubtful(self) -> bool:
        """Whether neither is beyond doubt."""
        return not self.is_bright_field and self.points >= DOUBTFUL

    @property
    def reasons(self) -> str:
        """What speaks for bright field in words."""
        words = {
            "border": "the border of the images is their brightest part",
            "flat": "the brightest flat part is the same in all tilts",
            "tilt": "the images become darker with tilt, as through a film",
            "detail": "small things are darker than what surrounds them",
        }
        return " and ".join(text for name, text in words.items() if getattr(self, name) > 0)


@dataclass(frozen=True)
class BrightField:
    """How counts become mass thickness.

    `beam` (n_tilt,) are the counts without a sample, `dark` those without a beam, `half` the counts of half an
    electron: ln(N + 1/2) has the mean ln of the expected N, down to a few electrons, and is finite at 0.
    """

    beam: NDArray[np.float64]
    dark: float
    half: float
    how: str

    def apply(self, image: Array, i: int) -> None:
        """Make an image (y, x) of counts, NaN where unknown, into mass thickness in place."""
        beam = self.beam[i] - self.dark
        if not beam > 0:
            image[:] = np.where(np.isfinite(image), 0, np.nan)
            return
        image -= self.dark
        np.maximum(image, 0, out=image)
        image += self.half
        np.log(image, out=image)
        np.subtract(np.log(beam + self.half), image, out=image)


def read_signs(images: NDArray[np.float32], angles_deg: FloatArray) -> Signs:
    """Read the signs of bright field from small images (n_tilt, y, x) without spikes, NaN where unknown."""
    filled = np.stack([_filled(image) for image in images])
    usable = np.ptp(filled, axis=(1, 2)) > 0
    if not usable.any():
        return Signs(0, 0, 0, 0)
    filled, images, angles = filled[usable], images[usable], np.asarray(angles_deg, float)[usable]
    coarse = np.stack([reduce(image, reduction_factor(filled.shape, LONGEST_PX)) for image in filled])
    return Signs(_border(coarse), _flat(images, filled), _tilt(coarse, angles), _detail(coarse))


def _filled(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an image with the nearest known values where it is unknown."""
    unknown = ~np.isfinite(image)
    if not unknown.any():
        return image
    if unknown.all():
        return np.zeros_like(image)
    nearest = ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True)
    return np.asarray(image[tuple(nearest)])


def _border(coarse: NDArray[np.float32]) -> int:
    found = [_rank(image) for image in coarse]
    rank, scatter = (float(v) for v in np.median(found, axis=0))
    if rank < 0.3:
        return -2
    if rank < 0.55 or scatter > 0.25:
        return 0
    # In the mean of all tilts there is less noise to hide how bright the border is.
    level = np.median(coarse, axis=(1, 2), keepdims=True)
    mean_rank, mean_scatter = _rank((coarse / np.where(level == 0, 1, level)).mean(axis=0))
    return 2 if rank > 0.75 or (mean_rank > 0.75 and mean_scatter < 0.15) else 1


def _rank(image: NDArray[np.float32]) -> tuple[float, float]:
    """Return where the border lies in the range of brightness, 0 to 1, and over which part of it it scatters."""
    low, high = np.quantile(image, (0.01, 0.99))
    inside = np.zeros(image.shape, bool)
    inside[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = True
    border, span = image[~inside], max(float(high - low), 1e-30)
    quarters = np.quantile(border, (0.25, 0.5, 0.75))
    return float(quarters[1] - low) / span, float(quarters[2] - quarters[0]) / span


def _flat(images: NDArray[np.float32], filled: NDArray[np.float32]) -> int:
    dark, bright = ([fit_vacuum(sign * image) for image in images] for sign in (1, -1))
    span = max(float(np.ptp(np.quantile(filled, (0.01, 0.99)))), 1e-30)

    def change(fits: list) -> tuple[float, float]:  # type: ignore[type-arg]
        low, high = np.quantile([f.level for f in fits], (0.1, 0.9))
        return float(high - low) / span, float(np.median([f.part for f in fits]))

    (dark_change, dark_part), (bright_change, bright_part) = change(dark), change(bright)
    floor = 0.005
    if dark_part >= LEAST_FLAT and dark_change < STEADY_LEVEL and bright_change > CLEARLY * max(dark_change, floor):
        return -2
    # A saturated detector has a steady level too, exactly.
    is_clipped = float(np.median([f.noise for f in bright])) <= 1e-3 * span
    if bright_part >= LEAST_FLAT and bright_change < STEADY_LEVEL and dark_change > CLEARLY * max(bright_change, floor):
        return 1 if is_clipped else 3
    return 0


def _tilt(coarse: NDArray[np.float32], angles_deg: FloatArray) -> int:
    thickening = np.log(_thickness(angles_deg))
    if len(coarse) < FEWEST_TILTS or np.ptp(thickening) < LEAST_THICKENING:
        return 0
    means = np.median(coarse, axis=(1, 2)).astype(float)
    if np.ptp(means) == 0:
        return 0
    slope = float(np.polyfit(thickening, means, 1)[0]) / max(float(np.ptp(np.quantile(coarse, (0.02, 0.98)))), 1e-30)
    alike = float(np.corrcoef(thickening, means)[0, 1])
    if abs(alike) < TREND or abs(slope) < LEAST_TREND:
        return 0
    if slope < 0 and means.min() > 0:
        # A beam that fades while tilts grow darkens the images too, but not by Beer's law.
        explained = float(np.corrcoef(_thickness(angles_deg), np.log(means))[0, 1]) ** 2
        return 3 if explained > BEYOND_DOUBT else 2
    return -2 * int(np.sign(slope))


def _detail(coarse: NDArray[np.float32]) -> int:
    skews = []
    for image in coarse:
        fine = ndimage.gaussian_filter(image, 0.7) - ndimage.gaussian_filter(image, 3)
        fine = fine[2:-2, 2:-2].astype(float)
        spread = fine.std()
        skews.append(((fine - fine.mean()) ** 3).mean() / spread**3 if spread > 0 else 0.0)
    skew = float(np.median(skews))
    return 0 if abs(skew) < SKEW else -int(np.sign(skew))


def _thickness(angles_deg: FloatArray) -> NDArray[np.float64]:
    """Return the path through a film at each tilt, 1 / cos."""
    return np.asarray(1 / np.maximum(np.abs(np.cos(np.deg2rad(angles_deg))), 0.1))


def beam_of(
    images: NDArray[np.float32], angles_deg: FloatArray, signs: Signs, dark: float, noise: float
) -> BrightField:
    """Find the intensity of the beam in each tilt.

    Parameters
    ----------
    images : (n_tilt, y, x) small images without spikes, NaN where unknown, in counts
    signs : whether there is vacuum in view
    dark : counts without a beam
    noise : standard deviation of a pixel of the raw images in their brightest flat part, in counts
    """
    fits = [fit_vacuum(-image) for image in images]
    seen = np.array([f.part >= LEAST_FLAT for f in fits])
    if (signs.border > 0 or signs.flat > 0) and signs.tilt <= 0 and seen.mean() > 0.5:
        index = np.arange(len(fits))
        beam = np.interp(index, index[seen], -np.array([f.level for f in fits])[seen])
        how = "the brightest flat part of each image"
    else:
        beam, how = _through_film(np.stack([_filled(image) for image in images]), angles_deg, dark)
    counts = max(float(np.median(beam)) - dark, 1e-30)
    return BrightField(beam, dark, min(0.5 * noise**2 / counts, 0.25 * counts), how)


def _through_film(images: NDArray[np.float32], angles_deg: FloatArray, dark: float) -> tuple[NDArray[np.float64], str]:
    """Return the beam in front of a film that fills the frame: ln I = ln I0 - m / cos, or the bright parts."""
    coarse = np.stack([reduce(image, reduction_factor(images.shape, LONGEST_PX)) for image in images])
    bright = np.quantile(coarse, BRIGHT_PART, axis=(1, 2))
    means = images.mean(axis=(1, 2), dtype=float) - dark
    thickness = _thickness(angles_deg)
    if (means > 0).all() and len(means) >= FEWEST_TILTS and np.ptp(thickness) > LEAST_THICKENING:
        slope, start = np.polyfit(thickness, np.log(means), 1)
        rest = np.log(means) - start - slope * thickness
        if slope < 0 and rest.var() < (1 - LAW) * np.log(means).var():
            return np.full(len(images), dark + np.exp(start)), "a film that obeys Beer's law in all tilts"
    return np.asarray(bright, np.float64), "the brightest fiftieth of each image, as no vacuum is in view"


def dark_level(images: NDArray[np.float32], background: Literal["auto", "none"] | float) -> tuple[float, bool]:
    """Return the counts without a beam, and whether they are known: as given, or 0 where no counts are negative."""
    if isinstance(background, (int, float)):
        return float(background), True
    lowest = float(np.nanmin(images))
    return (0.0, True) if background == "none" or lowest >= 0 else (lowest, False)
