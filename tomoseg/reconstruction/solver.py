"""What reconstructs slices: a method with its options, on a backend."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.reconstruction import methods
from tomoseg.reconstruction.backends.choice import Choice
from tomoseg.reconstruction.backends.gpu import LEAST, GpuFailed
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.memory import MemoryNeed, cpu_block, gpu_slab, sample_threads
from tomoseg.reconstruction.method_table import MethodRow
from tomoseg.reconstruction.methods import Method, NotFinite, Result
from tomoseg.reconstruction.operators import Floats, Operator
from tomoseg.runtime import Runtime


@dataclass(frozen=True)
class Recipe:
    """All that decides the volume of a slice but its data and the number of iterations.

    `options` are keywords of the method's function, besides where density is allowed: in a cylinder, or everywhere.
    """

    row: MethodRow
    choice: Choice
    geometry: ParallelGeometry
    in_cylinder: bool
    options: Mapping[str, Any]

    @property
    def voxel_mask(self) -> NDArray[np.bool_] | None:
        """Where density is allowed, (nz, nx); None for everywhere. It is made anew each time, and not sent."""
        return self.geometry.cylinder() if self.in_cylinder else None

    @property
    def volumes(self) -> int:
        """Copies of a block of slices that the method holds."""
        # Only tomoseg's own projector updates a volume in place.
        return self.row.volumes + (self.choice.backend != "cpu")

    def sample_threads(self, runtime: Runtime) -> int:
        """Return how many blocks of a sample may be computed at the same time."""
        return sample_threads(self.geometry, self.volumes, runtime.workers, runtime.max_memory)

    def iterative(self) -> Callable[..., Result]:
        """Return the method with all but the number of iterations."""
        return partial(getattr(methods, self.row.function), voxel_mask=self.voxel_mask, **self.options)

    def method(self, iterations: int, check: Callable[[], None]) -> Method:
        """Return the method with all its options; `check` is called before each iteration and may raise to stop."""
        if self.row.is_direct:
            return self.iterative()
        return partial(self.iterative(), iterations=iterations, watch=lambda _iteration, _volume: check())


@dataclass(frozen=True)
class Solver:
    """What reconstructs slices, and what it takes.

    `solve` returns a result for each `block` of slices, and computes `at_once` blocks at the same time.
    """

    solve: Callable[[Floats], list[Result]]
    block: int
    at_once: int
    need: MemoryNeed


@contextmanager
def open_solver(
    recipe: Recipe, iterations: int, block: int, n_slices: int, reading: int, runtime: Runtime
) -> Iterator[Solver]:
    """Yield what reconstructs `n_slices` here.

    `block` is the number of slices in a block, as an interrupted run began (0: what suits the number of slices and the
    memory), `reading` the bytes held while data are read.
    """
    choice, geometry = recipe.choice, recipe.geometry
    if choice.is_tomopy:
        from tomoseg.reconstruction.backends import tomopy

        solve = partial(
            tomopy.reconstruct,
            geometry=geometry,
            method=recipe.row.name,
            astra=choice.device if choice.backend == "tomopy-astra" else None,
            iterations=iterations,
            workers=runtime.workers,
            checkpoint=runtime.check,
            voxel_mask=recipe.voxel_mask,
            **recipe.options,
        )
        need = MemoryNeed(geometry, recipe.row.tomopy_volumes, recipe.row.sinograms + 2, reading)
        yield Solver(solve, tomopy.BLOCK, runtime.workers, need)
        return
    need = MemoryNeed(geometry, recipe.volumes, recipe.row.sinograms, reading)
    method = recipe.method(iterations, runtime.check)
    size = block or cpu_block(n_slices, need, runtime.workers, runtime.max_memory)
    with closing(choice.operator(geometry, size)) as operator:
        if choice.device == "cuda":
            operator.block = block or gpu_slab(operator.block, need, runtime.max_memory)
            runtime.say(f"reconstructing {operator.block} slices at a time on the GPU")
            solve = partial(_by_block_on_gpu, operator, method, runtime)
            yield Solver(solve, operator.block, 1, need)
        else:
            at_once = runtime.workers if operator.threads else 1
            solve = partial(methods.by_block, operator, method, workers=at_once)
            yield Solver(solve, operator.block, at_once, need)


def _by_block_on_gpu(operator: Operator, method: Method, runtime: Runtime, projections: Floats) -> list[Result]:
    """Run `method` as `methods.by_block` does; if the GPU fails, continue with slabs of half as many slices.

    The results are then those of smaller blocks, and `operator.block` keeps the smaller size. The volume of a slice
    does not depend on it. Raises `GpuFailed` where the GPU fails even with the fewest slices.
    """
    while True:
        try:
            results = methods.by_block(operator, method, projections)
            if not all(np.isfinite(result.misfit).all() for result in results):  # not finite if any voxel is not
                raise GpuFailed("the GPU returned values that are not numbers")
            return results
        except (GpuFailed, NotFinite) as error:
            if operator.block <= LEAST:
                raise
            operator.block //= 2
            runtime.warn(f"{error}; continuing with {operator.block} slices at a time")
