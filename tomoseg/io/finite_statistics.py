"""Statistics of an image in a single place in memory, without copies."""

from typing import Any

import numba
import numpy as np


def _finite_statistics(values):  # type: ignore[no-untyped-def]
    """Return number, least, largest, mean and summed squared deviation of the finite values (n,)."""
    n, total, smallest, largest = 0, 0.0, np.inf, -np.inf
    for one in values:
        value = float(one)
        if np.isfinite(value):
            n += 1
            total += value
            smallest, largest = min(smallest, value), max(largest, value)
    mean, squares = total / max(n, 1), 0.0
    for one in values:
        value = float(one)
        if np.isfinite(value):
            squares += (value - mean) ** 2
    return n, smallest, largest, mean, squares


finite_statistics: Any = numba.njit(nogil=True, cache=True)(_finite_statistics)
