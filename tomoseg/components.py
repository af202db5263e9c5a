"""Connected components of a mask that passes by in slabs, so that no label image of the whole volume is held."""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, BoolArray, Box

Connectivity = Literal[6, 18, 26]

# One row per object: its voxels, the box [start, stop) around it, and the sum of its voxels' coordinates; a component
# has also the coordinates of its first voxel. All (z, y, x) in px.
EXTENT = np.dtype([("voxels", "i8"), ("start", "i8", (3,)), ("stop", "i8", (3,)), ("sum", "f8", (3,))])
COMPONENT = np.dtype([*EXTENT.descr, ("seed", "i8", (3,))])

# Bytes per voxel of a slab while it is labelled: labels and mask, component labels u4, and what is known of each
# component where every few voxels are one.
BYTES_PER_VOXEL = 24


def find_components(
    slabs: Iterable[BoolArray], connectivity: Connectivity = 6, min_voxels: int = 1
) -> tuple[NDArray[np.void], int]:
    """Find the connected components of a volume given as consecutive slabs.

    Each slab is labelled by cc3d and joined to what goes on from the slab before, so that no more is held than the
    components that go on and the large ones that have ended: a noisy volume has millions of specks.

    Parameters
    ----------
    slabs : masks (z, y, x), one after the other along z
    connectivity : 6: voxels that share a face; 18: or an edge; 26: or a corner
    min_voxels : smaller components are only counted

    Returns
    -------
    components (n,) of `COMPONENT` in the order of their first voxels, and how many are smaller
    """
    ended, n_small = [np.zeros(0, COMPONENT)], 0
    going_on = np.zeros(0, COMPONENT)
    last: Array | None = None  # the plane before: the numbers, from 1, of the components that go on
    first_z = 0
    for labels, n in _labelled(slabs, connectivity):
        new, number, n_specks = _statistics(labels, n, first_z, min_voxels)
        n_small += n_specks
        rows = np.concatenate([going_on, new])
        number[1:][number[1:] > 0] += len(going_on)
        bottom, top = number[labels[0]], number[labels[-1]]
        pairs = np.zeros((0, 2), np.int64) if last is None else _touching(last, bottom, connectivity) - 1
        group = _groups(len(rows), pairs)
        rows = _joined(rows, group)
        at_top = np.unique(group[np.unique(top[top > 0]) - 1])
        done = np.delete(rows, at_top)
        ended.append(done[done["voxels"] >= min_voxels])
        n_small += len(done) - len(ended[-1])
        going_on = rows[at_top]
        onward = np.zeros(len(rows) + 1, np.int64)
        onward[at_top] = np.arange(1, len(at_top) + 1)
        last = onward[np.append(group, len(rows))[top - 1]]  # 0 stays 0: the last of the group is nobody
        first_z += len(labels)
    found = np.concatenate([*ended, going_on])
    large = found[found["voxels"] >= min_voxels]
    return large[np.lexsort(large["seed"].T[::-1])], n_small + len(found) - len(large)


class Component:
    """The component of a volume that holds one voxel: iterate for its masks (z, y, x), slab by slab.

    `slabs` is called whenever they are needed; it yields the masks (z, y, x) of the volume, one after the other along
    z, the same ones each time. `seed` is the voxel (z, y, x).
    """

    def __init__(
        self, slabs: Callable[[], Iterable[BoolArray]], seed: Iterable[int], connectivity: Connectivity = 6
    ) -> None:
        self._slabs, self._connectivity = slabs, connectivity
        z, y, x = (int(v) for v in seed)
        links = _Links(connectivity)
        first_z, home, label = 0, 0, 0
        for i, (labels, n) in enumerate(_labelled(slabs(), connectivity)):
            links.add(labels, n)
            if 0 <= z - first_z < len(labels):
                home, label = i, int(labels[z - first_z, y, x])
            first_z += len(labels)
        objects = links.objects()
        mine = objects[home][links.at_faces[home] == label]  # none where it ends within its slab
        self._labels = [faces[np.isin(found, mine)] for faces, found in zip(links.at_faces, objects, strict=True)]
        self._labels[home] = np.union1d(self._labels[home], label)

    def __iter__(self) -> Iterator[BoolArray]:
        for (labels, n), mine in zip(_labelled(self._slabs(), self._connectivity), self._labels, strict=True):
            chosen = np.zeros(n + 1, bool)
            chosen[mine] = True
            yield looked_up(chosen, labels)


