"""Alignment and reconstruction together: images are moved to where a volume made of the others expects them.

The volume is improved by expectation maximisation, a few tilts at a time (ordered subsets), and just before tilts are
used they are compared with their projections of the volume as it stands, made of all the others: a Gauss-Newton step
moves each (joint iterative reconstruction and alignment; Gursoy et al., Sci. Rep. 7, 11818, 2017). The volume is kept
from pass to pass, and images are always resampled from the originals by the moves accumulated so far. Pixels that a raw
frame does not show count as the volume predicts them, so that they say nothing.

The slow part of the moves costs the volume little to follow: it takes many passes to be undone, which the steps do not
show. The direction of the axis is searched separately, by how well images are predicted
(`tomoseg.alignment.finding.refine`).
"""

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.extent import WIDER
from tomoseg.alignment.finding import joint_kernels
from tomoseg.alignment.finding.joint_kernels import FAINTEST, N_SUMS, Subsets
from tomoseg.alignment.images.correlation import taper
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import aligned_shape, rotation_matrix, unrotate_vectors
from tomoseg.arrays import FloatArray
from tomoseg.reconstruction.backends.cpu import CpuOperator, aligned_zeros
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.kernels import PAD, WIDE
from tomoseg.reconstruction.operators import Floats, Operator, spread_order
from tomoseg.reconstruction.simd import LANES
from tomoseg.runtime import slabs

T = TypeVar("T")
WIDEST_FILM = 4.0  # of a film: times the width of the frame
SHALLOWEST_PX = 8
SUBSETS = 24  # at most: the volume is improved by so many parts of the tilts, one after the other
EDGE = 0.2  # part of the frame over which the weight of pixels falls off at its sides
MARGIN_PX = 2.0  # pixels so near the border of a raw frame are not compared: splines swing there
ALONG_PASSES = 2  # passes in which images move along the axis only: a volume still blurred misleads across it
STRAY = 3.0  # times the median residual: a tilt that takes no part in the volume
NOTHING_HIDDEN = np.zeros((1, 0, 0), bool)
HALF_PASSES = 3  # of the volume by which half of the tilts predict the others
SMALL_PX2 = 64 * 64  # of an image whose work takes less time than handing it to a thread


@dataclass(frozen=True)
class Film:
    """A film that the frame cuts on all sides: where it may be, so that no more than it explains the images.

    `inclination_deg` is its own tilt about the tilt axis, at which it is seen face-on, once the angles are changed by
    `levelled_by_deg`. `depth` is the extent of what is reconstructed, normal to it, as a part of the width of the
    aligned frame. The tilt axis lies in its middle.
    """

    inclination_deg: float
    depth: float
    levelled_by_deg: float = 0.0

    @property
    def recorded_deg(self) -> float:
        """Its inclination by the tilt angles as they were."""
        return self.inclination_deg - self.levelled_by_deg


@dataclass(frozen=True)
class Joint:
    """The outcome of joint alignment.

    Attributes
    ----------
    moves_px : (n_tilt, 2) (dy', dx') in pixels of the reduced series; unusable tilts as they were
    residual : float
        Root mean square of measured minus predicted images, as part of that of the measured ones; predicted before an
        image was used in the pass.
    residuals : (n_tilt,) the same for each tilt; NaN for unusable ones
    """

    moves_px: NDArray[np.float64]
    residual: float
    residuals: NDArray[np.float64]

    @property
    def median(self) -> float:
        """Residual of the median tilt, which a few bad images do not change."""
        return float(np.nanmedian(self.residuals))


