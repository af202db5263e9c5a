"""The number of iterations that best predicts projections that were held out.

An iterative method first finds what all tilts share, and later the noise of each. Noise differs from tilt to tilt: a
volume reconstructed from most tilts predicts the others better and better until it begins to fit noise. The minimum is
where to stop (cross-validation; Coakley, IEEE Trans. Nucl. Sci. 38, 9, 1991, for MLEM).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tomoseg.reconstruction import kernels
from tomoseg.reconstruction.geometry import FloatArray, ParallelGeometry
from tomoseg.reconstruction.methods import Result, Watch
from tomoseg.reconstruction.operators import Floats, Operator
from tomoseg.runtime import slabs

HELD_OUT = 8  # one tilt in eight is held out
FEWEST_TILTS = 12  # with fewer, holding some out changes the reconstruction too much
TOLERANCE = 0.02  # of the smallest residual
STOPPING_DTYPE = np.dtype([("iterations", "i8"), ("held_out", "f8")])
GROWTH = 1.1  # ratio of neighbouring numbers of iterations


class Iterative(Protocol):
    """A method with all its parameters but the number of iterations."""

    def __call__(self, operator: Operator, projections: Floats, *, iterations: int, watch: Watch) -> Result:
        """Run the method."""


@dataclass(frozen=True)
class StoppingCurve:
    """How well held-out projections are predicted.

    Attributes
    ----------
    iterations : (n,) i8
        Numbers of iterations, rising.
    held_out : (n,) f8
        Relative residual ||p - A v|| / ||p|| of the held-out projections after that many.
    """

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


def cross_validate(
    operator_for: Callable[[ParallelGeometry], Operator],
    geometry: ParallelGeometry,
    projections: Floats,
    method: Iterative,
    most: int,
    workers: int = 1,
    check: Callable[[], None] = lambda: None,
) -> StoppingCurve:
    """Reconstruct some slices without every eighth tilt, and measure how well these tilts are predicted.

    Parameters
    ----------
    operator_for : callable
        Return the operator of a geometry.
    geometry : ParallelGeometry
        Of all tilts; at least `FEWEST_TILTS`.
    projections : array, shape (n_tilt, n, n_detector), float32
        Of a sample of slices.
    method : callable
        ``method(operator, projections, iterations=, watch=)``.
    most : int
        Largest number of iterations to try.
    workers : int
        Blocks of slices computed at the same time, where the operator allows threads.
    check : callable
        Called before each iteration; may raise to stop.
    """
    held_out = np.arange(geometry.n_tilt) % HELD_OUT == HELD_OUT // 2
    numbers = tried(most)
    with (
        closing(operator_for(geometry.of(np.flatnonzero(~held_out)))) as training,
        closing(operator_for(geometry.of(np.flatnonzero(held_out)))) as test,
    ):

        def misfits(block: slice) -> FloatArray:
            """Return the sum of squares of the prediction's error after each of `numbers` iterations."""
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
            total = np.sum(list(pool.map(misfits, blocks)), axis=0)
    power = float(np.square(projections[held_out], dtype=np.float64).sum())
    return StoppingCurve(numbers, np.sqrt(total / power) if power > 0 else np.zeros(len(numbers)))


def tried(most: int) -> NDArray[np.int64]:
    """Return the numbers of iterations to evaluate: every small one, then ever sparser ones up to `most`."""
    numbers = np.unique(np.round(GROWTH ** np.arange(np.log(most) / np.log(GROWTH) + 1)).astype(np.int64))
    return np.append(numbers[numbers < most], most)
