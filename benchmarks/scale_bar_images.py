"""Micrographs with burnt-in scale bars of known length and label, for `benchmarks/scale_bars.py`.

A `Style` says how bar and label are drawn; `tuning` styles are those one may look at while working on the reader,
`held_out` styles have fonts, colours, bars and labels that the tuning ones never have.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

FloatImage = NDArray[np.float32]
SMOOTH = 4  # lines and letters are drawn this many times larger where they are antialiased
NM_PER_UNIT = {"nm": 1.0, "µm": 1e3, "μm": 1e3, "um": 1e3, "Å": 0.1, "A": 0.1, "pm": 1e-3, "mm": 1e6}

FONT_FOLDERS = (Path("/usr/share/fonts"), Path(matplotlib.get_data_path()) / "fonts" / "ttf")
TUNING_FONTS = ("LiberationSans-", "DejaVuSans.", "DejaVuSans-Bold.", "LiberationMono-", "FreeSans", "DejaVuSerif.")
HELD_OUT_FONTS = (
    "LiberationSerif-",
    "LiberationSansNarrow-",
    "FreeMono",
    "FreeSerif",
    "DejaVuSansCondensed",
    "cmss10.",
)
NO_GREEK = ("cmss10",)  # fonts without µ and Å

WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
TUNING_COLOURS = (WHITE, BLACK, (1.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
HELD_OUT_COLOURS = (WHITE, BLACK, (0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 0.55, 0.0), (0.1, 0.3, 1.0))
TUNING_BARS = ("solid", "solid", "solid", "thin", "ticks", "outlined", "segments", "interrupted")
HELD_OUT_BARS = ("solid", "solid", "thin", "ticks", "outlined", "two_rows", "hollow", "ruler", "end_caps")
TUNING_PLACES = ("above", "below", "above", "below", "right", "left", "inside")
HELD_OUT_PLACES = ("above", "below", "above_left", "above_right", "below_left", "right", "inside")


@dataclass(frozen=True)
class Truth:
    """What is burnt into an image; lengths in px of the image as it is saved. `kinds` names the choices made."""

    length_px: float
    length_nm: float
    label: str
    box: tuple[float, float, float, float]
    label_box: tuple[float, float, float, float]
    kinds: dict[str, str]


def fonts(held_out: bool, more: Path | None = None) -> list[Path]:
    """Return font files: those to tune with, or those held out, with the files of the folder `more` besides."""
    wanted = HELD_OUT_FONTS if held_out else TUNING_FONTS
    found = {
        path.name: path
        for folder in FONT_FOLDERS
        if folder.is_dir()
        for path in sorted(folder.rglob("*.ttf"))
        if path.name.startswith(wanted)
    }
    return list(found.values()) + (sorted(more.rglob("*.[to]tf")) if more and held_out else [])


# Backgrounds: (y, x) float32, black 0 and white 1.


def background(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[FloatImage, str]:
    """Return a micrograph without a scale bar, and its kind."""
    kind = rng.choice(["haadf", "bf", "lattice", "vacuum", "support", "stripes"])
    support = _smooth(rng, shape, shape[1] / rng.uniform(6, 40))
    if kind == "haadf":
        image = 0.12 + 0.1 * support + 0.8 * _particles(rng, shape)
    elif kind == "vacuum":
        image = 0.02 + 0.9 * _particles(rng, shape) * (0.7 + 0.3 * support)
    elif kind == "bf":
        image = 0.7 + 0.1 * support - 0.55 * _particles(rng, shape)
    elif kind == "lattice":
        image = 0.55 + 0.12 * support - 0.3 * _particles(rng, shape) + 0.15 * _lattice(rng, shape)
    elif kind == "support":
        image = 0.45 + 0.35 * support + 0.3 * _particles(rng, shape)
    else:
        image = 0.4 + 0.15 * support + _stripes(rng, shape)
    noise = rng.choice([0.0, 0.01, 0.03, 0.06, 0.1])
    grain = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), rng.choice([0.0, 0.5, 1.0]))
    return np.clip(image + noise * grain / max(float(grain.std()), 1e-6), 0, 1).astype(np.float32), str(kind)


def _smooth(rng: np.random.Generator, shape: tuple[int, int], size: float) -> FloatImage:
    """Return a random texture of a grain size in px, of standard deviation 1, clipped at 2."""
    coarse = tuple(max(4, math.ceil(n / size * 2) + 3) for n in shape)
    grain = ndimage.gaussian_filter(rng.standard_normal(coarse, np.float32), 1.0)
    zoomed = ndimage.zoom(grain, [n / c for n, c in zip(shape, coarse, strict=True)], order=1)[: shape[0], : shape[1]]
    zoomed = np.pad(zoomed, [(0, n - z) for n, z in zip(shape, zoomed.shape, strict=True)], mode="edge")
    return np.clip(zoomed / zoomed.std(), -2, 2).astype(np.float32) / 2


def _particles(rng: np.random.Generator, shape: tuple[int, int]) -> FloatImage:
    """Return round particles, some of them polygons, some touching, of brightness 0 to 1 over a dark ground."""
    image = np.zeros(shape, np.float32)
    radius = shape[1] * rng.uniform(0.006, 0.05)
    canvas = Image.new("F", shape[::-1], 0.0)
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(3, 80))):
        x, y, r = rng.uniform(0, shape[1]), rng.uniform(0, shape[0]), radius * rng.lognormal(0, 0.25)
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.choice([5, 7, 40]))))
        outline = [(x + r * np.cos(a), y + r * np.sin(a)) for a in angles]
        draw.polygon(outline, fill=float(rng.uniform(0.4, 1.0)))
    image[:] = np.asarray(canvas)
    return ndimage.gaussian_filter(image, rng.uniform(0.5, 2.0))


def _lattice(rng: np.random.Generator, shape: tuple[int, int]) -> FloatImage:
    """Return lattice planes, along the rows in a third of the images."""
    angle = 0.0 if rng.random() < 0.33 else rng.uniform(0, np.pi)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    period = rng.uniform(4, 30)
    return np.sin(2 * np.pi * (y * np.cos(angle) + x * np.sin(angle)) / period).astype(np.float32)


def _stripes(rng: np.random.Generator, shape: tuple[int, int]) -> FloatImage:
    """Return straight bright and dark features: grid edges, needles, saturated rows, rods along the rows."""
    canvas = Image.new("F", shape[::-1], 0.0)
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(1, 8))):
        x, y = rng.uniform(0, shape[1]), rng.uniform(0, shape[0])
        length, angle = shape[1] * rng.uniform(0.05, 0.8), rng.choice([0.0, 0.0, np.pi / 2, rng.uniform(0, np.pi)])
        end = (x + length * np.cos(angle), y + length * np.sin(angle))
        width = max(1, int(rng.uniform(0.002, 0.04) * shape[1]))
        draw.line([(x, y), end], fill=float(rng.choice([-1.0, 1.0, 0.5, -0.4])), width=width)
    return ndimage.gaussian_filter(np.asarray(canvas, np.float32), rng.choice([0.0, 0.7, 1.5]))


# Drawing: a layer is an opacity (y, x), drawn with a function that is given an ImageDraw and a scale.


def _layer(shape: tuple[int, int], hard: bool, draw: Callable[[ImageDraw.ImageDraw, int], None]) -> FloatImage:
    scale = 1 if hard else SMOOTH
    canvas = Image.new("L", (shape[1] * scale, shape[0] * scale), 0)
    draw(ImageDraw.Draw(canvas), scale)
    return np.asarray(canvas.reduce(scale) if scale > 1 else canvas, np.float32) / 255


class Sheet:
    """An RGB micrograph to draw on: everything in px, (x0, y0, x1, y1) of edges, not of pixel centres."""

    def __init__(self, image: FloatImage, hard: bool) -> None:
        self.rgb = np.repeat(image[..., None], 3, axis=2)
        self.hard = hard

    def paint(
        self, colour: tuple[float, float, float], box: tuple[float, ...], draw: Callable[..., None], hard: bool
    ) -> None:
        """Draw within a box, enlarged to whole pixels; `draw` is given a canvas, its scale and its origin."""
        y0, x0 = max(0, math.floor(box[1]) - 2), max(0, math.floor(box[0]) - 2)
        part = self.rgb[y0 : math.ceil(box[3]) + 2, x0 : math.ceil(box[2]) + 2]
        if part.size:
            opacity = _layer(part.shape[:2], hard, lambda canvas, scale: draw(canvas, scale, x0, y0))
            part += opacity[..., None] * (np.float32(colour) - part)

    def rectangle(self, colour: tuple[float, float, float], x0: float, y0: float, x1: float, y1: float) -> None:
        """Fill a rectangle."""

        def draw(canvas: ImageDraw.ImageDraw, scale: int, left: int, top: int) -> None:
            corners = [(x0 - left) * scale, (y0 - top) * scale, (x1 - left) * scale - 1, (y1 - top) * scale - 1]
            canvas.rectangle([round(v) for v in corners], fill=255)

        self.paint(colour, (x0, y0, x1, y1), draw, self.hard)

    def text(
        self, colour: tuple[float, float, float], x: float, y: float, text: str, font: Path, size: float, stroke: float
    ) -> None:
        """Write a line with its ink's top left corner at (x, y)."""

        def draw(canvas: ImageDraw.ImageDraw, scale: int, left: int, top: int) -> None:
            face = ImageFont.truetype(str(font), round(size * scale))
            x0, y0, _, _ = face.getbbox(text)
            at = ((x - left) * scale - x0, (y - top) * scale - y0)
            canvas.text(at, text, font=face, fill=255, stroke_width=round(stroke * scale))

        width, height = text_size(text, font, size)
        self.paint(colour, (x - stroke, y - stroke, x + width + stroke + 2, y + height + stroke + 2), draw, False)


