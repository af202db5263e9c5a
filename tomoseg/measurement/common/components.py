"""Connected components of a mask that passes by in slabs, so that no label image of the whole volume is held."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.measurement.common.surface import BoolArray, Box

Connectivity = Literal[6, 18, 26]

# One row per object: its voxels, the box [start, stop) around it, and the sum of its voxels' coordinates; a component
# has also the coordinates of its first voxel. All (z, y, x) in px.
EXTENT = np.dtype([("voxels", "i8"), ("start", "i8", (3,)), ("stop", "i8", (3,)), ("sum", "f8", (3,))])
COMPONENT = np.dtype([*EXTENT.descr, ("seed", "i8", (3,))])

# Bytes per voxel of a slab while it is labelled: labels and mask, component labels u4, and where they are, i8.
BYTES_PER_VOXEL = 24


def find_components(
    slabs: Iterable[BoolArray], connectivity: Connectivity = 6, min_voxels: int = 1
) -> tuple[NDArray[np.void], int]:
    """Find the connected components of a volume given as consecutive slabs.

    Each slab is labelled by cc3d and joined to what goes on from the slab before, so that no more is held than the
    components that go on and the large ones that have ended: a noisy volume has millions of specks.

    Parameters
    ----------
    slabs
        Masks (z, y, x), one after the other along z.
    connectivity
        6: voxels that share a face; 18: or an edge; 26: or a corner.
    min_voxels
        Smaller components are only counted.

    Returns
    -------
    components : array of `COMPONENT`, (n,)
        In the order of their first voxels.
    n_small : int
        How many are smaller.
    """
    ended, n_small = [np.zeros(0, COMPONENT)], 0
    going_on = np.zeros(0, COMPONENT)
    last: Array | None = None  # the plane before: the numbers, from 1, of the components that go on
    first_z = 0
    for labels, n in _labelled(slabs, connectivity):
        rows = np.concatenate([going_on, _statistics(labels, n, first_z)])
        bottom, top = (np.where(p > 0, p.astype(np.int64) + len(going_on), 0) for p in (labels[0], labels[-1]))
        pairs = np.zeros((0, 2), np.int64) if last is None else _touching(last, bottom, connectivity) - 1
        group = _groups(len(rows), pairs)
        rows = _joined(rows, group)
        at_top = np.unique(group[np.unique(top[top > 0]) - 1])
        done = np.delete(rows, at_top)
        ended.append(done[done["voxels"] >= min_voxels])
        n_small += len(done) - len(ended[-1])
        going_on = rows[at_top]
        number = np.zeros(len(rows) + 1, np.int64)
        number[at_top] = np.arange(1, len(at_top) + 1)
        last = number[np.append(group, len(rows))[top - 1]]  # 0 stays 0: the last of the group is nobody
        first_z += len(labels)
    found = np.concatenate([*ended, going_on])
    large = found[found["voxels"] >= min_voxels]
    return large[np.lexsort(large["seed"].T[::-1])], n_small + len(found) - len(large)


class Component:
    """The part of a volume that is connected to one voxel: iterate for its masks (z, y, x), slab by slab.

    Parameters
    ----------
    slabs
        Called whenever they are needed; yields the masks (z, y, x) of the volume, one after the other along z, the same
        ones each time.
    seed
        The voxel (z, y, x).
    connectivity
        See `find_components`.
    """

    def __init__(
        self, slabs: Callable[[], Iterable[BoolArray]], seed: Iterable[int], connectivity: Connectivity = 6
    ) -> None:
        self._slabs, self._connectivity = slabs, connectivity
        z, y, x = (int(v) for v in seed)
        links = _Links(connectivity)
        first_z, at_seed = 0, -1
        for labels, n in _labelled(slabs(), connectivity):
            if 0 <= z - first_z < len(labels):
                at_seed = links.n_labels + int(labels[z - first_z, y, x]) - 1
            links.add(labels, n)
            first_z += len(labels)
        linked = np.union1d(links.pairs(), [at_seed])
        group = _groups(len(linked), np.searchsorted(linked, links.pairs()))
        self._wanted = linked[group == group[np.searchsorted(linked, at_seed)]]

    def __iter__(self) -> Iterator[BoolArray]:
        first = 0
        for labels, n in _labelled(self._slabs(), self._connectivity):
            here = self._wanted[(self._wanted >= first) & (self._wanted < first + n)]
            chosen = np.zeros(n + 1, bool)
            chosen[here - first + 1] = True
            yield chosen[labels]
            first += n


class BoxReader:
    """Reads boxes of a mask that is known slab by slab only. Boxes that begin at later planes come cheap.

    `slabs` are iterated for the masks (z, y, x), anew when a box begins before what is held of them.
    """

    def __init__(self, slabs: Iterable[BoolArray]) -> None:
        self._slabs = slabs
        self._start_over()

    def _start_over(self) -> None:
        self._coming = (plane for slab in self._slabs for plane in slab)
        self._first, self._planes = 0, list[BoolArray]()

    def read(self, box: Box) -> BoolArray:
        """Return the mask in a box."""
        z, y, x = box
        if z.start < self._first:
            self._start_over()
        while self._first + len(self._planes) < z.stop:
            self._planes.append(next(self._coming))
            self._forget(z.start)
        self._forget(z.start)
        return np.stack([plane[y, x] for plane in self._planes[: z.stop - z.start]])

    def _forget(self, before: int) -> None:
        """Drop the planes before this one."""
        n = min(before - self._first, len(self._planes))
        del self._planes[:n]
        self._first += n


def _labelled(slabs: Iterable[BoolArray], connectivity: Connectivity) -> Iterator[tuple[Array, int]]:
    """Yield the labels of each slab, 1..n in the components of the slab alone, and n."""
    import cc3d

    for mask in slabs:
        yield cc3d.connected_components(np.ascontiguousarray(mask), connectivity=connectivity, return_N=True)


class _Links:
    """Which labels of consecutive slabs touch; labels are counted on from slab to slab."""

    def __init__(self, connectivity: Connectivity) -> None:
        self.n_labels = 0
        self._connectivity = connectivity
        self._pairs: list[Array] = [np.zeros((0, 2), np.int64)]
        self._below: Array | None = None

    def add(self, labels: Array, n: int) -> None:
        """Take in the next slab."""
        bottom, top = (np.where(p > 0, p.astype(np.int64) + self.n_labels, 0) for p in (labels[0], labels[-1]))
        if self._below is not None:
            self._pairs.append(_touching(self._below, bottom, self._connectivity))
        self._below = top
        self.n_labels += n

    def pairs(self) -> NDArray[np.int64]:
        """Return the pairs (m, 2) of labels that touch, counted from 0."""
        return np.concatenate(self._pairs) - 1


def _groups(n: int, pairs: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return which of the groups 0, 1, .. that `pairs` (m, 2) tie together each of 0 .. n - 1 is of."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1]) if n else np.zeros(0, np.int32)


def _statistics(labels: Array, n: int, first_z: int) -> NDArray[np.void]:
    import cc3d

    rows = np.zeros(n, COMPONENT)
    if n == 0:
        return rows
    found = cc3d.statistics(labels, no_slice_conversion=True)
    offset = np.array([first_z, 0, 0])
    boxes = np.asarray(found["bounding_boxes"], dtype=np.int64)[1:].reshape(n, 3, 2)
    rows["voxels"] = found["voxel_counts"][1:]
    rows["start"] = boxes[:, :, 0] + offset
    rows["stop"] = boxes[:, :, 1] + 1 + offset  # cc3d's boxes include their last voxel
    # Sums of whole numbers: rounding makes them exact, and the same for any slabs.
    rows["sum"] = np.rint(found["centroids"][1:] * rows["voxels"][:, None]) + offset * rows["voxels"][:, None]
    flat = np.flatnonzero(labels)
    first = np.zeros(n + 1, np.int64)
    first[labels.ravel()[flat[::-1]]] = flat[::-1]  # the last one written, hence the first voxel, stays
    rows["seed"] = np.stack(np.unravel_index(first[1:], labels.shape), axis=1) + offset
    return rows


def _touching(below: Array, above: Array, connectivity: Connectivity) -> Array:
    """Return the pairs (m, 2) of labels that touch between two neighbouring planes."""
    reach = {6: 0, 18: 1, 26: 2}[connectivity]
    pairs = []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if abs(dy) + abs(dx) <= reach:
                a = below[_overlap(dy), _overlap(dx)].ravel()
                b = above[_overlap(-dy), _overlap(-dx)].ravel()
                both = (a > 0) & (b > 0)
                pairs.append(np.unique(np.stack([a[both], b[both]], axis=1), axis=0))
    return np.concatenate(pairs)


def _overlap(shift: int) -> slice:
    return slice(max(0, shift), shift if shift < 0 else None)


def _joined(rows: NDArray[np.void], group: NDArray[np.int32]) -> NDArray[np.void]:
    """Join the rows of each group 0..n-1."""
    joined = np.zeros(int(group.max(initial=-1)) + 1, COMPONENT)
    np.add.at(joined["voxels"], group, rows["voxels"])
    np.add.at(joined["sum"], group, rows["sum"])
    joined["start"] = np.iinfo(np.int64).max
    np.minimum.at(joined["start"], group, rows["start"])
    np.maximum.at(joined["stop"], group, rows["stop"])
    last_to_first = np.lexsort(rows["seed"].T[::-1])[::-1]
    joined["seed"][group[last_to_first]] = rows["seed"][last_to_first]  # the first of each group stays
    return joined
