"""Size, shape and surroundings of the particles of a labelled micrograph.

Areas are counted pixels. The contour runs between pixels: it is where the particle, smoothed by a pixel, falls to half,
scaled to enclose the counted area, so that steps of pixels do not lengthen it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError, cKDTree
from skimage.measure import find_contours

from tomoseg.arrays import Array, FloatArray
from tomoseg.measurement.common.columns import fill_nm, row_type

PARTICLE = row_type(
    """
    label:i8 y_px x_px y_nm x_nm area_px2 area_nm2 diameter_px diameter_nm perimeter_px perimeter_nm circularity
    max_feret_px max_feret_nm min_feret_px min_feret_nm elongation orientation_deg mean_grey contrast
    neighbour_centre_px neighbour_centre_nm neighbour_gap_px neighbour_gap_nm
    touches_border:? weight
    """
)
SMOOTHED_PX = 1.0
RING_PX = 3  # width of what is around a particle, for its contrast
NEAREST = 8  # particles by their centres, among which the nearest surface is sought


def particle_table(
    labels: NDArray[np.int32], grey: Array, pixel_size_nm: float = np.nan, left_out: NDArray[np.bool_] | None = None
) -> NDArray[np.void]:
    """Measure all particles of a micrograph; return rows (n,) of `PARTICLE`.

    Parameters
    ----------
    labels : (y, x) i4, 0 where there is no particle
    grey : (y, x) image
    pixel_size_nm : NaN where unknown: so are then all columns in nm
    left_out : (y, x), no part of the micrograph: scale bar, label, footer

    Equivalent circular diameter d = 2 sqrt(A / pi); circularity 4 pi A / P^2 (ISO 9276-6, squared form factor);
    Feret diameters are the largest and least widths; `elongation` is 1 - least / largest; the orientation is that of
    the long axis, counter-clockwise from the horizontal, in (-90, 90]. `contrast` is the mean grey value less the
    median around the particle. Distances to the nearest other particle are from centre to centre and from contour to
    contour, NaN for a single one. A particle touches the border where the frame or what is left out cuts it. Its
    `weight` is that of `inside_weights`.
    """
    labels = np.asarray(labels, np.int32)
    boxes = ndimage.find_objects(labels)
    numbers = [k for k, box in enumerate(boxes, 1) if box is not None]
    table = np.zeros(len(numbers), PARTICLE)
    hidden = np.zeros(labels.shape, bool) if left_out is None else np.asarray(left_out, bool)
    contours = []
    for row, label in zip(table, numbers, strict=True):
        contours.append(_measure(row, label, boxes[label - 1], labels, np.asarray(grey), hidden))
    _neighbours(table, contours)
    heights = np.array([box[0].stop - box[0].start for box in boxes if box is not None])
    widths = np.array([box[1].stop - box[1].start for box in boxes if box is not None])
    table["weight"] = inside_weights(heights, widths, hidden)
    fill_nm(table, pixel_size_nm)
    return table


def inside_weights(heights: Array, widths: Array, left_out: NDArray[np.bool_]) -> FloatArray:
    """Return for particles of bounding boxes (n,) how many there are for each that lies wholly inside the frame.

    The number of places in the frame over that of places where the box is inside it: W H / ((W - w)(H - h)) for a
    whole frame (R. E. Miles, J. Microsc. 113, 257, 1978; C. Lantuejoul, Acta Stereol. 1980). What is left out, such as
    a footer, cuts particles like the border; places are then counted on a grid of at most 256 px. Infinite where the
    box has no place.
    """
    heights, widths = np.asarray(heights, float), np.asarray(widths, float)
    height, width = left_out.shape
    if not left_out.any():
        free = np.maximum(height - heights, 0) * np.maximum(width - widths, 0)
        return np.asarray(np.where(free > 0, height * width / np.maximum(free, 1e-9), np.inf))
    step = max(1, max(height, width) // 256)
    hidden = ndimage.maximum_filter(left_out, step)[::step, ::step].astype(np.int64)
    sums = np.pad(hidden.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sizes = list(zip(np.ceil(heights / step).astype(int), np.ceil(widths / step).astype(int), strict=True))
    found: dict[tuple[int, int], float] = {}
    for h, w in set(sizes):
        inside = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
        n_free = int((inside == 0).sum())
        found[h, w] = float((hidden == 0).sum()) / n_free if n_free else np.inf
    return np.array([found[size] for size in sizes])


def _measure(
    row: Any,
    label: int,
    box: tuple[slice, slice],
    labels: NDArray[np.int32],
    grey: Array,
    hidden: NDArray[np.bool_],
) -> FloatArray:
    """Fill the row of a particle; return its contour (n, 2) (y, x) in px."""
    around = tuple(slice(max(s.start - RING_PX, 0), s.stop + RING_PX) for s in box)
    inside = labels[around] == label
    y, x = np.nonzero(inside)
    offset = np.array([around[0].start, around[1].start])
    area = float(len(y))
    distance = ndimage.distance_transform_cdt(~inside, "taxicab") if not inside.all() else np.zeros(inside.shape)
    row["label"], row["area_px2"], row["diameter_px"] = label, area, 2 * np.sqrt(area / np.pi)
    row["y_px"], row["x_px"] = y.mean() + offset[0], x.mean() + offset[1]
    contour = _contour(inside)
    steps = np.diff(contour, axis=0)
    row["perimeter_px"] = np.hypot(steps[:, 0], steps[:, 1]).sum()
    row["circularity"] = min(4 * np.pi * area / row["perimeter_px"] ** 2, 1.0)
    row["max_feret_px"], row["min_feret_px"] = _feret(contour)
    row["elongation"] = 1 - row["min_feret_px"] / row["max_feret_px"]
    row["orientation_deg"] = _orientation(y, x)
    values = grey[around]
    ring = (distance <= RING_PX) & (labels[around] == 0) & ~hidden[around]
    row["mean_grey"] = values[inside].mean()
    row["contrast"] = row["mean_grey"] - np.median(values[ring]) if ring.any() else np.nan
    row["touches_border"] = _is_cut(box, hidden[around][distance <= 1], labels.shape)
    return np.asarray(contour + offset)


def _contour(inside: NDArray[np.bool_]) -> FloatArray:
    """Return the closed outer contour (n, 2) (y, x) of a particle, which encloses its area and its holes."""
    margin = int(np.ceil(4 * SMOOTHED_PX)) + 1
    padded = np.zeros([n + 2 * margin for n in inside.shape], np.float32)
    padded[margin:-margin, margin:-margin] = inside
    background, _ = ndimage.label(padded == 0)
    filled = float((background != background[0, 0]).sum())
    smooth = ndimage.gaussian_filter(padded, SMOOTHED_PX)
    level = min(0.5, 0.5 * float(smooth.max()))
    found: list[FloatArray] = find_contours(smooth, level)  # type: ignore[no-untyped-call]
    contour = max(found, key=_enclosed) - margin
    centre = contour[:-1].mean(axis=0)
    return np.asarray(centre + (contour - centre) * np.sqrt(filled / max(_enclosed(contour), 1e-9)))


def _enclosed(contour: FloatArray) -> float:
    """Return the area within a closed contour (n, 2)."""
    y, x = np.asarray(contour).T
    return float(abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2)


def _feret(contour: FloatArray) -> tuple[float, float]:
    """Return the largest and the least width of a contour (n, 2)."""
    try:
        hull = contour[ConvexHull(contour).vertices]
    except QhullError:  # all on a line
        hull = np.unique(contour, axis=0)
    edges = np.roll(hull, -1, axis=0) - hull
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    normals = np.stack([-edges[:, 1], edges[:, 0]], axis=1)[lengths > 0] / lengths[lengths > 0, None]
    across = hull @ normals.T
    largest = float(np.hypot(*(hull[:, None] - hull[None]).transpose(2, 0, 1)).max())
    return largest, float(np.ptp(across, axis=0).min()) if len(normals) else 0.0


def _orientation(y: Array, x: Array) -> float:
    """Return the direction of the long axis of pixels, degrees counter-clockwise from the horizontal."""
    dy, dx = y - y.mean(), x - x.mean()
    angle = 0.5 * np.degrees(np.arctan2(-2 * (dx * dy).mean(), (dx * dx).mean() - (dy * dy).mean()))
    return float(angle)


def _is_cut(box: tuple[slice, slice], hidden_beside: NDArray[np.bool_], shape: tuple[int, ...]) -> bool:
    """Tell whether a particle is cut by the frame, or by what is hidden in it or beside it."""
    at_frame = any(s.start == 0 or s.stop == n for s, n in zip(box, shape, strict=True))
    return bool(at_frame or hidden_beside.any())


def _neighbours(table: NDArray[np.void], contours: list[FloatArray]) -> None:
    """Fill in the distances to the nearest other particle."""
    table["neighbour_centre_px"] = table["neighbour_gap_px"] = np.nan
    if len(table) < 2:
        return
    centres = np.stack([table["y_px"], table["x_px"]], axis=1)
    distances, nearest = cKDTree(centres).query(centres, min(NEAREST + 1, len(table)))
    table["neighbour_centre_px"] = distances[:, 1]
    trees = [cKDTree(contour) for contour in contours]
    for k, others in enumerate(nearest[:, 1:]):
        gap = np.inf
        for other, apart in zip(others, distances[k, 1:], strict=True):
            if apart - (table["max_feret_px"][k] + table["max_feret_px"][other]) / 2 < gap:
                gap = min(gap, float(trees[other].query(contours[k])[0].min()))
        table["neighbour_gap_px"][k] = gap