def text_size(text: str, font: Path, size: float) -> tuple[float, float]:
    """Return width and height in px of the ink of a line."""
    x0, y0, x1, y1 = ImageFont.truetype(str(font), round(size * SMOOTH)).getbbox(text)
    return (x1 - x0) / SMOOTH, (y1 - y0) / SMOOTH


# Styles


@dataclass(frozen=True)
class Style:
    """How a scale bar is drawn; sizes in px."""

    bar: str
    place: str
    ground: str  # "none", "box", "footer"
    colour: tuple[float, float, float]
    font: Path
    text_px: float
    text: str
    length_nm: float
    length_px: float
    thickness_px: float
    halo: bool


def random_label(rng: np.random.Generator, greek: bool) -> tuple[str, float]:
    """Return a label and its length in nm: round lengths, with a decimal point or comma, units of every spelling."""
    unit = str(rng.choice(["nm", "nm", "nm", "µm", "µm", "um", "Å", "nm", "mm", "pm"]))
    if unit in ("mm", "pm") and rng.random() < 0.6:
        unit = "nm"
    if not greek:
        unit = {"µm": "um", "Å": "nm"}.get(unit, unit)
    values = {
        "nm": [
            "1",
            "2",
            "5",
            "10",
            "20",
            "25",
            "30",
            "50",
            "100",
            "200",
            "250",
            "300",
            "500",
            "1000",
            "0.5",
            "2.5",
            "0.2",
        ],
        "Å": ["5", "10", "20", "2", "50"],
        "pm": ["100", "200", "500"],
        "mm": ["0.1", "1", "0.5"],
    }.get(unit, ["0.1", "0.2", "0.5", "1", "2", "5", "10", "2.5", "0.25", "1.0", "2.00", "0.05"])
    number = str(rng.choice(values))
    length = float(number) * NM_PER_UNIT[unit]
    if rng.random() < 0.25:
        number = number.replace(".", ",")
    if unit == "µm" and rng.random() < 0.5:
        unit = "μm"  # the Greek letter, not the micro sign
    return number + ("" if rng.random() < 0.3 else " ") + unit, length


