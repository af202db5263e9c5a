"""What a label says: a number and a unit of length, and whether that is a length scale bars have."""

import math
import re
from dataclasses import dataclass

from tomoseg.io.units import length_to_nm

# What engines make of the letters of labels. Greek mu and micro sign are the same letter.
_SAME_LETTERS = str.maketrans(
    {
        "μ": "µ",
        "\u212b": "Å",
        "À": "Å",
        "Á": "Å",
        "Â": "Å",
        "Ã": "Å",
        "Ä": "Å",
        "，": ",",
        "。": ".",
        "·": ".",
        "˚": "°",
        "一": "-",  # a bar beside the label
        "ー": "-",
        "—": "-",
    }
)
_DIGIT_FOR_LETTER = str.maketrans(
    {"O": "0", "o": "0", "D": "0", "Q": "0", "l": "1", "I": "1", "|": "1", "S": "5", "s": "5"}
)
_UNIT = {
    "nm": "nm", "NM": "nm", "Nm": "nm", "nM": "nm", "nrn": "nm", "nn": "nm", "µm": "µm", "um": "µm", "uM": "µm",
    "Um": "µm", "UM": "µm", "µn": "µm", "Å": "Å", "A": "Å", "A°": "Å", "pm": "pm", "mm": "mm",
}  # fmt: skip
_BEFORE = r"(?i:(?:scale\s*)?(?:bar)?\s*[:=]\s*)?"
_LABEL = re.compile(
    rf"^[\W_]*?{_BEFORE}(?P<number>[0-9OoDQlI|Ss]+(?:\s*[.,]\s*[0-9OoDQlI|Ss]+)?)\s*"
    rf"(?P<unit>(?i:{'|'.join(sorted(_UNIT, key=len, reverse=True))}))[\W_]*$"
)
_LIKE_LABEL = re.compile(r"^\W*[A-Z]?\s*[0-9][0-9Oo.,:;]*\s*[A-Za-zµμ]{0,2}[mn]\W*$")
_USUAL = (1.0, 2.0, 2.5, 5.0)
_RARE = (1.2, 1.25, 1.5, 3.0, 4.0, 6.0, 7.0, 7.5, 8.0, 9.0)


@dataclass(frozen=True)
class Length:
    """A label as read.

    `number` as written, with a point for a comma; `unit` nm, µm, Å, pm or mm; `repaired`: a letter stood for a digit;
    `doubt`: why the number cannot be what is written, or "".
    """

    text: str
    number: str
    unit: str
    repaired: bool
    doubt: str

    @property
    def nm(self) -> float:
        """The length in nm."""
        nm = length_to_nm(float(self.number), self.unit)
        assert nm is not None  # the unit is one of a few
        return nm

    @property
    def roundness(self) -> float:
        """How usual the number is: 1 for 1, 2, 2.5 and 5 times a power of ten, 0.9 for other round ones, else 0.4."""
        return roundness(float(self.number))


def roundness(value: float) -> float:
    """Return 1 for 1, 2, 2.5 and 5 times a power of ten, 0.9 for other round values, else 0.4; 0 for none above 0."""
    if not value > 0:
        return 0.0
    leading = value / 10 ** math.floor(math.log10(value) + 1e-9)
    if any(math.isclose(leading, usual, rel_tol=1e-6) for usual in _USUAL):
        return 1.0
    return 0.9 if any(math.isclose(leading, rare, rel_tol=1e-6) for rare in _RARE) else 0.4


def parse_label(text: str) -> Length | None:
    """Return the length a line of text gives, or None where it is something else.

    >>> parse_label("0,5 µm").nm
    500.0
    """
    found = _LABEL.match(text.strip().translate(_SAME_LETTERS))
    if not found:
        return None
    written = re.sub(r"\s", "", found["number"])
    number = written.translate(_DIGIT_FOR_LETTER)
    unit = _UNIT.get(found["unit"]) or _UNIT.get(found["unit"].lower())
    if unit is None or not re.search(r"[0-9]", written):
        return None
    return Length(text.strip(), number.replace(",", "."), unit, number != written, _doubt(number))


def is_like_label(text: str) -> bool:
    """Return whether a text may be a label that was misread: what may be a number, and letters that end with m or n.

    >>> is_like_label("50 rm")
    True
    """
    return bool(_LIKE_LABEL.match(text.strip()))


def is_unit(text: str) -> bool:
    """Return whether a text is a unit of length and nothing else: a label whose number was not seen.

    >>> is_unit("um"), is_unit("5 um")
    (True, False)
    """
    length = parse_label(f"1 {text.strip()}")
    return length is not None and text.strip().isalpha()


def _doubt(number: str) -> str:
    """Return why a number cannot be what is written, or ""."""
    if re.match(r"0[0-9]", number):
        return "it begins with 0 and has no decimal point"
    if re.match(r"[1-9][0-9]{0,2},000$", number):
        return "the comma may be a decimal one or one of thousands"
    if not float(number.replace(",", ".")) > 0:
        return "it is zero"
    return ""
