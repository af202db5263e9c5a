"""SerialEM's .mdoc, a text file with tilt angle, pixel spacing and acquisition settings of every image of a stack."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomoseg.errors import InputError, shown
from tomoseg.io.limits import read_text
from tomoseg.io.series import Axis, nominal_axis
from tomoseg.io.units import PixelSize, checked_pixel_size

# Programs write 1 Å per pixel for an unknown size.
PLACEHOLDER_NM = 0.1
_MAX_BYTES = 64 << 20  # some kB per image, and frames of a movie may be listed too
_SECTIONS = ("ZValue", "FrameSet", "MontSection", "T")
# Key and value are stripped afterwards: a pattern that strips would take forever on a line of blanks.
_KEY = re.compile(r"[A-Za-z]\w*")
_AXIS = re.compile(r"Tilt axis angle\s{0,9}=\s{0,9}(?P<angle>[-+]?\d{1,9}(\.\d{1,9})?)")


@dataclass(frozen=True)
class Mdoc:
    """The content of an .mdoc file: global entries, and one dictionary per image in the order of the images.

    `numbers` are the images' places in the stack, from 0: they are not consecutive where images were left out.
    """

    path: Path
    header: dict[str, str]
    images: tuple[dict[str, str], ...]
    titles: tuple[str, ...]
    numbers: tuple[int, ...]

    def angles_deg(self) -> NDArray[np.float64]:
        """Return the tilt angle of every image, degrees.

        Raises `InputError` if an image has no TiltAngle, or one that is not a number.
        """
        angles = []
        for number, image in zip(self.numbers, self.images, strict=True):
            text = image.get("TiltAngle", "")
            try:
                angles.append(float(text))
            except ValueError as error:
                found = f"'{shown(text)}' is not a number" if text else "is missing"
                raise InputError(f"{self.path}: the TiltAngle of [ZValue = {number}] {found}") from error
        return np.array(angles)

    def pixel_size(self) -> PixelSize:
        """Return the pixel size from PixelSpacing (Å)."""
        text = self.header.get("PixelSpacing") or (self.images[0].get("PixelSpacing") if self.images else None)
        try:
            spacing = float(text) if text else 0.0
        except ValueError:
            return PixelSize(doubt=f"PixelSpacing in {self.path.name} is not a number: '{shown(text)}'")
        if not text:
            return PixelSize()
        return checked_pixel_size((spacing, spacing), ("Å", "Å"), f"PixelSpacing of {self.path.name}", PLACEHOLDER_NM)

    def tilt_axis(self) -> Axis | None:
        """Return the image direction of the tilt axis from SerialEM's title line."""
        return axis_from_titles(self.titles)


def axis_from_titles(titles: tuple[str, ...]) -> Axis | None:
    """Return the image direction of the tilt axis from SerialEM's "Tilt axis angle = ..." (from the vertical)."""
    found = next((match for match in map(_AXIS.search, titles) if match), None)
    return nominal_axis(float(found["angle"])) if found else None


def read_mdoc(path: Path) -> Mdoc:
    """Read an .mdoc file. Raises `InputError` if it cannot be read, is far too large, or describes no image."""
    header: dict[str, str] = {}
    images: dict[int, dict[str, str]] = {}
    titles: list[str] = []
    current = header
    for line in read_text(path, _MAX_BYTES, "mdoc file").splitlines():
        kind, value, is_section = _parsed(line.strip())
        if is_section and kind == "T":
            titles.append(value)
        elif is_section:
            # A montage section describes a whole montage: its entries belong to no image.
            current = {} if kind == "MontSection" else images.setdefault(_number(value, len(images)), {})
        elif kind:
            current[kind] = value
    if not images:
        raise InputError(f"{path} describes no images: it has no [ZValue = ...] section")
    numbers = tuple(sorted(images))
    return Mdoc(path, header, tuple(images[number] for number in numbers), tuple(titles), numbers)


def _parsed(line: str) -> tuple[str, str, bool]:
    """Return key, value and whether the line begins a section; the key is empty where there is none."""
    is_section = line.startswith("[") and line.endswith("]")
    key, equals, value = (line[1:-1] if is_section else line).partition("=")
    key = key.strip()
    known = key in _SECTIONS if is_section else _KEY.fullmatch(key) is not None
    return (key, value.strip(), is_section) if equals and known else ("", "", False)


def _number(text: str, otherwise: int) -> int:
    """Return the number of a section, or `otherwise` where the text is not one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else otherwise
