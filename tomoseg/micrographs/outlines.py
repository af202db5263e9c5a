"""Outlines of blobs: of the level sets around each, the one at which the image falls most steeply on average.

Around a blob the background is a plane. From its brightest px a region grows level by level; at each level the mean
drop across its border is known. The region with the steepest border is the particle. A slope of the background does
not count: along a closed border its drops cancel.
"""

from typing import Any

import numba
import numpy as np

from tomoseg.arrays import Array

LEVELS = 64
SECTORS = 12
LEAST_PART, MOST_PART = 0.25, 6.0  # of the blob's disc that the region may cover
REACH = 2.6  # radii from the centre to where a blob is looked at
STEEPER = 1.5
# An outline: where its blob is, the background plane around that and the level over it; area, centre and mean drop per
# px; its depth, the mean difference to the sides around it, and that to a side of the lower quarter of them.
OUTLINE = np.dtype(
    [
        *[("seed_y", "i8"), ("seed_x", "i8"), ("plane", "f8", (3,)), ("level", "f8"), ("area", "f8")],
        *[("y", "f8"), ("x", "f8"), ("drop", "f8"), ("depth", "f8"), ("weakest", "f8"), ("compact", "f8")],
    ]
)


@numba.njit(nogil=True, cache=True)
def background_plane(image: Array, y: int, x: int, radius: float, out: Array) -> None:
    """Fit a plane c + a (row - y) + b (column - x) to the ring around a blob; what stands out of it is left out.

    Fills `out` with (c, a, b).
    """
    reach = int(np.ceil(REACH * radius)) + 1
    n_y, n_x = image.shape
    inner, outer = 1.4 * radius + 1, REACH * radius + 1
    ring = np.empty(((2 * reach + 1) ** 2, 3))
    n_ring = 0
    for row in range(max(0, y - reach), min(n_y, y + reach + 1)):
        for column in range(max(0, x - reach), min(n_x, x + reach + 1)):
            dy, dx = row - y, column - x
            if inner <= np.sqrt(dy * dy + dx * dx) <= outer:
                ring[n_ring, 0], ring[n_ring, 1], ring[n_ring, 2] = dy, dx, image[row, column]
                n_ring += 1
    spread = np.inf
    out[:] = 0
    for _ in range(4):
        m = np.zeros((3, 3))
        v = np.zeros(3)
        squares, n = 0.0, 0
        for dy, dx, value in ring[:n_ring]:
            residual = value - out[0] - out[1] * dy - out[2] * dx
            if residual > spread or residual < -3 * spread:
                continue
            n += 1
            m[0, 0] += 1
            m[0, 1] += dy
            m[0, 2] += dx
            m[1, 1] += dy * dy
            m[1, 2] += dy * dx
            m[2, 2] += dx * dx
            v[0] += value
            v[1] += value * dy
            v[2] += value * dx
        m[1, 0], m[2, 0], m[2, 1] = m[0, 1], m[0, 2], m[1, 2]
        determinant = np.linalg.det(m)
        if n < 8 or determinant <= 1e-6 * n**3:
            return
        out[:] = np.linalg.solve(m, v)
        for dy, dx, value in ring[:n_ring]:
            residual = value - out[0] - out[1] * dy - out[2] * dx
            if residual <= spread and residual >= -3 * spread:
                squares += residual * residual
        spread = np.sqrt(squares / n)


@numba.njit(nogil=True, cache=True)
def grow(height: Array, y: int, x: int, level_of: Array, order: Array) -> int:
    """Flood a patch from (y, x) from high levels to low; fills `order` (n,) with the px in the order they are reached.

    `level_of` (h, w) i4 counts levels downwards from 0; `LEVELS` and more is never entered. Returns how many px.
    """
    n_y, n_x = height.shape
    head = np.full(LEVELS, -1, np.int32)
    following = np.full(n_y * n_x, -1, np.int32)
    seen = np.zeros(n_y * n_x, np.bool_)
    start = y * n_x + x
    seen[start] = True
    head[max(0, level_of[y, x])] = start
    n, current = 0, 0
    while current < LEVELS:
        pixel = head[current]
        if pixel < 0:
            current += 1
            continue
        head[current] = following[pixel]
        order[n] = pixel
        n += 1
        row, column = pixel // n_x, pixel % n_x
        for k in range(4):
            r = row + (1 if k == 0 else -1 if k == 1 else 0)
            c = column + (1 if k == 2 else -1 if k == 3 else 0)
            if r < 0 or c < 0 or r >= n_y or c >= n_x:
                continue
            other = r * n_x + c
            if seen[other] or level_of[r, c] >= LEVELS:
                continue
            seen[other] = True
            level = max(level_of[r, c], current)
            following[other] = head[level]
            head[level] = other
    return n


