"""Compiled inner loops of joint alignment: a subset of tilts compared with the volume, moved, and used to improve it.

Each function treats a range of blocks of slices, or of tilts, so that threads share the work and none of it waits for
Python. Arrays are in the layout of the CPU projector (`tomoseg.reconstruction.kernels`): volumes
(n_block, nz + 2*PAD, nx + 2*PAD, size) and projections (n_block, n, nx' + 2*PAD, size), row y of an image in block
y // size.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.images.reduced_series import resample_cubic
from tomoseg.reconstruction import kernels
from tomoseg.reconstruction.kernels import PAD, Floats
from tomoseg.reconstruction.simd import LANES

FAINTEST = np.float32(1e-4)  # of the brightest: what a projection is at least, as a divisor
LARGEST_PX = 1.0  # of a step
GAIN = 0.7  # of steps: volume and images follow each other, and would swing
N_SUMS = 14

compiled: Any = numba.njit(nogil=True, cache=True)
compiled_fast: Any = numba.njit(nogil=True, cache=True, fastmath=True)


class Subsets(NamedTuple):
    """All tilts in the order in which they are used, those of a subset together, and the projector's tables for them.

    Attributes
    ----------
    places : (n,) of the tilts among those chosen
    starts : (n_subset + 1,) of each subset in `places`
    directions : arguments of `kernels.project` from the tilts on, for rays that cross rows and columns steeply
    cuts : (2, n_subset + 1), where the tilts of each subset begin in the two
    columns, rows, inverse, sizes : arguments of `kernels.backproject`
    planes : (n_subset, nz * nx) weights of the voxels
    unseen, unseen_starts : flat places in (nz, nx) of voxels that stay as they are, and where those of a subset begin
    """

    places: NDArray[np.int64]
    starts: NDArray[np.int64]
    directions: tuple[Any, Any]
    cuts: NDArray[np.int64]
    columns: tuple[Floats, Floats]
    rows: tuple[Floats, Floats]
    inverse: Floats
    sizes: tuple[int, int, int, int]
    planes: Floats
    unseen: NDArray[np.int64]
    unseen_starts: NDArray[np.int64]


@compiled
def all_subsets(volumes, room, subsets, images, how):  # type: ignore[no-untyped-def]
    """Go through all subsets on this thread; `room` is flat, for the projections of the largest."""
    n_block, _, _, size = volumes.shape
    width = subsets.sizes[2] + 2 * PAD
    for k in range(len(subsets.starts) - 1):
        n = subsets.starts[k + 1] - subsets.starts[k]
        projections = room[: n_block * n * width * size].reshape(n_block, n, width, size)
        projections[:] = 0
        forward_blocks(volumes, projections, 0, n_block, k, subsets)
        compare_tilts(projections, 0, n, k, subsets, images, how)
        improve_blocks(volumes, projections, 0, n_block, k, subsets)


@compiled
def forward_blocks(volumes, projections, first, last, k, subsets):  # type: ignore[no-untyped-def]
    """Add to the projections of some blocks at the tilts of subset `k` those of their volumes."""
    for direction in range(2):
        (
            tilts, ray_whole, ray_fraction, row_whole, row_fraction, left, right, scale, n_rows, n_across, row_stride,
            across_stride, n_detector, strip, width,
        ) = subsets.directions[direction]  # fmt: skip
        a, b = subsets.cuts[direction, k], subsets.cuts[direction, k + 1]
        if a == b:
            continue
        ray_a, ray_b, row_a, row_b = a * (n_detector + LANES), b * (n_detector + LANES), a * n_rows, b * n_rows
        tilts = tilts[a:b] - subsets.starts[k]
        for block in range(first, last):
            kernels.project(
                volumes[block].reshape(-1), projections[block].reshape(-1), tilts, ray_whole[ray_a:ray_b],
                ray_fraction[ray_a:ray_b], row_whole[row_a:row_b], row_fraction[row_a:row_b], left[row_a:row_b],
                right[row_a:row_b], scale[a:b], n_rows, n_across, row_stride, across_stride, n_detector, strip, width,
            )  # fmt: skip


@compiled
def fill_column_sums(subsets, ones, volume, planes):  # type: ignore[no-untyped-def]
    """Fill `planes` with the back projections of `ones`, for each subset; `volume` and `ones` are those of a block."""
    nz, nx, n_detector, width = subsets.sizes
    for k in range(len(planes)):
        a, b = subsets.starts[k], subsets.starts[k + 1]
        columns, rows = slice(a * (nx + LANES), b * (nx + LANES)), slice(a * nz, b * nz)
        kernels.backproject(
            volume.reshape(-1), ones.reshape(-1), subsets.columns[0][columns], subsets.columns[1][columns],
            subsets.rows[0][rows], subsets.rows[1][rows], subsets.inverse[a:b], subsets.planes[k], kernels.STORE, 0.0,
            nz, nx, n_detector, width,
        )  # fmt: skip
        planes[k] = volume[PAD:-PAD, PAD:-PAD, 0].copy().reshape(-1)


@compiled
def improve_blocks(volumes, projections, first, last, k, subsets):  # type: ignore[no-untyped-def]
    """Multiply the volumes of some blocks by what the ratios in `projections` send back, as `CpuOperator.multiply`."""
    nz, nx, n_detector, width = subsets.sizes
    a, b = subsets.starts[k], subsets.starts[k + 1]
    columns, rows = slice(a * (nx + LANES), b * (nx + LANES)), slice(a * nz, b * nz)
    unseen = subsets.unseen[subsets.unseen_starts[k] : subsets.unseen_starts[k + 1]]
    kept = np.empty((unseen.size, width), np.float32)
    for block in range(first, last):
        volume = volumes[block].reshape(-1, width)
        for j in range(unseen.size):
            kept[j] = volume[(unseen[j] // nx + PAD) * (nx + 2 * PAD) + unseen[j] % nx + PAD]
        kernels.backproject(
            volumes[block].reshape(-1), projections[block].reshape(-1), subsets.columns[0][columns],
            subsets.columns[1][columns], subsets.rows[0][rows], subsets.rows[1][rows], subsets.inverse[a:b],
            subsets.planes[k], kernels.PRODUCT, 0.0, nz, nx, n_detector, width,
        )  # fmt: skip
        for j in range(unseen.size):
            volume[(unseen[j] // nx + PAD) * (nx + 2 * PAD) + unseen[j] % nx + PAD] = kept[j]


@compiled_fast
def compare_tilts(projections, first, last, subset, subsets, images, how):  # type: ignore[no-untyped-def]
    """Compare some tilts of a subset with their projections, move them, and replace the projections by ratios.

    Parameters
    ----------
    projections : (n_block, n, width + 2*PAD, size) f4, replaced by measured / projected
    images : splines, known, chosen
    splines, known : (n_tilt, y, x) f4 and bool, of the images; `known` is (1, 0, 0) where all of the frame is
    chosen : (n_chosen,) of each chosen tilt in the series
    how : matrices, moves, window, margin, moving, along_only, largest, sums, steps
    matrices : (n_tilt, 2, 2) from aligned to raw coordinates
    moves : (n_tilt, 2) f8, changed where `moving`
    window : (height, width) f4
    largest : of misfit / power, of a tilt that takes part in the volume
    sums, steps : (n_chosen, N_SUMS) and (n_chosen, 2) f8, filled; see `normal_equations`
    """
    splines, known, chosen = images
    matrices, moves, window, margin, moving, along_only, largest, sums, steps = how
    height, width = window.shape
    image, predicted = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    seen = np.empty((height, width), np.bool_)
    for k in range(first, last):
        place = subsets.places[subsets.starts[subset] + k]
        i = chosen[place]
        unloaded(projections, k, predicted)
        hidden = known[i if known.shape[0] > 1 else 0]
        _resample_moved(splines[i], hidden, matrices[i], moves[i], margin, image, seen)
        normal_equations(image, predicted, seen, window, sums[place])
        if moving:
            step(sums[place], steps[place])
            if along_only:
                steps[place, 1] = 0.0
            moves[i, 0] += steps[place, 0]
            moves[i, 1] += steps[place, 1]
            _resample_moved(splines[i], hidden, matrices[i], moves[i], margin, image, seen)
        trusted = sums[place, 12] <= largest * sums[place, 13]
        for y in range(height):
            block, lane = y // projections.shape[3], y % projections.shape[3]
            row = projections[block, k]
            for x in range(width):
                computed = predicted[y, x]
                measured = max(image[y, x], np.float32(0)) if trusted and seen[y, x] else computed
                row[x + PAD, lane] = measured / max(computed, FAINTEST)


@compiled
def unloaded(projections, k, image):  # type: ignore[no-untyped-def]
    """Fill `image` (height, width) with projection `k` of all blocks."""
    for y in range(image.shape[0]):
        row, lane = projections[y // projections.shape[3], k], y % projections.shape[3]
        for x in range(image.shape[1]):
            image[y, x] = row[x + PAD, lane]


@compiled
def _resample_moved(spline, known, matrix, move, margin, image, seen):  # type: ignore[no-untyped-def]
    """Fill `image` and `seen` with a raw image in the aligned frame; `move` is after rotation."""
    start = np.empty(2)
    down, right = move[0] + (image.shape[0] - 1) / 2, move[1] + (image.shape[1] - 1) / 2
    for axis in range(2):
        start[axis] = (spline.shape[axis] - 1) / 2 - matrix[axis, 0] * down - matrix[axis, 1] * right
    resample_cubic(spline, matrix, start, image, seen, known, margin, False)


@compiled_fast
def normal_equations(measured, predicted, seen, window, sums):  # type: ignore[no-untyped-def]
    """Fill `sums` (14,) f8 over an image: 9 of the matrix for (dy, dx, brightness), 3 of the right side, misfit, power.

    Slopes are those of the quartic through five points.
    """
    height, width = measured.shape
    near, far = np.float32(2 / 3), np.float32(1 / 12)
    sums[:] = 0
    for y in range(2, height - 2):
        yy = yx = yb = xx = xb = bb = yr = xr = br = rr = mm = np.float32(0)
        for x in range(2, width - 2):
            w = window[y, x] * np.float32(seen[y, x])
            gy = near * (predicted[y + 1, x] - predicted[y - 1, x]) - far * (predicted[y + 2, x] - predicted[y - 2, x])
            gx = near * (predicted[y, x + 1] - predicted[y, x - 1]) - far * (predicted[y, x + 2] - predicted[y, x - 2])
            bright, value = predicted[y, x], measured[y, x]
            rest = value - bright
            yy += w * gy * gy
            yx += w * gy * gx
            yb += w * gy * bright
            xx += w * gx * gx
            xb += w * gx * bright
            bb += w * bright * bright
            yr += w * gy * rest
            xr += w * gx * rest
            br += w * bright * rest
            rr += w * rest * rest
            mm += w * value * value
        sums[0] += yy
        sums[1] += yx
        sums[2] += yb
        sums[4] += xx
        sums[5] += xb
        sums[8] += bb
        sums[9] += yr
        sums[10] += xr
        sums[11] += br
        sums[12] += rr
        sums[13] += mm
    sums[3], sums[6], sums[7] = sums[1], sums[2], sums[5]


@compiled
def step(sums, found):  # type: ignore[no-untyped-def]
    """Fill `found` (2,) with a tilt's step (along, across) by least squares, in which its brightness is free."""
    rows = np.empty((3, 4))
    least = 1e-9 * max(sums[0] + sums[4] + sums[8], 1e-30)
    for i in range(3):
        for j in range(3):
            rows[i, j] = sums[3 * i + j] + (least if i == j else 0.0)
        rows[i, 3] = sums[9 + i]
    for i in range(2, 0, -1):  # the matrix is symmetric and positive: elimination needs no pivots
        for j in range(i):
            part = rows[j, i] / rows[i, i]
            for m in range(4):
                rows[j, m] -= part * rows[i, m]
    down = rows[0, 3] / rows[0, 0]
    across = (rows[1, 3] - rows[1, 0] * down) / rows[1, 1]
    found[0] = GAIN * min(max(down, -LARGEST_PX), LARGEST_PX)
    found[1] = GAIN * min(max(across, -LARGEST_PX), LARGEST_PX)
