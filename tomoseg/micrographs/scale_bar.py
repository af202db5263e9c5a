"""The scale of a micrograph from its burnt-in scale bar: find the bar, measure it, read its label, or say why not."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tomoseg.arrays import Array, BoolArray
from tomoseg.micrographs.scale.bars import Bar, find_bars, ground_colour
from tomoseg.micrographs.scale.ends import Ends, bar_ends
from tomoseg.micrographs.scale.engines import Engine, engines
from tomoseg.micrographs.scale.furniture import footer_strip, grounds
from tomoseg.micrographs.scale.labels import Label, read_label
from tomoseg.micrographs.scale.lines import INK, Line, lines_near, placing
from tomoseg.micrographs.scale.picture import Box, Picture, as_picture
from tomoseg.micrographs.scale.rulers import find_rulers

_MOST_BARS = 24  # looked at
_MOST_LINES = 3  # read for each bar
_MOST_READ = 20  # lines in all
_SMOOTHING_PX = 5  # along the rows, where no bar is found without: noise on thin lines
_CLEAR_BAR = 0.3  # contrast of a bar that is told of though its label was not read
_SURE = 0.6  # confidence below which a warning is given
_AGREE = 0.03  # relative difference of pixel sizes up to which two bars agree
_POSSIBLE_NM = (5e-4, 5e3)  # px sizes of micrographs
_WIDE_TICK = 0.02  # of a bar's length: the ends are not known better
_NO_ENGINE = (
    "The image seems to have a scale bar, but nothing to read its label with is installed. Run `pip install rapidocr "
    "onnxruntime`, or give the pixel size."
)


@dataclass(frozen=True)
class ScaleBar:
    """What was found of a burnt-in scale bar; boxes are (y0, x0, y1, x1) in px, rows y0 to y1 - 1.

    Attributes
    ----------
    pixel_size_nm : NaN if none was read
    length_px, length_nm : of the bar; NaN if there is none, or its label was not read
    label : the text as read
    confidence : that the pixel size is right, 0 to 1
    box, label_box : of bar and label, None where not found
    furniture : boxes of bar, label, the box or footer strip behind them: no part of the micrograph
    warnings : sentences
    shape : of the image
    others : more scale bars of the image
    """

    pixel_size_nm: float = math.nan
    length_px: float = math.nan
    length_nm: float = math.nan
    label: str = ""
    confidence: float = 0.0
    box: Box | None = None
    label_box: Box | None = None
    furniture: tuple[Box, ...] = ()
    warnings: tuple[str, ...] = ()
    shape: tuple[int, int] = (0, 0)
    others: tuple["ScaleBar", ...] = ()

    @property
    def mask(self) -> BoolArray:
        """Pixels (y, x) of the furniture, to be left out of segmentation and statistics."""
        mask = np.zeros(self.shape, bool)
        for y0, x0, y1, x1 in self.furniture:
            mask[y0:y1, x0:x1] = True
        return mask


@dataclass(frozen=True)
class _Pair:
    """A bar, a line of text beside it, and what that says."""

    bar: Bar
    line: Line
    label: Label


def read_scale_bar(image: Array) -> ScaleBar:
    """Find the scale bar burnt into a micrograph and read it.

    Parameters
    ----------
    image : (y, x) grey, or (y, x, 3 or 4) in colour, of any real dtype and range

    Returns
    -------
    ScaleBar
        without a pixel size where there is no bar, or its label cannot be read beyond doubt; `warnings` say why

    Raises
    ------
    InputError
        if the array is no image
    """
    return _read(as_picture(image), engines())


def furniture_mask(image: Array) -> BoolArray:
    """Return the pixels (y, x) of scale bar, label and footer strip; the label need not be legible."""
    return read_scale_bar(image).mask


def _read(picture: Picture, readers: Mapping[str, Engine]) -> ScaleBar:
    unread: list[_Pair] = []
    for bars in _ways_to_find(picture):
        pairs = _pairs(picture, bars, readers)
        best = _one_per_label(picture, [p for p in pairs if p.label.length])
        if best:
            return _with_strip(picture, _agreed([_scale_bar(picture, p) for p in best]))
        unread = unread or pairs
    return _with_strip(picture, _unread(picture, unread, bool(readers)))


def _with_strip(picture: Picture, found: ScaleBar) -> ScaleBar:
    strip = footer_strip(picture)
    return replace(found, furniture=tuple(dict.fromkeys((*found.furniture, strip)))) if strip else found


def _ways_to_find(picture: Picture) -> Iterator[list[Bar]]:
    """Yield what may be bars: each way is tried where nothing was read with the ones before it."""
    yield find_bars(picture)[:_MOST_BARS]
    yield find_rulers(picture)[:_MOST_BARS]
    yield find_bars(picture.smoothed(_SMOOTHING_PX))[:_MOST_BARS]


def _pairs(picture: Picture, bars: list[Bar], readers: Mapping[str, Engine]) -> list[_Pair]:
    """Return each bar with each label that may be its own."""
    labels = _labels(picture, bars, readers)
    pairs = []
    for line, label in labels:
        for bar in bars:
            at = placing(line.box, bar)
            if at is not None:
                placed = replace(line, distance=at[0], place=at[1])
                if _fits(picture, bar, placed):
                    pairs.append(_Pair(bar, placed, label))
    return pairs


def _labels(picture: Picture, bars: list[Bar], readers: Mapping[str, Engine]) -> list[tuple[Line, Label]]:
    """Return the lines of text near bars that were read, those that are a length if there are any.

    How much ink makes a letter is tried in turn, until a length is read.
    """
    known: dict[Box, tuple[Line, Label | None]] = {}
    for least in INK:
        for bar in bars:
            for line in lines_near(picture, bar, least)[:_MOST_LINES]:
                read = any(label and label.length and _within(line.box, box) for box, (_, label) in known.items())
                is_bar = any(_alike(line.box, other.box) for other in bars)
                if not read and not is_bar and line.box not in known and len(known) < _MOST_READ:
                    known[line.box] = line, read_label(picture, bar, line, readers)
        if any(label and label.length and not label.refused for _, label in known.values()):
            break
    found = [(line, label) for line, label in known.values() if label]
    return [pair for pair in found if pair[1].length] or found


def _within(one: Box, other: Box) -> bool:
    return one[0] >= other[0] - 2 and one[1] >= other[1] - 2 and one[2] <= other[2] + 2 and one[3] <= other[3] + 2


def _alike(one: Box, other: Box) -> bool:
    """Return whether two boxes share most of their area."""
    shared = max(0, min(one[2], other[2]) - max(one[0], other[0])) * max(
        0, min(one[3], other[3]) - max(one[1], other[1])
    )
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return shared > 0.7 * (sum(areas) - shared)


def _fits(picture: Picture, bar: Bar, line: Line) -> bool:
    """Return whether a line may be the label of a bar: the bar is no stroke of its letters, and no box around more."""
    boxed = line.place == "inside" and bar.kind == "framed"
    return not _is_stroke(bar, line) and (not boxed or _alone(picture, bar, line))


def _is_stroke(bar: Bar, line: Line) -> bool:
    """Return whether a bar is a stroke of a letter of its label: within the line, or too short for it."""
    y0, x0, y1, x1 = bar.box
    v0, u0, v1, u1 = line.box
    pad = 0.25 * line.height
    within = v0 - pad <= y0 and y1 <= v1 + pad and u0 - pad <= x0 and x1 <= u1 + pad
    return within or bar.length < line.height


def _alone(picture: Picture, bar: Bar, line: Line) -> bool:
    """Return whether a label is all there is inside a bar, in its middle: a box holds a bar besides."""
    y0, x0, y1, _ = bar.box
    v0, u0, v1, u1 = line.box
    pad = max(2, round(0.15 * line.height))
    inside = picture.distance(bar.box, bar.colour) > 0.5 * abs(line.contrast)
    inside[max(0, v0 - pad - y0) : v1 + pad - y0, max(0, u0 - pad - x0) : u1 + pad - x0] = False
    edge = 3
    return not inside[edge:-edge, edge:-edge].any() and abs((v0 + v1) - (y0 + y1)) / 2 <= 0.35 * line.height


def _one_per_label(picture: Picture, pairs: list[_Pair]) -> list[_Pair]:
    """Return for each label the bar it belongs to, the most certain first."""
    kept: list[_Pair] = []
    bars = [p for p in pairs if not any(_is_ground(picture, p, other) for other in pairs)]
    longest = {p.line.box: max(q.bar.length for q in bars if q.line.box == p.line.box) for p in bars}
    for pair in sorted(bars, key=lambda p: _rank(p, longest[p.line.box]), reverse=True):
        taken = (_touch(pair.line.box, p.line.box) or _touch(pair.bar.box, p.bar.box) for p in kept)
        if not any(taken):
            kept.append(pair)
    return kept


def _is_ground(picture: Picture, one: _Pair, other: _Pair) -> bool:
    """Return whether one bar is the box, or a part of the box, that the other bar and the same label lie on."""
    (y0, x0, y1, x1), (v0, u0, v1, u1) = one.bar.box, other.bar.box
    reach = 3 + 0.3 * (y1 - y0)
    holds = y0 - reach < v0 and v1 < y1 + reach and x0 < u0 and u1 < x1
    under_label = _touch((y0 - 4, x0, y1 + 4, x1), other.line.box)
    if not holds or not under_label or not _touch(one.line.box, other.line.box):
        return False
    return bool(np.abs(ground_colour(picture, other.bar) - one.bar.colour).max() < 0.2)


def _rank(pair: _Pair, longest: int) -> float:
    """Return how likely a bar is to be the one a label belongs to; only that of one label compares."""
    certain = 0.0 if pair.label.refused else pair.label.confidence
    whole = {"segmented": 0.1, "interrupted": 0.2, "framed": 0.1}.get(pair.bar.kind, 0.0)
    return (
        certain + whole + 0.3 * min(1.0, pair.bar.contrast) + 0.3 * pair.bar.length / longest - 0.1 * pair.line.distance
    )


def _touch(one: Box, other: Box) -> bool:
    return min(one[2], other[2]) > max(one[0], other[0]) and min(one[3], other[3]) > max(one[1], other[1])


def _scale_bar(picture: Picture, pair: _Pair) -> ScaleBar:
    """Measure a bar whose label was read."""
    bar, line, label = pair.bar, pair.line, pair.label
    assert label.length is not None  # those are the pairs with a length
    ends = bar_ends(picture, bar)
    length_nm = math.nan if label.refused else label.length.nm
    warnings = _warnings(label, ends, length_nm / ends.length)
    confidence = 0.0 if label.refused else min(label.confidence, 0.5) if warnings else label.confidence
    return ScaleBar(
        pixel_size_nm=length_nm / ends.length,
        length_px=ends.length,
        length_nm=length_nm,
        label=label.text,
        confidence=confidence,
        box=bar.box,
        label_box=line.box,
        furniture=grounds(picture, bar, line),
        warnings=tuple(warnings),
        shape=picture.shape,
    )


def _warnings(label: Label, ends: Ends, size_nm: float) -> list[str]:
    against = "; ".join(label.doubts) or "not all of it is clear"
    if label.refused:
        return [f"The scale bar's label looks like '{label.text}', but {against}. Give the pixel size."]
    warnings = []
    if label.confidence < _SURE:
        warnings.append(f"The scale bar's label was read as '{label.text}', but {against}. Check it.")
    if not _POSSIBLE_NM[0] <= size_nm <= _POSSIBLE_NM[1]:
        warnings.append(
            f"The scale bar of {ends.length:.1f} px and its label '{label.text}' give {size_nm:.3g} nm for a pixel, "
            f"which no electron micrograph has. Check the label."
        )
    if ends.tick > _WIDE_TICK * ends.length + 1:
        warnings.append(
            f"The ticks at the ends of the scale bar are {ends.tick:.1f} px wide. It was measured between their "
            f"middles, {ends.length:.1f} px; from outside to outside it is {ends.length + ends.tick:.1f} px."
        )
    return warnings


def _agreed(found: list[ScaleBar]) -> ScaleBar:
    """Return the most certain of several scale bars; a warning if another one says something else."""
    sure = [bar for bar in found if not math.isnan(bar.pixel_size_nm)] or found
    first = sure[0]
    others = tuple(bar for bar in found if bar is not first)
    furniture = tuple(dict.fromkeys(box for bar in found for box in bar.furniture))
    differing = [
        bar for bar in sure[1:] if abs(bar.pixel_size_nm / first.pixel_size_nm - 1) > _AGREE and bar.confidence >= _SURE
    ]
    warnings, confidence = first.warnings, first.confidence
    if differing:
        also = ", ".join(f"'{bar.label}' {bar.pixel_size_nm:.4g} nm" for bar in differing)
        warnings += (
            f"The image has scale bars that disagree: '{first.label}' gives {first.pixel_size_nm:.4g} nm for a pixel, "
            f"{also}. Give the pixel size.",
        )
        confidence = min(confidence, 0.3)
    return replace(first, confidence=confidence, furniture=furniture, warnings=warnings, others=others)


def _unread(picture: Picture, pairs: list[_Pair], has_engine: bool) -> ScaleBar:
    """Return what is known where no label was read: nothing, or a bar with something like a label beside it."""
    clear = [p for p in pairs if p.bar.contrast >= _CLEAR_BAR]
    if not clear:
        return ScaleBar(shape=picture.shape)
    best = max(clear, key=lambda p: (p.bar.length > p.line.height * 2, -p.line.distance))
    bar, line = best.bar, best.line
    length = bar_ends(picture, bar).length
    warning = (
        f"The image seems to have a scale bar of {length:.1f} px, but what stands beside it was read as "
        f"'{best.label.text}', which is no length. Give the pixel size."
    )
    return ScaleBar(
        length_px=length,
        label=best.label.text,
        box=bar.box,
        label_box=line.box,
        furniture=grounds(picture, bar, line),
        warnings=(warning if has_engine else _NO_ENGINE,),
        shape=picture.shape,
    )
