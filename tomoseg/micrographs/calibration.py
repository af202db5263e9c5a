"""The pixel size of a micrograph: given, from the metadata, or from the scale bar; what contradicts is told."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Source = Literal["given", "metadata", "scale bar", "none"]
AGREE = 0.03  # relative difference of two pixel sizes that mean the same: bars are drawn to whole pixels
SURE = 0.5  # confidence of a scale bar that may contradict the metadata


@dataclass(frozen=True)
class Calibration:
    """Pixel size in nm (NaN: unknown), where it comes from, how certain that is (0..1), and what is doubtful."""

    pixel_size_nm: float
    source: Source
    confidence: float
    warnings: list[str] = field(default_factory=list)


def calibrated(
    given_nm: float | None, metadata_nm: float | None, bar_nm: float, bar_confidence: float, bar_label: str = ""
) -> Calibration:
    """Return the pixel size: what is given, else what the metadata say, else what the scale bar says.

    `bar_nm` is NaN where no bar was read.
    """
    if given_nm is None and metadata_nm is None:
        if np.isfinite(bar_nm):
            return Calibration(float(bar_nm), "scale bar", float(bar_confidence))
        return Calibration(np.nan, "none", 0.0, ["no scale is known: sizes are in px; give the pixel size"])
    size = float(given_nm if given_nm is not None else metadata_nm or np.nan)
    source: Source = "given" if given_nm is not None else "metadata"
    where = "the one given" if given_nm is not None else "the one in the metadata"
    warnings, confidence = [], 1.0
    rivals = [(bar_nm, f"the scale bar ({bar_label})")] if bar_confidence >= SURE else []
    if given_nm is not None and metadata_nm is not None:
        rivals.append((metadata_nm, "the metadata"))
    for rival, name in rivals:
        if np.isfinite(rival) and abs(rival - size) > AGREE * size:
            warnings.append(f"{name} says that a pixel is {rival:.4g} nm, {where} is {size:.4g} nm, which is used")
            confidence = 0.5
    return Calibration(size, source, confidence, warnings)
