"""Borders that hold no data: what a program filled in where it shifted or rotated an image.

Such a border has one exact value, 0 or the mean for instance, and what it leaves is a rectangle, perhaps rotated and
cut by the frame: convex, with straight edges, at which the noisy image ends at once. Vacuum can be exact as well, where
an image is clipped or was computed without noise. There the sample fades into it, along an outline of its own. Where
the two cannot be told apart it hardly matters, and nothing is masked.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LEAST_LEFT = 0.4  # part of the frame; of images that were moved further, little is left to align
FEWEST = 0.1  # part of the images that must have a border
SOLID = 0.7  # part of a border that 3 x 3 px fit into
MOST_CORNERS = 8  # of a rotated rectangle cut by a frame
TOLERANCE_PX = 1.5  # of straight edges that are drawn in pixels
FREE_OF_VALUE = 0.002  # part of the data that may lie in 3 x 3 px of the border's own value
DISTINCT = 0.25  # part of neighbouring pixels at the edge that must differ: noise, of few counts perhaps
LEAST_JUMP = 0.7  # of the data's difference from the border deeper inside, at the edge itself
EDGE_PX, DEEP_PX = 2, 4


def find_padding(image: NDArray[np.float32]) -> NDArray[np.int32] | None:
    """Return where the data of each row begins and ends (one past), (y, 2); None for an image without a border.

    `image` is (y, x). Rows without data have the same begin and end.
    """
    limits = possible_padding(image)
    return limits if limits is not None and is_padding(image, limits) else None


def possible_padding(image: NDArray[np.float32]) -> NDArray[np.int32] | None:
    """Return what `find_padding` does, by the shape alone of what lies inside pixels of one value."""
    value = _value_of_corner(image)
    if value is None:
        return None
    limits = _limits(image == value)
    left = _between(limits, image.shape[1])
    if left.all() or left.mean() < LEAST_LEFT or not _is_solid(~left):
        return None
    return limits if _is_cut_rectangle(limits) else None


def is_padding(image: NDArray[np.float32], limits: NDArray[np.int32]) -> bool:
    """Return whether a `possible_padding` is no vacuum: the data is free of its value, and ends at it at once."""
    value = _value_of_corner(image)
    if value is None:
        return False
    left = _between(limits, image.shape[1])
    solid = ndimage.minimum_filter((image == value) & left, 3)
    return bool(solid.sum() <= FREE_OF_VALUE * left.sum()) and _ends_at_once(image, left, float(value))


def has_even_corner(image: NDArray[np.float32]) -> bool:
    """Return whether a corner of an image (y, x) has one exact value, as every border has and clipped vacuum too."""
    return _value_of_corner(image) is not None


def data_of(limits: NDArray[np.int32], width: int) -> NDArray[np.bool_]:
    """Return (y, x) which pixels are data, less one at the edge, where a rotated image is a mixture with its border."""
    return np.asarray(ndimage.binary_erosion(_between(limits, width), np.ones((3, 3)), border_value=1))


def accepted(
    possible: list[NDArray[np.int32] | None], sure: list[bool], even: list[bool]
) -> list[NDArray[np.int32] | None]:
    """Return the borders of a series: those `possible` where most images with `even` corners have a `sure` one.

    In a single image of many it would be chance.
    """
    return possible if 2 * sum(sure) > sum(even) and sum(sure) >= FEWEST * len(sure) else [None] * len(possible)


def _value_of_corner(image: NDArray[np.float32]) -> np.float32 | None:
    """Return the value that a corner shares with the next seven pixels along a side of the frame."""
    height, width = image.shape
    n = min(8, height, width)
    for corner in (image, image[:, ::-1], image[::-1], image[::-1, ::-1]):
        value = corner[0, 0]
        if (corner[0, :n] == value).all() or (corner[:n, 0] == value).all():
            return np.float32(value)
    return None


def _limits(same: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return begin and end of what differs in each row of (y, x)."""
    begin = np.argmin(same, axis=1)
    end = same.shape[1] - np.argmin(same[:, ::-1], axis=1)
    end[same.all(axis=1)] = begin[same.all(axis=1)] = 0
    return np.stack([begin, end], axis=1).astype(np.int32)


def _between(limits: NDArray[np.int32], width: int) -> NDArray[np.bool_]:
    columns = np.arange(width)
    return np.asarray((columns >= limits[:, :1]) & (columns < limits[:, 1:]))


def _is_solid(border: NDArray[np.bool_]) -> bool:
    """Return whether a border (y, x), thought to go on outside the frame, is no accident of single counts."""
    around = np.pad(border, 2, constant_values=True)
    solid = ndimage.binary_opening(around, np.ones((3, 3)))[2:-2, 2:-2]
    return bool(solid.sum() >= SOLID * border.sum())


def _is_cut_rectangle(limits: NDArray[np.int32]) -> bool:
    """Return whether the rows make up a convex figure with few straight edges."""
    from scipy.spatial import ConvexHull

    rows = np.flatnonzero(limits[:, 1] > limits[:, 0])
    begin, end = limits[rows, 0], limits[rows, 1]
    corners = np.concatenate([np.stack([y, x], axis=1) for y in (rows, rows + 1) for x in (begin, end)])
    hull = ConvexHull(corners)
    area, perimeter = hull.volume, hull.area  # in two dimensions
    if area - float((end - begin).sum()) > perimeter:
        return False
    return len(_straightened(corners[hull.vertices].astype(float))) <= MOST_CORNERS


def _straightened(polygon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Drop corners of a convex polygon (n, 2) that lie near the line between their neighbours, the nearest first."""
    while len(polygon) > 3:
        before, after = np.roll(polygon, 1, axis=0), np.roll(polygon, -1, axis=0)
        along = after - before
        beside = polygon - before
        length = np.maximum(np.hypot(*along.T), 1e-9)
        distance = np.abs(along[:, 0] * beside[:, 1] - along[:, 1] * beside[:, 0]) / length
        nearest = int(np.argmin(distance))
        if distance[nearest] > TOLERANCE_PX:
            break
        polygon = np.delete(polygon, nearest, axis=0)
    return polygon


def _ends_at_once(image: NDArray[np.float32], left: NDArray[np.bool_], value: float) -> bool:
    """Return whether the data is noisy up to its edge, and as different from the border as further inside."""
    inner = ndimage.binary_erosion(left, iterations=1, border_value=1)
    depth = ndimage.distance_transform_cdt(np.pad(inner, 1, mode="edge"), "chessboard")[1:-1, 1:-1]
    edge, deep = (depth > 0) & (depth <= EDGE_PX), (depth > EDGE_PX) & (depth <= DEEP_PX)
    if not edge.any() or not deep.any():
        return False
    both = edge[:, 1:] & edge[:, :-1]
    differ = image[:, 1:][both] != image[:, :-1][both]
    if differ.size == 0 or differ.mean() < DISTINCT:
        return False
    jump, usual = (float(np.nanmedian(np.abs(image[part] - value))) for part in (edge, deep))
    return jump >= LEAST_JUMP * usual
