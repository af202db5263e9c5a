"""Read a label: several pictures of the line and the shapes of its letters must agree."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tomoseg.micrographs.scale.bars import Ink
from tomoseg.micrographs.scale.lengths import Length, parse_label
from tomoseg.micrographs.scale.letters import Letters, find_letters, unit_letter
from tomoseg.micrographs.scale.picture import Box, Picture
from tomoseg.micrographs.scale.texts import GreyImage, Text, read_line

_CLEAR = 0.7  # an engine's certainty from which on it is not in doubt
_UNREAD = 0.5  # weight of a picture of the line in which no length was read
_FULL = 0.8  # ink from which on a pixel has the full colour of the letters
_INK_PERCENTILE = 97  # of the distance to the ground, in a box around a line: letters fill more than the rest of it
_LEAST_VARIANCE = 1e-3  # of the ground: compression leaves that much where nothing is seen
_RIM = 0.15  # of the height of a box around a line, above and below the letters
_SIZES = (48, 32, 64)  # px: heights of the pictures


@dataclass(frozen=True)
class Label:
    """A label as read.

    `confidence` 0 to 1; `doubts`: what speaks against it, and `refused` whether that is too much; `ink` of the
    letters.
    """

    length: Length
    confidence: float
    doubts: tuple[str, ...]
    refused: bool
    ink: Ink


@dataclass(frozen=True)
class _Vote:
    length: Length | None
    weight: float
    text: str


def read_label(picture: Picture, box: Box, found: Sequence[Text] = ()) -> Label | None:
    """Read the line of text in a box; None where it is no length. `found`: what it said when it was found."""
    ink, _ = _ink(picture, box)
    votes = _votes(_pictures(picture, box, ink)) + [_vote(text.text, text.certainty) for text in found]
    if not any(v.length for v in votes):
        return None
    return _judged(votes, find_letters(ink), letters_ink(picture, box))


def letters_ink(picture: Picture, box: Box) -> Ink:
    """Return the colour and the contrast of the letters in a box."""
    ink, contrast = _ink(picture, box)
    y0, x0, y1, x1 = box
    rows = _inner_rows(box)
    letters = picture.values[y0:y1, x0:x1][rows][ink[rows] > _FULL]
    return Ink(np.median(letters, axis=0).astype(np.float32), contrast)


def _ink(picture: Picture, box: Box) -> tuple[NDArray[np.float32], float]:
    """Return how much of each pixel (y, x) of a box is ink, 0 to 1, and the contrast of ink to the ground.

    It is ink as far as it differs from the ground, which is the middle of all values: letters fill less than half.
    """
    y0, x0, y1, x1 = box
    values = picture.values[y0:y1, x0:x1]
    far = np.abs(values - np.median(values, axis=(0, 1))).max(axis=2)
    contrast = max(float(np.percentile(far[_inner_rows(box)], _INK_PERCENTILE)), 1e-3)
    return np.asarray(np.clip(far / contrast, 0, 1), np.float32), contrast


def _inner_rows(box: Box) -> slice:
    """Return the rows of a box around a line that hold letters: others may reach over the edge of what is behind it."""
    height = box[2] - box[0]
    pad = round(_RIM * height) if height >= 8 else 0
    return slice(pad, height - pad)


def _pictures(picture: Picture, box: Box, ink: NDArray[np.float32]) -> list[GreyImage]:
    """Return pictures of a line: as it is, its ink dark on white, and that without what is faint."""
    y0, x0, y1, x1 = box
    values = picture.values[y0:y1, x0:x1]
    plain = np.clip(values[..., 0], 0, 1) if values.shape[2] == 1 else 1 - _share_of_ink(values, ink)
    strict = 1 - np.clip((ink - 0.35) / 0.4, 0, 1)
    return [_sized(p, size) for p, size in zip((plain, 1 - ink, strict), _SIZES, strict=True)]


def _share_of_ink(values: NDArray[np.float32], ink: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return where between ground and ink the colours (y, x, c) are, 0 to 1.

    All channels count, each by how much it differs, in parts of what it varies by in the ground.
    """
    letters, ground = values[ink > 0.7], values[ink < 0.3]
    if not len(letters) or not len(ground):
        return ink
    origin = np.median(ground, axis=0)
    step = np.median(letters, axis=0) - origin
    weight = step / (ground.var(axis=0) + _LEAST_VARIANCE)
    return np.asarray(np.clip((values - origin) @ weight / max(float(step @ weight), 1e-6), 0, 1), np.float32)


def _sized(values: NDArray[np.float32], height: int) -> GreyImage:
    """Return an image 0 to 1 of a line at a height in px, as grey levels."""
    width = max(8, round(values.shape[1] * height / values.shape[0]))
    image = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(np.clip(np.asarray(image) * 255, 0, 255).astype(np.uint8))


def _votes(pictures: list[GreyImage]) -> list[_Vote]:
    return [_vote(*read_line(line)) for line in pictures]


def _vote(text: str, certainty: float) -> _Vote:
    length = parse_label(text)
    if length is None:
        return _Vote(None, _UNREAD, text)
    return _Vote(length, min(1.0, certainty / _CLEAR) * (0.5 if length.repaired else 1.0), text)


def _judged(votes: list[_Vote], letters: Letters, ink: Ink) -> Label:
    """Choose the length most votes are for, and say what is against it."""
    votes = [replace(v, length=_with_true_unit(v.length, letters)) if v.length else v for v in votes]
    units = [v.length.unit for v in votes if v.length]
    votes = [replace(v, length=_usual_unit(v.length, votes)) if v.length else v for v in votes]
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
    if units.count("mm") > units.count("nm") > 0 and length.unit == "nm":
        doubts.append("the unit was read as mm too")
    if others:
        doubts.append(f"it was read as {' and '.join(repr(t) for t in sorted(others))} too")
    certainty = float(np.mean([v.weight for v in mine]))
    faults = 0.6 ** len(doubts) * (0.8 if _more_letters(length, letters) else 1.0)
    confidence = float(share * certainty * length.roundness * faults)
    return Label(length, confidence, tuple(doubts), refused or share < 0.5, ink)


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


def _usual_unit(length: Length, votes: list[_Vote]) -> Length:
    """Return the length with µm for pm where any picture was read so, and nm for mm: those are rare on scale bars."""
    units = [v.length.unit for v in votes if v.length]
    if length.unit == "pm" and "µm" in units:
        return replace(length, unit="µm")
    if length.unit == "mm" and "nm" in units:
        return replace(length, unit="nm")
    return length


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
    clean = len(letters.boxes) == len(digits) + (1 if length.unit == "Å" else 2)
    if clean and len(letters.points) == 1 and within not in ([], [point]):  # more are noise
        doubts.append("there is a decimal point where none was read")
        refused = True
    if length.unit == "pm" and shape != "p":
        doubts.append("it may be µm")
    if length.roundness < 0.5:
        doubts.append("scale bars are seldom that long")
    return doubts, refused