@numba.njit(nogil=True, cache=True)
def _patch(image: Array, y: int, x: int, radius: float, plane: Array) -> tuple[Array, int, int]:
    """Return what is around a blob without its background plane, and the row and column of its first px."""
    reach = int(np.ceil(REACH * radius)) + 2
    top, left = max(0, y - reach), max(0, x - reach)
    h, w = min(image.shape[0], y + reach + 1) - top, min(image.shape[1], x + reach + 1) - left
    patch = np.empty((h, w))
    for r in range(h):
        for c in range(w):
            patch[r, c] = image[top + r, left + c] - plane[0] - plane[1] * (top + r - y) - plane[2] * (left + c - x)
    return patch, top, left


@numba.njit(nogil=True, cache=True)
def _levels(patch: Array, y: int, x: int, radius: float) -> tuple[int, int, float, Array]:
    """Return the brightest px near the middle of a blob, its height, and the level (h, w) of each px below it."""
    h, w = patch.shape
    best, peak_y, peak_x = -np.inf, y, x
    near = max(1.0, 0.6 * radius)
    for r in range(h):
        for c in range(w):
            if (r - y) ** 2 + (c - x) ** 2 <= near * near and patch[r, c] > best:
                best, peak_y, peak_x = patch[r, c], r, c
    level_of = np.full((h, w), LEVELS, np.int32)
    if best > 0:
        step = best * 1.1 / LEVELS
        for r in range(h):
            for c in range(w):
                level_of[r, c] = min(LEVELS, int(max(0.0, (best - patch[r, c]) / step)))
    return peak_y, peak_x, best, level_of


@numba.njit(nogil=True, cache=True)
def _steepest(
    patch: Array, level_of: Array, order: Array, n: int, radius: float, sides: tuple[bool, bool, bool, bool]
) -> tuple[int, float, int]:
    """Return how many px of the growing region have the steepest border, the mean drop there, and its sides of px.

    `sides`: whether the patch ends at its top, bottom, left and right where the image does not: there it grows no more.
    """
    h, w = patch.shape
    inside = np.zeros((h, w), np.bool_)
    drop, borders, best_drop, best_n, best_borders, current = 0.0, 0, 0.0, 0, 0, 0
    disc = np.pi * radius * radius
    for i in range(n):
        r, c = order[i] // w, order[i] % w
        if level_of[r, c] > current:
            if borders > 0 and LEAST_PART * disc <= i <= MOST_PART * disc and drop / borders > best_drop:
                best_drop, best_n, best_borders = drop / borders, i, borders
            current = level_of[r, c]
        if i > MOST_PART * disc:
            break
        if (sides[0] and r == 0) or (sides[1] and r == h - 1) or (sides[2] and c == 0) or (sides[3] and c == w - 1):
            break
        inside[r, c] = True
        for k in range(4):
            rr = r + (1 if k == 0 else -1 if k == 1 else 0)
            cc = c + (1 if k == 2 else -1 if k == 3 else 0)
            if rr < 0 or cc < 0 or rr >= h or cc >= w:
                continue
            difference = patch[r, c] - patch[rr, cc]
            drop += difference
            borders += -1 if inside[rr, cc] else 1
    return best_n, best_drop, best_borders


@numba.njit(nogil=True, cache=True)
def _ring(shape: tuple[int, int], order: Array, n: int, width: int) -> Array:
    """Return the px around a region that are 2 to `width` + 1 steps away from it."""
    h, w = shape
    seen = np.zeros(h * w, np.bool_)
    front = np.empty(h * w, np.int32)
    front[:n] = order[:n]
    for i in range(n):
        seen[order[i]] = True
    start, stop, first = 0, n, n
    for step in range(1, width + 2):
        m = stop
        for i in range(start, stop):
            r, c = front[i] // w, front[i] % w
            for rr in range(max(0, r - 1), min(h, r + 2)):
                for cc in range(max(0, c - 1), min(w, c + 2)):
                    if not seen[rr * w + cc] and (step % 2 or rr == r or cc == c):
                        seen[rr * w + cc] = True
                        front[m] = rr * w + cc
                        m += 1
        start, stop = stop, m
        if step == 1:
            first = m
    return front[first:stop]


