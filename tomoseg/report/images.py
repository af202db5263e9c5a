"""Grey images, label overlays and scale bars as PNG in the page itself."""

import base64
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tomoseg.arrays import Array
from tomoseg.report.contents import Contents, LabelClass
from tomoseg.report.html import Html, el
from tomoseg.report.words import length, number

FONT_PX = 26  # in a picture of the side asked for; pictures are made at about twice the size they are shown at
LARGE, SMALL = 720, 440  # longest side of a slice and of an image in a montage, px
ON_ANY_PAGE = (124, 131, 140, 255)  # a grey that is readable on white and on black
PNG_BYTES = 60_000  # larger ones, of noisy images, are compressed with loss
OVERLAY = 0.5  # opacity of class colours over the grey image


@dataclass(frozen=True)
class Limits:
    """Values shown black and white, and how they were found."""

    low: float
    high: float
    percentiles: tuple[float, float]

    def words(self, unit: str = "") -> str:
        """Say what black and white mean."""
        lower, upper = (number(p) for p in self.percentiles)
        # Next to nothing, compared with what is shown white, is nothing.
        low = 0.0 if abs(self.low) < 1e-3 * abs(self.high) else self.low
        values = f"black ≤ {number(low)}, white ≥ {number(self.high)}{' ' + unit if unit else ''}"
        return f"{values} ({lower} and {upper} % percentiles)"


def grey_limits(images: Sequence[Array], percentiles: tuple[float, float] = (0.5, 99.5)) -> Limits:
    """Return common limits of several images, (y, x) each; values that are not finite do not count."""
    values = np.concatenate([np.ravel(image) for image in images]).astype(float)
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, percentiles) if values.size else (0.0, 1.0)
    return Limits(float(low), float(high) if high > low else float(low) + 1.0, percentiles)


def volume_limits(contents: Contents) -> Limits:
    """Return the grey levels of all slices of the volume: those of the three central ones."""
    return grey_limits([image for image, *_ in contents.central])


def to_grey(image: Array, limits: Limits) -> NDArray[np.uint8]:
    """Return an image (y, x) as grey levels; what is not finite is black."""
    scaled = (np.asarray(image, float) - limits.low) / (limits.high - limits.low)
    return np.rint(255 * np.clip(np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)).astype(np.uint8)


@dataclass(frozen=True)
class Panel:
    """One picture to be: its data (y, x), the names of its axes (down, right), its pixel size, NaN where unknown.

    `pixel_px` is how many raw pixels one of a reduced image is, for a scale bar without a size in nm.
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
    """Return a grey image with the tilt axis, vertical through its middle, as a dashed line."""
    picture = _resized(to_grey(panel.image, limits), side)
    draw = ImageDraw.Draw(picture)
    middle, height = (picture.width - 1) / 2, picture.height
    for top in range(0, height, 24):
        draw.line([(middle, top), (middle, min(top + 12, height))], fill=(230, 159, 0), width=2)
    return _finished(picture, panel, side, alt)


def label_picture(
    panel: Panel, labels: Array, classes: Sequence[LabelClass], limits: Limits, alt: str, side: int = LARGE
) -> Html:
    """Return a grey image with all classes but the background painted over it, outlined."""
    grey = np.asarray(_resized(to_grey(panel.image, limits), side), float)
    shown = np.asarray(_resized(np.asarray(labels, np.uint8), side, nearest=True).convert("L"))
    outline = np.zeros(shown.shape, bool)
    outline[:, 1:] |= shown[:, 1:] != shown[:, :-1]
    outline[1:] |= shown[1:] != shown[:-1]
    for label in classes[1:]:
        inside = shown == label.index
        grey[inside] = (1 - OVERLAY) * grey[inside] + OVERLAY * np.array(rgb(label.color))
        grey[inside & outline] = rgb(label.color)
    return _finished(Image.fromarray(grey.astype(np.uint8)), panel, side, alt)


def rgba_picture(image: NDArray[np.uint8], pixel_nm: float, alt: str, pixel_voxels: float) -> Html:
    """Return a rendered picture (y, x, 4) on its transparent background, with a scale bar (in voxels if need be)."""
    picture = Image.fromarray(image)
    _draw_scale_bar(picture, 1.0 if np.isfinite(pixel_nm) else 1 / pixel_voxels, pixel_nm)
    return el("img", src=data_uri(picture), alt=alt, width=picture.width, height=picture.height)


def rgb(color: str) -> tuple[int, int, int]:
    """Return '#rrggbb' as numbers."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def pale(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Mix a colour with grey: many layers of glass in a strong one would tint the particles behind."""
    red, green, blue = (round(0.4 * c + 0.6 * 165) for c in color)
    return red, green, blue


