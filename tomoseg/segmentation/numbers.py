"""Numbers that may be missing: ratios of counts, and NaN in JSON."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array


def divided(part: Any, whole: Any) -> NDArray[np.float64]:
    """Return part / whole, NaN where `whole` is 0."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    result = np.full(whole.shape, np.nan)
    return np.asarray(np.divide(part, whole, out=result, where=whole > 0))


def number(value: Any) -> float | None:
    """Return a number as JSON has it: None for NaN."""
    return None if np.isnan(value) else float(value)


def plain(values: Array) -> Any:
    """Return an array as nested lists, with None for NaN."""
    return [plain(row) for row in values] if values.ndim > 1 else [number(v) for v in values]
