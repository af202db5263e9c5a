"""Removal of small objects from label volumes of any size, slab by slab."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array


class ComponentSizes:
    """Which connected components (26 neighbours) of a mask that is seen slab by slab have `min_size` voxels or more.

    Show all slabs in order with `add`, then ask with `large`, slab by slab again. The answer does not depend on how
    the mask is cut into slabs. In memory are one bit per component, and the sizes of those at the faces of a slab,
    which may go on in the next one.
    """

    def __init__(self, min_size: int) -> None:
        self.min_size = min_size
        self._large: list[NDArray[np.uint8]] = []  # of each slab: a bit per component
        self._open: list[NDArray[np.int32]] = []  # of each slab: the components at its faces, counted from 1
        self._open_sizes: list[NDArray[np.int64]] = []
        self._offsets: list[int] = [0]  # numbers of the first open component of each slab
        self._joins: list[NDArray[np.int32]] = []
        self._small = 0  # components that end within a slab
        self._last_plane: NDArray[np.int32] | None = None
        self._result: tuple[NDArray[np.int32], NDArray[np.int64]] | None = None

    def add(self, mask: Array) -> None:
        """Count the components of the next slab, a (z, y, x) boolean array."""
        labels, n = _components(mask)
        sizes = _sizes(labels, n)
        large = sizes >= self.min_size
        self._large.append(np.packbits(large))
        faces = np.unique(np.concatenate([labels[0].ravel(), labels[-1].ravel()]))
        found = faces[faces > 0].astype(np.int32)
        self._small += int((~np.delete(large, found - 1)).sum())
        self._open.append(found)
        self._open_sizes.append(sizes[found - 1])
        number = np.full(n + 1, -1, np.int32)
        number[found] = self._offsets[-1] + np.arange(len(found))
        if self._last_plane is not None:
            self._joins.append(_touching(self._last_plane, number[labels[0]]))
        self._last_plane = number[labels[-1]]
        self._offsets.append(self._offsets[-1] + len(found))

    def large(self, slab: int, mask: Array) -> NDArray[np.bool_]:
        """Return `mask` of slab number `slab` without the components of fewer than `min_size` voxels in all."""
        labels, n = _components(mask)
        member, totals = self._merged()
        keep = np.zeros(n + 1, bool)
        keep[1:] = np.unpackbits(self._large[slab], count=n)
        mine = member[self._offsets[slab] : self._offsets[slab + 1]]
        keep[self._open[slab]] = totals[mine] >= self.min_size
        result = np.empty(labels.shape, bool)
        for plane, numbers in zip(result, labels, strict=True):  # indexing makes 8-byte copies
            plane[:] = keep[numbers]
        return result

    def removed(self) -> int:
        """Return how many components have fewer than `min_size` voxels."""
        _, totals = self._merged()
        return self._small + int((totals < self.min_size).sum())

    def _merged(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the component of the volume that each open component belongs to, and the sizes of the former."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        if self._result is None:
            n = self._offsets[-1]
            joins = np.concatenate([np.empty((0, 2), np.int32), *self._joins])
            graph = coo_matrix((np.ones(len(joins), np.int8), (joins[:, 0], joins[:, 1])), shape=(n, n))
            member = connected_components(graph, directed=False)[1] if n else np.empty(0, np.int32)
            sizes = np.concatenate([np.empty(0, np.int64), *self._open_sizes])
            # Sums of whole numbers are exact in the float64 that weights are.
            self._result = member, np.bincount(member, weights=sizes).astype(np.int64)
        return self._result


def _sizes(labels: Array, n: int) -> NDArray[np.int64]:
    """Return the sizes of components 1 to `n`; counting makes 8-byte copies, so it is done in parts."""
    flat, sizes = labels.reshape(-1), np.zeros(n + 1, np.int64)
    for start in range(0, flat.size, 1 << 22):
        sizes += np.bincount(flat[start : start + (1 << 22)], minlength=n + 1)
    return sizes[1:]


def _components(mask: Array) -> tuple[Array, int]:
    import cc3d

    labels: Any
    labels, n = cc3d.connected_components(np.ascontiguousarray(mask).view(np.uint8), connectivity=26, return_N=True)
    return labels, int(n)


def _touching(before: NDArray[np.int32], after: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the (n, 2) pairs of components that touch across two neighbouring planes, diagonals included.

    The planes hold the components' numbers, and -1 where there is none.
    """
    ny, nx = before.shape
    padded = np.pad(before, 1, constant_values=-1)
    pairs = []
    for dy in range(3):
        for dx in range(3):
            shifted = padded[dy : dy + ny, dx : dx + nx]
            both = (shifted >= 0) & (after >= 0)
            if both.any():
                pairs.append(np.unique(np.stack([shifted[both], after[both]], axis=1), axis=0))
    return np.concatenate([np.empty((0, 2), np.int32), *pairs])
