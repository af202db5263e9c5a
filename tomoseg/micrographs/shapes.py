"""Size and shape of each particle of a micrograph, from its labels and its image.

Lengths are in px, and in nm where the pixel size is known; NaN where it is not.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, BoolArray, FloatArray
from tomoseg.errors import InputError
from tomoseg.measurement.common.columns import fill_nm, row_type

SHAPE = row_type(
    """
    label:i4 y_px x_px y_nm x_nm area_px2 area_nm2 perimeter_px perimeter_nm diameter_px diameter_nm circularity
    feret_max_px feret_max_nm feret_min_px feret_min_nm orientation_deg height_px height_nm width_px width_nm
    mean_intensity contrast nearest_centre_px nearest_centre_nm nearest_edge_px nearest_edge_nm touches_border:?
    """
)
SMOOTHING_PX = 1.2  # standard deviation of the Gaussian by which a mask is smoothed before its contour is drawn
RING_PX = (2, 5)  # distances from a particle between which its surroundings are taken
MOST_NEIGHBOURS = 8  # nearest by centres, among which the nearest by edges is sought


def measure_shapes(
    labels: NDArray[np.integer], image: Array, pixel_size_nm: float = float("nan"), mask: BoolArray | None = None
) -> NDArray[np.void]:
    """Return the table (n,) of the particles' shapes, in the order of their labels.

    The columns: `label`; centre `y`, `x`; `area`, the number of px; `perimeter`, see `contour_of`; `diameter` of
    the circle of equal area; `circularity`, 4 pi area / perimeter^2, 1 for a disc (for small ones it scatters around
    1); the largest and the smallest distance of parallel tangents (Feret diameters) of the convex hull;
    `orientation_deg`, of the long axis of the ellipse of equal second moments to the x axis, counterclockwise as seen,
    -90 to 90; `height` and `width` of the bounding box; mean intensity, and its difference to the surroundings, NaN
    where neighbours leave none of these; distances to the nearest particle, between centres and between edges, NaN for
    a single one; whether it touches the border of the image or what is left out.

    Parameters
    ----------
    labels : (y, x), 1..n with gaps allowed, 0 where there is no particle
    image : (y, x)
    mask : (y, x), true where the image was left out

    Raises
    ------
    InputError
        The shapes differ, or the pixel size is not positive.
    """
    if labels.shape != image.shape or (mask is not None and mask.shape != image.shape) or labels.ndim != 2:
        raise InputError(
            f"Labels {labels.shape} and image {image.shape} have to be (y, x) of the same shape, and a mask too."
        )
    if pixel_size_nm <= 0:
        raise InputError(f"A pixel size of {pixel_size_nm} nm cannot be: it has to be above 0.")
    from scipy import ndimage

    boxes = [(k, box) for k, box in enumerate(ndimage.find_objects(labels), 1) if box is not None]
    table = np.zeros(len(boxes), SHAPE)
    outlines = []
    for row, (label, box) in zip(table, boxes, strict=True):
        inside = labels[box] == label
        _fill_shape(row, inside, label, box)
        outlines.append(_border_points(inside) + [s.start for s in box])
        _fill_intensity(row, labels, image, label, box)
        row["touches_border"] = _touches(inside, box, labels.shape, mask)
    _fill_neighbours(table, outlines)
    fill_nm(table, pixel_size_nm)
    return table


def contour_of(inside: BoolArray) -> tuple[float, FloatArray]:
    """Return the perimeter, px, of a mask (y, x) and the points (n, 2) of its contour, between the px.

    The mask is smoothed by a Gaussian of `SMOOTHING_PX` and its contour drawn by marching squares, at the level at
    which the polygon has the area of the mask: at 0.5, smoothing shrinks what is small. Perimeters of discs of 10 px
    and more are right within 1 % on average over places.
    """
    from scipy import ndimage

    field = ndimage.gaussian_filter(np.pad(inside, 5).astype(np.float64), SMOOTHING_PX)
    area = float(np.count_nonzero(inside))
    points = np.empty((field.size * 4, 2))
    low, high, level, length, n = 0.0, float(field.max()), 0.5 * min(1.0, float(field.max())), 0.0, 0
    for _ in range(12):
        length, enclosed, n = _marched(field, level, points)
        if abs(enclosed - area) < 2e-3 * area:
            break
        low, high = (level, high) if enclosed > area else (low, level)
        level = (low + high) / 2
    return length, points[:n] - 5


def feret_diameters(points: FloatArray) -> tuple[float, float]:
    """Return the largest and the smallest distance, px, of parallel tangents to points (n, 2).

    The smallest one lies across a side of the convex hull (rotating calipers: M. Shamos, Computational Geometry, 1978),
    the largest between two of its corners.
    """
    from scipy.spatial import ConvexHull

    corners = points[ConvexHull(points).vertices]
    differences = corners[:, None] - corners[None]
    largest = float(np.sqrt((differences**2).sum(axis=2).max()))
    sides = np.roll(corners, -1, axis=0) - corners
    normals = np.stack([-sides[:, 1], sides[:, 0]], axis=1) / np.linalg.norm(sides, axis=1, keepdims=True)
    heights = corners @ normals.T
    return largest, float((heights.max(axis=0) - heights.min(axis=0)).min())


def _fill_shape(row: NDArray[np.void], inside: BoolArray, label: int, box: tuple[slice, slice]) -> None:
    y, x = np.nonzero(inside)
    area = len(y)
    row["label"], row["area_px2"] = label, area
    row["y_px"], row["x_px"] = y.mean() + box[0].start, x.mean() + box[1].start
    row["perimeter_px"], contour = contour_of(inside)
    row["diameter_px"] = np.sqrt(4 * area / np.pi)
    row["circularity"] = 4 * np.pi * area / row["perimeter_px"] ** 2
    row["height_px"], row["width_px"] = inside.shape
    row["feret_max_px"], row["feret_min_px"] = feret_diameters(contour)
    # Rows run downwards: the angle is counted against that, as a reader sees it.
    yy, xx, yx = y.var() + 1 / 12, x.var() + 1 / 12, float(((y - y.mean()) * (x - x.mean())).mean())
    row["orientation_deg"] = np.degrees(0.5 * np.arctan2(-2 * yx, xx - yy))


@numba.njit(nogil=True, cache=True)
def _marched(field: Array, level: float, points: Array) -> tuple[float, float, int]:
    """Return length and enclosed area of the contour of a field (y, x) at a level, and fill in its points (n, 2).

    In each square of four px the contour is a line from side to side, two of them where opposite corners are alike
    (which are then kept apart). The area is half the sum of the cross products along the lines, inside on one hand.
    """
    length, area, n = 0.0, 0.0, 0
    ends = np.empty((4, 2))
    for y in range(field.shape[0] - 1):
        for x in range(field.shape[1] - 1):
            a, b, c, d = field[y, x], field[y, x + 1], field[y + 1, x + 1], field[y + 1, x]
            k = 0
            # Going around the square: where it goes out of the body and where it comes back in.
            for side in range(4):
                u, v = (a, b) if side == 0 else (b, c) if side == 1 else (c, d) if side == 2 else (d, a)
                if (u > level) == (v > level):
                    continue
                t = (level - u) / (v - u)
                ends[k, 0] = y + (0.0 if side == 0 else t if side == 1 else 1.0 if side == 2 else 1 - t)
                ends[k, 1] = x + (t if side == 0 else 1.0 if side == 1 else 1 - t if side == 2 else 0.0)
                k += 1
            if k == 0:
                continue
            leaving = 0 if a > level else 1  # of the crossings, the first goes out where the first corner is inside
            for i in range(leaving, k, 2):
                first, last = i, (i + k - 1) % k if k == 4 else (i + 1) % k
                dy, dx = ends[last, 0] - ends[first, 0], ends[last, 1] - ends[first, 1]
                length += np.sqrt(dy * dy + dx * dx)
                area += 0.5 * (ends[first, 0] * ends[last, 1] - ends[first, 1] * ends[last, 0])
                points[n, 0], points[n, 1] = ends[first, 0], ends[first, 1]
                n += 1
    return length, abs(area), n


def _border_points(inside: BoolArray) -> NDArray[np.int64]:
    """Return the px (n, 2) of a mask that have one outside it at a side."""
    padded = np.pad(inside, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(inside & ~inner)


def _fill_intensity(
    row: NDArray[np.void], labels: NDArray[np.integer], image: Array, label: int, box: tuple[slice, slice]
) -> None:
    from scipy import ndimage

    margin = RING_PX[1] + 1
    window = tuple(slice(max(0, s.start - margin), s.stop + margin) for s in box)
    here, values = labels[window], image[window]
    distance = ndimage.distance_transform_edt(here != label)
    around = (here == 0) & (distance >= RING_PX[0]) & (distance <= RING_PX[1])
    mean = float(values[here == label].mean(dtype=np.float64))
    row["mean_intensity"] = mean
    row["contrast"] = mean - float(np.median(values[around])) if around.any() else np.nan


def _touches(
    inside: BoolArray, box: tuple[slice, slice], shape: tuple[int, ...], mask: BoolArray | None
) -> bool:
    at_edge = any(s.start == 0 or s.stop == n for s, n in zip(box, shape, strict=True))
    if at_edge or mask is None:
        return at_edge
    window = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
    if not mask[window].any():
        return False
    from scipy import ndimage

    margins = [(int(s.start > 0), int(s.stop < n)) for s, n in zip(box, shape, strict=True)]
    return bool((ndimage.binary_dilation(np.pad(inside, margins)) & mask[window]).any())


def _fill_neighbours(table: NDArray[np.void], outlines: list[NDArray[np.int64]]) -> None:
    """Fill the distances to the nearest particle: between centres, and between the sides of the px of their edges."""
    from scipy.spatial import cKDTree

    table["nearest_centre_px"] = table["nearest_edge_px"] = np.nan
    if len(table) < 2:
        return
    centres = np.stack([table["y_px"], table["x_px"]], axis=1)
    count = min(MOST_NEIGHBOURS + 1, len(table))
    distances, rows = cKDTree(centres).query(centres, count)
    table["nearest_centre_px"] = distances[:, 1]
    trees = [cKDTree(points) for points in outlines]
    for k, others in enumerate(rows):
        apart = [float(trees[j].query(outlines[k])[0].min()) for j in others if j != k]
        table["nearest_edge_px"][k] = max(min(apart) - 1, 0)


__all__ = ["SHAPE", "contour_of", "feret_diameters", "measure_shapes"]
