"""Numbers that may be undefined: ratios of counts, and NaN in JSON."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def divided(part: Any, whole: Any) -> NDArray[np.float64]:
    """Return part / whole, NaN where `whole` is 0."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    result = np.full(whole.shape, np.nan)
    return np.asarray(np.divide(part, whole, out=result, where=whole > 0))


def plain(value: Any) -> Any:
    """Return arrays and numbers, also those inside lists and dictionaries, as JSON has them: NaN becomes None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
