"""A picture of the surfaces of labelled classes, made by casting rays through their smoothed fractions.

The projection is parallel, so that a scale bar holds everywhere. Glass classes are translucent, most where one looks
straight at them; solid classes end the ray. Neither a display nor a graphics library is needed.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import FloatArray
from tomoseg.palette import rgb
from tomoseg.report.results import Results
from tomoseg.report.sampling.fractions import Fractions, block_means

PICTURE_SIDE = 900  # px
MOST_CELLS = 200  # per side of the grid that is drawn; finer grids are averaged down to it
BLOCK = 4  # voxels; rays skip blocks without a surface
# Degrees: the object is turned about the vertical axis, then tipped towards the viewer.
YAW, PITCH = 30.0, 22.0


@dataclass(frozen=True)
class Surface:
    """How a class is drawn: its value in the labels, colour (r, g, b) from 0 to 255, and whether it is translucent."""

    index: int
    color: tuple[int, int, int]
    glass: bool


def draw_surfaces(results: Results) -> tuple[NDArray[np.uint8], float] | None:
    """Render the bodies of a project: particles and closed pores solid, all others translucent and pale.

    Returns the picture and the side of one of its pixels in voxels, as of `render`; None where there is nothing to see.
    """
    found = results.class_fractions
    if found is None or not results.bodies:
        return None
    image, pixel_voxels = render(found, surfaces_of(results), results.surfaces_px)
    return (image, pixel_voxels) if image[..., 3].any() else None


def surfaces_of(results: Results) -> list[Surface]:
    """Return how each body is drawn: particles and closed pores solid, all others translucent and pale."""
    return [Surface(b.index, rgb(b.color) if b.solid else pale(b.color), not b.solid) for b in results.bodies]


def pale(color: str) -> tuple[int, int, int]:
    """Mix a colour with grey: many translucent layers of a strong colour would tint the particles behind."""
    red, green, blue = (round(0.4 * c + 0.6 * 165) for c in rgb(color))
    return red, green, blue


def render(found: Fractions, surfaces: Sequence[Surface], side: int = PICTURE_SIDE) -> tuple[NDArray[np.uint8], float]:
    """Draw surfaces of the classes of a label volume (z, y, x) from their fractions.

    Before the view is rotated, x points to the right, y down and z away from the viewer. Returns (side, side, 4) u1
    picture (red, green, blue, opacity), and the side of one of its pixels in voxels of the labels.
    """
    ((image, pixel_voxels),) = render_views(found, surfaces, (YAW,), side)
    return image, pixel_voxels


def render_views(
    found: Fractions, surfaces: Sequence[Surface], yaws_deg: Sequence[float], side: int
) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Yield the picture of `render` for each angle about the tilt axis, all of the same scale and centre."""
    fields, reduction = coverage(found, [s.index for s in surfaces])
    busy = _busy_blocks(fields)
    views = [_view(yaw) for yaw in yaws_deg]
    visible = _visible(fields)
    framings = [_framing(visible, fields.shape[1:], view) for view in views]
    half_width = max(half for _, half in framings)
    centre = np.mean([c for c, _ in framings], axis=0)
    for view in views:
        picture, pixel = _picture(fields, busy, view, centre, half_width, surfaces, side)
        yield picture, pixel * reduction


def _view(yaw_deg: float) -> NDArray[np.float64]:
    """Return the rows right, down and forward in (x, y, z)."""
    yaw, pitch = np.deg2rad(yaw_deg), np.deg2rad(PITCH)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tip = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    return np.asarray(tip @ turn)


def _picture(
    fields: NDArray[np.float32],
    busy: NDArray[np.bool_],
    view: NDArray[np.float64],
    centre: NDArray[np.float64],
    half_width: float,
    surfaces: Sequence[Surface],
    side: int,
) -> tuple[NDArray[np.uint8], float]:
    pixel = 2 * half_width / side  # in voxels of the field
    colors = np.array([s.color for s in surfaces], np.float32).reshape(-1, 3) / np.float32(255)
    glass = np.array([s.glass for s in surfaces])
    picture = np.zeros((side, side, 4), np.float32)

    def band(rows: slice) -> None:
        _cast(fields, busy, view, centre, pixel, colors, glass, rows.start, picture[rows])

    step = -(-side // 16)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(band, [slice(i, min(i + step, side)) for i in range(0, side, step)]))
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8), pixel