def align_jointly(
    series: ReducedSeries,
    moves_px: FloatArray,
    axis_angle_deg: float,
    *,
    whole: bool,
    film: Film | None = None,
    passes: int = 12,
    moving: bool = True,
    tolerance_px: float = 0.0004,
) -> Joint:
    """Improve moves for a given direction of the axis.

    Parameters
    ----------
    series : images with background 0, at least 5 usable
    moves_px : (n_tilt, 2) array
        (dy', dx') after rotation, in pixels of the reduced series, right to a few pixels.
    axis_angle_deg : float
    whole : bool
        Whether the sample ends inside the frame across the axis.
    film : Film, optional
        What a sample that does not end there is, if that is known.
    passes : int
        Most passes over all tilts.
    moving : bool
        False: the images stay; only the residual is wanted.
    tolerance_px : float
        Steps (rms over the tilts, either direction) at which to stop, in pixels of the reduced series.
    """
    chosen = np.flatnonzero(series.usable)
    run = Run(series, chosen, np.array(moves_px, np.float64), axis_angle_deg, whole, film)
    with ThreadPoolExecutor(max(1, series.workers)) as pool:
        run.start(pool)
        for number in range(passes):
            steps = run.once(pool, moving=moving, along_only=number < ALONG_PASSES)
            if number > ALONG_PASSES and float(np.sqrt(np.square(steps).mean(axis=0)).max()) < tolerance_px:
                break
    residuals = np.full(series.n_tilt, np.nan)
    residuals[chosen] = np.sqrt(run.misfit / np.maximum(run.power, 1e-30))
    total = float(np.sqrt(run.misfit.sum() / max(float(run.power.sum()), 1e-30)))
    return Joint(run.moves, total, residuals)


def predicted_by_halves(
    series: ReducedSeries, moves_px: FloatArray, axis_angle_deg: float, *, whole: bool
) -> NDArray[np.float64]:
    """Return the residual of each tilt (n_tilt,) as every other tilt predicts it; NaN for unusable ones.

    The other parameters are those of `align_jointly`. Each half of the tilts makes a volume, in which no image moves.
    """
    used, residuals = np.flatnonzero(series.usable), np.full(series.n_tilt, np.nan)
    moves = np.array(moves_px, np.float64)
    with ThreadPoolExecutor(max(1, series.workers)) as pool:
        for kept, left_out in ((used[::2], used[1::2]), (used[1::2], used[::2])):
            run = Run(series, kept, moves, axis_angle_deg, whole)
            run.reconstruct(pool, HALF_PASSES)
            predicted = run.predicted(pool, left_out)
            images, seen = run.resampled(pool, left_out)
            sums = np.zeros((len(images), N_SUMS))
            run.each(pool, joint_kernels.normal_equations, images, predicted, seen, [run.window] * len(images), sums)
            residuals[left_out] = np.sqrt(sums[:, 12] / np.maximum(sums[:, 13], 1e-30))
    return residuals


