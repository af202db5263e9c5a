"""Smaller slabs after a failure of the GPU."""

from collections.abc import Callable

import numpy as np

from tomoseg.reconstruction import methods
from tomoseg.reconstruction.backends.gpu import LEAST, GpuFailed
from tomoseg.reconstruction.methods import Method, Result
from tomoseg.reconstruction.operators import Floats, Operator


def by_block(operator: Operator, method: Method, projections: Floats, warn: Callable[[str], None]) -> list[Result]:
    """Run `method` as `methods.by_block` does; if the GPU fails, continue with slabs of half as many slices.

    The results are then those of smaller blocks, and `operator.block` keeps the smaller size. The volume of a slice
    does not depend on it.

    Raises
    ------
    GpuFailed
        The GPU fails even with the fewest slices.
    """
    while True:
        try:
            results = methods.by_block(operator, method, projections)
            if not all(np.isfinite(result.misfit).all() for result in results):  # not finite if any voxel is not
                raise GpuFailed("the GPU returned values that are not numbers")
            return results
        except GpuFailed as error:
            if operator.block <= LEAST:
                raise
            operator.block //= 2
            warn(f"{error}; continuing with {operator.block} slices at a time")