def possible_label(rng: np.random.Generator, greek: bool, length_px: float) -> tuple[str, float]:
    """Return a label that gives a pixel size of electron micrographs, 2 pm to 1 µm."""
    for _ in range(100):
        text, length_nm = random_label(rng, greek)
        if 2e-3 <= length_nm / length_px <= 1e3:
            return text, length_nm
    return "50 nm", 50.0


def random_style(rng: np.random.Generator, shape: tuple[int, int], held_out: bool, faces: list[Path]) -> Style:
    """Draw a style for an image of a shape (y, x)."""
    font = faces[rng.integers(len(faces))]
    length = shape[1] * rng.uniform(0.08, 0.32)
    text, length_nm = possible_label(rng, not font.name.startswith(NO_GREEK), length)
    bar = str(rng.choice(HELD_OUT_BARS if held_out else TUNING_BARS))
    place = str(rng.choice(HELD_OUT_PLACES if held_out else TUNING_PLACES))
    size = float(np.clip(shape[1] * rng.uniform(0.02, 0.065), 11, 130))
    width, _ = text_size(text, font, size)
    if bar == "interrupted":
        place, length = "gap", max(length, width + 5 * size)
    if bar in ("segments", "two_rows", "ruler"):
        length = max(length, 80.0)
        place = str(rng.choice(["above", "below"]))
    thickness = size * rng.uniform(0.12, 0.5)
    if place == "inside":
        bar, thickness, length = "solid", size * 1.5, max(length, width * 1.3)
    if bar == "thin":
        thickness = rng.uniform(1, 2.5)
    colours = HELD_OUT_COLOURS if held_out else TUNING_COLOURS
    colour = colours[rng.integers(len(colours))] if rng.random() < 0.4 else (WHITE, BLACK)[rng.integers(2)]
    ground = str(rng.choice(["none", "none", "box", "footer"]))
    return Style(
        bar, place, ground, colour, font, size, text, length_nm, length, max(1.0, thickness), rng.random() < 0.15
    )


