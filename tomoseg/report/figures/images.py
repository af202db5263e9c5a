"""Grey images, label overlays and scale bars, as pictures embedded in the page."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tomoseg.arrays import Array, ArraySource
from tomoseg.palette import ON_ANY_PAGE, RESIDUAL, TILT_AXIS, rgb
from tomoseg.report.figures.encoding import data_uri
from tomoseg.report.formatting import length, number
from tomoseg.report.html import Html, el
from tomoseg.report.results import LabelClass, Results
from tomoseg.report.sampling.slices import evenly_spaced

FONT_PX = 26  # in a picture of the full size; pictures are made about twice as large as they are shown
RING_PX = 6  # radius of the ring around a marker
LARGE, SMALL = 720, 440  # longest side of a slice and of an image in a montage, px
OVERLAY = 0.5  # opacity of class colours over the grey image


@dataclass(frozen=True)
class Limits:
    """The values shown as black and as white, and the percentiles they are."""

    low: float
    high: float
    percentiles: tuple[float, float]

    def words(self, unit: str = "") -> str:
        """Return what black and white stand for."""
        lower, upper = (number(p) for p in self.percentiles)
        # A value that is tiny compared with white is written as zero.
        low = 0.0 if abs(self.low) < 1e-3 * abs(self.high) else self.low
        values = f"black ≤ {number(low)}, white ≥ {number(self.high)}{' ' + unit if unit else ''}"
        return f"{values} ({lower}th and {upper}th percentiles)"


def grey_limits(images: Sequence[Array], percentiles: tuple[float, float] = (0.5, 99.5)) -> Limits:
    """Return common limits of several images (y, x), found from their finite values."""
    values = np.concatenate([np.ravel(image) for image in images]).astype(float)
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, percentiles) if values.size else (0.0, 1.0)
    return Limits(float(low), float(high) if high > low else float(low) + 1.0, percentiles)


def volume_limits(results: Results) -> Limits:
    """Return the limits for all slices of the volume, found from the three central ones."""
    return grey_limits([one.image for one in results.central])


def chosen_tilts(series: ArraySource, most: int) -> tuple[list[int], list[Array], Limits]:
    """Return at most `most` tilts, from one end of the range to the other: indices, images and common limits."""
    index = [int(i) for i in evenly_spaced(int(series.shape[0]), most)]
    images = [np.asarray(series[i]) for i in index]
    return index, images, grey_limits(images)


def to_grey(image: Array, limits: Limits) -> NDArray[np.uint8]:
    """Return an image (y, x) as grey levels; NaN is black."""
    scaled = (np.asarray(image, float) - limits.low) / (limits.high - limits.low)
    return np.rint(255 * np.clip(np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)).astype(np.uint8)


@dataclass(frozen=True)
class Panel:
    """An image (y, x) to be shown, with the names of its axes (down, right) and its pixel size, NaN where unknown.

    `pixel_px` is the number of raw pixels along a pixel of a reduced image: scale bars count them without a size in nm.
    """

    image: Array
    axes: tuple[str, str] | None = None
    pixel_nm: float = float("nan")
    scale_bar: bool = True
    pixel_px: float = 1.0


def grey_picture(panel: Panel, limits: Limits, alt: str, side: int = LARGE) -> Html:
    """Return a grey image with scale bar and axes."""
    return _finished(_resized(to_grey(panel.image, limits), side), panel, side, alt)


def aligned_picture(panel: Panel, limits: Limits, alt: str, side: int = SMALL) -> Html:
    """Return a grey image with the tilt axis as a dashed vertical line through its middle."""
    picture = _resized(to_grey(panel.image, limits), side)
    draw = ImageDraw.Draw(picture)
    middle, height = (picture.width - 1) / 2, picture.height
    for top in range(0, height, 24):
        draw.line([(middle, top), (middle, min(top + 12, height))], fill=rgb(TILT_AXIS), width=2)
    return _finished(picture, panel, side, alt)


def marked_picture(
    panel: Panel, marks: Array, limits: Limits, alt: str, *, magnified: float, side: int = LARGE
) -> Html:
    """Return a grey image with a ring at each mark (n, 4) (y, x, dy, dx), and a line along (dy, dx), `magnified`.

    Places are pixels of the image, steps in such.
    """
    picture = _resized(to_grey(panel.image, limits), side)
    zoom = picture.width / panel.image.shape[1]
    draw = ImageDraw.Draw(picture)
    for y, x, dy, dx in (np.asarray(marks, float) + np.array([0.5, 0.5, 0, 0])) * zoom:
        draw.ellipse([x - RING_PX, y - RING_PX, x + RING_PX, y + RING_PX], outline=rgb(TILT_AXIS))
        draw.line([(x, y), (x + magnified * dx, y + magnified * dy)], fill=rgb(RESIDUAL), width=2)
    return _finished(picture, panel, side, alt)


def label_picture(
    panel: Panel, labels: Array, classes: Sequence[LabelClass], limits: Limits, alt: str, side: int = LARGE
) -> Html:
    """Return a grey image with all classes but the background painted over it, outlined."""
    grey = np.asarray(_resized(to_grey(panel.image, limits), side))
    shown = np.asarray(_resized(np.asarray(labels, np.uint8), side, nearest=True).convert("L"))
    outline = np.zeros(shown.shape, bool)
    outline[:, 1:] |= shown[:, 1:] != shown[:, :-1]
    outline[1:] |= shown[1:] != shown[:-1]
    return _finished(Image.fromarray(painted(grey, shown, classes, outline)), panel, side, alt)


def painted(
    picture: NDArray[np.uint8], labels: Array, classes: Sequence[LabelClass], outline: Array | None = None
) -> NDArray[np.uint8]:
    """Paint all classes but the background over a picture (y, x, 3); where `outline` is true, with full opacity."""
    colored = picture.astype(float)
    for label in classes[1:]:
        inside = labels == label.index
        colored[inside] = (1 - OVERLAY) * colored[inside] + OVERLAY * np.array(rgb(label.color))
        if outline is not None:
            colored[inside & outline] = rgb(label.color)
    return colored.astype(np.uint8)


def rgba_picture(image: NDArray[np.uint8], pixel_nm: float, alt: str, pixel_voxels: float) -> Html:
    """Return a rendered, transparent picture (y, x, 4) with a scale bar, which counts voxels without a size in nm."""
    picture = Image.fromarray(image)
    _draw_scale_bar(picture, 1.0 if np.isfinite(pixel_nm) else 1 / pixel_voxels, pixel_nm)
    return el("img", src=data_uri(picture), alt=alt, width=picture.width, height=picture.height)


def nice_length(limit: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that does not exceed `limit`."""
    power = 10.0 ** np.floor(np.log10(limit))
    return float(power * max(step for step in (1, 2, 5) if step * power <= limit * (1 + 1e-9)))


