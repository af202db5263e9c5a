"""Distances between the surfaces of a true and a predicted class."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array

PERCENTILES: tuple[int, ...] = tuple(range(50, 101, 5))


def surface(mask: Array, unknown: Array | None = None) -> NDArray[np.bool_]:
    """Return the elements of a 2D or 3D mask that touch (face to face) one outside it.

    Where an object is cut off by the border of the image or by an `unknown` region, that is no surface: it lies in the
    same place in truth and prediction and would only flatter their distance.
    """
    mask = np.asarray(mask, bool)
    inside = mask if unknown is None else mask | unknown
    eroded = ndimage.binary_erosion(inside, ndimage.generate_binary_structure(mask.ndim, 1), border_value=1)
    return np.asarray(mask & ~eroded if unknown is None else mask & ~eroded & ~unknown)


def surface_distances(
    a: Array, b: Array, unknown: Array | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the distances in px from each surface element of mask `a` to the nearest of `b`, and the reverse.

    None where one of them has no surface.
    """
    surface_a, surface_b = surface(a, unknown), surface(b, unknown)
    if not surface_a.any() or not surface_b.any():
        return None
    to_a = ndimage.distance_transform_edt(~surface_a)
    to_b = ndimage.distance_transform_edt(~surface_b)
    return np.asarray(to_b[surface_a]), np.asarray(to_a[surface_b])


def hausdorff(
    a: Array, b: Array, percentiles: Sequence[float] = PERCENTILES, unknown: Array | None = None
) -> NDArray[np.float64]:
    """Return the Hausdorff distance in px between the surfaces of two masks, at the given percentiles.

    At percentile q it is the larger of the q-th percentiles of the distances from `a` to `b` and from `b` to `a`
    (Huttenlocher et al., IEEE Trans. PAMI 15, 1993); at 100 it is the Hausdorff distance itself. NaN where a mask has
    no surface. `unknown` marks elements that count for neither.
    """
    distances = surface_distances(a, b, unknown)
    if distances is None:
        return np.full(len(percentiles), np.nan)
    return np.maximum(np.percentile(distances[0], percentiles), np.percentile(distances[1], percentiles))
