"""Views of a series that are left out, as a user names them: by number or by tilt angle."""

import re

import numpy as np
from numpy.typing import NDArray

from tomoseg.errors import InputError, shown
from tomoseg.io.series import Angles

NEAR_DEG = 0.5  # how far the angle of a view may lie from the one that was asked for
_VIEWS = re.compile(r"(\d{1,7})(?:\s*-\s*(\d{1,7}))?")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_ANGLES = re.compile(rf"({_NUMBER})(?:\s*\.\.\s*({_NUMBER}))?\s*(?:deg|\u00b0)")


def parts_of(text: str) -> list[str]:
    """Return the entries of an exclusion such as '3,17-19,60deg,-70..-62deg'.

    Views are numbered from 1, in the order of the file. Raises `InputError` if an entry is of neither kind.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in parts if not (_VIEWS.fullmatch(part) or _ANGLES.fullmatch(part))]
    if wrong or not parts:
        raise InputError(
            f"'{shown(wrong[0] if wrong else text, 80)}' names no views to leave out: write numbers from 1 in the "
            "order of the file and ranges of them (3,17-19), or angles in degrees (60deg, -70..-62deg)"
        )
    return parts


def excluded_tilts(text: str | None, angles_deg: Angles) -> NDArray[np.bool_]:
    """Return which of the images are left out by tilt angle, (n,), where 'deg' may be missing: '60, -70..-62'; or none.

    Raises `InputError` as `parts_of_tilts` and `excluded_angles` do.
    """
    return (
        np.zeros(len(angles_deg), bool) if text is None else excluded_angles(",".join(parts_of_tilts(text)), angles_deg)
    )


def parts_of_tilts(text: str) -> list[str]:
    """Return the entries of a list of tilts such as '60, -70..-62', with 'deg' behind each.

    Raises `InputError` if an entry is no tilt.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    parts = [part if part.endswith(("deg", "\u00b0")) else f"{part}deg" for part in parts]
    wrong = [part.removesuffix("deg") for part in parts if not _ANGLES.fullmatch(part)]
    if wrong or not parts:
        raise InputError(
            f"'{shown(wrong[0] if wrong else text, 80)}' names no tilts to leave out: write angles in degrees and "
            "ranges of them, such as 60,-70..-62"
        )
    return parts


def excluded_views(text: str, n_images: int) -> NDArray[np.bool_]:
    """Return which of `n_images` are left out by number, (n,).

    Raises `InputError` if there is no image of a number.
    """
    out = np.zeros(n_images, bool)
    for match in filter(None, map(_VIEWS.fullmatch, parts_of(text))):
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= n_images:
            raise InputError(f"there is no view {match[0]} to leave out: the series has the views 1 to {n_images}")
        out[first - 1 : last] = True
    return out


def excluded_angles(text: str, angles_deg: Angles) -> NDArray[np.bool_]:
    """Return which of the images are left out by tilt angle, (n,).

    Raises `InputError` if no image has the angle, or one within the range.
    """
    out = np.zeros(len(angles_deg), bool)
    for match in filter(None, map(_ANGLES.fullmatch, parts_of(text))):
        low, high = sorted((float(match[1]), float(match[2] or match[1])))
        apart = np.abs(angles_deg - low)
        nearest = apart == np.nanmin(apart) if np.nanmin(apart) <= NEAR_DEG else np.zeros(len(out), bool)
        found = (angles_deg >= low) & (angles_deg <= high) if match[2] else nearest
        if not found.any():
            raise InputError(
                f"there is no view at {match[0]} to leave out: the tilts go from {np.nanmin(angles_deg):g} to "
                f"{np.nanmax(angles_deg):g} degrees"
            )
        out |= found
    return out
