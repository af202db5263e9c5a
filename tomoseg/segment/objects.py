"""Removal of small objects from label volumes of any size, slab by slab."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array


class ComponentSizes:
    """Sizes in voxels of the connected components (26 neighbours) of a mask that is seen slab by slab.

    Show all slabs in order with `add`, then ask with `large`, slab by slab again. The answer does not depend on how
    the mask is cut into slabs; only the last plane of a slab is kept in memory.
    """

    def __init__(self) -> None:
        self._sizes: list[NDArray[np.int64]] = []
        self._offsets: list[int] = [0]
        self._joins: list[NDArray[np.int64]] = []
        self._last_plane: NDArray[np.int64] | None = None
        self._result: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def add(self, mask: Array) -> None:
        """Count the components of the next slab, a (z, y, x) boolean array."""
        labels, n = _components(mask)
        offset = self._offsets[-1]
        self._sizes.append(np.bincount(labels.ravel(), minlength=n + 1)[1:])
        self._offsets.append(offset + n)
        if self._last_plane is not None:
            self._joins.append(_touching(self._last_plane, _numbered(labels[0], offset)))
        self._last_plane = _numbered(labels[-1], offset)

    def large(self, slab: int, mask: Array, min_size: int) -> NDArray[np.bool_]:
        """Return `mask` of slab number `slab` without the components of fewer than `min_size` voxels in all."""
        labels, _ = _components(mask)
        member, totals = self._merged()
        mine = member[self._offsets[slab] : self._offsets[slab + 1]]
        keep = np.concatenate([[False], totals[mine] >= min_size])
        return np.asarray(keep[labels])

    def removed(self, min_size: int) -> int:
        """Return how many components have fewer than `min_size` voxels."""
        _, totals = self._merged()
        return int((totals < min_size).sum())

    def _merged(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the component of the volume that each component of a slab belongs to, and the sizes of the former."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        if self._result is None:
            n = self._offsets[-1]
            joins = np.concatenate([np.empty((0, 2), np.int64), *self._joins])
            graph = coo_matrix((np.ones(len(joins), np.int8), (joins[:, 0], joins[:, 1])), shape=(n, n))
            member = connected_components(graph, directed=False)[1].astype(np.int64) if n else np.empty(0, np.int64)
            sizes = np.concatenate([np.empty(0, np.int64), *self._sizes])
            self._result = member, np.bincount(member, weights=sizes).astype(np.int64)
        return self._result


def _components(mask: Array) -> tuple[Array, int]:
    import cc3d

    labels: Any
    labels, n = cc3d.connected_components(np.ascontiguousarray(mask, np.uint8), connectivity=26, return_N=True)
    return labels, int(n)


def _numbered(plane: Array, offset: int) -> NDArray[np.int64]:
    """Return component numbers over all slabs from 0, and -1 outside."""
    return np.where(plane > 0, plane.astype(np.int64) + (offset - 1), -1)


def _touching(before: NDArray[np.int64], after: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the (n, 2) pairs of components that touch across two neighbouring planes, diagonals included."""
    ny, nx = before.shape
    padded = np.pad(before, 1, constant_values=-1)
    pairs = []
    for dy in range(3):
        for dx in range(3):
            shifted = padded[dy : dy + ny, dx : dx + nx]
            both = (shifted >= 0) & (after >= 0)
            if both.any():
                pairs.append(np.unique(np.stack([shifted[both], after[both]], axis=1), axis=0))
    return np.concatenate([np.empty((0, 2), np.int64), *pairs])
