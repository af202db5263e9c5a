"""Outliers: tilts that take no part in judging the alignment, nor in reconstruction."""

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import FloatArray

FEWEST = 5  # correlations, from which a usual one and its scatter can be told
LEAST_DROP = 0.15  # of the correlation below the usual one
SCATTERS = 8  # that far below the usual one, in robust standard deviations


def find_outliers(
    usable: NDArray[np.bool_], correlation: FloatArray, unpredicted: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return which tilts are outliers, (n_tilt,): empty, not predicted by the others, or unlike their neighbours.

    Parameters
    ----------
    usable : (n_tilt,) bool, False for empty or damaged images
    correlation : (n_tilt,) with neighbours after alignment; NaN where unknown
    unpredicted : (n_tilt,) bool, optional
        Tilts that the alignment found the others not to predict.
    """
    outliers = ~usable if unpredicted is None else ~usable | unpredicted
    known = np.isfinite(correlation)
    if known.sum() >= FEWEST:
        usual = np.median(correlation[known])
        scatter = 1.5 * np.median(np.abs(correlation[known] - usual))
        outliers[known] |= correlation[known] < usual - max(LEAST_DROP, SCATTERS * scatter)
    return np.asarray(outliers)