def coverage(found: Fractions, indices: Sequence[int]) -> tuple[NDArray[np.float32], int]:
    """Return the smoothed fraction (n, z, y, x) of each class, with a margin of zeros, and the voxels along a cell."""
    k = -(-max(found.of.shape[1:]) // MOST_CELLS)
    fields = np.stack([block_means(found.of[index - 1], k) for index in indices]) / np.float32(found.full)
    for field in fields:
        ndimage.gaussian_filter(field, 0.7, output=field)
    return np.pad(fields, [(0, 0), (2, 2), (2, 2), (2, 2)]), k * found.factor


def _busy_blocks(fields: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the blocks (z, y, x), in units of BLOCK, that lie within a block of the surface of any class."""
    z, y, x = (-(-n // BLOCK) for n in fields.shape[1:])
    busy = np.zeros((z, y, x), bool)
    for field in fields:
        grown = np.pad(field, [(0, -n % BLOCK) for n in field.shape], mode="edge")
        blocks = grown.reshape(z, BLOCK, y, BLOCK, x, BLOCK)
        high = ndimage.maximum_filter(blocks.max(axis=(1, 3, 5)), 3)
        low = ndimage.minimum_filter(blocks.min(axis=(1, 3, 5)), 3)
        busy |= (high >= 0.5) & (low < 0.5)
    return busy


def _visible(fields: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return places (n, 3), (z, y, x), all over the visible part of the fields."""
    inside = np.asarray(fields.max(axis=0) >= 0.5)
    return np.asarray(np.argwhere(inside[::2, ::2, ::2]) * 2.0)


def _framing(
    where: NDArray[np.float64], field_shape: tuple[int, ...], view: FloatArray
) -> tuple[NDArray[np.float64], float]:
    """Return the centre (x, y, z) and half the width of the visible part `where`, in voxels of the fields."""
    shape = np.array(field_shape)
    if len(where) == 0:
        return (shape[::-1] - 1) / 2.0, float(shape.max()) / 2
    seen = where[:, ::-1] @ view.T  # right, down, forward
    low, high = seen.min(axis=0), seen.max(axis=0)
    middle = (low + high) / 2
    return np.asarray(middle @ view), float((high - low)[:2].max() / 2 * 1.06 + 3)


def _sample(field: NDArray[np.float32], x: float, y: float, z: float) -> float:
    """Interpolate linearly at a point inside the margin."""
    i, j, k = int(x), int(y), int(z)
    a, b, c = x - i, y - j, z - k
    low = (field[k, j, i] * (1 - a) + field[k, j, i + 1] * a) * (1 - b)
    low += (field[k, j + 1, i] * (1 - a) + field[k, j + 1, i + 1] * a) * b
    high = (field[k + 1, j, i] * (1 - a) + field[k + 1, j, i + 1] * a) * (1 - b)
    high += (field[k + 1, j + 1, i] * (1 - a) + field[k + 1, j + 1, i + 1] * a) * b
    return low * (1 - c) + high * c  # type: ignore[no-any-return]


def _gradient(field: NDArray[np.float32], x: float, y: float, z: float) -> tuple[float, float, float]:
    """Return the negative gradient at a point inside the margin; it points out of the object."""
    return (
        _sample_at(field, x - 0.99, y, z) - _sample_at(field, x + 0.99, y, z),
        _sample_at(field, x, y - 0.99, z) - _sample_at(field, x, y + 0.99, z),
        _sample_at(field, x, y, z - 0.99) - _sample_at(field, x, y, z + 0.99),
    )


def _shade(
    field: NDArray[np.float32], x: float, y: float, z: float, view: NDArray[np.float64], see_through: bool
) -> tuple[float, float, float]:
    """Return opacity, brightness and gloss of the surface at a point, lit over the viewer's left shoulder."""
    gx, gy, gz = _gradient_at(field, x, y, z)
    norm = max(np.sqrt(gx * gx + gy * gy + gz * gz), 1e-9)
    right = (gx * view[0, 0] + gy * view[0, 1] + gz * view[0, 2]) / norm
    down = (gx * view[1, 0] + gy * view[1, 1] + gz * view[1, 2]) / norm
    forward = (gx * view[2, 0] + gy * view[2, 1] + gz * view[2, 2]) / norm
    if forward > 0:  # the far side of an object, seen from inside
        right, down, forward = -right, -down, -forward
    # The unit vector (-0.45, -0.65, -0.61) points to the light and (0, 0, -1) to the viewer; Blinn's highlight is
    # where the surface faces half way between them (length of their sum: 1.794).
    lit = max(-0.45 * right - 0.65 * down - 0.61 * forward, 0.0)
    shine = max((-0.45 * right - 0.65 * down - 1.61 * forward) / 1.794, 0.0) ** 40
    if see_through:
        return 0.08 + 0.42 * (1 + forward) ** 2, 0.6 + 0.4 * lit, 0.10 * shine
    return 1.0, 0.38 + 0.68 * lit, 0.35 * shine


def _span(start: NDArray[np.float64], forward: NDArray[np.float64], nx: int, ny: int, nz: int) -> tuple[float, float]:
    """Return the depths at which a ray enters and leaves the fields; the second is smaller where it misses them."""
    first, last = -1e9, 1e9
    for axis, n in enumerate((nx, ny, nz)):
        step = forward[axis]
        if abs(step) > 1e-9:
            near, far = (1.0 - start[axis]) / step, (n - 2.0 - start[axis]) / step
            first, last = max(first, min(near, far)), min(last, max(near, far))
        elif not 1 <= start[axis] < n - 2:
            return 0.0, -1.0
    return first - 1.0, last


def _cast_rows(
    fields: NDArray[np.float32],
    busy: NDArray[np.bool_],
    view: NDArray[np.float64],
    centre: NDArray[np.float64],
    pixel: float,
    colors: NDArray[np.float32],
    glass: NDArray[np.bool_],
    first_row: int,
    picture: NDArray[np.float32],
) -> None:
    """Fill rows of `picture` (rows, side, 4), the first of which is row `first_row` of the whole."""
    n, nz, ny, nx = fields.shape
    rows, side, _ = picture.shape
    before = np.zeros(n)
    for row in range(rows):
        for column in range(side):
            across, down = (column - (side - 1) / 2) * pixel, (row + first_row - (side - 1) / 2) * pixel
            start = centre + across * view[0] + down * view[1]
            pixel_color = picture[row, column]
            left = 1.0  # light still on its way
            before[:] = 0
            depth, last = _span_at(start, view[2], nx, ny, nz)
            while depth < last and left > 0.02:
                depth += 1.0
                x, y, z = start[0] + depth * view[2, 0], start[1] + depth * view[2, 1], start[2] + depth * view[2, 2]
                if not (1 <= x < nx - 2 and 1 <= y < ny - 2 and 1 <= z < nz - 2):
                    continue
                if not busy[int(z) // BLOCK, int(y) // BLOCK, int(x) // BLOCK]:
                    continue
                for c in range(n):
                    value = _sample_at(fields[c], x, y, z)
                    if (before[c] < 0.5) != (value < 0.5) and (glass[c] or value >= 0.5) and left > 0.02:
                        # Back along the ray to where the surface was crossed, but not out of the margin.
                        back = min(max((value - 0.5) / (value - before[c]), 0.0), 1.0)
                        px = min(max(x - back * view[2, 0], 1.0), nx - 2.01)
                        py = min(max(y - back * view[2, 1], 1.0), ny - 2.01)
                        pz = min(max(z - back * view[2, 2], 1.0), nz - 2.01)
                        opacity, bright, gloss = _shade_at(fields[c], px, py, pz, view, glass[c])
                        for k in range(3):
                            pixel_color[k] += left * opacity * min(colors[c, k] * bright + gloss, 1.0)
                        pixel_color[3] += left * opacity
                        left *= 1 - opacity
                    before[c] = value
            if pixel_color[3] > 0:
                pixel_color[:3] /= pixel_color[3]


_sample_at = numba.njit(nogil=True, cache=True)(_sample)
_gradient_at = numba.njit(nogil=True, cache=True)(_gradient)
_shade_at = numba.njit(nogil=True, cache=True)(_shade)
_span_at = numba.njit(nogil=True, cache=True)(_span)
_cast = numba.njit(nogil=True, cache=True)(_cast_rows)
