"""Compiled inner loops of the CPU projector, and of the comparison of projections.

In single-axis tomography every slice has the same geometry. The arrays here therefore hold some slices interleaved as
the fastest axis: a weight is computed once and applied to all of them. There are `width` of them, LANES or WIDE: one
vector, or two that share the loads of weights and places, which is faster by a fifth to a third. A volume is
(nz + 2*PAD, nx + 2*PAD, width), projections are (n_tilt, n_detector + 2*PAD, width), both flat float32 with a border of
zeros, so that no tap needs a test for the edge: positions are clipped into the border. A slice has the same bits in
either width.

The projector is Joseph's: a ray is sampled once per row (or per column, whichever it crosses more steeply) by linear
interpolation, times its length within the row (P. M. Joseph, IEEE Trans. Med. Imaging 1, 192, 1982). Seen from a voxel
whose centre projects to detector coordinate u, the same weights are a triangle on the detector,
``max(0, 1 - |u - d|/m)/m`` with ``m = max(|cos t|, |sin t|)``: m <= 1, so only the two pixels around u matter. Forward
and backward kernels both gather, need no atomic operation, and are each other's transpose to rounding.

Positions are sums of a part per ray (or column) and a part per row, each given as whole pixels and a fraction in
[0, 1), because a float32 holds a fraction next to a large whole number too coarsely.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tomoseg.reconstruction.simd import (
    LANES,
    add,
    at,
    fill,
    floor,
    load,
    maximum,
    minimum,
    multiply,
    multiply_add,
    store,
    store_offsets,
    subtract,
    zero,
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

WIDE = 2 * LANES
PAD = 2  # border of zeros: one pixel is enough for both taps at a clipped position, and one for clipping beyond it
CHUNK = 64  # detector pixels whose weights are tabulated at a time; the tables stay in the first-level cache
TILE_Z, TILE_X, TILE_TILTS = 16, 32, 24  # voxels and tilts treated together by `backproject`
STORE, PRODUCT, SUM = 0, 1, 2  # what `backproject` does with the volume
MOST = 1e6  # largest factor that a single ray may ask for in one MLEM iteration
LEAST_NORMAL = np.float32(np.finfo(np.float32).tiny)
LEAST = np.float32(1e-30)  # voxels below this become 0: denormal numbers would slow some processors down a hundredfold


def compiled(**options: Any) -> Any:
    """Compile a function for threads, and keep it on disk for the next process where that is possible."""

    def decorate(function: Any) -> Any:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # neither the package nor the user's cache directory can be written
            return njit(nogil=True, **options)(function)

    return decorate


@compiled()
def _tabulate_rays(
    ray_whole: Floats,
    ray_fraction: Floats,
    ray: int,
    row_whole: np.float32,
    row_fraction: np.float32,
    scale: np.float32,
    last: int,
    stride: int,
    start: int,
    n: int,
    offsets: Ints,
    low: Floats,
    high: Floats,
    entry: int,
) -> None:
    """Tabulate both taps of `n` rays from `ray` on in one row: where in the volume, and the two weights."""
    whole, fraction, length = fill(row_whole), fill(row_fraction), fill(scale)
    bottom, top = fill(np.float32(-PAD)), fill(np.float32(last))
    for k in range(0, n, LANES):
        position = add(load(ray_fraction, ray + k), fraction)
        carry = floor(position)
        pixel = add(add(load(ray_whole, ray + k), whole), carry)
        upper = multiply(subtract(position, carry), length)
        store(high, entry + k, upper)
        store(low, entry + k, subtract(length, upper))
        store_offsets(offsets, entry + k, minimum(maximum(pixel, bottom), top), np.int32(stride), np.int32(start))


@compiled()
def _sum_along_rays(
    volume: Floats,
    projections: Floats,
    target: int,
    n_rays: int,
    n_rows: int,
    stride: int,
    offsets: Ints,
    low: Floats,
    high: Floats,
    width: int,
) -> None:
    """Add to each of `n_rays` detector pixels from `target` on what its ray meets in the tabulated rows."""
    for k in range(n_rays):
        # Two sums of each vector, so that one multiply-add need not wait for the one before it.
        here = target + k * width
        first, second = load(projections, here), zero()
        if width == LANES:
            for row in range(n_rows):
                entry = row * CHUNK + k
                offset = np.int64(at(offsets, entry))
                first = multiply_add(at(low, entry), load(volume, offset), first)
                second = multiply_add(at(high, entry), load(volume, offset + stride), second)
        else:
            third, fourth = load(projections, here + LANES), zero()
            for row in range(n_rows):
                entry = row * CHUNK + k
                offset = np.int64(at(offsets, entry))
                near, far = at(low, entry), at(high, entry)
                first = multiply_add(near, load(volume, offset), first)
                second = multiply_add(far, load(volume, offset + stride), second)
                third = multiply_add(near, load(volume, offset + LANES), third)
                fourth = multiply_add(far, load(volume, offset + stride + LANES), fourth)
            store(projections, here + LANES, add(third, fourth))
        store(projections, here, add(first, second))


@compiled()
def project(
    volume: Floats,
    projections: Floats,
    tilts: NDArray[np.int64],
    ray_whole: Floats,
    ray_fraction: Floats,
    row_whole: Floats,
    row_fraction: Floats,
    first: Ints,
    last: Ints,
    scale: Floats,
    n_rows: int,
    n_across: int,
    row_stride: int,
    across_stride: int,
    n_detector: int,
    strip: int,
    width: int,
) -> None:
    """Add the projections at those `tilts` whose rays cross the rows steeply.

    "Rows" are the lines along which a ray is sampled, "across" is the direction of interpolation: z and x for tilts
    below 45 degrees, x and z above; strides are in floats. A strip of rows stays in the second-level cache while all
    tilts pass over it. Tables, one row per entry of `tilts`: `ray_whole` and `ray_fraction` per detector pixel (padded
    by LANES), `row_whole` and `row_fraction` per row, whose sum is the position across; `first` and `last` (exclusive)
    detector pixel whose ray meets the row; `scale`, the length of a ray within a row.
    """
    offsets = np.empty(strip * CHUNK, np.int32)
    low, high = np.empty(strip * CHUNK, np.float32), np.empty(strip * CHUNK, np.float32)
    pitch = n_detector + LANES
    for begin in range(0, n_rows, strip):
        n = min(strip, n_rows - begin)
        for i in range(tilts.size):
            table = i * n_rows + begin
            left = min(first[table], first[table + n - 1])
            right = max(last[table], last[table + n - 1])
            for ray in range(left, right, CHUNK):
                n_rays = min(CHUNK, right - ray)
                for row in range(n):
                    start = (begin + row + PAD) * row_stride + PAD * across_stride
                    _tabulate_rays(
                        ray_whole, ray_fraction, i * pitch + ray, row_whole[table + row], row_fraction[table + row],
                        scale[i], n_across, across_stride, start, n_rays, offsets, low, high, row * CHUNK,
                    )  # fmt: skip
                target = (tilts[i] * (n_detector + 2 * PAD) + ray + PAD) * width
                _sum_along_rays(volume, projections, target, n_rays, n, across_stride, offsets, low, high, width)


@compiled()
def _tabulate_voxels(
    column_whole: Floats,
    column_fraction: Floats,
    column: int,
    row_whole: np.float32,
    row_fraction: np.float32,
    inverse: np.float32,
    last: int,
    start: int,
    n: int,
    offsets: Ints,
    low: Floats,
    high: Floats,
    entry: int,
) -> None:
    """Tabulate, for `n` voxels of a row from `column` on at one tilt, the two detector pixels and their weights.

    Pixels are counted in units of LANES floats, whatever the width: a shift is much faster than a product.
    """
    whole, fraction = fill(row_whole), fill(row_fraction)
    peak, slope = fill(inverse), fill(inverse * inverse)
    offset = fill(inverse - inverse * inverse)
    bottom, top = fill(np.float32(-PAD)), fill(np.float32(last))
    for k in range(0, n, LANES):
        position = add(load(column_fraction, column + k), fraction)
        carry = floor(position)
        pixel = add(add(load(column_whole, column + k), whole), carry)
        fall = multiply(subtract(position, carry), slope)
        store(low, entry + k, maximum(subtract(peak, fall), zero()))  # (1 - f/m)/m
        store(high, entry + k, maximum(add(offset, fall), zero()))  # (1 - (1 - f)/m)/m
        store_offsets(offsets, entry + k, minimum(maximum(pixel, bottom), top), np.int32(LANES), np.int32(start))


@compiled()
def _sum_over_tilts(
    projections: Floats,
    tile: Floats,
    target: int,
    n_voxels: int,
    n_tilts: int,
    offsets: Ints,
    low: Floats,
    high: Floats,
    width: int,
) -> None:
    """Add to each of `n_voxels` voxels of the tile from `target` on what the tabulated tilts send back."""
    for k in range(n_voxels):
        here = target + k * width
        first, second = load(tile, here), zero()
        if width == LANES:
            for j in range(n_tilts):
                entry = j * TILE_X + k
                offset = np.int64(at(offsets, entry))
                first = multiply_add(at(low, entry), load(projections, offset), first)
                second = multiply_add(at(high, entry), load(projections, offset + LANES), second)
        else:
            third, fourth = load(tile, here + LANES), zero()
            for j in range(n_tilts):
                entry = j * TILE_X + k
                offset = 2 * np.int64(at(offsets, entry))
                near, far = at(low, entry), at(high, entry)
                first = multiply_add(near, load(projections, offset), first)
                second = multiply_add(far, load(projections, offset + WIDE), second)
                third = multiply_add(near, load(projections, offset + LANES), third)
                fourth = multiply_add(far, load(projections, offset + WIDE + LANES), fourth)
            store(tile, here + LANES, add(third, fourth))
        store(tile, here, add(first, second))


@compiled()
def _finish_row(
    volume: Floats,
    tile: Floats,
    target: int,
    source: int,
    n: int,
    weight: Floats,
    voxel: int,
    mode: int,
    least: float,
    width: int,
) -> None:
    """Store, multiply or add a row of the tile, times the voxels' weights, to the volume."""
    for k in range(n):
        factor = fill(at(weight, voxel + k))
        for here in range(k * width, (k + 1) * width, LANES):
            back = multiply(load(tile, source + here), factor)
            if mode == PRODUCT:
                # Taking LEAST away changes no number above 1e-22 and turns those below LEAST to 0.
                product = multiply(load(volume, target + here), back)
                back = maximum(subtract(product, fill(LEAST)), zero())
            elif mode == SUM:
                back = maximum(add(load(volume, target + here), back), fill(np.float32(least)))
            store(volume, target + here, back)