def burn(
    sheet: Sheet, style: Style, rng: np.random.Generator
) -> tuple[Style, tuple[float, ...], tuple[float, ...], float]:
    """Draw a scale bar in a corner; return its style, boxes (x0, y0, x1, y1) of bar and label, and its length in px."""
    height, width = sheet.rgb.shape[:2]
    text_w, text_h = text_size(style.text, style.font, style.text_px)
    length, thick = style.length_px, style.thickness_px
    if sheet.hard:
        length, thick = float(round(length)), float(max(1, round(thick)))
    gap = style.text_px * rng.uniform(0.35, 0.8)
    tall = style.bar in ("ticks", "segments", "ruler", "end_caps", "interrupted")
    bar_h = max(3 * thick, style.text_px * 0.6) if tall and style.bar != "segments" else thick
    dx, dy = _label_offset(style.place, (length, bar_h), (text_w, text_h), gap)
    x0, y0 = min(0.0, dx), min(0.0, dy)
    block_w, block_h = max(length, dx + text_w) - x0, max(bar_h, dy + text_h) - y0
    margin = style.text_px * rng.uniform(0.5, 1.5)
    left = margin if rng.random() < 0.5 else width - margin - block_w
    top = margin if rng.random() < 0.25 and style.ground != "footer" else height - margin - block_h
    bar_x, bar_y = left - x0, top - y0
    if sheet.hard:
        bar_x, bar_y = float(round(bar_x)), float(round(bar_y))
    block = (left, top, left + block_w, top + block_h)
    style = _legible(sheet, style, block)
    _ground(sheet, style, block, rng)
    _bar(sheet, style, (bar_x, bar_y, bar_x + length, bar_y + bar_h), thick)
    inverse = BLACK if sum(style.colour) > 1.5 else WHITE
    ink = inverse if style.place == "inside" else style.colour
    at = bar_x + dx, bar_y + dy
    if style.halo and style.ground == "none" and style.place != "inside":
        sheet.text(inverse, *at, style.text, style.font, style.text_px, max(1.0, style.text_px * 0.06))
    sheet.text(ink, *at, style.text, style.font, style.text_px, 0.0)
    return style, (bar_x, bar_y, bar_x + length, bar_y + bar_h), (*at, at[0] + text_w, at[1] + text_h), length


