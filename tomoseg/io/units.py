"""Units of length and angle as microscopes write them, and the check of a pixel size found in a file."""

import math
import re
import unicodedata
from dataclasses import dataclass

from tomoseg.errors import shown
from tomoseg.lengths import is_possible

UNKNOWN = "unknown"

# nm per unit, by the unit's name in lower case. Names that differ only by case are kept apart below.
_NM_PER_UNIT: dict[str, float] = {
    "pm": 1e-3,
    "picometer": 1e-3,
    "å": 0.1,
    "ang": 0.1,
    "angstrom": 0.1,
    "ångström": 0.1,
    "nm": 1.0,
    "nanometer": 1.0,
    "um": 1e3,
    "µm": 1e3,
    "micron": 1e3,
    "micrometer": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "cm": 1e7,
    "centimeter": 1e7,
    "m": 1e9,
    "meter": 1e9,
}
_DEGREES_PER_UNIT: dict[str, float] = {
    "°": 1.0,
    "deg": 1.0,
    "degree": 1.0,
    "rad": 180.0 / math.pi,
    "radian": 180.0 / math.pi,
    "mrad": 0.18 / math.pi,
}
# Pixels whose two sides differ by more than this are not square; below it is rounding in the header.
_SQUARE_TOLERANCE = 0.01


@dataclass(frozen=True)
class PixelSize:
    """A pixel size in nm and where it came from; `nm` is None where unknown, and `doubt` then says why.

    `sides_nm` are height and width of pixels that are not square.
    """

    nm: float | None = None
    source: str = UNKNOWN
    doubt: str = ""
    sides_nm: tuple[float, float] | None = None


def _normal(unit: str | None) -> str:
    """Return the unit's name as it stands in the tables: one spelling of µ and Å, no brackets, no plural.

    ImageJ writes characters that are not ASCII as a backslash, u and four digits.
    """
    text = re.sub(r"\\[uU]([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), unit or "")
    text = unicodedata.normalize("NFC", text).strip().strip("[]").replace("_", "")
    text = text.replace("μ", "µ").replace("\u212b", "Å").strip()  # Greek mu, Ångström sign
    if text == "A":
        return "å"
    text = text.lower()
    if text.endswith(("metre", "metres")):
        text = text.replace("metre", "meter")
    return text[:-1] if len(text) > 3 and text.endswith("s") else text


def length_to_nm(value: float, unit: str | None) -> float | None:
    """Return a length in nm; None where the unit is missing, unknown or not a length (1/nm, px).

    >>> length_to_nm(0.018, "µm")
    18.0
    """
    factor = _NM_PER_UNIT.get(_normal(unit))
    return None if factor is None else value * factor


def degrees_per(unit: str | None) -> float | None:
    """Return how many degrees one `unit` is; None where it is missing or not an angle."""
    return _DEGREES_PER_UNIT.get(_normal(unit))


def checked_pixel_size(
    size_yx: tuple[float, float],
    unit_yx: tuple[str | None, str | None],
    where: str,
    placeholder_nm: float | None = None,
) -> PixelSize:
    """Return the pixel size in nm that a file gives as height and width, each with its unit, or why it is not used.

    It is unknown without a unit of length, or if it is zero, negative, NaN, not square, or the value that programs
    write for an unknown size (`placeholder_nm`: 1 Å in MRC). `where` says in messages what holds it ("MRC header").
    """

    def unknown(reason: str) -> PixelSize:
        return PixelSize(doubt=f"the pixel size in the {where} is not used: {reason}")

    (y, x), (unit_y, unit_x) = size_yx, unit_yx
    shown_size = f"{y:g} x {x:g}" if y != x else f"{x:g}"
    if not (math.isfinite(y) and math.isfinite(x)) or y <= 0 or x <= 0:
        return unknown(f"{shown_size} is not a size")
    height, width = length_to_nm(y, unit_y), length_to_nm(x, unit_x)
    if height is None or width is None:
        given = shown((unit_x or unit_y or "").strip().strip("[]"))
        return unknown(
            f"{shown_size} has the unit '{given}', which is not a length" if given else f"{shown_size} has no unit"
        )
    if not (is_possible(height) and is_possible(width)):
        return unknown(f"{shown_size} {(unit_x or '').strip()} cannot be the size of a pixel")
    if abs(height - width) > _SQUARE_TOLERANCE * max(height, width):
        doubt = f"the pixels are not square according to the {where} ({height:.4g} nm high, {width:.4g} nm wide)"
        return PixelSize(doubt=doubt, sides_nm=(height, width))
    if placeholder_nm is not None and math.isclose(width, placeholder_nm, rel_tol=1e-6):
        return unknown(f"{width:g} nm per pixel is the placeholder that programs write for an unknown size")
    return PixelSize(width, where)
