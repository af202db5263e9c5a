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

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.images.correlation import taper
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import aligned_shape, unrotate_vectors
from tomoseg.arrays import FloatArray
from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.kernels import PAD
from tomoseg.reconstruction.operators import Floats, Operator

T = TypeVar("T")
WIDEST_FILM = 4.0  # of a film: times the width of the frame
SHALLOWEST_PX = 8
WIDER = 1.6  # of the frame: how much of a sample that extends beyond it is reconstructed
SUBSETS = 24  # at most: the volume is improved by so many parts of the tilts, one after the other
EDGE = 0.2  # part of the frame over which the weight of pixels falls off at its sides
MARGIN_PX = 2.0  # pixels so near the border of a raw frame are not compared: splines swing there
ALONG_PASSES = 2  # passes in which images move along the axis only: a volume still blurred misleads across it
LARGEST_PX = 1.0  # of a step
GAIN = 0.7  # of steps: volume and images follow each other, and would swing
STRAY = 3.0  # times the median residual: a tilt that takes no part in the volume
HALF_PASSES = 3  # of the volume by which half of the tilts predict the others
SMALL_PX2 = 128 * 128  # of an image whose work takes less time than handing it to a thread
FAINTEST = 1e-4  # of the brightest: what a projection is at least, as a divisor


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
            sums = np.array(run.each(pool, normal_equations, images, predicted, seen, [run.window] * len(images)))
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
        height = self.shape[0]
        self.aim()
        size = self.operator.block
        self.blocks = [slice(start, min(start + size, height)) for start in range(0, height, size)]
        self.volumes: list[Floats] = []
        self.is_small = height * self.shape[1] <= SMALL_PX2
        self.window = taper(self.shape, EDGE).astype(np.float32)
        self.misfit, self.power = np.zeros(len(chosen)), np.zeros(len(chosen))

    def aim(self) -> None:
        """Take the tilts of the reduced images for those at which the volume is seen."""
        self.operator = CpuOperator(self.geometry(self.chosen))
        indices = np.arange(len(self.chosen))
        self.subsets = [(indices[tilts], part) for tilts, part in self.operator.subsets(SUBSETS)]
        self.planes = [_reciprocal(part.column_sums) for _, part in self.subsets]

    def geometry(self, tilts: NDArray[np.int_]) -> ParallelGeometry:
        """Return the geometry of some tilts, and a volume for all of them."""
        whole = geometry_of(self.series.angles_deg, self.shape[1], whole=self.whole, film=self.film)
        return whole.of(tilts)

    def each(self, pool: ThreadPoolExecutor, function: Callable[..., T], *items: Iterable[Any]) -> list[T]:
        """Call `function` for all items, on all threads unless images are small."""
        calls = map if self.is_small else pool.map
        return list(calls(function, *items))

    def start(self, pool: ThreadPoolExecutor) -> None:
        """Make a volume that is constant in each slice, with about the brightness of all images."""
        images, _ = self.warped(pool, np.arange(len(self.chosen)))
        lengths = np.maximum(self.operator.row_sums.mean(), 1e-6)
        level = np.maximum(np.maximum(images, 0).mean(axis=(0, 2)) / lengths, 1e-12)
        geometry = self.operator.geometry
        for block in self.blocks:
            rows = level[block].astype(np.float32)
            self.volumes.append(
                self.operator.load_volume(
                    np.broadcast_to(rows[None, :, None], (geometry.nz, len(rows), geometry.nx)).copy()
                )
            )

    def once(self, pool: ThreadPoolExecutor, *, moving: bool, along_only: bool) -> NDArray[np.float64]:
        """Go through all subsets; return the step of each chosen tilt (along, across) in px."""
        steps = np.zeros((len(self.chosen), 2))
        misfit, power = np.zeros(len(self.chosen)), np.zeros(len(self.chosen))
        typical = self.typical
        for (tilts, part), plane in zip(self.subsets, self.planes, strict=True):
            self.series.checkpoint()
            computed = self.each(pool, part.forward, self.volumes)
            predicted = self.joined(part, computed)
            images, seen = self.warped(pool, tilts)
            sums = np.array(self.each(pool, normal_equations, images, predicted, seen, [self.window] * len(tilts)))
            misfit[tilts], power[tilts] = sums[:, 12], sums[:, 13]
            if moving:
                steps[tilts] = GAIN * np.array([_step(one) for one in sums])
                if along_only:
                    steps[tilts, 1] = 0
                self.moves[self.chosen[tilts]] += steps[tilts]
                images, seen = self.warped(pool, tilts)
            trusted = misfit[tilts] <= STRAY**2 * typical * power[tilts]
            counts = np.where(seen & trusted[:, None, None], np.maximum(images, 0), predicted)
            self.improve(pool, part, plane, counts, computed)
        self.misfit, self.power = misfit, power
        return steps

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
        operator = CpuOperator(self.geometry(tilts))
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
        """Improve the volume by images (n, y, x), given the projections of its blocks, which are used up.

        What these tilts do not show of a film stays as it is: others do.
        """

        def one(block: slice, projections: Floats, volume: Floats) -> None:
            measured = part.load(counts[:, block])
            np.maximum(projections, FAINTEST, out=projections)
            np.divide(measured, projections, out=projections)
            inside = volume[PAD:-PAD, PAD:-PAD]
            kept = inside[unseen] if self.film is not None else None
            part.multiply(volume, projections, plane)
            if kept is not None:
                inside[unseen] = kept

        unseen = plane == 0

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


