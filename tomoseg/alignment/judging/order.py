"""Whether the images contradict the order of their angles, judged by how alike they are pairwise."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numba
import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.arrays import FloatArray
from tomoseg.io.order import clearly_better, comparable, order_score, similarity, thumbnails

FEWEST = 12  # images: of fewer, some order explains their similarity well by chance
CUTS = 8  # weakest links between neighbouring tilts, at which parts of the series may have been exchanged or reversed
BLOCK = 3  # images on either side of a link that are compared
# Another order must also make neighbours more alike: the mean of 1 - similarity of neighbours falls by this part. An
# order by something else than the angle (the part of the sample in view, the size of the tilt) does not.
LESS_UNLIKE = 0.03
# Range of the similarities, from the 5th to the 95th percentile, below which they tell no order: that of images of
# balls, by their noise and drift, is 0.05 to 0.06, of needles 0.07 and more.
LEAST_RANGE = 0.065
# Part of the variance of the similarities that the other order must explain, for any number of images, and times 1 / n
# more: what the best of all orders explains of images of a ball, which have none, by their noise and drift.
LEAST_SCORE, LEAST_SCORE_FEW = 0.33, 2.0
MOVES_PER_IMAGE = 3  # at most, of the search for a shortest path through the images


@dataclass(frozen=True)
class Contradiction:
    """Another order of the images that explains their similarity clearly better than the angles do.

    Attributes
    ----------
    order : (n,) int, the images by ascending angle as that order has them
    how : what was done to the order given, in words
    score, other_score : part of the variance of the similarities that is explained, see `order_score`
    parted : pairs of neighbours in the order given that are not next to each other in the other one
    """

    order: NDArray[np.intp]
    how: str
    score: float
    other_score: float
    parted: int

    def __str__(self) -> str:
        """Return a sentence for the user."""
        pairs = len(self.order) - 1
        return (
            f"the angles do not seem to belong to the images in this order: {self.parted} of {pairs} pairs of "
            "neighbouring tilts are not neighbours in the order that the images themselves support. The angles as "
            f"given explain {self.score:.0%} of the differences in similarity between images, but "
            f"{self.other_score:.0%} {self.how}. Check that the angles are listed in the order of the images in the "
            "file. The aligned series is not reliable, and its alignment error is unknown"
        )


def contradiction_of(series: ReducedSeries) -> Contradiction | None:
    """Return another order that the images clearly support; None where there is none, or where it cannot be told."""
    usable = np.flatnonzero(series.usable)
    if len(usable) < FEWEST:
        return None
    alike = similarity(thumbnails(series.images[usable]))
    return find_contradiction(alike, series.angles_deg[usable])


def find_contradiction(alike: FloatArray, angles_deg: FloatArray) -> Contradiction | None:
    """Return what `contradiction_of` does from the similarity (n, n) of images at these angles."""
    used = np.flatnonzero(comparable(alike))
    if len(used) < FEWEST:
        return None
    given = used[np.argsort(np.asarray(angles_deg)[used], kind="stable")]
    alike, angles = np.asarray(alike, float)[np.ix_(given, given)], np.asarray(angles_deg, float)[given]
    low, high = np.quantile(alike[np.triu_indices(len(given), 1)], (0.05, 0.95))
    if high - low < LEAST_RANGE:
        return None
    score, unlike = order_score(alike, angles), _unlike(alike, np.arange(len(given)))
    least = LEAST_SCORE + LEAST_SCORE_FEW / len(given)
    best: Contradiction | None = None
    for order, how in _other_orders(alike, angles):
        if _unlike(alike, order) > (1 - LESS_UNLIKE) * unlike:
            continue
        other = order_score(alike[np.ix_(order, order)], angles)
        if other > least and clearly_better(other, score) and (best is None or other > best.other_score):
            best = Contradiction(given[order], how, score, other, _parted(order))
    return best


def _unlike(alike: FloatArray, order: NDArray[np.intp]) -> float:
    """Return the mean of 1 - similarity of neighbours in an order."""
    return float(np.mean(1 - alike[order[1:], order[:-1]]))


def _other_orders(alike: FloatArray, angles: FloatArray) -> Iterator[tuple[NDArray[np.intp], str]]:
    """Yield orders of images that are by ascending angle, each with what was done to them in words."""
    n = len(alike)
    order = np.arange(n)
    by_likeness, likeness = _by_likeness(alike), "with the images in the order of their likeness"
    yield by_likeness, likeness
    for start in (by_likeness, order):
        yield _shortest_path(1 - alike, start), likeness
    outward = np.argsort(np.abs(angles), kind="stable")
    yield outward, "with dose-symmetric angles sorted, or sorted ones dose-symmetric"
    yield np.argsort(outward), "with dose-symmetric angles sorted, or sorted ones dose-symmetric"
    cuts = sorted(_weakest_links(alike))
    for cut in cuts:
        yield np.r_[order[cut:], order[:cut]], f"with the tilts below and above {angles[cut]:g} degrees exchanged"
    for first, last in combinations([0, *cuts, n], 2):
        if last - first < n:
            part = f"with the images from {angles[first]:g} to {angles[last - 1]:g} degrees in reverse"
            yield np.r_[order[:first], order[first:last][::-1], order[last:]], part


def _by_likeness(alike: FloatArray) -> NDArray[np.intp]:
    """Return the images along the direction in which they differ most: the Fiedler vector of the similarity graph."""
    weights = alike - alike.min()
    np.fill_diagonal(weights, 0)
    degree = np.maximum(weights.sum(axis=1), 1e-12)
    laplacian = np.eye(len(alike)) - weights / np.sqrt(np.outer(degree, degree))
    return np.argsort(np.linalg.eigh(laplacian)[1][:, 1] / np.sqrt(degree), kind="stable")


def _shortest_path(distance: FloatArray, order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return `order` after the best reversals of parts and moves of single images, until none makes the path shorter.

    The path is closed by a point that is at no distance from any image: its ends are free.
    """
    n = len(distance)
    tour = np.append(order, n).astype(np.int64)
    _shorten(np.pad(np.asarray(distance, float), (0, 1)), tour, MOVES_PER_IMAGE * n)
    return np.roll(tour, -int(np.flatnonzero(tour == n)[0]))[1:]


