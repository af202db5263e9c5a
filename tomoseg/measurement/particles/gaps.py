"""Gaps between particles: the smallest distance between the surfaces of neighbours.

A surface is the vertices of its mesh, which lie less than a pixel apart: the distance between two surfaces comes out
too large by (0.4 px)^2 / (2 gap) or so for gaps above a pixel, and by 0.4 px at most.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.measurement.common.surface import Float32Array, FloatArray

MOST_POINTS = 200_000  # of one particle that is meshed in blocks
MOST_PAIRS = 1 << 20  # of points that are compared one by one; above that, by a tree


@dataclass(frozen=True)
class Compact:
    """Points (m, 3) in half the bytes of float32: rounded to 1/65535 of the longest side of the box around them."""

    corner: FloatArray
    step: float  # px
    codes: NDArray[np.uint16]

    @classmethod
    def of(cls, points: Float32Array) -> "Compact":
        """Round the points."""
        corner = points.min(axis=0).astype(np.float64)
        step = max(float((points - corner).max()) / 65535, 1e-6)
        return cls(corner, step, np.rint((points - corner) / step).astype(np.uint16))

    def points(self) -> Float32Array:
        """Return the rounded points."""
        return (self.corner + self.step * self.codes).astype(np.float32)

    def corners(self) -> tuple[FloatArray, FloatArray]:
        """Return the corners of the box around the rounded points."""
        points = self.points()
        return points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)


class SurfaceStore:
    """Surface points of particles: those used last are kept as far as memory allows, others are made anew when needed.

    The points kept may take `n_bytes`; the last one that was asked for is kept in any case. `make` returns, given a
    particle's number, the points of that particle and of all that come with it, by number.
    """

    def __init__(self, n_bytes: float, make: Callable[[int], Mapping[int, Compact]]) -> None:
        self._most, self._make = n_bytes, make
        self._held: OrderedDict[int, Compact] = OrderedDict()
        self._taken = 0

    def add(self, number: int, points: Compact) -> None:
        """Keep the points of a particle; drop those used least recently where there is no room."""
        if number in self._held:
            return
        self._held[number] = points
        self._taken += points.codes.nbytes
        while self._taken > self._most and len(self._held) > 1:
            _, dropped = self._held.popitem(last=False)
            self._taken -= dropped.codes.nbytes

    def __getitem__(self, number: int) -> Float32Array:
        points = self._held.get(number)
        if points is None:
            made = self._make(number)
            points = made[number]
            for other in sorted(made, key=lambda n: n == number):  # the one wanted last: it stays
                self.add(other, made[other])
        self._held.move_to_end(number)
        return points.points()


def surface_gaps(
    low: FloatArray,
    high: FloatArray,
    points: Callable[[int], Float32Array],
    steps: Callable[[range], Iterable[int]] = iter,
) -> FloatArray:
    """Return the smallest distance (n,) from the surface of each particle to that of any other, px; NaN for one alone.

    Every pair is looked at whose boxes are nearer than the best found so far: the result does not depend on the order.
    `low` and `high` (n, 3) are the corners of the box around each surface, px; `points` returns the surface points
    (m, 3) of a particle, given its index; `steps` passes the indices through, to show progress or to stop.
    """
    from scipy.spatial import cKDTree

    n = len(low)
    best = np.full(n, np.inf)
    order = np.argsort(low[:, 0], kind="stable")  # those near each other one after the other
    if n < 2:
        return np.full(n, np.nan)
    centres = (low + high) / 2
    reach = np.linalg.norm(high - low, axis=1) / 2
    # Some particles may be much larger than all others: those are compared with everything rather than searched for.
    large = reach > 4 * np.median(reach)
    small_ones, large_ones = np.flatnonzero(~large), np.flatnonzero(large)
    tree, farthest = cKDTree(centres[small_ones]), float(reach[small_ones].max())
    _, nearest = cKDTree(centres).query(centres, k=2)
    for i in (int(order[k]) for k in steps(range(n))):
        if np.isinf(best[i]):
            _compare(i, int(nearest[i, 1] if nearest[i, 0] == i else nearest[i, 0]), points, best)
        around = tree.query_ball_point(centres[i], best[i] + reach[i] + farthest)
        others = np.concatenate([small_ones[around], large_ones])
        others = others[others != i]
        apart = np.maximum(low[others] - high[i], low[i] - high[others])  # between the boxes
        bounds = np.linalg.norm(np.maximum(apart, 0), axis=1)
        for k in np.lexsort((others, bounds)):
            if bounds[k] >= best[i]:
                break
            _compare(i, int(others[k]), points, best)
    return best


def thinned(points: Float32Array, most: int = MOST_POINTS) -> Float32Array:
    """Return `most` of the points (m, 3) at most: the first one in each cube of 2, 4, .. px; all where they are few."""
    side = 1
    while len(points) > most:
        side *= 2
        _, first = np.unique(np.floor(points / side).astype(np.int32), axis=0, return_index=True)
        points = points[np.sort(first)]
    return points


def distance_between(a: Float32Array, b: Float32Array, bound: float = np.inf) -> float:
    """Return the smallest distance between two sets of points (m, 3), or `bound` where they are not nearer."""
    bound = min(bound, float(_some_distance(a, b)))
    near_a, near_b = _near(a, b, bound), _near(b, a, bound)
    if len(near_a) * len(near_b) > MOST_PAIRS:
        from scipy.spatial import cKDTree

        return min(bound, float(cKDTree(near_a).query(near_b, distance_upper_bound=bound)[0].min()))
    return float(_closest(near_a, near_b, bound))


def _compare(i: int, j: int, points: Callable[[int], Float32Array], best: FloatArray) -> None:
    bound = max(best[i], best[j])
    distance = distance_between(points(i), points(j), bound)
    best[i], best[j] = min(best[i], distance), min(best[j], distance)


@numba.njit(nogil=True, cache=True)
def _some_distance(a: Array, b: Array) -> float:
    """Return a distance between two points that are near each other: from one to the nearest there, and back."""
    at, best = b[0], np.inf
    for turn in range(4):
        points = a if turn % 2 == 0 else b
        nearest, place = np.inf, 0
        for k in range(len(points)):
            z = np.float64(points[k, 0]) - at[0]
            y = np.float64(points[k, 1]) - at[1]
            x = np.float64(points[k, 2]) - at[2]
            d = z * z + y * y + x * x
            if d < nearest:
                nearest, place = d, k
        at, best = points[place], min(best, nearest)
    return float(np.sqrt(best))


@numba.njit(nogil=True, cache=True)
def _near(points: Array, others: Array, bound: float) -> Array:
    """Return the points within `bound` of the box around the others."""
    low, high = others[0].copy(), others[0].copy()
    for k in range(len(others)):
        for axis in range(3):
            low[axis] = min(low[axis], others[k, axis])
            high[axis] = max(high[axis], others[k, axis])
    kept = np.empty_like(points)
    n = 0
    limit = bound * bound * (1 + 1e-12)  # rounding
    for k in range(len(points)):
        d = 0.0
        for axis in range(3):
            apart = np.float64(max(low[axis] - points[k, axis], points[k, axis] - high[axis]))
            if apart > 0:
                d += apart * apart
        if d <= limit:
            kept[n] = points[k]
            n += 1
    return kept[:n]


@numba.njit(nogil=True, cache=True)
def _closest(a: Array, b: Array, bound: float) -> float:
    best = bound * bound
    for i in range(len(a)):
        for j in range(len(b)):
            z = np.float64(a[i, 0]) - b[j, 0]
            y = np.float64(a[i, 1]) - b[j, 1]
            x = np.float64(a[i, 2]) - b[j, 2]
            best = min(best, z * z + y * y + x * x)
    return float(np.sqrt(best))
