"""What reconstructs slices: a method with its options, on a backend."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.reconstruction import methods
from tomoseg.reconstruction.backends import fallback
from tomoseg.reconstruction.backends.choice import Choice
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.memory import MemoryNeed, gpu_slab
from tomoseg.reconstruction.method_table import MethodRow
from tomoseg.reconstruction.methods import Method, Result
from tomoseg.reconstruction.stopping import Iterative
from tomoseg.runtime import Runtime


@dataclass(frozen=True)
class Recipe:
    """All that decides the volume of a slice but its data and the number of iterations.

    `options` are keywords of the method's function.
    """

    row: MethodRow
    choice: Choice
    geometry: ParallelGeometry
    options: Mapping[str, Any]

    @property
    def volumes(self) -> int:
        """Copies of a block of slices that the method holds."""
        # Only tomoseg's own projector updates a volume in place.
        return self.row.volumes + (self.choice.backend != "cpu")

    def iterative(self) -> Iterative:
        """Return the method with all but the number of iterations."""
        return partial(getattr(methods, self.row.function), **self.options)

    def method(self, iterations: int, check: Callable[[], None]) -> Method:
        """Return the method with all its options; `check` is called before each iteration and may raise to stop."""
        if self.row.is_direct:
            return partial(getattr(methods, self.row.function), **self.options)
        return partial(self.iterative(), iterations=iterations, watch=lambda _iteration, _volume: check())


@dataclass(frozen=True)
class Solver:
    """What reconstructs slices, and what it takes.

    `solve` returns a result for each `block` of slices, and computes `at_once` blocks at the same time.
    """

    solve: Callable[[NDArray[np.float32]], list[Result]]
    block: int
    at_once: int
    need: MemoryNeed


@contextmanager
def open_solver(recipe: Recipe, iterations: int, block: int, reading: int, runtime: Runtime) -> Iterator[Solver]:
    """Yield what reconstructs slices.

    Parameters
    ----------
    recipe : method, options and backend
    iterations : of an iterative method
    block : slices in a block on a GPU, as an interrupted run began; 0: as many as fit
    reading : bytes held while data are read
    runtime : threads, memory and messages
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
            **recipe.options,
        )
        need = MemoryNeed(geometry, recipe.row.tomopy_volumes, recipe.row.sinograms + 2, reading)
        yield Solver(solve, tomopy.BLOCK, runtime.workers, need)
        return
    need = MemoryNeed(geometry, recipe.volumes, recipe.row.sinograms, reading)
    method = recipe.method(iterations, runtime.check)
    with closing(choice.operator(geometry)) as operator:
        if choice.device == "cuda":
            operator.block = block or gpu_slab(operator.block, need, runtime.max_memory)
            runtime.say(f"reconstructing {operator.block} slices at a time on the GPU")
            solve = partial(fallback.by_block, operator, method, warn=runtime.warn)
            yield Solver(solve, operator.block, 1, need)
        else:
            at_once = runtime.workers if operator.threads else 1
            solve = partial(methods.by_block, operator, method, workers=at_once)
            yield Solver(solve, operator.block, at_once, need)