def _reciprocal(sums: Floats) -> Floats:
    """Return 1/sums, 0 where a subset does not see a voxel at all.

    Such voxels, far outside the frame, become 0 for good, but for those of a `Film`. Kept as they were in a volume as
    deep as it is wide, they took up what belongs inside: a film cut on all sides was aligned to 1.8 px instead of 0.1.
    """
    return np.where(sums > 1e-3 * sums.max(), 1 / np.maximum(sums, 1e-30), 0).astype(np.float32)


def _step(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a tilt's step (along, across) by least squares, in which its brightness is free."""
    matrix, right = sums[:9].reshape(3, 3), sums[9:12]
    normal = matrix + 1e-9 * max(float(np.trace(matrix)), 1e-30) * np.eye(3)
    return np.clip(np.linalg.solve(normal, right)[:2], -LARGEST_PX, LARGEST_PX)


def _normal_equations(measured, predicted, seen, window):  # type: ignore[no-untyped-def]
    """Return sums over an image: 9 of the matrix for (dy, dx, brightness), 3 of the right side, misfit, power."""
    height, width = measured.shape
    sums = np.zeros(14)
    row = np.zeros(14)
    near, far = np.float32(2 / 3), np.float32(1 / 12)  # slope of the quartic through five points
    for y in range(2, height - 2):
        row[:] = 0
        for x in range(2, width - 2):
            if not seen[y, x]:
                continue
            w = window[y, x]
            gy = near * (predicted[y + 1, x] - predicted[y - 1, x]) - far * (predicted[y + 2, x] - predicted[y - 2, x])
            gx = near * (predicted[y, x + 1] - predicted[y, x - 1]) - far * (predicted[y, x + 2] - predicted[y, x - 2])
            bright = predicted[y, x]
            rest = measured[y, x] - bright
            row[0] += w * gy * gy
            row[1] += w * gy * gx
            row[2] += w * gy * bright
            row[4] += w * gx * gx
            row[5] += w * gx * bright
            row[8] += w * bright * bright
            row[9] += w * gy * rest
            row[10] += w * gx * rest
            row[11] += w * bright * rest
            row[12] += w * rest * rest
            row[13] += w * measured[y, x] * measured[y, x]
        sums += row
    sums[3], sums[6], sums[7] = sums[1], sums[2], sums[5]
    return sums


normal_equations: Callable[..., NDArray[np.float64]] = numba.njit(nogil=True, cache=True, fastmath=True)(
    _normal_equations
)
