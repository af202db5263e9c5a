"""Read a label: several pictures of the line, several engines, and the shapes of the letters must agree."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tomoseg.micrographs.scale.bars import Bar
from tomoseg.micrographs.scale.engines import Engine, GreyImage
from tomoseg.micrographs.scale.lengths import Length, parse_label
from tomoseg.micrographs.scale.letters import Letters, find_letters, unit_letter
from tomoseg.micrographs.scale.lines import Line
from tomoseg.micrographs.scale.picture import Box, Picture

_CLEAR = 0.7  # an engine's certainty from which on it is not in doubt
_LEAST_LETTERS = 3  # of a label
_UNREAD = 0.5  # weight of a picture of the line in which no length was read
_ENOUGH = 0.8  # confidence with which no other engine is asked
_BESIDE = 1.7  # heights to each side of a line in which there may be more of it
_SIZES = (48, 32, 64)  # px: heights of the pictures


@dataclass(frozen=True)
class Label:
    """A label as read.

    `length` is None where the text is no length; `confidence` 0 to 1; `doubts`: what speaks against it, and `refused`
    whether that is too much.
    """

    text: str
    length: Length | None
    confidence: float
    doubts: tuple[str, ...] = ()
    refused: bool = False


@dataclass(frozen=True)
class _Vote:
    length: Length | None
    weight: float
    text: str
    certainty: float


def read_label(picture: Picture, bar: Bar, line: Line, engines: Mapping[str, Engine]) -> Label | None:
    """Read a line; None where no engine sees as many letters as the shortest label has."""
    crop, ink = _ink(picture, bar, line, 0.25)
    pictures = _pictures(picture, bar, line, crop, ink)
    _, wider = _ink(picture, bar, line, _BESIDE)
    pictures.append(_sized(1 - wider, _SIZES[0]))
    letters = find_letters(ink)
    votes: list[_Vote] = []
    label: Label | None = None
    if not engines:
        return Label("", None, 0.0) if len(letters.boxes) >= _LEAST_LETTERS else None
    for engine in engines.values():
        votes += _votes(engine, pictures)
        if not any(v.length for v in votes):
            break
        label = _judged(votes, letters)
        if not label.doubts and label.confidence > _ENOUGH:
            break
    return label or _no_length(votes)


def _no_length(votes: list[_Vote]) -> Label | None:
    """Return the text that was read with the most certainty, if it looks like one."""
    texts = [v for v in votes if len(re.findall(r"\w", v.text)) >= _LEAST_LETTERS and v.certainty >= _CLEAR]
    return Label(max(texts, key=lambda v: v.certainty).text, None, 0.0) if texts else None


def _ink(picture: Picture, bar: Bar, line: Line, side: float) -> tuple[Box, NDArray[np.float32]]:
    """Return a box larger than the line, `side` heights to each side, and how much of each pixel (y, x) is ink."""
    y0, x0, y1, x1 = line.box
    pad = max(2, round(0.25 * line.height))
    box = picture.clipped((y0 - pad, x0 - side * line.height - 2, y1 + pad, x1 + side * line.height + 2))
    ink = picture.ink(box, line.colour, line.contrast)
    for v0, u0, v1, u1 in bar.parts:
        if not (v0 <= y0 and y1 <= v1):
            ink[
                max(0, v0 - 1 - box[0]) : max(0, v1 + 1 - box[0]), max(0, u0 - 1 - box[1]) : max(0, u1 + 1 - box[1])
            ] = 0
    return box, ink


def _pictures(picture: Picture, bar: Bar, line: Line, box: Box, ink: NDArray[np.float32]) -> list[GreyImage]:
    """Return pictures of a line, dark on white: its ink, that without what is faint, and as it is, in three sizes."""
    y0, x0, y1, x1 = box
    grey = picture.values[y0:y1, x0:x1, 0]
    towards = float(line.colour[0]) - float(np.median(grey[ink < 0.3])) if (ink < 0.3).any() else 1.0
    if abs(towards) > 0.1:
        plain = np.clip((grey - float(line.colour[0])) / -towards, 0, 1.2) / 1.2
        plain[(ink == 0) & (plain < 0.3)] = 1.0  # the bar
    else:
        plain = 1 - np.sqrt(ink)
    strict = 1 - np.clip((ink - 0.35) / 0.4, 0, 1)
    return [_sized(p, size) for p, size in zip((1 - ink, strict, plain), _SIZES, strict=True)]


def _sized(values: NDArray[np.float32], height: int) -> GreyImage:
    """Return an image 0 to 1 of a line at a height in px, as grey levels."""
    width = max(8, round(values.shape[1] * height / values.shape[0]))
    image = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(np.clip(np.asarray(image) * 255, 0, 255).astype(np.uint8))


def _votes(engine: Engine, pictures: list[GreyImage]) -> list[_Vote]:
    """Return what an engine reads in each picture of a line; what is no length in the first two is none in a third.

    The last picture shows more to both sides. Where it is a length it counts as much as all others: then the line had
    been cut short.
    """
    readings = engine(pictures[:2])
    if any(parse_label(text) for text, _ in readings):
        readings += engine(pictures[2:-1])
        text, certainty = engine(pictures[-1:])[0]
        readings += [(text, certainty)] * len(readings) if parse_label(text) else []
    votes = []
    for text, certainty in readings:
        length = parse_label(text)
        weight = min(1.0, certainty / _CLEAR) * (0.5 if length and length.repaired else 1.0) if length else _UNREAD
        votes.append(_Vote(length, weight, text, certainty))
    return votes


def _judged(votes: list[_Vote], letters: Letters) -> Label:
    """Choose the length most votes are for, and say what is against it."""
    votes = [replace(v, length=_with_true_unit(v.length, letters)) if v.length else v for v in votes]
    if any(v.length and v.length.unit == "µm" for v in votes):
        votes = [replace(v, length=_in_microns(v.length)) if v.length else v for v in votes]
    weights: dict[float, float] = {}
    for vote in votes:
        if vote.length:
            key = round(vote.length.nm, 9)
            weights[key] = weights.get(key, 0.0) + vote.weight
    best = max(weights, key=lambda key: weights[key])
    mine = [v for v in votes if v.length and round(v.length.nm, 9) == best]
    length = max(mine, key=lambda v: v.weight).length
    assert length is not None  # those are the votes for a length
    share = weights[best] / sum(v.weight for v in votes)
    others = {v.text for v in votes if v.length and round(v.length.nm, 9) != best}
    doubts, refused = _doubts(length, letters)
    if others:
        doubts.append(f"it was read as {' and '.join(repr(t) for t in sorted(others))} too")
    certainty = float(np.mean([v.weight for v in mine]))
    faults = 0.6 ** len(doubts) * (0.8 if _more_letters(length, letters) else 1.0)
    confidence = float(share * certainty * length.roundness * faults)
    return Label(length.text, length, confidence, tuple(doubts), refused or share < 0.5)


def _with_true_unit(length: Length, letters: Letters) -> Length:
    """Return the length with µm for pm where the letter is open at the top, nm for mm where it is narrow."""
    if length.unit == "pm" and _unit_shape(length, letters) == "µ":
        return replace(length, unit="µm")
    if length.unit == "mm" and _is_narrow(length, letters):
        return replace(length, unit="nm")
    return length


def _is_narrow(length: Length, letters: Letters) -> bool:
    """Return whether the first letter of a unit is clearly narrower than the second: nm, not mm."""
    digits = len(length.number.replace(".", ""))
    if len(letters.boxes) != digits + 2:
        return False
    first, second = (int(x1 - x0) for _, x0, _, x1 in letters.boxes[digits:])
    return first < 0.8 * second


def _in_microns(length: Length) -> Length:
    """Return the length with µm for pm: pictures of the same letters were read so, and hardly a bar is that short."""
    return replace(length, unit="µm") if length.unit == "pm" else length


def _more_letters(length: Length, letters: Letters) -> bool:
    """Return whether there are more letters in the line than were read; a busy ground does that too."""
    return len(letters.boxes) > len(length.number.replace(".", "")) + (1 if length.unit == "Å" else 2)


def _unit_shape(length: Length, letters: Letters) -> str:
    """Return what the unit's first letter looks like; "" unless as many letters stand there as were read."""
    digits = len(length.number.replace(".", ""))
    if length.unit == "Å" or len(letters.boxes) != digits + 2:
        return ""
    return unit_letter(letters, digits)


def _doubts(length: Length, letters: Letters) -> tuple[list[str], bool]:
    """Return what the number and the letters' shapes have against a length, and whether it must not be used."""
    doubts, refused = [], False
    if length.doubt:
        doubts.append(length.doubt)
        refused = True
    shape = _unit_shape(length, letters)
    if (shape, length.unit) in (("n", "µm"), ("n", "pm"), ("µ", "nm")):
        doubts.append(f"the first letter of the unit looks like {shape}")
        refused = True
    digits = length.number.replace(".", "")
    point = length.number.find(".")
    within = [n for n in letters.points if n < len(digits)]
    if within and within != [point] and len(letters.boxes) >= len(digits):
        doubts.append("there is a decimal point where none was read")
        refused = True
    if length.unit == "pm" and shape != "p":
        doubts.append("it may be µm")
    if length.roundness < 0.5:
        doubts.append("scale bars are seldom that long")
    return doubts, refused
