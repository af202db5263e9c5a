"""Distances between the surfaces of a true and a predicted class.

A surface consists of elements between pixels: one at each corner whose 2 x 2 pixels (2 x 2 x 2 voxels) are not all
inside or all outside, with the length (area) that marching squares (cubes) gives it. Distances are measured between
corners, and percentiles weight each element by its length. That is the definition of Nikolov et al., "Deep
learning to achieve clinically applicable segmentation of head and neck anatomy for radiotherapy", J. Med. Internet Res.
23 (2021) e26151, whose package `surface-distance` many papers use, with one exception: where an object is cut off by
the border of the image, or by a region that nobody annotated, there is no surface. It would lie in the same place in
truth and prediction, and make distances look too small. For objects away from the border the numbers are the same.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array

PERCENTILES: tuple[int, ...] = tuple(range(50, 101, 5))
Values = NDArray[np.float64]


def surface(mask: Array, unknown: Array | None = None, spacing: Sequence[float] | None = None) -> Values:
    """Return the length (area) of the surface of a 2D (3D) mask at each corner between pixels; 0 off the surface.

    Corners that touch an `unknown` element, neither inside nor outside, have no surface. `spacing` is the distance of
    the pixels along each axis, 1 by default. Element (i, j) of the result, smaller by 1 along each axis, is the corner
    at (i + 1/2, j + 1/2), in units of `spacing` (its square in 3D).
    """
    inside = np.asarray(mask, bool)
    areas = _areas(tuple(spacing or (1.0,) * inside.ndim))[_codes(inside)]
    if unknown is not None:
        areas[_codes(np.asarray(unknown, bool)) > 0] = 0
    return np.asarray(areas)


def _codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the pixels around each corner that are in a mask: the k-th, in C order, as bit k."""
    codes = np.zeros([n - 1 for n in mask.shape], np.uint8)
    for bit, corner in enumerate(np.ndindex(*(2,) * mask.ndim)):
        part = mask[tuple(slice(k, n - 1 + k) for k, n in zip(corner, mask.shape, strict=True))]
        codes |= part.astype(np.uint8) << bit
    return codes


@lru_cache(maxsize=16)
def _areas(spacing: tuple[float, ...]) -> Values:
    """Return the length or area of the surface in each of the 16 or 256 neighbourhoods of a corner."""
    return _lengths_2d(spacing) if len(spacing) == 2 else _areas_3d(spacing)


def _lengths_2d(spacing: tuple[float, ...]) -> Values:
    """Return the lengths of marching squares: lines between the middles of neighbouring pixels."""
    dy, dx = spacing
    diagonal = np.hypot(dy, dx) / 2
    lengths = np.zeros(16)
    for code in range(1, 15):
        (a, b), (c, d) = ((code >> k & 1, code >> (k + 1) & 1) for k in (0, 2))
        if a == b and c == d:
            lengths[code] = dx
        elif a == c and b == d:
            lengths[code] = dy
        else:  # one pixel differs from the three others, or one diagonal from the other
            lengths[code] = diagonal * (2 if a == d and b == c else 1)
    return lengths


def _areas_3d(spacing: tuple[float, ...]) -> Values:
    """Return the areas of marching cubes (Lorensen & Cline, Computer Graphics 21, 1987).

    Inside and outside are treated alike: of the two, the one with fewer voxels is enclosed.
    """
    from skimage import measure

    mesh: Any = measure.marching_cubes
    areas = np.zeros(256)
    for code in range(1, 255):
        cube = (code >> np.arange(8) & 1).reshape(2, 2, 2).astype(float)
        fewer = cube if cube.sum() <= 4 else 1 - cube
        points, triangles, _, _ = mesh(fewer, 0.5, method="lorensen")
        a, b, c = np.moveaxis(points[triangles] * np.array(spacing), 1, 0)
        areas[code] = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    return areas


def surface_distances(
    a: Array, b: Array, unknown: Array | None = None, spacing: Sequence[float] | None = None
) -> tuple[tuple[Values, Values], tuple[Values, Values]] | None:
    """Return the distances from each surface element of mask `a` to the nearest one of `b`, and vice versa.

    Each way they are a pair of distances (n,) and lengths (areas) of the elements (n,), sorted by distance; None if one
    of the masks has no surface. For the parameters see `surface`.
    """
    both = [surface(mask, unknown, spacing) for mask in (a, b)]
    if not all(areas.any() for areas in both):
        return None
    to_a, to_b = (ndimage.distance_transform_edt(areas == 0, sampling=spacing) for areas in both)
    return _sorted(to_b, both[0]), _sorted(to_a, both[1])


def _sorted(distance: Values, areas: Values) -> tuple[Values, Values]:
    distances, weights = distance[areas > 0], areas[areas > 0]
    order = np.lexsort((weights, distances))
    return distances[order], weights[order]


def hausdorff(
    a: Array,
    b: Array,
    percentiles: Sequence[float] = PERCENTILES,
    unknown: Array | None = None,
    spacing: Sequence[float] | None = None,
) -> Values:
    """Return the Hausdorff distance between the surfaces of two masks, at the given percentiles.

    At percentile q it is the larger of the q-th percentiles of the distances from `a` to `b` and from `b` to `a`
    (Huttenlocher et al., IEEE Trans. PAMI 15, 1993); at 100 it is the Hausdorff distance itself. The q-th percentile is
    the smallest distance within which q per cent of the surface lie. NaN if a mask has no surface. In units of
    `spacing`, px by default; for the parameters see `surface`.
    """
    distances = surface_distances(a, b, unknown, spacing)
    if distances is None:
        return np.full(len(percentiles), np.nan)
    wanted = np.asarray(percentiles, float) / 100
    return np.maximum(_weighted(*distances[0], wanted), _weighted(*distances[1], wanted))


def _weighted(distances: Values, areas: Values, parts: Values) -> Values:
    """Return the distance within which each fraction of the area lies; both sorted by distance."""
    up_to = np.cumsum(areas) / areas.sum()
    return distances[np.minimum(np.searchsorted(up_to, parts), len(distances) - 1)]
