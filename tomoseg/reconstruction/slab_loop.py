"""The loop over a volume: read a group of slices, reconstruct it, write it, keep a checkpoint to continue from."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import ArraySink, ArraySource, Outputs
from tomoseg.reconstruction.backends.choice import Choice
from tomoseg.reconstruction.memory import READ_AHEAD, WRITE_UNIT, plan_groups
from tomoseg.reconstruction.methods import NotFinite, Result, finite
from tomoseg.reconstruction.operators import Floats
from tomoseg.reconstruction.selection import Selection, refuse_non_finite
from tomoseg.reconstruction.solver import Recipe, Solver, open_solver
from tomoseg.reconstruction.stopping import STOPPING_DTYPE, StoppingCurve
from tomoseg.runtime import Runtime, slabs


@dataclass(frozen=True, eq=False)
class Block:
    """What is kept of a block of slices: the part of the volume that is stored, (nz, n, nx), and sums.

    `misfit`, `power` and `computed_power` are those of `methods.Result`, the others of the projections.
    """

    volume: Floats
    misfit: list[float]
    power: float
    computed_power: float
    uniform: bool  # whether all voxels of each slice are the same, where density is allowed
    pixels: int
    negative_pixels: int
    amount: float  # sum of their sizes
    negative_amount: float

    @classmethod
    def of(
        cls, result: Result, data: Floats, voxel_mask: NDArray[np.bool_] | None, kept: tuple[slice, slice]
    ) -> "Block":
        """Return what is kept of the result from the projections `data`; `kept` is the part along z and along x.

        `voxel_mask` tells where density is allowed, (nz, nx). Raises `methods.NotFinite` where a voxel of the result is
        NaN or infinite.
        """
        finite(float(result.volume.min()) + float(result.volume.max()))
        below = np.minimum(data, 0)
        return cls(
            result.volume[kept[0], :, kept[1]],
            result.misfit.tolist(),
            result.power,
            result.computed_power,
            _is_uniform(result.volume, voxel_mask),
            data.size,
            int(np.count_nonzero(below)),
            float(np.abs(data).sum(dtype=np.float64)),
            -float(below.sum(dtype=np.float64)),
        )


def _is_uniform(volume: Floats, voxel_mask: NDArray[np.bool_] | None) -> bool:
    """Return whether all voxels of each slice of a volume (nz, n, nx) are the same, within the mask (nz, nx)."""
    inside = True if voxel_mask is None else voxel_mask[:, None]
    low = volume.min(axis=(0, 2), where=inside, initial=np.inf)
    high = volume.max(axis=(0, 2), where=inside, initial=-np.inf)
    return bool((high <= low).all())


@dataclass
class Checkpoint:
    """What is known of the slices finished so far; its fields are JSON values.

    Sums are added block by block in order. How large blocks are depends on threads and memory: a run that is continued
    keeps the blocks it began with, so that its sums are the same to the last bit.
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
    computed_power: float = 0.0  # this and the following as in `Block`
    uniform: bool = True
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

    def add(self, block: Block) -> None:
        """Add the next block."""
        self.slices += block.volume.shape[1]
        self.misfit = [a + b for a, b in zip(self.misfit or [0.0] * len(block.misfit), block.misfit, strict=True)]
        self.power += block.power
        self.computed_power += block.computed_power
        self.uniform = self.uniform and block.uniform
        self.pixels += block.pixels
        self.negative_pixels += block.negative_pixels
        self.amount += block.amount
        self.negative_amount += block.negative_amount

    @property
    def residuals(self) -> NDArray[np.float64]:
        """Relative residual before each iteration and after the last (once for a direct method).

        It is rounded to single precision, that of the projections: how large blocks were does not show.
        """
        if self.power <= 0:
            return np.zeros(len(self.misfit))
        return np.sqrt(np.array(self.misfit) / self.power).astype(np.float32).astype(np.float64)

    @property
    def stopping(self) -> NDArray[Any] | None:
        """Table of the numbers of iterations tried, as it is stored; None where the number was not chosen so."""
        if not self.tried:
            return None
        return np.array(list(zip(self.tried, self.held_out, strict=True)), STOPPING_DTYPE)


@dataclass(frozen=True)
class Work:
    """What all slabs of a volume share: `kept` is the part of each slice that is stored, along z and along x.

    `block` is the number of slices in a block; 0 where nothing is decided yet.
    """

    recipe: Recipe
    iterations: int
    block: int
    kept: tuple[slice, slice]


