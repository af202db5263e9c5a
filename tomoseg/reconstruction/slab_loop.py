"""The loop over a volume: read a group of slices, reconstruct it, write it, keep a checkpoint to continue from."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import ArraySink, ArraySource, Outputs
from tomoseg.reconstruction.backends.choice import Choice
from tomoseg.reconstruction.memory import WRITE_UNIT, plan_groups
from tomoseg.reconstruction.methods import NotFinite, Result, finite, joined
from tomoseg.reconstruction.operators import Floats
from tomoseg.reconstruction.selection import Selection, refuse_non_finite
from tomoseg.reconstruction.solver import Recipe, open_solver
from tomoseg.reconstruction.stopping import STOPPING_DTYPE, StoppingCurve
from tomoseg.runtime import Runtime, slabs


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
    computed_power: float = 0.0  # as in `methods.Result`
    uniform: bool = True  # whether all voxels of each slice are the same, where density is allowed
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

    def set_iterations(self, iterations: int, curve: StoppingCurve | None) -> None:
        """Keep the number of iterations, and how it was chosen."""
        self.iterations = iterations
        if curve is not None:
            self.tried, self.held_out = curve.iterations.tolist(), curve.held_out.tolist()

    def add(self, result: Result, data: NDArray[np.float32], voxel_mask: NDArray[np.bool_] | None = None) -> None:
        """Add the next block: its result, the projections from its first slice on, and where density is allowed.

        Raises `methods.NotFinite` where a voxel of the result is NaN or infinite.
        """
        finite(float(result.volume.min()) + float(result.volume.max()))
        self.uniform = self.uniform and _is_uniform(result.volume, voxel_mask)
        data = data[:, : result.volume.shape[1]]
        below = np.minimum(data, 0)
        misfit = result.misfit.tolist()
        self.slices += data.shape[1]
        self.misfit = [a + b for a, b in zip(self.misfit or [0.0] * len(misfit), misfit, strict=True)]
        self.power += result.power
        self.computed_power += result.computed_power
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


def _is_uniform(volume: Floats, voxel_mask: NDArray[np.bool_] | None) -> bool:
    """Return whether all voxels of each slice of a volume (nz, n, nx) are the same, within the mask (nz, nx)."""
    inside = True if voxel_mask is None else voxel_mask[:, None]
    low = volume.min(axis=(0, 2), where=inside, initial=np.inf)
    high = volume.max(axis=(0, 2), where=inside, initial=-np.inf)
    return bool((high <= low).all())


def reconstruct_slabs(
    series: Selection,
    recipe: Recipe,
    done: Checkpoint,
    kept: tuple[slice, slice],
    volume: ArraySink,
    runtime: Runtime,
    outputs: Outputs,
) -> None:
    """Write the slices that are not `done` yet to `volume` (z, y, x), and keep a checkpoint after every slab.

    `kept` is the part of each slice that is stored, along z and along x.
    """
    with open_solver(recipe, done.iterations, done.block, series.buffer_bytes, runtime) as solver:
        done.block = solver.block
        groups, ahead = plan_groups(
            series.shape[1],
            done.slices,
            solver.need,
            solver.block,
            solver.at_once,
            runtime.max_memory,
            runtime.progress.message,
        )
        progress = runtime.track(groups, f"{recipe.row.name} reconstruction")
        for group, data in zip(progress, _read(series, groups, ahead), strict=True):
            refuse_non_finite(data, recipe.geometry.angles_deg)
            try:
                results = solver.solve(data)
                for part in slabs(len(results), math.lcm(solver.block, WRITE_UNIT) // solver.block):
                    start = done.slices
                    for result in results[part]:
                        done.add(result, data[:, done.slices - group.start :], recipe.options["voxel_mask"])
                    volume[:, start : done.slices] = joined(results[part]).volume[kept[0], :, kept[1]]
                    outputs.checkpoint(asdict(done))
            except NotFinite as error:
                where = f"in slices {group.start} to {group.stop - 1}, whose pixels reach {np.abs(data).max():.3g}"
                raise NotFinite(f"{error}, {where}") from error


def _read(series: ArraySource, groups: Sequence[slice], ahead: int) -> Iterator[Floats]:
    """Yield the projections of each group, (n_tilt, n, n_x), reading `ahead` slices at a time."""
    data = np.empty((0, 0, 0), np.float32)
    start = stop = 0
    for group in groups:
        if group.stop > stop:
            start, stop = group.start, min((group.start // ahead + 1) * ahead, groups[-1].stop)
            data = np.asarray(series[:, start:stop], np.float32)
        yield data[:, group.start - start : group.stop - start]
