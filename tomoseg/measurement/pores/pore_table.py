"""Tables of pores: one row per pore, and the distribution of their widths."""

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
    id:i4 closed:? touches_border:? voxels:i8 volume_nm3 volume_px3 diameter_nm diameter_px
    inscribed_diameter_nm inscribed_diameter_px wall_area_nm2 wall_area_px2 z_nm y_nm x_nm z_px y_px x_px
    elongation flatness axis_z axis_y axis_x axis_to_facet_deg flat_to_facet_deg
    """
)
PORE_SIZE = row_type(
    """
    from_nm to_nm from_px to_px volume_nm3 volume_px3 volume_fraction
    """
)


def pore_table(space: PoreSpace, wall_area_px2: Array, facets: FloatArray, voxel_size_nm: float) -> NDArray[np.void]:
    """Return one row per pore, largest first.

    `wall_area_px2` (n,) is the area of the support's surface in each. `facets` (m, 3) are the normals of the facets
    that pores may be aligned with; the angles are those to the nearest, 0 to 90 degrees.
    """
    n = len(space.closed)
    table = np.zeros(n, PORE)
    if not n:
        return table
    cells = np.argwhere(space.numbers > 0)
    number = space.numbers[tuple(cells.T)] - 1
    count = np.bincount(number, minlength=n)
    table["id"], table["closed"] = np.arange(1, n + 1), space.closed
    table["voxels"] = count * space.side**3
    table["volume_px3"] = table["voxels"]
    table["diameter_px"] = np.cbrt(6 / np.pi * table["volume_px3"])
    position = (cells + space.start) * space.side + (space.side - 1) / 2
    centre = np.stack([np.bincount(number, position[:, i], n) / count for i in range(3)], axis=1)
    for i, axis in enumerate("zyx"):
        table[f"{axis}_px"] = centre[:, i]
    volume = cells + space.start
    at_border = ((volume == 0) | (volume == np.array(space.shape) - 1)).any(axis=1)
    table["touches_border"] = np.bincount(number[at_border], minlength=n) > 0
    largest = np.zeros(n)
    np.maximum.at(largest, number, distances(space.numbers > 0)[tuple(cells.T)])
    table["inscribed_diameter_px"] = (2 * largest - 1) * space.side  # the wall is half a cell before the next centre
    table["wall_area_px2"] = wall_area_px2
    _add_axes(table, position - centre[number], number, count, facets, space.side)
    fill_nm(table, voxel_size_nm)
    return table


def _add_axes(table: Any, offset: FloatArray, number: Array, count: Array, facets: FloatArray, side: int) -> None:
    """Add the principal axes, from the second moments of a pore's cells; a cell itself has side^2 / 12."""
    n = len(table)
    moments = np.zeros((n, 3, 3))
    for i in range(3):
        for j in range(i, 3):
            moments[:, i, j] = moments[:, j, i] = np.bincount(number, offset[:, i] * offset[:, j], n) / count
        moments[:, i, i] += side**2 / 12
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


def pore_size_table(space: PoreSpace, voxel_size_nm: float) -> NDArray[np.void]:
    """Return the volume of the pores by the diameter of the largest sphere in the pores that covers a place.

    Local thickness (Hildebrand & Rueegsegger, J. Microscopy 185, 1997). The sphere around a cell reaches to half a
    cell before the next one that is no pore: its diameter is 2 D - 1 cells.
    """
    radii = np.sqrt(squared_thickness(squared_distances(space.pores))[space.pores].astype(float))
    if not len(radii):
        return np.zeros(0, PORE_SIZE)
    diameters = (2 * radii - 1) * space.side
    step = space.side * max(1.0, np.ceil(diameters.max() / space.side / 24))
    edges = np.arange(0, diameters.max() + step, step)
    table = np.zeros(len(edges) - 1, PORE_SIZE)
    table["from_px"], table["to_px"] = edges[:-1], edges[1:]
    # A diameter on an edge belongs to the bin that ends there.
    place = np.clip(np.ceil(diameters / step - 1e-9).astype(int) - 1, 0, len(table) - 1)
    table["volume_px3"] = np.bincount(place, minlength=len(table)) * float(space.side) ** 3
    table["volume_fraction"] = table["volume_px3"] / table["volume_px3"].sum()
    fill_nm(table, voxel_size_nm)
    return table


def mean_pore_diameter_px(sizes: NDArray[np.void]) -> float:
    """Return the mean diameter by volume, px; NaN where there are no pores."""
    if not len(sizes):
        return float("nan")
    middle = (sizes["from_px"] + sizes["to_px"]) / 2
    return float(np.average(middle, weights=sizes["volume_px3"]))
