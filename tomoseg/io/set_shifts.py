"""Shifts that a user sets by hand, each for the image at a tilt: '30=1.5,-2; -12=0,0.5'."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.errors import InputError, shown
from tomoseg.io.angles import is_number
from tomoseg.io.exclusion import NEAR_DEG
from tomoseg.io.series import Angles


@dataclass(frozen=True)
class SetShifts:
    """Shifts (dy, dx) in raw px, (n, 2), and the images of a series that they are for, (n,)."""

    images: NDArray[np.intp]
    shifts_px: NDArray[np.float64]


def parse_shifts(text: str) -> dict[float, tuple[float, float]]:
    """Return {tilt in degrees: (dy, dx)} from entries TILT=DY,DX with semicolons between them.

    Raises `InputError` if an entry is malformed, or a tilt stands there twice.
    """
    found: dict[float, tuple[float, float]] = {}
    entries = [entry.strip() for entry in text.split(";") if entry.strip()]
    for entry in entries:
        tilt, _, shift = entry.partition("=")
        values = [tilt.strip().removesuffix("deg").removesuffix("\u00b0").strip(), *map(str.strip, shift.split(","))]
        if len(values) != 3 or not all(is_number(v) and math.isfinite(float(v)) for v in values):
            raise InputError(
                f"'{shown(entry, 80)}' sets no shift: write TILT=DY,DX, the tilt in degrees and the shift in raw px, "
                "such as 30=1.5,-2"
            )
        angle, dy, dx = map(float, values)
        if angle in found:
            raise InputError(f"the shift at {angle:g} degrees is set twice")
        found[angle] = (dy, dx)
    if not found:
        raise InputError("no shift is set: write TILT=DY,DX, such as 30=1.5,-2")
    return found


def as_text(shifts: Mapping[float, tuple[float, float]]) -> str:
    """Return the text of {tilt in degrees: (dy, dx)}, by ascending tilt."""
    return "; ".join(f"{tilt:g}={dy:g},{dx:g}" for tilt, (dy, dx) in sorted(shifts.items()))


def set_shifts(text: str, angles_deg: Angles, image_shape: tuple[int, ...]) -> SetShifts:
    """Return the shifts that a text sets for a series with `angles_deg` (n_tilt,) and images of (height, width).

    Raises
    ------
    InputError
        There is no image at such a tilt, two shifts are for one, or a shift moves an image out of the frame.
    """
    images: list[int] = []
    shifts = []
    for tilt, shift in parse_shifts(text).items():
        nearest = int(np.argmin(np.abs(angles_deg - tilt)))
        if abs(angles_deg[nearest] - tilt) > NEAR_DEG:
            raise InputError(
                f"there is no image at {tilt:g} degrees to set a shift for: the nearest is at "
                f"{angles_deg[nearest]:g} degrees"
            )
        if nearest in images:
            raise InputError(f"the shift of the image at {angles_deg[nearest]:g} degrees is set twice")
        if any(abs(step) >= side for step, side in zip(shift, image_shape, strict=True)):
            raise InputError(
                f"the shift {shift[0]:g},{shift[1]:g} set at {tilt:g} degrees moves the image out of the frame: the "
                f"images are {image_shape[1]} x {image_shape[0]} px"
            )
        images.append(nearest)
        shifts.append(shift)
    return SetShifts(np.array(images, np.intp), np.array(shifts, np.float64))