@compiled()
def backproject(
    volume: Floats,
    projections: Floats,
    column_whole: Floats,
    column_fraction: Floats,
    row_whole: Floats,
    row_fraction: Floats,
    inverse: Floats,
    weight: Floats,
    mode: int,
    least: float,
    nz: int,
    nx: int,
    n_detector: int,
    width: int,
) -> None:
    """Sum over tilts what each voxel's detector pixels hold, then update the volume.

    With b the weighted back projection, the volume v becomes b (`STORE`), v*b (`PRODUCT`) or max(v + b, least)
    (`SUM`). Tables: `column_whole` and `column_fraction` (n_tilt rows of nx + LANES) plus `row_whole` and
    `row_fraction` (n_tilt rows of nz) give the detector coordinate of a voxel; `inverse` is 1/m of each tilt, with 1
    for plain linear interpolation; `weight` (nz, nx) multiplies the sum.
    """
    offsets = np.empty(TILE_TILTS * TILE_X, np.int32)
    low, high = np.empty(TILE_TILTS * TILE_X, np.float32), np.empty(TILE_TILTS * TILE_X, np.float32)
    tile = np.empty(TILE_Z * TILE_X * width, np.float32)
    n_tilt = inverse.size
    for z0 in range(0, nz, TILE_Z):
        for x0 in range(0, nx, TILE_X):
            n, n_rows = min(TILE_X, nx - x0), min(TILE_Z, nz - z0)
            tile[:] = 0
            for t0 in range(0, n_tilt, TILE_TILTS):
                n_tilts = min(TILE_TILTS, n_tilt - t0)
                for row in range(n_rows):
                    for j in range(n_tilts):
                        t = t0 + j
                        start = (t * (n_detector + 2 * PAD) + PAD) * LANES
                        _tabulate_voxels(
                            column_whole, column_fraction, t * (nx + LANES) + x0,
                            row_whole[t * nz + z0 + row], row_fraction[t * nz + z0 + row],
                            inverse[t], n_detector, start, n, offsets, low, high, j * TILE_X,
                        )  # fmt: skip
                    _sum_over_tilts(projections, tile, row * TILE_X * width, n, n_tilts, offsets, low, high, width)
            for row in range(n_rows):
                target = ((z0 + row + PAD) * (nx + 2 * PAD) + x0 + PAD) * width
                voxel = (z0 + row) * nx + x0
                _finish_row(volume, tile, target, row * TILE_X * width, n, weight, voxel, mode, least, width)


@compiled(fastmath={"reassoc"}, error_model="numpy")
def ratio(measured: Floats, computed: Floats) -> float:
    """Replace `computed` by measured/computed and return the sum of squares of measured - computed.

    Where nothing is measured the ratio is 0, which pushes the ray's voxels to 0; it is never more than `MOST`, whatever
    the ray met, so no infinity and no NaN can arise. The least normal number keeps the divisor from 0 where measured
    is so small (1e-38 and less, as interpolation leaves behind) that measured / MOST is 0.
    """
    total = 0.0
    for i in range(measured.size):
        p, q = measured[i], computed[i]
        total += float(p - q) * float(p - q)
        computed[i] = p / max(q, p * np.float32(1 / MOST), LEAST_NORMAL) if p > 0 else np.float32(0)
    return total


@compiled(fastmath={"reassoc"})
def difference(measured: Floats, computed: Floats) -> float:
    """Replace `computed` by measured - computed and return its sum of squares."""
    total = 0.0
    for i in range(measured.size):
        left = measured[i] - computed[i]
        total += float(left) * float(left)
        computed[i] = left
    return total
