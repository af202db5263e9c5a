"""Scaling of intensities for a network, alike for 8-bit slices and float reconstructions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.segmentation.data.histogram import Histogram, histogram, partition
from tomoseg.segmentation.data.neighbours import middle

Kind = Literal["levels", "labelled", "range", "image"]
MOST_BEYOND = 0.01  # of the voxels may lie beyond the intensities of training; 8-bit slices saturate a few per mille
FEWEST_PIXELS = 100  # labelled as background, or as support, that tell its level
FOREGROUND_PX = 1.0  # standard deviation of the filter before foreground and background are parted
FEWEST_SLICES = 3  # that tell the levels of their kind: the support of a single one may be a sliver
# See `Scaling.for_slices`; any 3 of the gamma-alumina slices are within 1.16 and 0.05.
ALIKE_SPAN, ALIKE_ZERO = 1.6, 0.3
NORMAL = 1.4826  # standard deviation of normal noise over its median absolute deviation
# See `scale_of_image`; beyond these limits, intensities are clipped.
MEDIAN, LOWEST, HIGHEST = 2.0, -8.0, 12.0
UNLIKE = 2.5  # times the noise of training, or the brightness of its particles, is worth a warning


@dataclass(frozen=True)
class Scale:
    """A linear map of intensities: `zero` becomes 0, `one` becomes 1, then clipped to `low`..`high`."""

    zero: float
    one: float
    low: float
    high: float
    of_each: bool = False  # each image has a scale of its own, see `scale_of_image`; `zero` and `one` mean nothing

    def __call__(self, image: Array) -> NDArray[np.float32]:
        """Return the scaled image, f4; with `of_each`, images are (h, w), (n, h, w) or (n, h, w, channels)."""
        if self.of_each:
            images = image[None] if image.ndim == 2 else image
            scaled = np.stack([scale_of_image(one)(one) for one in images])
            return scaled.reshape(image.shape)
        scaled = (np.asarray(image, np.float32) - np.float32(self.zero)) / np.float32(self.one - self.zero)
        return np.asarray(np.clip(scaled, self.low, self.high), np.float32)


@dataclass(frozen=True)
class Scaling:
    """How any data is brought to the intensities that a network was trained on.

    kind 'levels': 0 is the level of the background and 1 that of the support, the
    medians of the two darkest classes of a three-class partition of the histogram of the whole volume or set of slices.
    Unlike percentiles, these hardly depend on how much of the field of view is empty or how rare the particles are.
    Values beyond those seen in training are clipped (8-bit slices saturate).

    kind 'labelled': 0 is the median of what is background, 1 that of the next class, the support: by the labels in
    training, and by those of the network itself in use, which begins on the scale of `foreground_levels`; see
    `tomoseg.segmentation.inference.first_look`. A histogram alone is often wrong by more than a factor of 1.5 where
    particles are many or bright, or much of the volume is noise.

    kind 'image' (trained so, for single micrographs): each image has a scale of its own, see `scale_of_image`.

    kind 'range' (any other Keras model): integers are divided by the largest value of their type (8 bit: 255), and
    float data is mapped from its 0.1 .. 99.9 percentiles to 0 .. 1.

    `trained` is the scale used in training for data of type `dtype`; images of the same integer type are slices of the
    same kind and get the same scale. `intensities` describe the training slices, see `Intensities`; empty where
    unknown.
    """

    kind: Kind
    dtype: str
    trained: Scale
    intensities: Mapping[str, float] = field(default_factory=dict)

    def for_foreground(self, images: Sequence[Array]) -> Scale:
        """Return the scale to begin on: by the foreground of images, (h, w) or (h, w, channels), of a volume or set."""
        return _checked(Scale(*foreground_levels(images), self.trained.low, self.trained.high))

    def for_data(self, dtype: DTypeLike, values: Histogram) -> Scale:
        """Return the scale for a volume or a set of images of type `dtype` with the histogram `values`.

        For kind 'labelled' this is where a network begins; see `for_foreground`.
        """
        kind = np.dtype(dtype)
        if self.kind == "image":
            return self.trained
        if self.kind == "range":
            if kind.kind in "iu":
                return Scale(0.0, float(np.iinfo(kind).max), 0.0, 1.0)
            return _checked(Scale(values.percentile(0.1), values.percentile(99.9), 0.0, 1.0))
        if kind.kind in "iu" and kind == np.dtype(self.dtype):
            return self.trained
        background, support = find_levels(values)
        return _checked(Scale(background, support, self.trained.low, self.trained.high))

    def for_slices(self, dtype: DTypeLike, values: Histogram, n_slices: int) -> Scale:
        """Return the scale for labelled slices of type `dtype` with the histogram `values`.

        Slices of the integer type of training get the scale of training, as in `for_data`. Those of another material
        or microscope may have been converted to 8 bits in another way: where there are at least `FEWEST_SLICES`, and
        the distance of their levels differs by a factor of more than `ALIKE_SPAN`, or their background by more than
        `ALIKE_ZERO` of that distance, their own levels count.
        """
        usual = self.for_data(dtype, values)
        if self.kind != "levels" or usual is not self.trained or n_slices < FEWEST_SLICES:
            return usual
        background, support = find_levels(values)
        span = self.trained.one - self.trained.zero
        alike = 1 / ALIKE_SPAN < (support - background) / span < ALIKE_SPAN
        if alike and abs(background - self.trained.zero) < ALIKE_ZERO * span:
            return usual
        return _checked(Scale(background, support, self.trained.low, self.trained.high))


def scaling_by_image(dtype: DTypeLike) -> Scaling:
    """Return the scaling of a network for which each image, here of type `dtype`, has a scale of its own."""
    return Scaling("image", np.dtype(dtype).name, Scale(0.0, 1.0, LOWEST, HIGHEST, of_each=True))


def scale_of_image(image: Array) -> Scale:
    """Return the scale that brings the median of an image (h, w[, channels]) to 2 and its spread to 1.

    The spread is 1.4826 times the median absolute deviation from the median, for normal noise the standard deviation;
    where more than half of the pixels are alike, it is the standard deviation itself. Neither depends much on how large
    or dark the objects are, nor on a burnt-in scale bar. 2 and 1 are middle grey and the contrast of photographs for
    an encoder with their weights (see `tomoseg.segmentation.networks.builders.LEVEL_8_BIT`). An image of one value
    becomes 2 everywhere.
    """
    values = np.asarray(image, np.float32)
    median = float(np.median(values))
    spread = (
        NORMAL * float(np.median(np.abs(values - np.float32(median)))) or float(values.std(dtype=np.float64)) or 1.0
    )
    return Scale(median - MEDIAN * spread, median + (1 - MEDIAN) * spread, LOWEST, HIGHEST)


def find_levels(values: Histogram) -> tuple[float, float]:
    """Return the intensity levels of background and support; equal if the data has one level only."""
    found = partition(values, 3)
    background = float(found.levels[0])
    return background, float(found.levels[1]) if found.sizes[1] > 0 else background


def scaling_of(values: Histogram, dtype: DTypeLike) -> Scaling:
    """Return the scaling for a network trained on images of type `dtype` with the histogram `values`."""
    background, support = find_levels(values)
    present = values.centres[values.counts > 0]
    scale = _checked(Scale(background, support, -np.inf, np.inf))
    low, high = (float(v) for v in scale(present[[0, -1]]))
    trained = Scale(background, support, low, high)
    return Scaling("levels", np.dtype(dtype).name, trained, asdict(Intensities.of(values, trained)))


def scaling_of_labelled(images: Sequence[Array], labels: Sequence[Array]) -> Scaling:
    """Return the scaling for a network trained on labelled images, (h, w) or (h, w, channels).

    0 and 1 are the medians of what is labelled as class 0 and as class 1. The levels of background and foreground count
    where fewer than `FEWEST_PIXELS` are labelled so, or class 1 is no brighter.
    """
    zero, one = levels_of_labels(images, labels) or foreground_levels(images)
    low, high = min(float(image.min()) for image in images), max(float(image.max()) for image in images)
    trained = _checked(Scale(zero, one, 0.0, 0.0))
    low, high = ((value - zero) / (one - zero) for value in (low, high))
    return Scaling("labelled", images[0].dtype.name, replace(trained, low=low, high=high))


def levels_of_labels(images: Sequence[Array], labels: Sequence[Array]) -> tuple[float, float] | None:
    """Return the medians of the pixels labelled 0 and 1 in images, (h, w) or (h, w, channels).

    None where there are fewer than `FEWEST_PIXELS` of either, or those labelled 1 are no brighter.
    """
    shown = [middle(image) for image in images]
    pixels = [
        np.concatenate([image[label == value] for image, label in zip(shown, labels, strict=True)]) for value in (0, 1)
    ]
    if min(map(len, pixels)) < FEWEST_PIXELS:
        return None
    zero, one = (float(np.median(np.asarray(values, np.float32))) for values in pixels)
    return (zero, one) if one > zero else None


def foreground_levels(images: Sequence[Array]) -> tuple[float, float]:
    """Return the levels of background and foreground in images, (h, w) or (h, w, channels), of one scale.

    Images are smoothed by a Gaussian filter of 1 px, and over the neighbours next to them. Otsu's threshold (IEEE
    Trans. SMC 9, 1979) on the square root of what is above the darker of two levels parts background and foreground;
    their medians are the levels. The root keeps a few bright particles from being all of the foreground. Equal levels
    where the images show a single one.
    """
    from skimage.filters import threshold_otsu

    smooth = np.stack([_smoothed(image) for image in images])
    low, high = float(smooth.min()), float(smooth.max())
    if not high > low:
        return low, low
    dark = float(partition(histogram([smooth], low, high), 2).levels[0])
    root = np.sqrt(np.clip(smooth - np.float32(dark), 0, None))
    above = root > threshold_otsu(root)  # type: ignore[no-untyped-call]
    return float(np.median(smooth[~above])), float(np.median(smooth[above]))


def _smoothed(image: Array) -> NDArray[np.float32]:
    """Return an image (h, w), or the middle one of (h, w, channels), without most of its noise."""
    from scipy import ndimage

    if image.ndim == 3:
        k = image.shape[-1] // 2
        near = np.asarray(image[..., max(k - 1, 0) : k + 2], np.float32)
        image = near @ np.array([0.25, 0.5, 0.25] if near.shape[-1] == 3 else [1.0], np.float32)
    return np.asarray(ndimage.gaussian_filter(np.asarray(image, np.float32), FOREGROUND_PX), np.float32)


def already_scaled(values: Histogram, dtype: DTypeLike) -> Scaling:
    """Return the scaling of a network trained on images whose background is 0 and whose support is 1 already."""
    present = values.centres[values.counts > 0]
    return Scaling("labelled", np.dtype(dtype).name, Scale(0.0, 1.0, float(present[0]), float(present[-1])))


@dataclass(frozen=True)
class Intensities:
    """Description of intensities on the scale of a network (0 background, 1 support)."""

    noise: float  # half the distance between the 16 and 84 percentiles of the background (values below 0.5)
    brightest: float  # level of the brightest of three classes
    beyond: float  # fraction of the values beyond the limits of the scale

    @classmethod
    def of(cls, values: Histogram, scale: Scale) -> "Intensities":
        """Describe the data with the histogram `values`."""
        scaled = (values.centres - scale.zero) / (scale.one - scale.zero)
        middle = int(np.searchsorted(scaled, 0.5))
        low, high = (values.median_between(0, middle, fraction) for fraction in (0.16, 0.84))
        outside = float(values.counts[(scaled < scale.low) | (scaled > scale.high)].sum() / values.counts.sum())
        brightest = (float(partition(values, 3).levels[2]) - scale.zero) / (scale.one - scale.zero)
        return cls((high - low) / 2 / (scale.one - scale.zero), brightest, outside)

    def unlike(self, trained: Mapping[str, float]) -> list[str]:
        """List, in words, how these differ from the intensities that a network was trained on."""
        found = []
        if self.beyond > MOST_BEYOND:
            found.append(
                f"{100 * self.beyond:.2g} % of the voxels are darker or brighter than all training data of the network"
            )
        for key, value, what in (("noise", self.noise, "noise"), ("brightest", self.brightest, "bright particles")):
            seen = trained.get(key, 0.0)
            if seen > 0 and value > 0 and not 1 / UNLIKE < value / seen < UNLIKE:
                found.append(f"the {what} is {value:.2g} of the support's level, and was {seen:.2g} in training")
        return found


def _checked(scale: Scale) -> Scale:
    if not scale.one > scale.zero:
        raise InputError(
            f"the intensities have no two distinct levels (background {scale.zero:g}, object {scale.one:g}): the "
            "slices or the volume look empty or constant. Check that they are the right ones."
        )
    return scale
