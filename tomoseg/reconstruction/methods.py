"""Reconstruction methods, the same for every backend.

Each takes an operator and a block of projections, shape (n_tilt, n, n_detector) with n at most ``operator.block``, and
returns a `Result`. `by_block` and `in_blocks` run one of them over any number of slices. A slice's volume does not
depend on the slices computed with it; the last digits of sums do depend on which slices make up a block.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.errors import StageFailed
from tomoseg.reconstruction import kernels
from tomoseg.reconstruction import total_variation as variation
from tomoseg.reconstruction.filters import filtered
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.operators import Floats, Operator
from tomoseg.reconstruction.parameters import Filter
from tomoseg.runtime import slabs

SHORTEST_RAY = 1e-2  # px; a ray that only grazes a corner of the volume cannot be explained by it and is left out


class NotFinite(StageFailed):
    """A step of a reconstruction gave NaN or infinity, from which the next step must not go on."""


@dataclass(frozen=True)
class Result:
    """Reconstructed slices and how well they explain the projections.

    Attributes
    ----------
    volume : array, shape (nz, n, nx), float32
        In units of the projections per pixel length.
    misfit : array, float64
        Sum over all rays of (measured - computed)**2, before each iteration and after the last (once for FBP).
    power : float
        Sum over all rays of measured**2; ``sqrt(misfit/power)`` is the relative residual.
    computed_power : float
        Sum over all rays of computed**2, for a direct method; 0 for the others, whose misfits tell enough.
    """

    volume: Floats
    misfit: NDArray[np.float64]
    power: float
    computed_power: float = 0.0


Method = Callable[[Operator, Floats], Result]
Watch = Callable[[int, Floats], None]


def look_away(_iteration: int, _volume: Floats) -> None:
    """Do nothing."""


def finite(misfit: float, iterations: int = 0) -> float:
    """Return the misfit after some iterations; raise `NotFinite` if it is none, as any voxel that is none makes it."""
    if not math.isfinite(misfit):
        when = f" after iteration {iterations}" if iterations else ""
        raise NotFinite(f"the volume or its residual is NaN or infinite{when}")
    return misfit


def reciprocal(sums: Floats, voxel_mask: NDArray[np.bool_] | None, least: float = 0.0) -> Floats:
    """Return 1/sums, but 0 where `sums` is at most `least` or outside `voxel_mask`."""
    used = sums > least if voxel_mask is None else (sums > least) & voxel_mask
    return np.where(used, 1 / np.where(used, sums, 1), 0).astype(np.float32)


def mlem(
    operator: Operator,
    projections: Floats,
    iterations: int,
    voxel_mask: NDArray[np.bool_] | None = None,
    weights: Floats | None = None,
    start: Floats | None = None,
    watch: Watch = look_away,
) -> Result:
    """Reconstruct by maximum-likelihood expectation maximisation.

    (Shepp & Vardi, IEEE Trans. Med. Imaging 1, 113, 1982.)

    ``v <- v * A'(w p / A v) / A'w`` for counts p of Poisson statistics and weights w (1 unless given). The start is a
    constant volume with the total of the projections. The volume is never negative. Negative projections count as 0,
    and 0 is a measurement: it empties the voxels on its ray. Rays beyond the detector are not measured: A'w holds only
    those that are, so that a voxel which leaves the field of view at high tilt is determined by the tilts that see it.
    A voxel that no ray meets is 0.

    Parameters
    ----------
    operator : Operator
    projections : array, shape (n_tilt, n, n_detector)
    iterations : int
    voxel_mask : bool array, shape (nz, nx), optional
        Voxels that may hold density.
    weights : array, shape (n_tilt, n_detector), optional
        Weight of each ray, at least 0; 0 means not measured. The misfit counts all rays alike.
    start : array, shape (nz, n, nx), optional
        Initial volume. A voxel that is 0 stays 0.
    watch : callable
        Called before each iteration with its number and the volume in the operator's layout, and after the last; may
        raise to stop.
    """
    n = projections.shape[1]
    counts = np.maximum(projections, 0)
    measured = operator.load(counts)
    plane = reciprocal(_column_sums(operator, weights), voxel_mask)
    rays = None if weights is None else operator.rays(weights)
    volume = _constant(operator, counts, plane) if start is None else operator.load_volume(np.maximum(start, 0))
    if weights is None and start is None:
        found = operator.mlem(measured, volume, iterations, watch)
        if found is not None:
            return Result(operator.unload(volume, n), found, _power(measured))
    computed = operator.forward(volume)
    misfit = np.zeros(iterations + 1)
    for i in range(iterations):
        watch(i, volume)
        misfit[i] = finite(kernels.ratio(measured.reshape(-1), computed.reshape(-1)), i)
        if rays is not None:
            computed *= rays
        operator.multiply(volume, computed, plane)
        operator.forward(volume, computed)
    watch(iterations, volume)
    misfit[iterations] = finite(kernels.difference(measured.reshape(-1), computed.reshape(-1)), iterations)
    return Result(operator.unload(volume, n), misfit, _power(measured))


def _column_sums(operator: Operator, weights: Floats | None) -> Floats:
    """Return A'w, shape (nz, nx)."""
    if weights is None:
        return operator.column_sums
    back = operator.backward(operator.load(np.ascontiguousarray(weights[:, None], np.float32)))
    return np.ascontiguousarray(operator.unload(back, 1)[:, 0])