def data_uri(picture: Image.Image) -> str:
    """Return a picture as the address of itself: exact where that takes few bytes, else in fine WebP."""
    buffer, kind = io.BytesIO(), "png"
    picture.save(buffer, format="PNG", compress_level=6)
    if buffer.tell() > PNG_BYTES:
        buffer, kind = io.BytesIO(), "webp"
        picture.save(buffer, format="WEBP", quality=90, method=4)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def nice_length(limit: float) -> float:
    """Return the largest of 1, 2 or 5 times a power of ten that is not above `limit`."""
    power = 10.0 ** np.floor(np.log10(limit))
    return float(power * max(step for step in (1, 2, 5) if step * power <= limit * (1 + 1e-9)))


def _resized(image: NDArray[np.uint8], side: int, *, nearest: bool = False) -> Image.Image:
    """Return a picture whose longest side is about `side`: whole pixels repeated, or averaged where there are more."""
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
    """Draw axes and scale bar, and return the picture as an element."""
    font_px = round(FONT_PX * max(picture.size) / side)
    if panel.scale_bar:
        # Picture pixels per image pixel, or per raw pixel where lengths are in those.
        zoom = picture.width / panel.image.shape[1] / (1.0 if np.isfinite(panel.pixel_nm) else panel.pixel_px)
        _draw_scale_bar(picture, zoom, panel.pixel_nm, font_px)
    if panel.axes:
        down, right = panel.axes
        _draw_text(picture, (10, 6), f"{right} →\n{down} ↓", font_px)
    return el("img", src=data_uri(picture), alt=alt, width=picture.width, height=picture.height)


def _draw_scale_bar(picture: Image.Image, zoom: float, pixel_nm: float, font_px: int = FONT_PX) -> None:
    """Draw a bar of a round length, a quarter of the width or less, with its length in words (px without a size)."""
    unit = pixel_nm if np.isfinite(pixel_nm) else 1.0  # nm (or px) per image pixel
    bar = nice_length(picture.width / zoom * unit / 4)
    text = length(bar) if np.isfinite(pixel_nm) else f"{number(bar)} px"
    length_px = bar / unit * zoom
    left, bottom = 16, picture.height - 16
    draw = ImageDraw.Draw(picture)
    if picture.mode == "RGBA":  # on a page that is light or dark
        draw.rectangle([left, bottom - 6, left + length_px - 1, bottom - 1], fill=ON_ANY_PAGE)
        draw.text((left, bottom - 14), text, font=_font(font_px), fill=ON_ANY_PAGE, anchor="ls")
        return
    draw.rectangle([left - 2, bottom - 9, left + length_px + 1, bottom + 1], fill=(0, 0, 0))
    draw.rectangle([left, bottom - 7, left + length_px - 1, bottom - 1], fill=(255, 255, 255))
    _draw_text(picture, (left, bottom - 14), text, font_px, anchor="ls")


def _draw_text(
    picture: Image.Image, at: tuple[float, float], text: str, font_px: int, anchor: str | None = None
) -> None:
    """Write white letters with a black rim, readable on any image."""
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
    """Return the font that comes with matplotlib, which has arrows and µ."""
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size_px)
