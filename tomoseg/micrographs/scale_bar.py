"""The scale of a micrograph from its burnt-in scale bar: find the bar, measure it, read its label, or say why not."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tomoseg.arrays import Array, BoolArray
from tomoseg.micrographs.scale.bars import Bar, Ink, bars_between, find_bars
from tomoseg.micrographs.scale.ends import Ends, bar_ends, blends
from tomoseg.micrographs.scale.furniture import footer_strip, grounds
from tomoseg.micrographs.scale.labels import Label, letters_ink, read_label
from tomoseg.micrographs.scale.lengths import is_like_label, is_unit, parse_label
from tomoseg.micrographs.scale.pairing import Pair, pairs
from tomoseg.micrographs.scale.picture import Box, Picture, as_picture
from tomoseg.micrographs.scale.rulers import rulers_between
from tomoseg.micrographs.scale.texts import Text, find_texts, is_installed

_CORNER = (0.35, 0.55)  # height and width of a corner, in those of the image
_BARS_LOOKED_AROUND = 2
_AROUND, _AROUND_WIDTH = 0.25, 0.05  # how far around a bar its label is looked for, in its length and the image's width
_REACH = 5  # how far above and below a label bars are looked for, in heights of its letters
_TICK = 0.25  # least length of a ruler's ticks, in heights of the letters
_LIKE_LETTERS = 0.4  # contrast of a bar, in that of its label's letters, at least: they are one ink
_SMOOTHING_PX = 5  # along the rows, where no bar is found without: noise on thin lines
_HARDLY_SEEN = 0.2  # contrast of a bar below which it is in doubt, whatever that of its label
_FAINT = 0.2  # contrast of a bar that is in doubt for it, in that of the letters, at least
_SAME_ENDS_PX = 2
_CLEAR_BAR = 0.3  # contrast of a bar that is told of though its label was not read
_SURE = 0.6  # confidence below which a warning is given
_AGREE = 0.03  # relative difference of pixel sizes up to which two bars agree
_POSSIBLE_NM = (5e-4, 2e3)  # px sizes of micrographs
_WIDE_TICK = 0.03  # of a bar's length: the ends are not known better
_NO_ENGINE = (
    "Scale bars are not looked for, as what reads their labels is not installed. Run `pip install rapidocr "
    "openvino`, or give the pixel size."
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
    picture = as_picture(image)
    if not is_installed():
        return ScaleBar(warnings=(_NO_ENGINE,), shape=picture.shape)
    height, width = picture.shape
    texts = find_texts(picture, (0, 0, height, width))
    found = _read(picture, texts) or _read(picture, _between_bars(picture, texts))
    for windows in (_corners, _around_bars):
        if not found:
            closer = [text for window in windows(picture) for text in find_texts(picture, window)]
            found = _read(picture, closer) or _read(picture, _between_bars(picture, closer))
            texts += closer
    result = _agreed(found) if found else _unread(picture, texts)
    strip = footer_strip(picture, [text.box for text in texts])
    return replace(result, furniture=(*result.furniture, strip)) if strip else result


def _corners(picture: Picture) -> list[Box]:
    """Return the corners of an image, the lower ones first: small letters are not seen in the whole of a large one."""
    height, width = picture.shape
    down, right = round(_CORNER[0] * height), round(_CORNER[1] * width)
    rows, columns = ((height - down, height), (0, down)), ((0, right), (width - right, width))
    return [(y0, x0, y1, x1) for y0, y1 in rows for x0, x1 in columns]


def _around_bars(picture: Picture) -> list[Box]:
    """Return what is around the clearest bars: small letters on their own are seen only from near by."""
    clear = [bar for bar in find_bars(picture) if bar.contrast >= _CLEAR_BAR]
    windows = []
    for bar in clear[:_BARS_LOOKED_AROUND]:
        y0, x0, y1, x1 = bar.box
        reach = max(_AROUND * bar.length, _AROUND_WIDTH * picture.shape[1])
        windows.append(picture.clipped((y0 - reach, x0 - reach, y1 + reach, x1 + reach)))
    return windows


def _read(picture: Picture, texts: list[Text]) -> list[ScaleBar]:
    """Return the scale bars whose labels are among the texts, the most certain first."""
    said: dict[Box, list[Text]] = {}
    for text in _lengths(texts):
        near_by = _seen_near_by(picture, text)
        whole = _whole_box(text, near_by)
        said.setdefault(_widest_gap(picture, whole) or whole, []).extend([text, near_by] if near_by else [text])
    readings = {box: [text for text in found_as if text.certainty > 0] for box, found_as in said.items()}
    read = [(box, label) for box, found_as in readings.items() if (label := read_label(picture, box, found_as))]
    found: list[ScaleBar] = []
    for box, label in sorted(read, key=lambda r: -r[1].confidence):
        pair = _pair(picture, Text(box, "", 0.0).letters_box, label.ink)
        if pair and not any(_touch(box, bar.label_box) or _touch(pair.bar.box, bar.box) for bar in found):
            clear = _beside(box, pair.bar)
            found.append(_scale_bar(picture, pair, (clear != box and read_label(picture, clear)) or label))
    return found


def _between_bars(picture: Picture, texts: list[Text]) -> list[Text]:
    """Return the labels that were found in one box with the bar beside them, or the parts of one around them."""
    found = []
    for text in texts:
        box = _widest_gap(picture, text.box) if any(c.isdigit() for c in text.text) else None
        label = read_label(picture, box) if box else None
        if box and label:
            found.append(Text(box, label.length.text, 0.0))  # it is read once more: no reading of its own
    return found


def _widest_gap(picture: Picture, box: Box) -> Box | None:
    """Return the widest part of a line of text beside or between the bars in it; None where there are none."""
    y0, x0, y1, x1 = box
    bars = find_bars(Picture(picture.values[y0:y1, x0:x1]))
    clear = [b for b in bars if b.contrast >= _CLEAR_BAR and _is_dash(b, y1 - y0)]
    ends = [0, *(end for b in sorted(clear, key=lambda b: b.box[1]) for end in b.box[1::2]), x1 - x0]
    left, right = max(zip(ends[::2], ends[1::2], strict=True), key=lambda gap: gap[1] - gap[0])
    return (y0, x0 + left, y1, x0 + right) if clear and right - left > y1 - y0 else None


def _is_dash(bar: Bar, height: int) -> bool:
    """Return whether a bar in a line of text of a height is a flat one in the middle of it, no stroke of a letter."""
    y0, _, y1, _ = bar.box
    in_middle = abs(y0 + y1 - height) / 2 <= 0.2 * height
    return bar.kind == "solid" and in_middle and 3 * bar.height < height < 1.5 * bar.length


def _beside(box: Box, bar: Bar) -> Box:
    """Return the part of a label's box beside a bar: a tick at the bar's end looks like a letter."""
    y0, x0, y1, x1 = box
    v0, u0, v1, u1 = bar.box
    if v1 <= y0 or y1 <= v0:
        return box
    if u0 < x0 < u1 + 4 < x1:
        return y0, u1 + 4, y1, x1
    return (y0, x0, y1, u0 - 4) if x0 < u0 - 4 < x1 < u1 else box


def _seen_near_by(picture: Picture, text: Text) -> Text | None:
    """Return the label, the widest, that is read where a text is, if one looks from near by."""
    y0, x0, y1, x1 = text.box
    height = y1 - y0
    window = picture.clipped((y0 - height, x0 - 2.5 * height, y1 + height, x1 + 2.5 * height))
    seen = [other for other in _lengths(find_texts(picture, window)) if _touch(text.box, other.box)]
    return max(seen, key=_width, default=None)


def _whole_box(text: Text, near_by: Text | None) -> Box:
    """Return the box of a label, or the wider one seen from near by: from far, its ends may be missed.

    A box that reaches into a bar beside the label is wider too, but says the same.
    """
    if near_by is None:
        return text.box
    return min(text, near_by, key=_width).box if _nm(near_by) == _nm(text) else near_by.box


def _width(text: Text) -> int:
    return text.box[3] - text.box[1]


def _nm(text: Text) -> float | None:
    length = parse_label(text.text)
    return length.nm if length else None


def _lengths(texts: list[Text]) -> list[Text]:
    """Return the texts that are lengths, alone or with their neighbour in the line."""
    texts = sorted(filter(_is_word, texts), key=lambda text: text.box[1])
    whole, parts = list[Text](), set[Box]()
    for i, one in enumerate(texts):
        for other in texts[i + 1 :]:
            if _next_to(one.box, other.box) and parse_label(one.text + other.text):
                both = Text(_around(one.box, other.box), one.text + other.text, min(one.certainty, other.certainty))
                whole.append(both)
                parts |= {one.box, other.box}
    return whole + [text for text in texts if parse_label(text.text) and text.box not in parts]


def _is_word(text: Text) -> bool:
    """Return whether a text is more than a bar taken for a dash."""
    return any(letter.isalnum() for letter in text.text)


def _next_to(one: Box, other: Box) -> bool:
    """Return whether two boxes are neighbours in one line of text."""
    tall = min(one[2] - one[0], other[2] - other[0])
    level = min(one[2], other[2]) - max(one[0], other[0]) > 0.5 * tall
    return level and -0.5 * tall < other[1] - one[3] < tall


def _around(one: Box, other: Box) -> Box:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def _touch(one: Box, other: Box | None) -> bool:
    if other is None:
        return False
    return min(one[2], other[2]) > max(one[0], other[0]) and min(one[3], other[3]) > max(one[1], other[1])


def _pair(picture: Picture, line: Box, ink: Ink) -> Pair | None:
    """Return the bar a line of text belongs to, if there is one that stands out as the letters do.

    Each way to find bars is tried where those before it find none. What a later way finds is in doubt, unless an
    earlier one saw the same ends, and so is what hardly stands out, or is less likely than what is fainter.
    """
    seen: list[Bar] = []
    faint: list[Pair] = []
    for bars in _ways_to_find(picture, line, ink):
        found = pairs(picture, bars, line, ink)
        clear = [p for p in found if _is_as_clear(p, ink)]
        if clear:
            seen_twice = not seen or any(_has_ends(clear[0].bar, bar) for bar in seen)
            sure = clear[0] is found[0] and seen_twice and clear[0].bar.contrast >= _HARDLY_SEEN
            sure = sure and not any(_is_edge_of(clear[0].bar, bar) for bar in bars)
            return clear[0] if sure else replace(clear[0], rivalled=True)
        seen += bars
        faint += found[:1]
    faint = [p for p in faint if p.bar.contrast >= _FAINT * ink.contrast]
    return replace(max(faint, key=lambda p: p.bar.contrast), rivalled=True) if faint else None


def _is_edge_of(one: Bar, other: Bar) -> bool:
    """Return whether a bar is the blurred edge of a clearer one with other ends, right above or below it."""
    touch = min(one.box[2], other.box[2]) == max(one.box[0], other.box[0])
    within = other.box[1] <= one.box[1] and one.box[3] <= other.box[3]
    return touch and within and other.contrast > one.contrast and other.length - one.length > _SAME_ENDS_PX


def _has_ends(one: Bar, other: Bar) -> bool:
    """Return whether two bars lie in the same rows and have the same ends, nearly."""
    rows = min(one.box[2], other.box[2]) > max(one.box[0], other.box[0])
    return rows and all(abs(one.box[i] - other.box[i]) <= _SAME_ENDS_PX for i in (1, 3))


def _ways_to_find(picture: Picture, line: Box, ink: Ink) -> Iterator[list[Bar]]:
    height = line[2] - line[0]
    rows = line[0] - _REACH * height, line[2] + _REACH * height
    yield bars_between(picture, rows, ink) + rulers_between(picture, rows, ink, _TICK * height)
    yield bars_between(picture.smoothed(_SMOOTHING_PX), rows, ink)


def _is_as_clear(pair: Pair, ink: Ink) -> bool:
    """Return whether a bar stands out from the ground about as much as the letters do, unless they stand on it."""
    within = pair.place == "inside" and pair.bar.kind == "framed"
    return within or pair.bar.contrast >= _LIKE_LETTERS * ink.contrast


def _scale_bar(picture: Picture, pair: Pair, label: Label) -> ScaleBar:
    """Measure a bar whose label was read; there is no pixel size where the label is in doubt, or it is impossible."""
    ends = bar_ends(picture, pair.bar)
    label = label if pair.rivalled else _with_possible_unit(label, ends.length)
    size = label.length.nm / ends.length
    refusal = _refusal(label, ends, size)
    warnings = [refusal] if refusal else _warnings(label, ends, pair.rivalled, blends(picture, pair.bar, ends))
    confidence = 0.0 if refusal else min(label.confidence, 0.5) if warnings else label.confidence
    return ScaleBar(
        pixel_size_nm=math.nan if refusal else size,
        length_px=ends.length,
        length_nm=math.nan if refusal else label.length.nm,
        label=label.length.text,
        confidence=confidence,
        box=pair.bar.box,
        label_box=pair.line,
        furniture=grounds(picture, pair.bar, pair.line),
        warnings=tuple(warnings),
        shape=picture.shape,
    )


def _with_possible_unit(label: Label, length_px: float) -> Label:
    """Return the label, in doubt and with nm for mm where no electron micrograph is as coarse as mm would make it."""
    if label.length.unit != "mm" or label.length.nm / length_px <= _POSSIBLE_NM[1]:
        return label
    doubt = f"'{label.length.text}' would be {label.length.nm / length_px:.3g} nm for a pixel: nm was taken"
    return replace(
        label,
        length=replace(label.length, unit="nm"),
        confidence=0.5 * label.confidence,
        doubts=(*label.doubts, doubt),
    )


def _refusal(label: Label, ends: Ends, size_nm: float) -> str:
    """Return why a scale must not be used, or ""."""
    text = label.length.text
    if label.refused:
        return f"The scale bar's label looks like '{text}', but {_against(label)}. Give the pixel size."
    if not _POSSIBLE_NM[0] <= size_nm <= _POSSIBLE_NM[1]:
        return (
            f"The scale bar of {ends.length:.1f} px and its label, read as '{text}', give {size_nm:.3g} nm for a "
            f"pixel, which no electron micrograph has. Give the pixel size."
        )
    return ""


def _against(label: Label) -> str:
    return "; ".join(label.doubts) or "not all of it is clear"


def _warnings(label: Label, ends: Ends, rivalled: bool, blended: bool) -> list[str]:
    """Return what is to be checked of a scale that can be used."""
    text, warnings = label.length.text, []
    if label.confidence < _SURE:
        warnings.append(f"The scale bar's label was read as '{text}', but {_against(label)}. Check it.")
    if rivalled:
        warnings.append(
            f"More than one bar may belong to the label '{text}', or it has parts that were not found. One of "
            f"{ends.length:.1f} px was taken. Check it."
        )
    if blended:
        warnings.append(
            f"The scale bar of {ends.length:.1f} px looks like what is above or below it at one of its ends, which may "
            f"be another's. Check it."
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
    least = min(_SURE, first.confidence)
    differing = [
        bar for bar in sure[1:] if abs(bar.pixel_size_nm / first.pixel_size_nm - 1) > _AGREE and bar.confidence >= least
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


def _unread(picture: Picture, texts: list[Text]) -> ScaleBar:
    """Return what is known where no scale bar was read: nothing, or a label without a bar or a bar without one."""
    for text in texts:
        if parse_label(text.text) and text.certainty >= _SURE:
            warning = (
                f"The image says '{text.text}', but no scale bar was found beside it. Give the pixel size, if that is "
                f"the label of one."
            )
            return _lone_label(picture, text, warning)
        is_part = _is_number(text) or (text.certainty >= _SURE and is_unit(text.text))
        pair = _pair(picture, text.letters_box, letters_ink(picture, text.box)) if is_part else None
        if pair and pair.bar.contrast >= _CLEAR_BAR:
            length = bar_ends(picture, pair.bar).length
            warning = (
                f"The image seems to have a scale bar of {length:.1f} px, but what stands beside it was read as "
                f"'{text.text}', which is no length. Give the pixel size."
            )
            return ScaleBar(
                length_px=length,
                label=text.text,
                box=pair.bar.box,
                label_box=pair.line,
                furniture=grounds(picture, pair.bar, pair.line),
                warnings=(warning,),
                shape=picture.shape,
            )
    for text in texts:
        if is_like_label(text.text) and text.certainty >= _SURE:
            warning = (
                f"The image says '{text.text}', which is no length but may be the label of a scale bar. No bar was "
                f"found beside it. Give the pixel size, if it is."
            )
            return _lone_label(picture, text, warning)
    return ScaleBar(shape=picture.shape)


def _lone_label(picture: Picture, text: Text, warning: str) -> ScaleBar:
    return ScaleBar(
        label=text.text,
        label_box=text.letters_box,
        furniture=(text.box,),
        warnings=(warning,),
        shape=picture.shape,
    )


def _is_number(text: Text) -> bool:
    """Return whether a text may be a label that was misread: a digit, and letters."""
    return text.certainty >= _SURE and any(c.isdigit() for c in text.text) and any(c.isalpha() for c in text.text)
