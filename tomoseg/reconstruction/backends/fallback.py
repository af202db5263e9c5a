"""What to do when a GPU fails: smaller slabs."""

from collections.abc import Callable

import numpy as np

from tomoseg.reconstruction import methods
from tomoseg.reconstruction.backends.gpu import LEAST, GpuFailed
from tomoseg.reconstruction.methods import Method, Result
from tomoseg.reconstruction.operators import Floats, Operator


def by_block(operator: Operator, method: Method, projections: Floats, warn: Callable[[str], None]) -> list[Result]:
    """Run `method` as `methods.by_block` does; where the GPU fails, go on with slabs of half as many slices.

    The results are those of smaller blocks then, and `operator.block` stays at that. What a slice comes out as does not
    depend on it.

    Raises
    ------
    GpuFailed
        The GPU fails with the fewest slices, too.
    """
    while True:
        try:
            results = methods.by_block(operator, method, projections)
            if not all(np.isfinite(result.misfit).all() for result in results):  # as it is if any voxel is not
                raise GpuFailed("the GPU returned what are not numbers")
            return results
        except GpuFailed as error:
            if operator.block <= LEAST:
                raise
            operator.block //= 2
            warn(f"{error}; going on with {operator.block} slices at a time")
