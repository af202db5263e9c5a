"""The scale of a micrograph from its burnt-in scale bar: find the bar, measure it, read its label, or say why not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tomoseg.arrays import Array, BoolArray
from tomoseg.micrographs.scale.bars import Bar, find_bars
from tomoseg.micrographs.scale.ends import Ends, bar_ends
from tomoseg.micrographs.scale.engines import Engine, engines
from tomoseg.micrographs.scale.furniture import grounds
from tomoseg.micrographs.scale.labels import Label, read_label
from tomoseg.micrographs.scale.lines import Line, lines_near, placing
from tomoseg.micrographs.scale.picture import Box, Picture, as_picture

_MOST_BARS = 24  # looked at
_MOST_LINES = 4  # read for each bar
_MOST_READ = 20  # lines in all
_SURE = 0.6  # confidence below which a warning is given
_AGREE = 0.03  # relative difference of pixel sizes up to which two bars agree
_POSSIBLE_NM = (5e-4, 5e3)  # px sizes of micrographs
_WIDE_TICK = 0.02  # of a bar's length: the ends are not known better
NO_ENGINE = (
    "There may be a scale bar, but no engine to read its label is installed: `pip install rapidocr onnxruntime`, or "
    "install the program tesseract, or give the pixel size."
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
class _Candidate:
    """A bar with a line of text beside it, and what that says, if it was read."""

    bar: Bar
    line: Line
    label: Label | None


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
    return _read(as_picture(image), engines()).mask


def _read(picture: Picture, readers: Mapping[str, Engine]) -> ScaleBar:
    candidates = _candidates(picture, readers)
    read = [c for c in candidates if c.label]
    best = _one_per_label(read)
    if not best:
        return _unread(picture, candidates, bool(readers))
    found = [_scale_bar(picture, c) for c in best]
    return _agreed(found)


def _candidates(picture: Picture, readers: Mapping[str, Engine]) -> list[_Candidate]:
    """Return bars with lines of text beside them, each line read once."""
    known: dict[Box, Label | None] = {}
    found = []
    for bar in find_bars(picture)[:_MOST_BARS]:
        for line in lines_near(picture, bar)[:_MOST_LINES]:
            longer = _longer(line, known)
            at = placing(longer or line.box, bar)
            if at is None:
                continue
            placed = replace(line, box=longer or line.box, distance=at[0], place=at[1])
            if not _fits(picture, bar, placed):
                continue
            if placed.box not in known:
                if len(known) >= _MOST_READ:
                    continue
                known[placed.box] = read_label(picture, bar, placed, readers)
            found.append(_Candidate(bar, placed, known[placed.box]))
    return found


def _fits(picture: Picture, bar: Bar, line: Line) -> bool:
    """Return whether a line may be the label of a bar: the bar is no stroke of its letters, and no box around more."""
    boxed = line.place == "inside" and bar.kind == "framed"
    return not _is_stroke(bar, line) and (not boxed or _alone(picture, bar, line))


def _is_stroke(bar: Bar, line: Line) -> bool:
    """Return whether a bar is a stroke of a letter of its label: within the line, or too short for it."""
    y0, x0, y1, x1 = bar.box
    v0, u0, v1, u1 = line.box
    pad = 0.15 * line.height
    within = v0 - pad <= y0 and y1 <= v1 + pad and u0 - pad <= x0 and x1 <= u1 + pad
    return within or bar.length < line.height


def _alone(picture: Picture, bar: Bar, line: Line) -> bool:
    """Return whether a label is all there is inside a bar, in its middle: a box holds a bar besides."""
    y0, x0, y1, x1 = bar.box
    v0, u0, v1, u1 = line.box
    pad = max(2, round(0.15 * line.height))
    inside = picture.ink(bar.box, line.colour, line.contrast) > 0.5
    inside[max(0, v0 - pad - y0) : v1 + pad - y0, max(0, u0 - pad - x0) : u1 + pad - x0] = False
    edge = 3
    return not inside[edge:-edge, edge:-edge].any() and abs((v0 + v1) - (y0 + y1)) / 2 <= 0.35 * line.height


def _one_per_label(candidates: list[_Candidate]) -> list[_Candidate]:
    """Return for each label the bar it belongs to, the most certain first."""
    kept: list[_Candidate] = []
    inner = [c for c in candidates if not any(_is_box_of(c, other) for other in candidates)]
    for candidate in sorted(inner, key=_rank, reverse=True):
        taken = (_touch(candidate.line.box, c.line.box) or _touch(candidate.bar.box, c.bar.box) for c in kept)
        if not any(taken):
            kept.append(candidate)
    return kept


def _is_box_of(one: _Candidate, other: _Candidate) -> bool:
    """Return whether one bar is the box, or a part of the box, that holds another bar and its label."""
    (y0, x0, y1, x1), (v0, u0, v1, u1) = one.bar.box, other.bar.box
    reach = 0.3 * (y1 - y0)
    holds = y0 - reach < v0 and v1 < y1 + reach and x0 <= u0 and u1 <= x1 and other.bar.kind != "framed"
    return one.bar.kind == "framed" and holds and _touch(one.line.box, other.line.box)


def _rank(candidate: _Candidate) -> float:
    label, line, bar = candidate.label, candidate.line, candidate.bar
    whole = {"segmented": 0.3, "interrupted": 0.3}.get(bar.kind, 0.0)
    certain = label.confidence if label and not label.refused else 0.0
    return certain + whole - 0.1 * line.distance + 0.3 * min(1.0, bar.contrast)


def _longer(line: Line, known: Mapping[Box, Label | None]) -> Box | None:
    """Return the box of a longer line that holds this one and was read as a label."""
    return next((box for box, label in known.items() if label and _within(line.box, box)), None)


def _within(one: Box, other: Box) -> bool:
    return one[0] >= other[0] - 2 and one[1] >= other[1] - 2 and one[2] <= other[2] + 2 and one[3] <= other[3] + 2


def _touch(one: Box, other: Box) -> bool:
    return min(one[2], other[2]) > max(one[0], other[0]) and min(one[3], other[3]) > max(one[1], other[1])


def _scale_bar(picture: Picture, candidate: _Candidate) -> ScaleBar:
    """Measure a bar whose label was read."""
    bar, line, label = candidate.bar, candidate.line, candidate.label
    assert label is not None  # it was read
    ends = bar_ends(picture, bar)
    refused = label.refused
    size = math.nan if refused else label.length.nm / ends.length
    warnings = _warnings(label, ends, size)
    return ScaleBar(
        pixel_size_nm=size,
        length_px=ends.length,
        length_nm=math.nan if refused else label.length.nm,
        label=label.length.text,
        confidence=0.0 if refused else min(label.confidence, 0.5) if warnings else label.confidence,
        box=bar.box,
        label_box=line.box,
        furniture=grounds(picture, bar, line),
        warnings=tuple(warnings),
        shape=picture.shape,
    )


def _warnings(label: Label, ends: Ends, size_nm: float) -> list[str]:
    against = "; ".join(label.doubts) or "the engine is not sure"
    if label.refused:
        return [f"The scale bar's label looks like '{label.length.text}', but {against}. Give the pixel size."]
    warnings = []
    if label.confidence < _SURE:
        warnings.append(f"The scale bar's label was read as '{label.length.text}', but {against}. Check it.")
    if not _POSSIBLE_NM[0] <= size_nm <= _POSSIBLE_NM[1]:
        warnings.append(
            f"The scale bar of {ends.length:.1f} px and its label '{label.length.text}' give {size_nm:.3g} nm for a "
            f"pixel, which no electron micrograph has. Check the label."
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
    warnings = first.warnings
    confidence = first.confidence
    differing = [
        bar
        for bar in sure[1:]
        if abs(bar.pixel_size_nm / first.pixel_size_nm - 1) > _AGREE and bar.confidence >= _SURE
    ]
    if differing:
        warnings += (
            f"The image has scale bars that disagree: '{first.label}' gives {first.pixel_size_nm:.4g} nm for a pixel, "
            + ", ".join(f"'{bar.label}' {bar.pixel_size_nm:.4g} nm" for bar in differing)
            + ". Give the pixel size.",
        )
        confidence = min(confidence, 0.3)
    return replace(first, confidence=confidence, furniture=furniture, warnings=warnings, others=others)


def _unread(picture: Picture, candidates: list[_Candidate], has_engine: bool) -> ScaleBar:
    """Return what is known where no label was read: nothing, or a bar that something like a label stands by."""
    return ScaleBar(shape=picture.shape)