def reconstruct_slabs(
    series: Selection, work: Work, done: Checkpoint, volume: ArraySink, runtime: Runtime, outputs: Outputs
) -> None:
    """Write the slices that are not `done` yet to `volume` (z, y, x), and keep a checkpoint after every slab."""
    with _solved(series, work, done, runtime) as (groups, results):
        progress = runtime.track(groups, f"{work.recipe.row.name} reconstruction")
        for _, blocks in zip(progress, results, strict=True):
            for part in slabs(len(blocks), math.lcm(done.block, WRITE_UNIT) // done.block):
                start = done.slices
                for block in blocks[part]:
                    done.add(block)
                volume[:, start : done.slices] = np.concatenate([block.volume for block in blocks[part]], axis=1)
                outputs.checkpoint(asdict(done))


@contextmanager
def _solved(
    series: Selection, work: Work, done: Checkpoint, runtime: Runtime
) -> Iterator[tuple[list[slice], Iterator[list[Block]]]]:
    """Yield the groups of slices that are left to do, and what is kept of the blocks of each, in order.

    The size of a block goes to `done`.
    """
    recipe, (_, n_slices, _) = work.recipe, series.shape
    left = n_slices - done.slices
    if runtime.cluster is not None:
        n_workers = runtime.cluster.n_workers(runtime)
        share = math.ceil(left / n_workers)
        (plan,) = runtime.each(_plan_far, work, [("the size of slabs", (n_slices, done.slices, share))])
        done.block, size = plan.block, plan.size_for(left, n_workers)
        work, groups = replace(work, block=done.block), slabs(n_slices, size, done.slices)
        read = zip(groups, _read(series, groups, max(1, READ_AHEAD // size) * size), strict=True)
        items = ((f"slices {group.start} to {group.stop - 1}", (group, _finite(data, recipe))) for group, data in read)
        with closing(runtime.cluster.each(_solve_far, work, items, runtime)) as results:
            yield groups, results
        return
    with open_solver(recipe, work.iterations, work.block, left, series.buffer_bytes, runtime) as solver:
        done.block = solver.block
        groups, ahead = _groups(solver, n_slices, done.slices, runtime)
        data_of = zip(groups, _read(series, groups, ahead), strict=True)
        yield groups, (_blocks(solver, work, group, _finite(data, recipe)) for group, data in data_of)


def _groups(solver: Solver, n_slices: int, first: int, runtime: Runtime) -> tuple[list[slice], int]:
    tell = runtime.progress.message
    return plan_groups(n_slices, first, solver.need, solver.block, solver.at_once, runtime.max_memory, tell)


def _finite(data: Floats, recipe: Recipe) -> Floats:
    refuse_non_finite(data, recipe.geometry.angles_deg)
    return data


def _blocks(solver: Solver, work: Work, group: slice, data: Floats) -> list[Block]:
    """Reconstruct a group of slices from their projections (n_tilt, n, n_x)."""
    try:
        blocks, first, voxel_mask = [], 0, work.recipe.voxel_mask
        for result in solver.solve(data):
            last = first + result.volume.shape[1]
            blocks.append(Block.of(result, data[:, first:last], voxel_mask, work.kept))
            first = last
    except NotFinite as error:
        where = f"in slices {group.start} to {group.stop - 1}, whose pixels reach {np.abs(data).max():.3g}"
        raise NotFinite(f"{error}, {where}") from error
    return blocks


# --- on a worker of a cluster ---


@dataclass(frozen=True)
class Plan:
    """How many slices a worker computes in a block, and together."""

    block: int
    together: int

    def size_for(self, n_slices: int, n_workers: int) -> int:
        """Return how many slices to give to a worker at a time, so that each of them has some."""
        unit = math.lcm(self.block, WRITE_UNIT)
        return min(self.together, math.ceil(n_slices / n_workers / unit) * unit)


def _plan_far(work: Work, slices: tuple[int, int, int], runtime: Runtime) -> Plan:
    """Plan on a worker; `slices` are the number of all, the first that is not done, and how many a worker computes."""
    n_slices, first, share = slices
    with open_solver(work.recipe, work.iterations, work.block, share, 0, runtime) as solver:
        groups, _ = _groups(solver, n_slices, first, runtime)
        return Plan(solver.block, max(group.stop - group.start for group in groups))


def _solve_far(work: Work, slab: tuple[slice, Floats], runtime: Runtime) -> list[Block]:
    """Reconstruct a group of slices on a worker."""
    with open_solver(work.recipe, work.iterations, work.block, slab[1].shape[1], 0, runtime) as solver:
        return _blocks(solver, work, *slab)


def _read(series: ArraySource, groups: Sequence[slice], ahead: int) -> Iterator[Floats]:
    """Yield the projections of each group, (n_tilt, n, n_x), reading `ahead` slices at a time."""
    data = np.empty((0, 0, 0), np.float32)
    start = stop = 0
    for group in groups:
        if group.stop > stop:
            start, stop = group.start, min((group.start // ahead + 1) * ahead, groups[-1].stop)
            data = np.asarray(series[:, start:stop], np.float32)
        yield data[:, group.start - start : group.stop - start]