def _constant(operator: Operator, counts: Floats, plane: Floats) -> Floats:
    """Return a volume, in the operator's layout, constant where `plane` > 0, whose slices have their counts' sum."""
    n = counts.shape[1]
    flat = (plane > 0).astype(np.float32)
    seen = max(float((operator.column_sums * flat).sum(dtype=np.float64)), 1e-30)
    volume = operator.load_volume(np.broadcast_to(flat[:, None, :], (len(flat), n, flat.shape[1])))
    level = counts.sum(axis=(0, 2), dtype=np.float64) / seen
    start = operator.unload(volume, n)
    start *= level.astype(np.float32)[:, None]
    return volume


def osem(
    operator: Operator,
    projections: Floats,
    iterations: int,
    subsets: int = 6,
    voxel_mask: NDArray[np.bool_] | None = None,
    weights: Floats | None = None,
    start: Floats | None = None,
    watch: Watch = look_away,
) -> Result:
    """Reconstruct by ordered subsets (Hudson & Larkin, IEEE Trans. Med. Imaging 13, 601, 1994).

    MLEM's update with every n-th tilt only, one subset after another. An iteration is a pass over all subsets and
    achieves about as much as `subsets` iterations of `mlem`. It does not converge to the maximum of the likelihood but
    cycles around it. All else is as in `mlem`.

    Parameters
    ----------
    operator : Operator
    projections : array, shape (n_tilt, n, n_detector)
    iterations : int
        Passes over all subsets.
    subsets : int
        At most the number of tilts.
    voxel_mask : bool array, shape (nz, nx), optional
        Voxels that may hold density.
    weights, start, watch
        As in `mlem`.
    """
    n = projections.shape[1]
    counts = np.maximum(projections, 0)
    measured = operator.load(counts)
    allowed = _column_sums(operator, weights) > 0
    if voxel_mask is not None:
        allowed &= voxel_mask
    parts = []
    for tilts, part in operator.subsets(subsets):
        own = None if weights is None else weights[tilts]
        sums = _column_sums(part, own)
        rays = None if own is None else part.rays(own)
        parts.append((part, part.load(counts[tilts]), rays, reciprocal(sums, allowed), allowed & (sums <= 0)))
    if start is None:
        volume = _constant(operator, counts, allowed.astype(np.float32))
    else:
        volume = operator.load_volume(np.where(allowed[:, None], np.maximum(start, 0), np.float32(0)))
    misfit = np.zeros(iterations + 1)
    for i in range(iterations):
        watch(i, volume)
        misfit[i] = finite(_misfit(operator, measured, volume), i)
        for part, seen, rays, plane, unseen in parts:
            computed = part.forward(volume)
            finite(kernels.ratio(seen.reshape(-1), computed.reshape(-1)), i + 1)
            if rays is not None:
                computed *= rays
            kept = operator.planes(volume)[unseen]
            part.multiply(volume, computed, plane)
            operator.planes(volume)[unseen] = kept
    watch(iterations, volume)
    misfit[iterations] = finite(_misfit(operator, measured, volume), iterations)
    return Result(operator.unload(volume, n), misfit, _power(measured))


