"""The number of iterations that best predicts projections that were held out.

An iterative method first finds what all tilts share, and later the noise of each. Noise differs from tilt to tilt: a
volume reconstructed from most tilts predicts the others better and better until it begins to fit noise. The minimum is
where to stop (cross-validation; Coakley, IEEE Trans. Nucl. Sci. 38, 9, 1991, for MLEM).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.reconstruction import kernels
from tomoseg.reconstruction.geometry import FloatArray, ParallelGeometry
from tomoseg.reconstruction.memory import SAMPLE_BLOCK
from tomoseg.reconstruction.methods import Result
from tomoseg.reconstruction.operators import Floats, Operator
from tomoseg.reconstruction.solver import Recipe
from tomoseg.runtime import Runtime, slabs

HELD_OUT = 8  # one tilt in eight is held out
FEWEST_TILTS = 12  # with fewer, holding some out changes the reconstruction too much
TOLERANCE = 0.02  # of the smallest residual
STOPPING_DTYPE = np.dtype([("iterations", "i8"), ("held_out", "f8")])
GROWTH = 1.1  # ratio of neighbouring numbers of iterations


@dataclass(frozen=True)
class StoppingCurve:
    """Relative residual ||p - A v|| / ||p|| of held-out projections, (n,), after rising numbers of iterations, (n,)."""

    iterations: NDArray[np.int64]
    held_out: NDArray[np.float64]

    @property
    def best(self) -> int:
        """Fewest iterations whose residual is within `TOLERANCE` of the smallest.

        The curve is flat at its minimum, which lies somewhat late: noise in the missing wedge and between the tilts
        grows with every iteration, but no held-out tilt sees it.
        """
        return int(self.iterations[np.argmax(self.held_out <= (1 + TOLERANCE) * self.held_out.min())])

    @property
    def is_bounded(self) -> bool:
        """Whether the curve rises again after its minimum, so that more iterations are known to be worse."""
        return bool(np.argmin(self.held_out) < len(self.held_out) - 1)


def choose_iterations(recipe: Recipe, sample: Floats, runtime: Runtime) -> tuple[int, StoppingCurve | None]:
    """Return the number of iterations that predicts held-out tilts of the sample best, and the curve it is read from.

    Where too few tilts would remain, or the sample is empty, it is the method's usual number, without a curve.
    """
    row, n_tilt = recipe.row, recipe.geometry.n_tilt
    if n_tilt < FEWEST_TILTS or not sample.any():
        why = f"{n_tilt} tilts are too few to hold some out" if n_tilt < FEWEST_TILTS else "the sample is empty"
        runtime.say(f"{row.usual_iterations} iterations, the usual number: {why}")
        return row.usual_iterations, None
    items = [
        (f"a sample of slices, {part.start} to {part.stop - 1}", sample[:, part])
        for part in parts_of(recipe, sample.shape[1], runtime)
    ]
    misfits = [block for found in runtime.each(_misfits_of_sample, recipe, items) for block in found]
    curve = _curve(misfits, sample, row.most_iterations)
    unbounded = "" if curve.is_bounded else f", still falling at {row.most_iterations} iterations"
    runtime.say(
        f"{curve.best} iterations: the fewest that predict held-out tilts within 2 % of the best (relative residual "
        f"{curve.held_out.min():.3f}{unbounded}; {sample.shape[1]} slices)"
    )
    return curve.best, curve


def cross_validate(
    operator_for: Callable[[ParallelGeometry], Operator],
    geometry: ParallelGeometry,
    projections: Floats,
    method: Callable[..., Result],
    most: int,
    workers: int = 1,
    check: Callable[[], None] = lambda: None,
) -> StoppingCurve:
    """Reconstruct some slices without every eighth tilt, and measure how well these tilts are predicted.

    Parameters
    ----------
    operator_for : called with a geometry
    geometry : of all tilts, at least `FEWEST_TILTS`
    projections : array, shape (n_tilt, n, n_detector), float32, of a sample of slices
    method : ``method(operator, projections, iterations=, watch=)``
    most : largest number of iterations to try
    workers : blocks of slices computed at the same time, where the operator allows threads
    check : called before each iteration; may raise to stop
    """
    misfits = _misfits(operator_for, geometry, projections, method, most, workers, check)
    return _curve(misfits, projections, most)


def parts_of(recipe: Recipe, n_slices: int, runtime: Runtime) -> list[slice]:
    """Return the parts of a sample that are computed one by one: several where workers of a cluster share them.

    Blocks of slices, over which sums are added in order, are the same with and without a cluster.
    """
    divided = runtime.cluster is not None and recipe.choice.device == "cpu"
    return slabs(n_slices, SAMPLE_BLOCK if divided else n_slices)


def _misfits_of_sample(recipe: Recipe, sample: Floats, runtime: Runtime) -> list[FloatArray]:
    threads = recipe.sample_threads(runtime)
    method, most = recipe.iterative(), recipe.row.most_iterations
    return _misfits(recipe.choice.operator, recipe.geometry, sample, method, most, threads, runtime.check)


def _held_out(n_tilt: int) -> NDArray[np.bool_]:
    return np.asarray(np.arange(n_tilt) % HELD_OUT == HELD_OUT // 2)


def _misfits(
    operator_for: Callable[[ParallelGeometry], Operator],
    geometry: ParallelGeometry,
    projections: Floats,
    method: Callable[..., Result],
    most: int,
    workers: int,
    check: Callable[[], None],
) -> list[FloatArray]:
    """Return for each block the sum of squares of the prediction's error after each number of iterations `tried`."""
    held_out = _held_out(geometry.n_tilt)
    numbers = tried(most)
    with (
        closing(operator_for(geometry.of(np.flatnonzero(~held_out)))) as training,
        closing(operator_for(geometry.of(np.flatnonzero(held_out)))) as test,
    ):

        def misfits(block: slice) -> FloatArray:
            expected = test.load(projections[held_out, block])
            found: dict[int, float] = {}

            def watch(iteration: int, volume: Floats) -> None:
                check()
                if iteration in wanted:
                    found[iteration] = kernels.difference(expected.reshape(-1), test.forward(volume).reshape(-1))

            method(training, projections[~held_out, block], iterations=most, watch=watch)
            return np.array([found[number] for number in numbers])

        wanted = set(numbers.tolist())
        blocks = slabs(projections.shape[1], training.block)
        with ThreadPoolExecutor(workers if training.threads else 1) as pool:
            return list(pool.map(misfits, blocks))


def _curve(misfits: list[FloatArray], projections: Floats, most: int) -> StoppingCurve:
    """Return the curve from the misfits of all blocks of a sample."""
    numbers = tried(most)
    power = float(np.square(projections[_held_out(len(projections))], dtype=np.float64).sum())
    total = np.sum(misfits, axis=0)
    return StoppingCurve(numbers, np.sqrt(total / power) if power > 0 else np.zeros(len(numbers)))


def tried(most: int) -> NDArray[np.int64]:
    """Return the numbers of iterations to evaluate: every small one, then ever sparser ones up to `most`."""
    numbers = np.unique(np.round(GROWTH ** np.arange(np.log(most) / np.log(GROWTH) + 1)).astype(np.int64))
    return np.append(numbers[numbers < most], most)
