"""Layers along the tilt axis, as of a needle cut from a multilayer: which class fills the sample where, and how far.

Of each slice perpendicular to the axis, the share of a class is its part of the voxels that are not background. A layer
is where one class has more than half, from one crossing of 1/2 to the next, which are interpolated between slices. A
sample has layers where there are two or more, each thicker than the resolution and mostly of its class.
"""

import itertools

import numba
import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import ArraySource
from tomoseg.classes import MAX_CLASSES
from tomoseg.measurement.common.columns import fill_nm, row_type
from tomoseg.measurement.common.surface import FloatArray
from tomoseg.runtime import Runtime, slabs

LEAST_PURITY = 0.8  # mean share of its class in a layer
LEAST_FILLED = 0.05  # of the fullest slice: emptier ones at the ends of the sample are no part of a layer


def layer_table(
    labels: ArraySource, names: list[str], voxel_size_nm: float, resolved_px: float, runtime: Runtime
) -> NDArray[np.void]:
    """Return one row per layer of labels (z, y, x) along y, from the first slice on; none where there are no layers.

    `from` and `to` are counted from the centre of the first voxel. `purity` is the mean share of the class between
    them. The outermost layers end where the sample does; `touches_border` tells where that is the end of the volume.
    """
    counts = _counts(labels, len(names), runtime)
    width = max(len(name) for name in names)
    kind = row_type(
        f"class_index:i4 name:U{width} from_nm to_nm from_px to_px thickness_nm thickness_px purity touches_border:?"
    )
    sample = counts[:, 1:].sum(axis=1)
    if not sample.any():
        return np.zeros(0, kind)
    filled = np.flatnonzero(sample >= LEAST_FILLED * sample.max())
    first, last = int(filled[0]), int(filled[-1])
    shares = counts[first : last + 1, 1:] / np.maximum(sample[first : last + 1, None], 1)
    rows = []
    for k, (start, stop) in _runs(shares):
        purity = float(shares[round(start) : max(round(stop), round(start) + 1), k].mean())
        rows.append((k + 1, names[k + 1], first + start - 0.5, first + stop - 0.5, purity))
    if len(rows) < 2 or min(r[4] for r in rows) < LEAST_PURITY or min(r[3] - r[2] for r in rows) < resolved_px:
        return np.zeros(0, kind)
    table = np.zeros(len(rows), kind)
    for row, (index, name, start, stop, purity) in zip(table, rows, strict=True):
        row["class_index"], row["name"], row["purity"] = index, name, purity
        row["from_px"], row["to_px"], row["thickness_px"] = start, stop, stop - start
    table["touches_border"] = (table["from_px"] <= -0.5) | (table["to_px"] >= len(counts) - 0.5)
    fill_nm(table, voxel_size_nm)
    return table


def layer_remark(layers: NDArray[np.void]) -> str:
    """Return what was found, in words."""
    unit = "nm" if np.isfinite(layers["thickness_nm"]).all() else "px"
    listed = ", ".join(f"{row['name']} {row[f'thickness_{unit}']:.4g} {unit}" for row in layers)
    return f"{len(layers)} layers along the tilt axis: {listed}"


def _counts(labels: ArraySource, n: int, runtime: Runtime) -> NDArray[np.int64]:
    """Return the number of voxels (y, class) of each class in each slice."""
    nz, ny, nx = labels.shape
    counts = np.zeros((ny, MAX_CLASSES + 1), np.int64)
    for part in slabs(nz, runtime.slab_size(2 * ny * nx, nz)):
        runtime.check()
        _count(labels[part], counts)
    return counts[:, :n]


def _count_slices(labels, counts):  # type: ignore[no-untyped-def]
    """Add the voxels of labels (z, y, x) to `counts` (y, class)."""
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                counts[y, labels[z, y, x]] += 1


_count = numba.njit(nogil=True, cache=True)(_count_slices)


def _runs(shares: FloatArray) -> list[tuple[int, tuple[float, float]]]:
    """Return class and ends of each run of slices (y, class) in which a class has more than half.

    Ends are in slices from the start of the first; between two slices, they lie where the share crosses one half.
    """
    most = np.where(shares.max(axis=1) > 0.5, shares.argmax(axis=1), -1)
    edges = np.flatnonzero(np.diff(most)) + 1
    bounds = [0, *edges.tolist(), len(most)]
    found = []
    for start, stop in itertools.pairwise(bounds):
        k = int(most[start])
        if k >= 0:
            share = shares[:, k]
            found.append((k, (_crossing(share, start), _crossing(share, stop))))
    return found


def _crossing(share: FloatArray, edge: int) -> float:
    """Return where the share crosses 1/2 at the edge before slice `edge`; the middles of slices are at + 1/2."""
    if edge in (0, len(share)):
        return float(edge)
    before, after = share[edge - 1], share[edge]
    return float(edge - 0.5 + (0.5 - before) / (after - before)) if before != after else float(edge)