def _resized(image: NDArray[np.uint8], side: int, *, nearest: bool = False) -> Image.Image:
    """Return a picture whose longest side is about `side`: pixels are repeated a whole number of times, or averaged."""
    height, width = image.shape
    longest = max(height, width)
    picture = Image.fromarray(image)
    if longest <= side:
        factor = round(side / longest)
        size, how = (width * factor, height * factor), Image.Resampling.NEAREST
    else:
        size = max(1, round(width * side / longest)), max(1, round(height * side / longest))
        how = Image.Resampling.NEAREST if nearest else Image.Resampling.BOX
    return picture.resize(size, how).convert("L" if nearest else "RGB")


def _finished(picture: Image.Image, panel: Panel, side: int, alt: str) -> Html:
    """Draw axes and scale bar; return the picture as an element."""
    font_px = round(FONT_PX * max(picture.size) / side)
    if panel.scale_bar:
        # Picture pixels per image pixel, or per raw pixel where lengths are in raw pixels.
        zoom = picture.width / panel.image.shape[1] / (1.0 if np.isfinite(panel.pixel_nm) else panel.pixel_px)
        _draw_scale_bar(picture, zoom, panel.pixel_nm, font_px)
    if panel.axes:
        down, right = panel.axes
        _draw_text(picture, (10, 6), f"{right} →\n{down} ↓", font_px)
    return el("img", src=data_uri(picture), alt=alt, width=picture.width, height=picture.height)


def _draw_scale_bar(picture: Image.Image, zoom: float, pixel_nm: float, font_px: int = FONT_PX) -> None:
    """Draw a bar of a round length, at most a quarter of the width, with the length beside it (px without a size)."""
    unit = pixel_nm if np.isfinite(pixel_nm) else 1.0  # nm (or px) per image pixel
    bar = nice_length(picture.width / zoom * unit / 4)
    text = length(bar) if np.isfinite(pixel_nm) else f"{number(bar)} px"
    length_px = bar / unit * zoom
    left, bottom = 16, picture.height - 16
    draw = ImageDraw.Draw(picture)
    if picture.mode == "RGBA":  # on a page that is light or dark
        grey = (*rgb(ON_ANY_PAGE), 255)
        draw.rectangle([left, bottom - 6, left + length_px - 1, bottom - 1], fill=grey)
        draw.text((left, bottom - 14), text, font=_font(font_px), fill=grey, anchor="ls")
        return
    draw.rectangle([left - 2, bottom - 9, left + length_px + 1, bottom + 1], fill=(0, 0, 0))
    draw.rectangle([left, bottom - 7, left + length_px - 1, bottom - 1], fill=(255, 255, 255))
    _draw_text(picture, (left, bottom - 14), text, font_px, anchor="ls")


def _draw_text(
    picture: Image.Image, at: tuple[float, float], text: str, font_px: int, anchor: str | None = None
) -> None:
    """Write white letters with a black rim, which are readable on any image."""
    ImageDraw.Draw(picture).text(
        at,
        text,
        font=_font(font_px),
        fill=(255, 255, 255),
        stroke_width=3,
        stroke_fill=(0, 0, 0),
        anchor=anchor,
        spacing=2,
    )


@functools.cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return the font that ships with matplotlib, which has arrows and µ."""
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size_px)