class ComponentSizes:
    """Find the components of at least `min_size` voxels in a mask that passes by in slabs.

    Show all slabs in order with `add`, then ask for them with `large`, slab by slab again. The result does not depend
    on how the mask is cut into slabs. One bit per component is kept, and the sizes of those at the faces of a slab,
    which may go on in the next one.
    """

    def __init__(self, min_size: int, connectivity: Connectivity = 26) -> None:
        self.min_size = min_size
        self._connectivity = connectivity
        self._links = _Links(connectivity)
        self._large: list[NDArray[np.uint8]] = []  # of each slab: a bit per component
        self._sizes_at_faces: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        self._n_small = 0  # components that end within a slab
        self._merged: tuple[list[NDArray[np.int32]], NDArray[np.int64]] | None = None

    def add(self, mask: Array) -> None:
        """Count the components of the next slab, a (z, y, x) boolean array."""
        ((labels, n),) = _labelled([mask], self._connectivity)
        sizes = component_sizes(labels, n)[1:]
        large = sizes >= self.min_size
        at_faces = self._links.add(labels, n) - 1
        self._large.append(np.packbits(large))
        self._sizes_at_faces.append(sizes[at_faces])
        self._n_small += int((~np.delete(large, at_faces)).sum())

    def large(self, slab: int, mask: Array) -> BoolArray:
        """Return `mask` of slab number `slab` without the components of fewer than `min_size` voxels in all."""
        ((labels, n),) = _labelled([mask], self._connectivity)
        objects, totals = self._totals()
        keep = np.zeros(n + 1, bool)
        keep[1:] = np.unpackbits(self._large[slab], count=n)
        keep[self._links.at_faces[slab]] = totals[objects[slab]] >= self.min_size
        return looked_up(keep, labels)

    def removed(self) -> int:
        """Return how many components have fewer than `min_size` voxels."""
        _, totals = self._totals()
        return self._n_small + int((totals < self.min_size).sum())

    def _totals(self) -> tuple[list[NDArray[np.int32]], NDArray[np.int64]]:
        """Return the object of each component at a face, by slab, and the voxels of each object."""
        if self._merged is None:
            objects = self._links.objects()
            of_all = np.concatenate([np.zeros(0, np.int32), *objects])
            # Sums of whole numbers are exact in the float64 that weights are.
            self._merged = objects, np.bincount(of_all, np.concatenate(self._sizes_at_faces)).astype(np.int64)
        return self._merged


def component_sizes(labels: Array, n: int) -> NDArray[np.int64]:
    """Return the voxels (n + 1,) of the labels 0 to n; counting makes 8-byte copies, so it is done in parts."""
    flat, sizes = labels.reshape(-1), np.zeros(n + 1, np.int64)
    part = max(1 << 18, n)
    for start in range(0, flat.size, part):
        sizes += np.bincount(flat[start : start + part], minlength=n + 1)
    return sizes


def looked_up(values: Array, labels: Array) -> Array:
    """Return the value of each voxel's label (z, y, x); indexing makes 8-byte copies, so it is done by planes."""
    out = np.empty(labels.shape, values.dtype)
    for plane, numbers in zip(out, labels, strict=True):
        plane[:] = values[numbers]
    return out


def component_at(mask: BoolArray, seed: Iterable[int], connectivity: Connectivity = 6) -> BoolArray:
    """Return the component of a mask (z, y, x) in memory that holds one voxel."""
    ((labels, _),) = _labelled([mask], connectivity)
    return np.asarray(labels == labels[tuple(seed)])