class Run:
    """The current volume and moves."""

    def __init__(
        self,
        series: ReducedSeries,
        chosen: NDArray[np.int_],
        moves: NDArray[np.float64],
        angle_deg: float,
        whole: bool,
        film: Film | None = None,
    ) -> None:
        self.series, self.chosen, self.moves, self.angle_deg = series, chosen, moves, angle_deg
        self.shape = aligned_shape(series.images.shape, angle_deg)
        self.whole, self.film = whole, film
        height, self.is_small = self.shape[0], self.shape[0] * self.shape[1] <= SMALL_PX2
        self.threads = 1 if self.is_small else max(1, series.workers)
        # Wide blocks are faster where no thread goes without, and no more slices are padded.
        is_wide = -(-height // WIDE) >= self.threads and -(-height // LANES) % 2 == 0
        self.block = WIDE if is_wide else LANES
        self.aim()
        self.blocks = slabs(height, self.block)
        self.volumes = aligned_zeros((len(self.blocks), *self.operator.volume_shape))
        most = int(np.diff(self.subsets.starts).max())
        self.room = aligned_zeros((len(self.blocks) * most * (self.shape[1] + 2 * PAD) * self.block,))
        self.window = taper(self.shape, EDGE).astype(np.float32)
        self.misfit, self.power = np.zeros(len(chosen)), np.zeros(len(chosen))

    def aim(self) -> None:
        """Take the tilts of the reduced images for those at which the volume is seen."""
        self.operator = CpuOperator(self.geometry(self.chosen), self.block)
        self.subsets = _subsets(self.operator, film=self.film is not None)

    def geometry(self, tilts: NDArray[np.int_]) -> ParallelGeometry:
        """Return the geometry of some tilts, and a volume for all of them."""
        whole = geometry_of(self.series.angles_deg, self.shape[1], whole=self.whole, film=self.film)
        return whole.of(tilts)

    def each(self, pool: ThreadPoolExecutor, function: Callable[..., T], *items: Iterable[Any]) -> list[T]:
        """Call `function` for all items, on all threads unless images are small."""
        calls = map if self.is_small else pool.map
        return list(calls(function, *items))

    def start(self, pool: ThreadPoolExecutor) -> None:
        """Begin with a volume that is constant in each slice and about as bright as all images."""
        images, _ = self.warped(pool, np.arange(len(self.chosen)))
        lengths = np.maximum(self.operator.row_sums.mean(), 1e-6)
        level = np.maximum(np.maximum(images, 0).mean(axis=(0, 2)) / lengths, 1e-12).astype(np.float32)
        self.volumes[:] = 0
        for rows, volume in zip(self.blocks, self.volumes, strict=True):
            self.operator.planes(volume)[..., : rows.stop - rows.start] = level[rows]

    def once(self, pool: ThreadPoolExecutor, *, moving: bool, along_only: bool) -> NDArray[np.float64]:
        """Go through all subsets; return the step of each chosen tilt (along, across) in px."""
        steps, sums = np.zeros((len(self.chosen), 2)), np.zeros((len(self.chosen), N_SUMS))
        largest = STRAY**2 * self.typical
        known = NOTHING_HIDDEN if self.series.seen is None else self.series.seen
        images = (self.series.splines, known, self.chosen)
        how = (self._matrices(), self.moves, self.window, MARGIN_PX, moving, along_only, largest, sums, steps)
        if self.threads == 1:
            self.series.checkpoint()
            joint_kernels.all_subsets(self.volumes, self.room, self.subsets, images, how)
        else:
            self._all_subsets(pool, images, how)
        self.misfit, self.power = sums[:, 12], sums[:, 13]
        return steps

    def _all_subsets(self, pool: ThreadPoolExecutor, images: tuple[Any, ...], how: tuple[Any, ...]) -> None:
        """Do what `joint_kernels.all_subsets` does, on all threads."""
        shape, n_blocks = (self.shape[1] + 2 * PAD, self.block), len(self.blocks)

        def shared(function: Callable[..., None], n: int, before: tuple[Any, ...], *after: Any) -> None:
            ends = np.linspace(0, n, min(n, self.threads) + 1).round().astype(int).tolist()
            list(pool.map(lambda ends: function(*before, *ends, *after), pairwise(ends)))

        for k, n in enumerate(np.diff(self.subsets.starts).tolist()):
            self.series.checkpoint()
            projections = self.room[: n_blocks * n * math.prod(shape)].reshape(n_blocks, n, *shape)
            projections[:] = 0
            shared(joint_kernels.forward_blocks, n_blocks, (self.volumes, projections), k, self.subsets)
            shared(joint_kernels.compare_tilts, n, (projections,), k, self.subsets, images, how)
            shared(joint_kernels.improve_blocks, n_blocks, (self.volumes, projections), k, self.subsets)

    def _matrices(self) -> NDArray[np.float64]:
        """Return the linear part of `warp.sampling` for all images, (n_tilt, 2, 2)."""
        turn, corrections = rotation_matrix(self.angle_deg).T, self.series.correction_matrices
        if corrections is None:
            return np.tile(turn, (self.series.n_tilt, 1, 1))
        return np.ascontiguousarray(np.linalg.inv(corrections) @ turn)

    def reconstruct(self, pool: ThreadPoolExecutor, passes: int) -> None:
        """Start, and improve the volume in so many passes, in which no image moves."""
        self.start(pool)
        for _ in range(passes):
            self.once(pool, moving=False, along_only=False)

    @property
    def volume(self) -> Floats:
        """The volume as it stands, (z, y, x)."""
        parts = zip(self.volumes, self.blocks, strict=True)
        return np.concatenate([self.operator.unload(v, block.stop - block.start) for v, block in parts], axis=1)

    def predicted(self, pool: ThreadPoolExecutor, tilts: NDArray[np.int_]) -> Floats:
        """Return images (n, y, x) of any tilts of the series as the volume predicts them."""
        operator = self.operator.of(self.geometry(tilts))
        return self.joined(operator, self.each(pool, operator.forward, self.volumes))

    @property
    def typical(self) -> float:
        """Median squared residual of the tilts in the last pass; infinite before the first."""
        return float(np.median(self.misfit / np.maximum(self.power, 1e-30))) if self.power.any() else np.inf

    def joined(self, part: Operator, computed: list[Floats]) -> Floats:
        """Return images (n, y, x) from the projections of the blocks."""
        images = np.empty((part.geometry.n_tilt, *self.shape), np.float32)
        for block, projections in zip(self.blocks, computed, strict=True):
            images[:, block] = part.unload_projections(projections, block.stop - block.start)
        return images

    def improve(
        self, pool: ThreadPoolExecutor, part: Operator, plane: Floats, counts: Floats, computed: list[Floats]
    ) -> None:
        """Improve the volume of no film by images (n, y, x), given the projections of its blocks, which are used up."""

        def one(block: slice, projections: Floats, volume: Floats) -> None:
            measured = part.load(counts[:, block])
            np.maximum(projections, FAINTEST, out=projections)
            np.divide(measured, projections, out=projections)
            part.multiply(volume, projections, plane)

        self.each(pool, one, self.blocks, computed, self.volumes)

    def warped(self, pool: ThreadPoolExecutor, tilts: NDArray[np.int_]) -> tuple[Floats, NDArray[np.bool_]]:
        """Return chosen images (n, y, x) in the aligned frame, and whether the raw frame shows them well inside it."""
        return self.resampled(pool, self.chosen[tilts])

    def resampled(self, pool: ThreadPoolExecutor, which: NDArray[np.int_]) -> tuple[Floats, NDArray[np.bool_]]:
        """Return any images of the series as `warped` does."""
        shifts = unrotate_vectors(self.moves[which], self.angle_deg)
        images, seen = np.empty((len(which), *self.shape), np.float32), np.empty((len(which), *self.shape), bool)

        def one(k: int) -> None:
            self.series.resample(which[k], shifts[k], self.angle_deg, images[k], seen[k], margin_px=MARGIN_PX)

        self.each(pool, one, range(len(which)))
        return images, seen


def geometry_of(angles_deg: FloatArray, width: int, *, whole: bool, film: Film | None) -> ParallelGeometry:
    """Return the geometry of the volume for images of a `width`: of a film, all that any tilt shows."""
    if film is None:
        side = width if whole else round(width * WIDER)
        return ParallelGeometry(angles_deg, width, side, side)
    seen_deg = angles_deg - film.inclination_deg
    across = min(1 / max(np.cos(np.deg2rad(np.abs(seen_deg).max())), 1e-3), WIDEST_FILM) + film.depth
    depth = max(round(film.depth * width), SHALLOWEST_PX)
    return ParallelGeometry(seen_deg, width, round(across * width), depth)


def _subsets(operator: CpuOperator, *, film: bool) -> Subsets:
    """Divide the tilts of an operator into subsets, each of tilts far apart."""
    n_tilt = operator.geometry.n_tilt
    n = min(SUBSETS, n_tilt)
    parts = [np.arange(start, n_tilt, n) for start in spread_order(n)]
    places, starts = np.concatenate(parts), np.cumsum([0, *map(len, parts)])
    ordered = operator.of(operator.geometry.of(places))
    cuts = np.stack([np.searchsorted(tables[0], starts) for tables in ordered.directions])
    ones = operator.load(np.ones((n_tilt, 1, operator.geometry.n_detector), np.float32))
    planes = np.ones((n, operator.geometry.nz * operator.geometry.nx), np.float32)
    nothing, all_0 = np.empty(0, np.int64), np.zeros(n + 1, np.int64)
    subsets = Subsets(places, starts, ordered.directions, cuts, *ordered.adjoint_tables, planes, nothing, all_0)
    sums = np.empty_like(planes)
    joint_kernels.fill_column_sums(subsets, ones, aligned_zeros(operator.volume_shape), sums)
    planes[:] = [_reciprocal(one) for one in sums]
    if not film:
        return subsets
    unseen = [np.flatnonzero(plane == 0) for plane in planes]
    ends = np.cumsum([0, *map(len, unseen)])
    return subsets._replace(unseen=np.concatenate(unseen), unseen_starts=ends)


def _reciprocal(sums: Floats) -> Floats:
    """Return 1/sums, 0 where a subset does not see a voxel at all.

    Such voxels, far outside the frame, become 0 for good, but for those of a `Film`. Kept as they were in a volume as
    deep as it is wide, they took up what belongs inside: a film cut on all sides was aligned to 1.8 px instead of 0.1.
    """
    return np.where(sums > 1e-3 * sums.max(), 1 / np.maximum(sums, 1e-30), 0).astype(np.float32)
