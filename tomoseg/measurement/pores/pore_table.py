"""Tables of pores: one row per pore, and the distribution of their widths."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.measurement.common.columns import fill_nm, row_type
from tomoseg.measurement.common.surface import FloatArray
from tomoseg.measurement.pores.pore_space import PoreSpace
from tomoseg.measurement.pores.porosimetry import distances, squared_distances, squared_thickness

PORE = row_type(
    """
    id:i4 closed:? touches_border:? below_resolution:? voxels:i8 volume_nm3 volume_px3 diameter_nm diameter_px
    inscribed_diameter_nm inscribed_diameter_px wall_area_nm2 wall_area_px2 z_nm y_nm x_nm z_px y_px x_px
    elongation flatness axis_z axis_y axis_x axis_to_facet_deg flat_to_facet_deg
    """
)
PORE_SIZE = row_type(
    """
    from_nm to_nm from_px to_px volume_nm3 volume_px3 volume_fraction
    """
)


def pore_table(
    space: PoreSpace, wall_area_px2: Array, facets: FloatArray, voxel_size_nm: float, resolved_px: float
) -> NDArray[np.void]:
    """Return one row per pore, largest first.

    `wall_area_px2` (n,) is the area of the support's surface in each. `facets` (m, 3) are the normals of the facets
    that pores may be aligned with; the angles are those to the nearest, 0 to 90 degrees. A pore into which no sphere of
    the diameter `resolved_px` fits is below the resolution.
    """
    n = len(space.closed)
    table = np.zeros(n, PORE)
    if not n:
        return table
    count, total, largest = np.zeros(n, np.int64), np.zeros((n, 3)), np.zeros(n)
    depth, last = distances(space.numbers > 0), np.array(space.shape) - 1
    for cells, number in _pore_cells(space):
        count += np.bincount(number, minlength=n)
        total += np.stack([np.bincount(number, along, n) for along in _positions(space, cells).T], axis=1)
        np.maximum.at(largest, number, depth[tuple((cells - space.start).T)])
        table["touches_border"][number[((cells == 0) | (cells == last)).any(axis=1)]] = True
    del depth
    table["id"], table["closed"] = np.arange(1, n + 1), space.closed
    table["voxels"] = count * space.side**3
    table["volume_px3"] = table["voxels"]
    table["diameter_px"] = np.cbrt(6 / np.pi * table["volume_px3"])
    centre = total / count[:, None]
    for i, axis in enumerate("zyx"):
        table[f"{axis}_px"] = centre[:, i]
    table["inscribed_diameter_px"] = (2 * largest - 1) * space.side  # the wall is half a cell before the next centre
    table["below_resolution"] = table["inscribed_diameter_px"] < resolved_px
    table["wall_area_px2"] = wall_area_px2
    _add_axes(table, _moments(space, centre, count), facets)
    fill_nm(table, voxel_size_nm)
    return table


def _pore_cells(space: PoreSpace) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the cells (m, 3) of the volume in pores and the index (m,) of each cell's pore, plane by plane."""
    for z, numbers in enumerate(space.numbers):
        y, x = np.nonzero(numbers > 0)
        cells = np.stack([np.full(len(y), z), y, x], axis=1) + space.start
        yield cells, numbers[y, x].astype(np.int64) - 1


def _positions(space: PoreSpace, cells: NDArray[np.int64]) -> FloatArray:
    """Return the centres of cells (m, 3) of the volume, px."""
    return np.asarray(cells * space.side + (space.side - 1) / 2)


def _moments(space: PoreSpace, centre: FloatArray, count: NDArray[np.int64]) -> FloatArray:
    """Return the second moments (n, 3, 3) of each pore about its centre, px^2; a cell itself has side^2 / 12."""
    total = np.zeros((3, 3, len(count)))
    for cells, number in _pore_cells(space):
        offset = _positions(space, cells) - centre[number]
        for i in range(3):
            for j in range(i, 3):
                np.add.at(total[i, j], number, offset[:, i] * offset[:, j])
    moments = np.moveaxis(total / count, -1, 0)
    for i in range(3):
        moments[:, i:, i] = moments[:, i, i:]
        moments[:, i, i] += space.side**2 / 12
    return moments


def _add_axes(table: Any, moments: FloatArray, facets: FloatArray) -> None:
    """Add the principal axes, from the second moments (n, 3, 3) of the pores."""
    n = len(table)
    values, vectors = np.linalg.eigh(moments)
    longest, flattest = vectors[:, :, 2], vectors[:, :, 0]
    longest = longest * np.where(longest[np.arange(n), np.abs(longest).argmax(axis=1)] < 0, -1, 1)[:, None]
    table["elongation"] = np.sqrt(values[:, 2] / values[:, 1])
    table["flatness"] = np.sqrt(values[:, 1] / values[:, 0])
    for i, axis in enumerate("zyx"):
        table[f"axis_{axis}"] = longest[:, i]
    for name, axes in (("axis_to_facet_deg", longest), ("flat_to_facet_deg", flattest)):
        cosine = np.abs(axes @ facets.T).max(axis=1) if len(facets) else np.full(n, np.nan)
        table[name] = np.degrees(np.arccos(np.minimum(cosine, 1)))


def pore_size_table(space: PoreSpace, numbers: Array, voxel_size_nm: float) -> NDArray[np.void]:
    """Return the volume of pores, by their numbers, by the diameter of the largest sphere in them that covers a place.

    Local thickness (Hildebrand & Rueegsegger, J. Microscopy 185, 1997). The sphere around a cell reaches to half a
    cell before the next one that is no pore: its diameter is 2 D - 1 cells.
    """
    counted = np.zeros(len(space.closed) + 2, bool)  # the last one for -1, which is in no table
    counted[numbers] = True
    counts = _histogram(squared_thickness(squared_distances(counted[space.numbers])))
    counts[0] = 0  # where no pore is
    squares = np.flatnonzero(counts)
    if not len(squares):
        return np.zeros(0, PORE_SIZE)
    diameters = (2 * np.sqrt(squares.astype(float)) - 1) * space.side
    step = space.side * max(1.0, np.ceil(diameters.max() / space.side / 24))
    edges = np.arange(0, diameters.max() + step, step)
    table = np.zeros(len(edges) - 1, PORE_SIZE)
    table["from_px"], table["to_px"] = edges[:-1], edges[1:]
    # A diameter on an edge belongs to the bin that ends there.
    place = np.clip(np.ceil(diameters / step - 1e-9).astype(int) - 1, 0, len(table) - 1)
    cells = np.bincount(place, counts[squares], minlength=len(table))
    table["volume_px3"] = cells * float(space.side) ** 3
    table["volume_fraction"] = table["volume_px3"] / table["volume_px3"].sum()
    fill_nm(table, voxel_size_nm)
    return table


def _histogram(values: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return how often each value occurs in (z, y, x), plane by plane: counting makes 8-byte copies."""
    counts = np.zeros(np.iinfo(np.uint16).max + 1, np.int64)
    for plane in values:
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    return counts


def mean_pore_diameter_px(sizes: NDArray[np.void]) -> float:
    """Return the mean diameter by volume, px; NaN where there are no pores."""
    if not len(sizes):
        return float("nan")
    middle = (sizes["from_px"] + sizes["to_px"]) / 2
    return float(np.average(middle, weights=sizes["volume_px3"]))