def _legible(sheet: Sheet, style: Style, block: tuple[float, ...]) -> Style:
    """Return the style in white or black, or on a box, where its colour is too near to the micrograph's.

    Nine tenths of the ground must differ from the ink by a quarter of the range between black and white.
    """
    if style.ground != "none":
        return style
    x0, y0, x1, y1 = (max(0, round(v)) for v in block)
    ground = sheet.rgb[y0:y1, x0:x1]
    for colour in (style.colour, WHITE, BLACK):
        distance = np.abs(ground - np.float32(colour)) @ np.float32([0.299, 0.587, 0.114])
        if np.quantile(distance, 0.1) > 0.25:
            return replace(style, colour=colour)
    return replace(style, colour=WHITE, ground="box")


def _label_offset(place: str, bar: tuple[float, float], text: tuple[float, float], gap: float) -> tuple[float, float]:
    """Return where the label's top left corner is from the bar's; sizes are (width, height)."""
    middle = (bar[0] - text[0]) / 2, (bar[1] - text[1]) / 2
    above, below = -gap - text[1], bar[1] + gap
    return {
        "above": (middle[0], above),
        "below": (middle[0], below),
        "above_left": (0.0, above),
        "above_right": (bar[0] - text[0], above),
        "below_left": (0.0, below),
        "right": (bar[0] + gap, middle[1]),
        "left": (-gap - text[0], middle[1]),
        "inside": middle,
        "gap": middle,
    }[place]


def _ground(sheet: Sheet, style: Style, block: tuple[float, ...], rng: np.random.Generator) -> None:
    """Draw the box or the footer strip, with what microscopes write there, behind bar and label."""
    inverse = BLACK if sum(style.colour) > 1.5 else WHITE
    if style.ground == "box":
        pad = style.text_px * rng.uniform(0.2, 0.45)
        box = (block[0] - pad, block[1] - pad, block[2] + pad, block[3] + pad)
        sheet.rectangle(inverse, *[float(round(v)) for v in box])
    if style.ground != "footer":
        return
    height, width = sheet.rgb.shape[:2]
    top = round(block[1] - style.text_px * 0.5)
    sheet.rectangle(inverse, 0, top, width, height)
    words = [
        f"HV {rng.choice([80, 200, 300])} kV", f"mag {rng.integers(10, 900)} 000 x", "HAADF", "WD 9.8 mm",
        f"{rng.integers(1, 28)}/{rng.integers(1, 12)}/2021", "spot 3.0", f"HFW {rng.uniform(0.1, 9):.2f} µm", "DF4",
    ]  # fmt: skip
    if style.font.name.startswith(NO_GREEK):
        words = [word.replace("µ", "u") for word in words]
    small = style.text_px * rng.uniform(0.6, 1.0)
    on_left = block[0] < width / 2
    x = block[2] + 2.5 * style.text_px if on_left else style.text_px * 0.5
    end = width - style.text_px * 0.5 if on_left else block[0] - 2.5 * style.text_px
    y = top + (height - top - small) / 2
    for word in rng.permutation(words):
        word_w, _ = text_size(word, style.font, small)
        if x + word_w > end:
            break
        sheet.text(style.colour, x, y, word, style.font, small, 0.0)
        x += word_w + small * 2


