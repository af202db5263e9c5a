"""Runs that are killed right after a checkpoint, and continued by others."""

from collections.abc import Callable, Sequence
from typing import Any

from tomoseg.arrays import MemoryOutputs


class Killed(BaseException):
    """Nothing in the program may catch it, as nothing can catch SIGKILL."""


class Fatal(MemoryOutputs):
    """Outputs of a run that dies once `n` checkpoints were made; what was written before the last one is kept."""

    def __init__(self, n: int, *begun: Any) -> None:
        super().__init__(*begun)
        self._left = n
        self.kept = begun

    def checkpoint(self, state) -> None:
        super().checkpoint(state)
        self.kept = self.state, {name: array.copy() for name, array in self.arrays.items()}
        self._left -= 1
        if self._left == 0:
            raise Killed


def killed_again_and_again(run: Callable[[MemoryOutputs, int], Any], n: int, choices: Sequence[int]) -> MemoryOutputs:
    """Call `run(outputs, choice)` until it survives: each run is killed at its n-th checkpoint and continued.

    The runs take the choices in turn. Returns the outputs of the last one.
    """
    kept = ()
    for i in range(100):
        outputs = Fatal(n, *kept)
        try:
            run(outputs, choices[i % len(choices)])
        except Killed:
            kept = outputs.kept
        else:
            assert i > 0, "was never killed"
            return outputs
    raise AssertionError("no progress is made")