def _shorten_tour(d, tour, most):  # type: ignore[no-untyped-def]
    """Change a closed `tour` in place by the best step, at most `most` times; `d` are the distances of its points."""
    n = len(tour)
    for _ in range(most):
        gain, start, stop, is_move = 1e-9, 0, 0, False
        for i in range(n):
            a, b, after = tour[i - 1], tour[i], tour[(i + 1) % n]
            gone = d[a, b] + d[b, after] - d[a, after]
            for j in range(n):
                p, q = tour[j], tour[(j + 1) % n]
                if j > i:  # the part from i + 1 to j in reverse
                    found = d[b, after] + d[p, q] - d[b, p] - d[after, q]
                    if found > gain:
                        gain, start, stop, is_move = found, i, j, False
                if j != i and (j + 1) % n != i:  # point i to between j and j + 1
                    found = gone - d[p, b] - d[b, q] + d[p, q]
                    if found > gain:
                        gain, start, stop, is_move = found, i, j, True
        if gain <= 1e-9:
            return
        if not is_move:
            tour[start + 1 : stop + 1] = tour[start + 1 : stop + 1][::-1].copy()
            continue
        point = tour[start]
        if stop > start:
            tour[start:stop] = tour[start + 1 : stop + 1].copy()
            tour[stop] = point
        else:
            tour[stop + 2 : start + 1] = tour[stop + 1 : start].copy()
            tour[stop + 1] = point


_shorten: Callable[..., None] = numba.njit(nogil=True, cache=True)(_shorten_tour)


def _weakest_links(alike: FloatArray) -> list[int]:
    """Return the positions before which neighbours are least alike, by the median over a few images on either side."""
    n = len(alike)
    links = np.array([np.median(alike[max(k - BLOCK, 0) : k, k : k + BLOCK]) for k in range(1, n)])
    return [int(k) + 1 for k in np.argsort(links, kind="stable")[:CUTS]]


def _parted(order: NDArray[np.intp]) -> int:
    """Return how many neighbours (k, k + 1) are not next to each other in `order`."""
    place = np.argsort(order)
    return int((np.abs(np.diff(place)) > 1).sum())