@numba.njit(nogil=True, cache=True)
def outline_of(image: Array, y: int, x: int, radius: float, out: Any) -> None:
    """Find the outline of a blob of an image (y, x): fills a row `out` of `OUTLINE`; its area is 0 for none."""
    plane = np.zeros(3)
    background_plane(image, y, x, radius, plane)
    patch, top, left = _patch(image, y, x, radius, plane)
    w = patch.shape[1]
    peak_y, peak_x, best, level_of = _levels(patch, y - top, x - left, radius)
    out.plane[:] = plane
    out.seed_y, out.seed_x = y, x
    if best <= 0:
        return
    order = np.empty(patch.size, np.int32)
    n = grow(patch, peak_y, peak_x, level_of, order)
    h = patch.shape[0]
    sides = (top > 0, top + h < image.shape[0], left > 0, left + w < image.shape[1])
    n_best, drop, borders = _steepest(patch, level_of, order, n, radius, sides)
    if n_best == 0:
        return
    cy = cx = total = 0.0
    level = np.inf
    for i in range(n_best):
        r, c = order[i] // w, order[i] % w
        cy += r / n_best
        cx += c / n_best
        total += patch[r, c]
        level = min(level, patch[r, c])
    out.level, out.area, out.drop = level, n_best, drop
    out.y, out.x = cy + top, cx + left
    out.compact = 4 * np.pi * n_best / (np.pi / 4 * borders) ** 2
    raw = total / n_best + plane[1] * (out.y - y) + plane[2] * (out.x - x)
    sums, counts = np.zeros(SECTORS), np.zeros(SECTORS)
    for pixel in _ring(patch.shape, order, n_best, max(2, round(0.5 * np.sqrt(n_best / np.pi)))):
        r, c = pixel // w, pixel % w
        s = int((np.arctan2(r - cy, c - cx) / (2 * np.pi) + 0.5) * SECTORS) % SECTORS
        sums[s] += patch[r, c] + plane[1] * (top + r - y) + plane[2] * (left + c - x)
        counts[s] += 1
    depths = np.sort((raw - sums / np.maximum(counts, 1))[counts > 0])
    if len(depths):
        out.depth, out.weakest = depths.mean(), depths[len(depths) // 4]


@numba.njit(nogil=True, cache=True)
def outlines(image: Array, y: Array, x: Array, radius: Array, out: Array) -> None:
    """Find the outlines of blobs (n,) on one image."""
    for i in range(len(y)):
        outline_of(image, y[i], x[i], radius[i], out[i])


@numba.njit(nogil=True, cache=True)
def paint(  # noqa: PLR0912 - one compiled loop
    image: Array,
    row: Any,
    radius: float,
    step: int,
    labels: Array,
    label: int,
    drops: Array,
    areas: Array,
    drop: float,
) -> int:
    """Paint the px of an outline that are free; return 1 if it was painted.

    It is not where half of it is painted already, or where it holds a painted one that has an edge `STEEPER` times as
    steep: then it is what particles lie on. What overlaps by a sixth or more becomes one object, to be cut at its neck.
    The image is reduced by `step`; between its px the height is linear.
    """
    y, x = row.seed_y, row.seed_x
    patch, top, left = _patch(image, y, x, radius, row.plane.astype(np.float64))
    h, w = patch.shape
    peak_y, peak_x, _best, level_of = _levels(patch, y - top, x - left, radius)
    order = np.empty(patch.size, np.int32)
    grow(patch, peak_y, peak_x, level_of, order)
    n_area = int(row.area)
    near = np.zeros((h, w), np.bool_)
    r0, r1, c0, c1 = h, 0, w, 0
    for i in range(n_area):
        r, c = order[i] // w, order[i] % w
        near[r, c] = True
        r0, r1, c0, c1 = min(r0, r), max(r1, r), min(c0, c), max(c1, c)
    n_y, n_x = labels.shape
    pixels = np.empty(((r1 - r0 + 3) * step * (c1 - c0 + 3) * step, 2), np.int32)
    n = 0
    for yy in range(max(0, (r0 + top - 1) * step), min(n_y, (r1 + top + 1) * step + 1)):
        fy = yy / step - top
        a = min(max(int(np.floor(fy)), 0), h - 1)
        b = min(a + 1, h - 1)
        ty = min(max(fy - a, 0.0), 1.0)
        for xx in range(max(0, (c0 + left - 1) * step), min(n_x, (c1 + left + 1) * step + 1)):
            fx = xx / step - left
            d = min(max(int(np.floor(fx)), 0), w - 1)
            e = min(d + 1, w - 1)
            tx = min(max(fx - d, 0.0), 1.0)
            if not (near[a, d] or near[b, d] or near[a, e] or near[b, e]):
                continue
            value = (1 - ty) * ((1 - tx) * patch[a, d] + tx * patch[a, e])
            value += ty * ((1 - tx) * patch[b, d] + tx * patch[b, e])
            if value >= row.level and n < len(pixels):
                pixels[n, 0], pixels[n, 1] = yy, xx
                n += 1
    if n == 0:
        return 0
    covered, most, most_label = 0, 0, 0
    counts = np.zeros(label + 1, np.int32)
    for i in range(n):
        other = labels[pixels[i, 0], pixels[i, 1]]
        if other > 0:
            covered += 1
            counts[other] += 1
            if counts[other] > most:
                most, most_label = counts[other], other
    for other in range(1, label):
        if counts[other] > 0.7 * areas[other] and drops[other] > STEEPER * drop:
            return 0
    if covered >= 0.5 * n:
        return 0
    mine = most_label if most >= n / 6 else label
    for i in range(n):
        if labels[pixels[i, 0], pixels[i, 1]] == 0:
            labels[pixels[i, 0], pixels[i, 1]] = mine
    drops[mine] = max(drops[mine], drop)
    areas[mine] += n - covered
    return 1
