"""Connected components of a mask that passes by in slabs, so that no label image of the whole volume is held."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.measure.surface import BoolArray

Connectivity = Literal[6, 18, 26]

# One row per component: its voxels, the box [start, stop) around it, the sum of its voxels' coordinates, and the
# coordinates of one of its voxels; all (z, y, x) in px.
COMPONENT = np.dtype(
    [("voxels", "i8"), ("start", "i8", (3,)), ("stop", "i8", (3,)), ("sum", "f8", (3,)), ("seed", "i8", (3,))]
)

# Bytes per voxel of a slab while it is labelled: mask, labels u4, and where they are, i8, and copies of these.
BYTES_PER_VOXEL = 32


def find_components(slabs: Iterable[BoolArray], connectivity: Connectivity = 6) -> NDArray[np.void]:
    """Find the connected components of a volume given as consecutive slabs.

    Each slab is labelled by cc3d; labels that touch across the cut between two slabs are joined at the end, as
    components of the graph of touching labels.

    Parameters
    ----------
    slabs
        Masks (z, y, x), one after the other along z.
    connectivity
        6: voxels that share a face; 18: or an edge; 26: or a corner.

    Returns
    -------
    array of `COMPONENT`, (n,)
        In the order of their first voxels.
    """
    import cc3d

    rows: list[NDArray[np.void]] = [np.zeros(0, COMPONENT)]
    links: list[Array] = [np.zeros((0, 2), np.int64)]
    first_z = n_labels = 0
    below: Array | None = None
    for mask in slabs:
        labels, n = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=connectivity, return_N=True)
        rows.append(_statistics(labels, n, first_z))
        # Labels of this slab follow those of the slabs before; 0 stays background.
        bottom = np.where(labels[0] > 0, labels[0].astype(np.int64) + n_labels, 0)
        if below is not None:
            links.append(_touching(below, bottom, connectivity))
        below = np.where(labels[-1] > 0, labels[-1].astype(np.int64) + n_labels, 0)
        n_labels += n
        first_z += len(mask)
    return _joined(np.concatenate(rows), np.concatenate(links) - 1)


def component_at(mask: BoolArray, seed: Iterable[int], connectivity: Connectivity = 6) -> BoolArray:
    """Return the part of `mask` (z, y, x) that is connected to the voxel `seed`."""
    import cc3d

    labels = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=connectivity)
    return np.asarray(labels == labels[tuple(seed)])


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
    rows["sum"] = (found["centroids"][1:] + offset) * rows["voxels"][:, None]
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


def _joined(rows: NDArray[np.void], links: Array) -> NDArray[np.void]:
    """Join the rows that `links` (m, 2) connect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if len(rows) == 0:
        return rows
    graph = coo_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(len(rows), len(rows)))
    n, group = connected_components(graph, directed=False)
    joined = np.zeros(n, COMPONENT)
    np.add.at(joined["voxels"], group, rows["voxels"])
    np.add.at(joined["sum"], group, rows["sum"])
    joined["start"] = np.iinfo(np.int64).max
    np.minimum.at(joined["start"], group, rows["start"])
    np.maximum.at(joined["stop"], group, rows["stop"])
    joined["seed"][group[::-1]] = rows["seed"][::-1]  # the first of each group stays
    return joined[np.lexsort(joined["seed"].T[::-1])]