def tv(
    operator: Operator,
    projections: Floats,
    iterations: int,
    weight: float,
    voxel_mask: NDArray[np.bool_] | None = None,
    weights: Floats | None = None,
    start: Floats | None = None,
    watch: Watch = look_away,
) -> Result:
    """Reconstruct by least squares with total variation, which fills the missing wedge with as few edges as possible.

    Minimises ``(A v - p)' W (A v - p) / 2 + weight * TV(v)`` over v >= 0, W being 1 unless weights are given, by FISTA
    (Beck & Teboulle, SIAM J. Imaging Sci. 2, 183, 2009). TV is the isotropic total variation of each slice, and its
    proximal map the dual projected gradient method of Beck & Teboulle (IEEE Trans. Image Process. 18, 2419, 2009),
    continued from iteration to iteration.

    Parameters
    ----------
    operator : Operator
    projections : array, shape (n_tilt, n, n_detector)
    iterations : int
    weight : float
        In units of the projections; compare with `tv_scale`.
    voxel_mask : bool array, shape (nz, nx), optional
        Voxels that may hold density.
    weights, start, watch
        As in `mlem`; the volume to start from is empty by default.

    The last misfit is that of the volume; those before it are of the extrapolated points of FISTA.
    """
    n = projections.shape[1]
    measured = operator.load(projections)
    heaviest = 1.0 if weights is None else max(float(weights.max()), 1e-30)
    step = 1 / (1.02 * operator.norm_squared * heaviest)  # the power method comes from below
    rays = None if weights is None else operator.rays(np.asarray(weights, np.float32))
    allowed = np.ones((operator.geometry.nz, operator.geometry.nx), np.bool_) if voxel_mask is None else voxel_mask
    plane = (allowed * step).astype(np.float32)
    empty = np.broadcast_to(np.float32(0), (operator.geometry.nz, n, operator.geometry.nx))
    volume = operator.load_volume(
        empty if start is None else np.where(allowed[:, None], np.maximum(start, 0), np.float32(0))
    )
    before, ahead, computed = volume.copy(), volume.copy(), np.zeros_like(measured)
    smoothed = variation.Proximal(operator.planes(volume).shape, weight * step, allowed)
    momentum, misfit = 1.0, np.zeros(iterations + 1)
    for i in range(iterations):
        watch(i, volume)
        operator.forward(ahead, computed)
        misfit[i] = finite(kernels.difference(measured.reshape(-1), computed.reshape(-1)), i)
        if rays is not None:
            computed *= rays
        operator.add(ahead, computed, plane, -np.inf)
        before, volume = volume, before
        smoothed(operator.planes(ahead), operator.planes(volume))
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        np.subtract(volume, before, out=ahead)
        ahead *= np.float32((momentum - 1) / following)
        ahead += volume
        momentum = following
    watch(iterations, volume)
    misfit[iterations] = finite(_misfit(operator, measured, volume), iterations)
    return Result(operator.unload(volume, n), misfit, _power(measured))


def tv_scale(geometry: ParallelGeometry, projections: Floats) -> float:
    """Return the weight of the total variation, in units of the projections, for a relative weight of 1.

    At this weight one unit of slope balances the pull of the data on an empty volume (A'p, of the order of n_tilt times
    a projection). It scales with the data, so that a relative weight means the same for every series.
    """
    return geometry.n_tilt * float(np.sqrt(np.mean(np.square(projections, dtype=np.float64))))


def _misfit(operator: Operator, measured: Floats, volume: Floats) -> float:
    return float(kernels.difference(measured.reshape(-1), operator.forward(volume).reshape(-1)))


