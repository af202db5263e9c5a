"""Image corrections: rotation, magnification and tilt of each image, found together with a reconstruction.

The passes are those of `tomoseg.alignment.finding.joint`, with more unknowns for each image. With p an image as the
volume predicts it, y and x from the centre of the frame, and t its tilt, an image that is to be turned by a, magnified
by 1 + b and was taken at t + c differs from p by

    a (x dp/dy - y dp/dx) + b (y dp/dy + x dp/dx) + c dp/dt

in addition to what its move and its brightness do. The last is the difference of two projections. All three are
expected to be small beforehand, so that noise does not run away with what hardly shows.

What all images have in common cannot be told from the direction of the axis, the size of a voxel and the volume's own
rotation about the axis: rotations and tilt errors have the mean 0, magnifications the mean 1. A tilt error that grows
with the tilt stretches the volume along the beam, and the images hardly contradict that: what they seem to say of it
comes from the tilts that are missing, and grows from pass to pass. It is left out too.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.finding.joint import STRAY, SUBSETS, Run
from tomoseg.alignment.finding.joint_kernels import GAIN, LARGEST_PX
from tomoseg.alignment.finding.refine import CHECK_PX, held_out
from tomoseg.alignment.finding.solve import Solution, fill_between
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import rotation_matrix
from tomoseg.alignment.markers.corrections import KINDS, USUAL, CorrectionKind, as_corrections
from tomoseg.io.shifts import ImageCorrections
from tomoseg.reconstruction.operators import Floats, Operator

LARGEST = 0.5 * USUAL  # of a step
LEVELS = ((128, 20), (10_000, 16))  # longest sides of the reduced images, and passes
SETTLING = 8  # passes in which the volume forms before anything is moved
APART_DEG = 0.25  # to either side: tilts whose projections tell how images change with tilt
# Part by which the residual has to fall: three more numbers for each image take up to 0.8 % off without need of them,
# and 1.7 % where they are 0.1 degree and 0.1 % (35 images of 64 and 96 px).
LEAST_GAIN = 0.01


def find_corrections(
    series: ReducedSeries, solution: Solution, kinds: Sequence[CorrectionKind]
) -> tuple[Solution, ImageCorrections | None]:
    """Find the `kinds` of image corrections, and better moves with them.

    They are taken only if the others then predict the images clearly better; else they are None, and `solution`, right
    to a fraction of a pixel, is unchanged.
    """
    wanted = np.array([kind in kinds for kind in KINDS])
    if not wanted.any():
        return solution, None
    found, values = solution, np.zeros((series.n_tilt, 3))
    finer = [(series.reduced(longest), passes) for longest, passes in LEVELS]
    for small, passes in finer if finer[0][0].factor > series.factor else finer[:1]:
        scale = series.factor / small.factor
        run = _CorrectingRun(small, found, found.moves_px * scale, values, wanted)
        with ThreadPoolExecutor(max(1, small.workers)) as pool:
            run.start(pool)
            for number in range(passes):
                if number < SETTLING:
                    run.once(pool, moving=False, along_only=False)
                else:
                    run.correct_once(pool)
        found, values = replace(found, moves_px=fill_between(run.moves / scale, small.usable)), run.values
    corrections = as_corrections(values)
    small = series.reduced(CHECK_PX)
    before = held_out(small, series.factor, solution)
    after = held_out(small.corrected(corrections), series.factor, found)
    if not after < (1 - LEAST_GAIN) * before:
        return solution, None
    return replace(found, residual=after), corrections


class _CorrectingRun(Run):
    """The current volume, moves and image corrections."""

    def __init__(
        self,
        series: ReducedSeries,
        solution: Solution,
        moves: NDArray[np.float64],
        values: NDArray[np.float64],
        wanted: NDArray[np.bool_],
    ) -> None:
        self.plain, self.values, self.wanted = series, values.copy(), wanted
        corrected = series.corrected(as_corrections(values))
        super().__init__(corrected, np.flatnonzero(series.usable), moves, solution.axis_angle_deg, solution.whole)
        height, width = self.shape
        self.y = (np.arange(height, dtype=np.float32) - (height - 1) / 2)[:, None]
        self.x = np.arange(width, dtype=np.float32) - (width - 1) / 2

    def correct_once(self, pool: ThreadPoolExecutor) -> None:
        """Go through all subsets."""
        misfit, power = np.zeros(len(self.chosen)), np.zeros(len(self.chosen))
        typical = self.typical
        every = np.arange(len(self.chosen))
        for (taken, part), plane in zip(self.operator.subsets(SUBSETS), self.subsets.planes, strict=True):
            self.plain.checkpoint()
            tilts = every[taken]
            computed = list(pool.map(part.forward, self.volumes))
            predicted = self.joined(part, computed)
            slopes = self._slopes_in_tilt(pool, part) if self.wanted[2] else np.zeros_like(predicted)
            images, seen = self.warped(pool, tilts)
            now = self.values[self.chosen[tilts]]
            found = list(pool.map(self._step, images, predicted, slopes, seen, now))
            misfit[tilts], power[tilts] = np.array([f[1:] for f in found]).T
            for i, (step, _, _) in zip(self.chosen[tilts], found, strict=True):
                self._take(int(i), step)
            self._warp_as_found()
            images, seen = self.warped(pool, tilts)
            trusted = misfit[tilts] <= STRAY**2 * typical * power[tilts]
            counts = np.where(seen & trusted[:, None, None], np.maximum(images, 0), predicted)
            self.improve(pool, part, plane, counts, computed)
        self.misfit, self.power = misfit, power
        self._centre()
        self._warp_as_found()
        if self.wanted[2]:
            self.aim()

    def _slopes_in_tilt(self, pool: ThreadPoolExecutor, part: Operator) -> Floats:
        """Return how the images of a subset change per degree of tilt."""
        sides = []
        for apart in (APART_DEG, -APART_DEG):
            operator = part.of(replace(part.geometry, angles_deg=part.geometry.angles_deg + apart))
            sides.append(self.joined(operator, list(pool.map(operator.forward, self.volumes))))
        return np.asarray((sides[0] - sides[1]) / (2 * APART_DEG))

    def _step(
        self, image: Floats, predicted: Floats, slope: Floats, seen: NDArray[np.bool_], now: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float, float]:
        """Return the step of one image (dy, dx, rotation, magnification, tilt), its misfit and its power."""
        gy, gx = _slope(predicted, 0), _slope(predicted, 1)
        turned = np.float32(np.pi / 180) * (gy * self.x - gx * self.y)
        columns = np.stack([gy, gx, predicted, turned, gy * self.y + gx * self.x, slope])
        inside = slice(2, -2)
        columns = columns[:, inside, inside].reshape(len(columns), -1).astype(np.float64)
        weight = (self.window * seen)[inside, inside].ravel().astype(np.float64)
        rest = (image - predicted)[inside, inside].ravel().astype(np.float64)
        weighted = columns * weight
        normal, right = weighted @ columns.T, weighted @ rest
        misfit = float(weight @ rest**2)
        power = float(weight @ np.square(image[inside, inside].ravel(), dtype=np.float64))
        normal += 1e-9 * max(float(np.trace(normal[:3, :3])), 1e-30) * np.diag([1.0, 1, 1, 0, 0, 0])
        prior = misfit / max(float(weight.sum()), 1e-30) / USUAL**2
        normal[[3, 4, 5], [3, 4, 5]] += prior
        right[3:] -= prior * now
        free = np.concatenate([np.ones(3, bool), self.wanted])
        step = np.zeros(6)
        step[free] = np.linalg.lstsq(normal[np.ix_(free, free)], right[free], rcond=None)[0]
        limits = np.concatenate([[LARGEST_PX, LARGEST_PX], LARGEST])
        return GAIN * np.clip(step[[0, 1, 3, 4, 5]], -limits, limits), misfit, power

    def _take(self, i: int, step: NDArray[np.float64]) -> None:
        """Change an image's place: the turn and the magnification are about the centre of the aligned frame."""
        self.moves[i] = (1 + step[3]) * rotation_matrix(step[2]) @ self.moves[i] + step[:2]
        self.values[i, 0] += step[2]
        self.values[i, 1] = (1 + self.values[i, 1]) * (1 + step[3]) - 1
        self.values[i, 2] += step[4]

    def _centre(self) -> None:
        """Take away what all images have in common."""
        mean = self.values[self.chosen].mean(axis=0)
        back = rotation_matrix(-mean[0]) / (1 + mean[1])
        self.moves[self.chosen] = self.moves[self.chosen] @ back.T
        self.values[self.chosen, 0] -= mean[0]
        self.values[self.chosen, 1] = (1 + self.values[self.chosen, 1]) / (1 + mean[1]) - 1
        tilts = self.plain.angles_deg[self.chosen]
        line = np.polyfit(tilts, self.values[self.chosen, 2], 1)
        self.values[self.chosen, 2] -= np.polyval(line, tilts)

    def _warp_as_found(self) -> None:
        self.series = self.plain.corrected(as_corrections(self.values))


def _slope(image: Floats, axis: int) -> Floats:
    """Return the slope of the quartic through five points; 0 at the border."""
    out = np.zeros_like(image)
    inner = np.moveaxis(image, axis, 0)
    view = np.moveaxis(out, axis, 0)
    near, far = np.float32(2 / 3), np.float32(1 / 12)
    view[2:-2] = near * (inner[3:-1] - inner[1:-3]) - far * (inner[4:] - inner[:-4])
    return out