def _bar(sheet: Sheet, style: Style, box: tuple[float, float, float, float], thick: float) -> None:
    """Draw the bar in its box, a line of `thick` px along the middle where it is taller."""
    x0, y0, x1, y1 = box
    inverse = BLACK if sum(style.colour) > 1.5 else WHITE
    middle = (y0 + y1) / 2
    if sheet.hard:
        middle = y0 + round((y1 - y0 - thick) / 2) + thick / 2
    line = (middle - thick / 2, middle + thick / 2)
    if style.bar in ("outlined", "hollow") or (style.halo and style.ground == "none"):
        edge = float(max(1, round(style.text_px * 0.06)))
        if style.bar == "hollow":
            sheet.rectangle(style.colour, x0, y0, x1, y0 + edge)
            sheet.rectangle(style.colour, x0, y1 - edge, x1, y1)
            sheet.rectangle(style.colour, x0, y0, x0 + edge, y1)
            sheet.rectangle(style.colour, x1 - edge, y0, x1, y1)
            return
        if style.bar in ("solid", "thin", "outlined"):
            sheet.rectangle(inverse, x0 - edge, line[0] - edge, x1 + edge, line[1] + edge)
    if style.bar in ("segments", "two_rows"):
        _segments(sheet, style, box, inverse)
    elif style.bar == "ruler":
        _ruler(sheet, style, box)
    elif style.bar == "interrupted":
        _interrupted(sheet, style, box, middle, thick)
    else:
        sheet.rectangle(style.colour, x0, line[0], x1, line[1])
        _end_ticks(sheet, style, box, thick)


def _end_ticks(sheet: Sheet, style: Style, box: tuple[float, float, float, float], thick: float) -> None:
    """Draw ticks with their middles at the ends of a bar, or caps within its ends, if it has such."""
    x0, y0, x1, y1 = box
    if style.bar == "ticks":
        half = max(1.0, min(thick, 4.0)) / 2
        for x in (x0, x1):
            sheet.rectangle(style.colour, x - half, y0, x + half, y1)
    elif style.bar == "end_caps":
        for x in (x0, x1 - 1):
            sheet.rectangle(style.colour, x, y0, x + 1, y1)


def _ruler(sheet: Sheet, style: Style, box: tuple[float, float, float, float]) -> None:
    """Draw eleven ticks, the first, the middle and the last one longer."""
    x0, y0, x1, y1 = box
    tick = 1.0 if style.text_px < 24 else 2.0
    for i in range(11):
        x = x0 + (x1 - x0) * i / 10
        x = float(round(x)) + (tick % 2) / 2 if sheet.hard else x
        short = 0.0 if i % 5 == 0 else (y1 - y0) * 0.3
        sheet.rectangle(style.colour, x - tick / 2, y0, x + tick / 2, y1 - short)


def _interrupted(
    sheet: Sheet, style: Style, box: tuple[float, float, float, float], middle: float, thick: float
) -> None:
    """Draw two lines with end ticks and a gap for the label."""
    x0, y0, x1, y1 = box
    width, _ = text_size(style.text, style.font, style.text_px)
    half = width / 2 + style.text_px * 0.35
    top = round(middle)
    bottom = top + max(1.0, round(min(thick, max(1.0, style.text_px * 0.12))))
    sheet.rectangle(style.colour, x0, top, (x0 + x1) / 2 - half, bottom)
    sheet.rectangle(style.colour, (x0 + x1) / 2 + half, top, x1, bottom)
    sheet.rectangle(style.colour, x0, y0, x0 + 1, y1)
    sheet.rectangle(style.colour, x1 - 1, y0, x1, y1)


