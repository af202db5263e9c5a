"""The loop over a volume: read a group of slices, reconstruct it, write it, keep a checkpoint."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from tomoseg.arrays import ArraySink, ArraySource, Outputs
from tomoseg.reconstruction.checkpoint import Checkpoint
from tomoseg.reconstruction.memory import WRITE_UNIT, plan_groups
from tomoseg.reconstruction.methods import joined
from tomoseg.reconstruction.operators import Floats
from tomoseg.reconstruction.selection import Selection, refuse_non_finite
from tomoseg.reconstruction.solver import Recipe, open_solver
from tomoseg.runtime import Runtime, slabs


def reconstruct_slabs(
    series: Selection,
    recipe: Recipe,
    done: Checkpoint,
    kept: tuple[slice, slice],
    volume: ArraySink,
    runtime: Runtime,
    outputs: Outputs,
) -> None:
    """Write the slices that are not done yet to `volume` (z, y, x).

    Parameters
    ----------
    series : the data (n_tilt, y, x)
    recipe : method, options, backend and geometry
    done : the slices that are finished; kept up to date
    kept : part of each slice that is stored, along z and along x
    volume : where the slices go
    runtime : threads, memory, progress
    outputs : takes a checkpoint after every slab
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
            results = solver.solve(data)
            for part in slabs(len(results), math.lcm(solver.block, WRITE_UNIT) // solver.block):
                start = done.slices
                for result in results[part]:
                    done.add(result, data[:, done.slices - group.start :])
                volume[:, start : done.slices] = joined(results[part]).volume[kept[0], :, kept[1]]
                outputs.checkpoint(done.state())


def _read(series: ArraySource, groups: Sequence[slice], ahead: int) -> Iterator[Floats]:
    """Yield the projections of each group, (n_tilt, n, n_x), reading `ahead` slices at a time."""
    data = np.empty((0, 0, 0), np.float32)
    start = stop = 0
    for group in groups:
        if group.stop > stop:
            start, stop = group.start, min((group.start // ahead + 1) * ahead, groups[-1].stop)
            data = np.asarray(series[:, start:stop], np.float32)
        yield data[:, group.start - start : group.stop - start]
