"""Sizes in nm: which of them a pixel, a voxel or a particle can have."""

import math
from typing import Annotated, Any

from pydantic import AfterValidator

from tomoseg.errors import InputError, shown

POSSIBLE_NM = (1e-6, 1e9)  # nothing in an image is smaller than a femtometre or larger than a metre
NYQUIST_PX = 2.0  # the shortest period that pixels or voxels can show
_WORDS = f"from {POSSIBLE_NM[0]:g} to {POSSIBLE_NM[1]:g} nm"


def is_possible(nm: float) -> bool:
    """Tell whether something can have this size in nm."""
    return POSSIBLE_NM[0] <= nm <= POSSIBLE_NM[1]


def size_or_nan(value: Any) -> float:
    """Return a size in nm that a file holds; NaN (unknown) where there is none, or none that is possible."""
    try:
        return float(value) if is_possible(float(value)) else math.nan
    except (TypeError, ValueError, OverflowError):
        return math.nan


def require_size(name: str, nm: float | None) -> None:
    """Raise `InputError` if a size is given, by the option or keyword `name`, that nothing can have."""
    if nm is not None and not is_possible(nm):
        raise InputError(f"{name} is {shown(repr(nm))}: a size must be {_WORDS}.")


def _possible(nm: float) -> float:
    if not is_possible(nm):
        raise ValueError(f"must be {_WORDS}")
    return nm


Nanometres = Annotated[float, AfterValidator(_possible)]