def sirt(
    operator: Operator,
    projections: Floats,
    iterations: int,
    voxel_mask: NDArray[np.bool_] | None = None,
    non_negative: bool = True,
    weights: Floats | None = None,
    start: Floats | None = None,
    watch: Watch = look_away,
) -> Result:
    """Reconstruct by the simultaneous iterative technique (Gregor & Benson, IEEE Trans. Med. Imaging 27, 918, 2008).

    ``v <- v + C A' W R (p - A v)`` from zeros, with R the inverse row sums of A, W the weights (1 unless given), and C
    the inverse of A'w.

    Parameters
    ----------
    operator : Operator
    projections : array, shape (n_tilt, n, n_detector)
    iterations : int
    voxel_mask : bool array, shape (nz, nx), optional
        Voxels that may hold density.
    non_negative : bool
        Whether to set negative voxels to 0 after each iteration.
    weights, start, watch
        As in `mlem`; the volume to start from is empty by default.
    """
    n = projections.shape[1]
    geometry = operator.geometry
    measured = operator.load(projections)
    plane = reciprocal(_column_sums(operator, weights), voxel_mask)
    inverse = reciprocal(operator.row_sums, None, SHORTEST_RAY)
    rays = operator.rays(inverse if weights is None else inverse * np.asarray(weights, np.float32))
    empty = np.broadcast_to(np.float32(0), (geometry.nz, n, geometry.nx))
    volume = operator.load_volume(empty if start is None else start)
    computed = np.zeros_like(measured) if start is None else operator.forward(volume)
    least = 0.0 if non_negative else -np.inf
    misfit = np.zeros(iterations + 1)
    for i in range(iterations):
        watch(i, volume)
        misfit[i] = finite(kernels.difference(measured.reshape(-1), computed.reshape(-1)), i)
        computed *= rays
        operator.add(volume, computed, plane, least)
        operator.forward(volume, computed)
    watch(iterations, volume)
    misfit[iterations] = finite(kernels.difference(measured.reshape(-1), computed.reshape(-1)), iterations)
    return Result(operator.unload(volume, n), misfit, _power(measured))


def fbp(
    operator: Operator,
    projections: Floats,
    filter_name: Filter = "ramp",
    voxel_mask: NDArray[np.bool_] | None = None,
) -> Result:
    """Reconstruct by filtered back projection, each tilt weighted by the angle it stands for (`filters`).

    The volume may be negative. With a missing wedge, its scale is right only in the directions that were measured.

    Parameters
    ----------
    operator : Operator
    projections : array, shape (n_tilt, n, n_detector)
    filter_name : str
        Window on the ramp filter, one of `parameters.Filter`.
    voxel_mask : bool array, shape (nz, nx), optional
        Voxels that may hold density.
    """
    n = projections.shape[1]
    geometry = operator.geometry
    measured = operator.load(projections)
    shape = (geometry.nz, geometry.nx)
    plane = np.ones(shape, np.float32) if voxel_mask is None else voxel_mask.astype(np.float32)
    volume = operator.interpolate(operator.load(filtered(projections, geometry.angles_deg, filter_name)), plane)
    computed = operator.forward(volume)
    computed_power = _power(computed)
    misfit = finite(kernels.difference(measured.reshape(-1), computed.reshape(-1)))
    return Result(operator.unload(volume, n), np.array([misfit]), _power(measured), computed_power)


def _power(measured: Floats) -> float:
    """Return the sum of squares, in float64."""
    flat = measured.reshape(-1)
    return float(kernels.difference(flat, np.zeros_like(flat)))


def by_block(operator: Operator, method: Method, projections: Floats, workers: int = 1) -> list[Result]:
    """Run `method` over any number of slices; return a result for each block of ``operator.block`` slices.

    Parameters
    ----------
    operator : Operator
    method : callable
        ``method(operator, projections) -> Result``, such as ``functools.partial(mlem, iterations=30)``.
    projections : array, shape (n_tilt, n, n_detector)
    workers : int
        Blocks to compute at the same time, where the operator allows threads.
    """
    blocks = [projections[:, part] for part in slabs(projections.shape[1], operator.block)]
    if not (operator.threads and workers > 1 and len(blocks) > 1):
        return [method(operator, block) for block in blocks]
    with ThreadPoolExecutor(min(workers, len(blocks))) as pool:
        return list(pool.map(lambda block: method(operator, block), blocks))


def joined(results: Sequence[Result]) -> Result:
    """Return the results of neighbouring blocks as one; sums are added in order."""
    if len(results) == 1:
        return results[0]
    return Result(
        np.concatenate([result.volume for result in results], axis=1),
        np.sum([result.misfit for result in results], axis=0),
        float(sum(result.power for result in results)),
        float(sum(result.computed_power for result in results)),
    )


def in_blocks(operator: Operator, method: Method, projections: Floats, workers: int = 1) -> Result:
    """Run `method` over any number of slices, as `by_block` does, and return one result."""
    return joined(by_block(operator, method, projections, workers))
