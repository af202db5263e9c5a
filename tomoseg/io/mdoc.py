"""SerialEM's .mdoc: tilt angle, pixel spacing and acquisition settings of every image of a stack, as text."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomoseg.errors import InputError
from tomoseg.io.series import Axis, nominal_axis
from tomoseg.io.units import PixelSize, judged_pixel_size

# 1 Å per pixel is what programs write when they do not know.
PLACEHOLDER_NM = 0.1
_SECTION = re.compile(r"\[\s*(?P<kind>ZValue|FrameSet|MontSection|T)\s*=\s*(?P<value>.*?)\s*\]\s*$")
_ENTRY = re.compile(r"(?P<key>[A-Za-z]\w*)\s*=\s*(?P<value>.*?)\s*$")
_AXIS = re.compile(r"Tilt axis angle\s*=\s*(?P<angle>[-+.\d]+)")


@dataclass(frozen=True)
class Mdoc:
    """What an .mdoc file says: global entries, and one dictionary per image in the order of the images."""

    path: Path
    header: dict[str, str]
    images: tuple[dict[str, str], ...]
    titles: tuple[str, ...]

    def angles_deg(self) -> NDArray[np.float64]:
        """Return the tilt angle of every image, degrees.

        Raises
        ------
        InputError
            An image has no TiltAngle, or one that is not a number.
        """
        angles = []
        for number, image in enumerate(self.images):
            text = image.get("TiltAngle", "")
            try:
                angles.append(float(text))
            except ValueError as error:
                found = f"'{text}' is not a number" if text else "is missing"
                raise InputError(f"{self.path}: the TiltAngle of [ZValue = {number}] {found}") from error
        return np.array(angles)

    def pixel_size(self) -> PixelSize:
        """Return the pixel size from PixelSpacing (Å)."""
        text = self.header.get("PixelSpacing") or (self.images[0].get("PixelSpacing") if self.images else None)
        try:
            spacing = float(text) if text else 0.0
        except ValueError:
            return PixelSize(doubt=f"PixelSpacing in {self.path.name} is not a number: '{text}'")
        if not text:
            return PixelSize()
        return judged_pixel_size((spacing, spacing), ("Å", "Å"), f"PixelSpacing of {self.path.name}", PLACEHOLDER_NM)

    def tilt_axis(self) -> Axis | None:
        """Return the image direction of the tilt axis from SerialEM's title line."""
        return axis_from_titles(self.titles)


def axis_from_titles(titles: tuple[str, ...]) -> Axis | None:
    """Return the image direction of the tilt axis from SerialEM's "Tilt axis angle = ..." (from the vertical)."""
    found = next((match for match in map(_AXIS.search, titles) if match), None)
    return nominal_axis(float(found["angle"])) if found else None


def read_mdoc(path: Path) -> Mdoc:
    """Read an .mdoc file.

    Raises
    ------
    InputError
        It cannot be read or describes no image.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    header: dict[str, str] = {}
    images: dict[int, dict[str, str]] = {}
    titles: list[str] = []
    current = header
    for line in lines:
        section, entry = _SECTION.match(line.strip()), _ENTRY.match(line.strip())
        if section and section["kind"] == "T":
            titles.append(section["value"])
        elif section:
            number = int(section["value"]) if section["value"].isdigit() else len(images)
            # A montage section describes a whole montage: its entries belong to no image.
            current = {} if section["kind"] == "MontSection" else images.setdefault(number, {})
        elif entry:
            current[entry["key"]] = entry["value"]
    if not images:
        raise InputError(f"{path} describes no image: there is no [ZValue = ...] section in it")
    return Mdoc(path, header, tuple(images[number] for number in sorted(images)), tuple(titles))