def _segments(
    sheet: Sheet, style: Style, box: tuple[float, float, float, float], inverse: tuple[float, float, float]
) -> None:
    """Draw alternating segments in one row, or in two rows of opposite order."""
    x0, y0, x1, y1 = box
    n = 10 if style.bar == "two_rows" else 5 if style.length_px < 150 else 9  # odd: both ends are seen
    edges = np.linspace(x0, x1, n + 1)
    if sheet.hard:
        edges = np.round(edges)
    rows = [(y0, y1)] if style.bar == "segments" else [(y0, (y0 + y1) / 2), ((y0 + y1) / 2, y1)]
    for r, (top, bottom) in enumerate(rows):
        for i in range(n):
            colour = style.colour if (i + r) % 2 == 0 else inverse
            sheet.rectangle(colour, edges[i], top, edges[i + 1], bottom)


# Whole images


def random_image(seed: int, held_out: bool, faces: list[Path], with_bar: bool = True) -> tuple[NDArray, Truth | None]:
    """Return an image, (y, x) or (y, x, 3), 8 or 16 bit or float32, and what is burnt into it."""
    rng = np.random.default_rng([seed, held_out, with_bar])
    side = int(rng.choice([256, 384, 512, 668, 1024, 1024, 1335, 2048]))
    shape = (side, int(side * rng.choice([1.0, 1.0, 1.25, 1.5])))
    image, ground = background(rng, shape)
    sheet = Sheet(image, hard=bool(rng.random() < 0.5))
    kinds = {"background": ground, "size": f"{shape[0]} x {shape[1]}", "hard": str(sheet.hard)}
    if not with_bar:
        return _saved(rng, sheet.rgb, False, kinds)[0], None
    style = random_style(rng, shape, held_out, faces)
    style, bar, label, length = burn(sheet, style, rng)
    in_colour = style.colour not in (WHITE, BLACK)
    saved, scale = _saved(rng, sheet.rgb, in_colour, kinds)
    kinds |= {
        "bar": style.bar, "place": style.place, "ground": style.ground, "colour": str(style.colour),
        "halo": str(style.halo), "font": style.font.name, "text_px": f"{style.text_px:.0f}",
        "thick": f"{style.thickness_px:.1f}",
    }  # fmt: skip
    boxes = [tuple(v * scale for v in (box[1], box[0], box[3], box[2])) for box in (bar, label)]
    return saved, Truth(length * scale, style.length_nm, style.text, boxes[0], boxes[1], kinds)


def _saved(rng: np.random.Generator, rgb: FloatImage, in_colour: bool, kinds: dict[str, str]) -> tuple[NDArray, float]:
    """Blur, resample, compress and quantise an image as programs that save it do; return it and its magnification."""
    scale = 1.0
    if rng.random() < 0.2:
        scale = float(rng.uniform(0.75, 1.5))
        new = tuple(round(n * scale) for n in rgb.shape[1::-1])
        scale = new[0] / rgb.shape[1]
        rgb = np.stack(
            [np.asarray(Image.fromarray(rgb[..., i]).resize(new, Image.Resampling.BICUBIC)) for i in range(3)], axis=2
        )
    if rng.random() < 0.2:
        rgb = ndimage.gaussian_filter(rgb, (rng.uniform(0.4, 0.9),) * 2 + (0,))
    grey = rgb if in_colour else rgb @ np.float32([0.299, 0.587, 0.114])
    quality = int(rng.choice([0, 0, 60, 75, 85, 92]))
    kinds |= {"scale": f"{scale:.2f}", "jpeg": str(quality)}
    levels = np.round(np.clip(grey, 0, 1) * 255).astype(np.uint8)
    if quality:
        stream = io.BytesIO()
        Image.fromarray(levels).save(stream, "jpeg", quality=quality)
        return np.asarray(Image.open(stream)), scale
    depth = rng.choice(["8", "8", "8", "16", "float"])
    if depth == "16" and not in_colour:
        return (grey * rng.choice([4000, 40000]) + 200).clip(0, 65535).astype(np.uint16), scale
    if depth == "float" and not in_colour:
        return (grey * 3.7 - 0.4).astype(np.float32), scale
    return levels, scale