class BoxReader:
    """Reads boxes of a mask that is known slab by slab only. Boxes that begin at later planes come cheap.

    `slabs` are iterated for the masks (z, y, x), and again when a box begins before the planes that are held.
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
    """Links the components of consecutive slabs to objects: only those at the faces of a slab go on in the next."""

    def __init__(self, connectivity: Connectivity) -> None:
        self.at_faces: list[NDArray[np.int32]] = []  # of each slab: the labels at its faces, rising
        self._connectivity = connectivity
        self._counts = [0]  # labels at faces in all slabs before
        self._pairs: list[Array] = [np.zeros((0, 2), np.int32)]
        self._last_plane: Array | None = None

    def add(self, labels: Array, n: int) -> NDArray[np.int32]:
        """Add the labels 1..n of the next slab; return those at its faces."""
        faces = np.unique(np.concatenate([labels[0].ravel(), labels[-1].ravel()]))
        found = faces[faces > 0].astype(np.int32)
        number = np.zeros(n + 1, np.int32)
        number[found] = self._counts[-1] + np.arange(1, len(found) + 1)
        if self._last_plane is not None:
            self._pairs.append(_touching(self._last_plane, number[labels[0]], self._connectivity))
        self._last_plane = number[labels[-1]]
        self.at_faces.append(found)
        self._counts.append(self._counts[-1] + len(found))
        return found

    def objects(self) -> list[NDArray[np.int32]]:
        """Return for each slab the object, 0, 1, .., that each of its `at_faces` is part of."""
        groups = _groups(self._counts[-1], np.concatenate(self._pairs) - 1)
        return [groups[a:b] for a, b in pairwise(self._counts)]


def _groups(n: int, pairs: Array) -> NDArray[np.int32]:
    """Return the group, 0, 1, .., of each of n things, of which `pairs` (m, 2) belong together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1]) if n else np.zeros(0, np.int32)


def _statistics(
    labels: Array, n: int, first_z: int, min_voxels: int
) -> tuple[NDArray[np.void], NDArray[np.int64], int]:
    """Return the components of a slab but for the specks: those of fewer than `min_voxels` that touch no face of it.

    Also the number (n + 1,) of each label among the components, from 1, which is 0 for the specks, and how many there
    are of these.
    """
    import cc3d

    number = np.zeros(n + 1, np.int64)
    if n == 0:
        return np.zeros(0, COMPONENT), number, 0
    found = cc3d.statistics(labels, no_slice_conversion=True)
    wanted = found["voxel_counts"] >= min_voxels
    wanted[np.unique(labels[[0, -1]])] = True
    wanted[0] = False
    number[wanted] = np.arange(1, np.count_nonzero(wanted) + 1)
    rows = np.zeros(int(number.max()), COMPONENT)
    offset = np.array([first_z, 0, 0])
    boxes = np.asarray(found["bounding_boxes"][wanted], dtype=np.int64).reshape(-1, 3, 2)
    rows["voxels"] = found["voxel_counts"][wanted]
    rows["start"] = boxes[:, :, 0] + offset
    rows["stop"] = boxes[:, :, 1] + 1 + offset  # cc3d's boxes include their last voxel
    # Sums of whole numbers: rounding makes them exact, and the same for any slabs.
    voxels = rows["voxels"][:, None]
    rows["sum"] = np.rint(found["centroids"][wanted] * voxels) + offset * voxels
    first = np.zeros(n + 1, np.int64)
    for z in range(len(labels) - 1, -1, -1):
        flat = np.flatnonzero(labels[z])[::-1]
        first[labels[z].ravel()[flat]] = flat + z * labels[z].size  # the last one written, hence the first voxel, stays
    rows["seed"] = np.stack(np.unravel_index(first[wanted], labels.shape), axis=1) + offset
    return rows, number, n - len(rows)


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
