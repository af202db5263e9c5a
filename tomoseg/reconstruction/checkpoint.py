"""The state of a reconstruction that is continued after an interruption."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.reconstruction.backends.choice import Choice
from tomoseg.reconstruction.methods import Result
from tomoseg.reconstruction.stopping import STOPPING_DTYPE, StoppingCurve


@dataclass
class Checkpoint:
    """What is known of the slices finished so far; its fields are JSON values.

    Sums are added block by block in order, and blocks are the same however many are computed at once or after an
    interruption: so the sums are the same to the last bit. On a GPU, blocks depend on how much of its memory is free: a
    run that is continued keeps the blocks it began with.
    """

    backend: str
    device: str
    block: int = 0  # slices; 0 where nothing is decided yet
    gpu_failed: str = ""  # why the GPU is not used, although there is one
    iterations: int = 0
    tried: list[int] = field(default_factory=list)  # numbers of iterations among which one was chosen
    held_out: list[float] = field(default_factory=list)  # and the residual of held-out tilts after each
    slices: int = 0
    misfit: list[float] = field(default_factory=list)
    power: float = 0.0
    pixels: int = 0
    negative_pixels: int = 0
    amount: float = 0.0
    negative_amount: float = 0.0

    @classmethod
    def resumed(cls, state: Mapping[str, Any] | None, choice: Choice) -> "Checkpoint":
        """Return where an interrupted run stood; nothing is done yet if it used another backend or device."""
        fresh = cls(choice.backend, choice.device)
        if state is None or (state["backend"], state["device"]) != (fresh.backend, fresh.device):
            return fresh
        return cls(**state)

    def state(self) -> dict[str, Any]:
        """Return what `resumed` takes."""
        return asdict(self)

    def set_iterations(self, iterations: int, curve: StoppingCurve | None) -> None:
        """Keep the number of iterations, and how it was chosen."""
        self.iterations = iterations
        if curve is not None:
            self.tried, self.held_out = curve.iterations.tolist(), curve.held_out.tolist()

    def add(self, result: Result, data: NDArray[np.float32]) -> None:
        """Add the next block: its result, and the projections from its first slice on."""
        data = data[:, : result.volume.shape[1]]
        below = np.minimum(data, 0)
        misfit = result.misfit.tolist()
        self.slices += data.shape[1]
        self.misfit = [a + b for a, b in zip(self.misfit or [0.0] * len(misfit), misfit, strict=True)]
        self.power += result.power
        self.pixels += data.size
        self.negative_pixels += int(np.count_nonzero(below))
        self.amount += float(np.abs(data).sum(dtype=np.float64))
        self.negative_amount -= float(below.sum(dtype=np.float64))

    @property
    def residuals(self) -> NDArray[np.float64]:
        """Relative residual before each iteration and after the last (once for a direct method)."""
        return np.sqrt(np.array(self.misfit) / self.power) if self.power > 0 else np.zeros(len(self.misfit))

    @property
    def stopping(self) -> NDArray[Any] | None:
        """Table of the numbers of iterations tried, as it is stored; None where the number was not chosen so."""
        if not self.tried:
            return None
        return np.array(list(zip(self.tried, self.held_out, strict=True)), STOPPING_DTYPE)
