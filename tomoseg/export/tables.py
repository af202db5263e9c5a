"""Columns of tables: their values, units and descriptions. Units stand in the names of the columns."""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import printable
from tomoseg.export.frame import WORLD_SIGNS

# File names, without ending, of the tables that `measure` makes.
FILES = {
    "class_table": "classes",
    "particle_table": "particles",
    "size_table": "size_distribution",
    "facet_table": "facets",
    "curvature_table": "curvature",
    "pore_table": "pores",
    "pore_size_table": "pore_sizes",
    "layer_table": "layers",
}
# Endings of names and their units; the first that fits counts.
UNITS = {
    "_m2_per_g": "m2/g",
    "_g_per_cm3": "g/cm3",
    "_per_nm3": "1/nm3",
    "_per_nm2": "1/nm2",
    "_per_nm": "1/nm",
    "_per_px3": "1/px3",
    "_per_px2": "1/px2",
    "_per_px": "1/px",
    "_per_sr": "1/sr",
    "_nm3": "nm3",
    "_nm2": "nm2",
    "_nm": "nm",
    "_px3": "px3",
    "_px2": "px2",
    "_px": "px",
    "_deg": "degree",
    "_percent": "%",
    "_fraction": "1",
    "_ratio": "1",
    "sphericity": "1",
}
COUNTS = re.compile(r"(?:n_.*|.*_voxels|voxels|count|number)")
DESCRIPTIONS = {
    "id": "number of the object, from 1, the largest first",
    "class_index": "value in the labels",
    "name": "name of the class",
    "voxels": "number of voxels",
    "volume": "voxels times the volume of one",
    "volume_fraction": "part of the whole volume",
    "diameter": "diameter of the sphere of equal volume",
    "surface_area": "area of the smoothed surface inside the volume",
    "z": "centre along the beam, from the centre of voxel (0, 0, 0)",
    "y": "centre along the tilt axis, from the centre of voxel (0, 0, 0)",
    "x": "centre across the tilt axis, from the centre of voxel (0, 0, 0)",
    "paraview_x": "X of the centre in exported surfaces and VTK files",
    "paraview_y": "Y of the centre in exported surfaces and VTK files, -y",
    "paraview_z": "Z of the centre in exported surfaces and VTK files, -z",
    "neighbour_distance": "from centre to centre of the nearest other particle",
    "mean_intensity": "mean of the reconstruction over the voxels",
    "touches_border": "whether the border of the volume cuts it",
    "from": "lower edge of the bin",
    "to": "upper edge of the bin",
    "count": "number in the bin",
    "number_fraction": "part of the number",
}


def columns_of(table: NDArray[np.void]) -> dict[str, Array]:
    """Return the columns (n,) of a structured array; a column of m numbers per row becomes NAME_0 to NAME_m-1."""
    found: dict[str, Array] = {}
    for stored in table.dtype.names or ():
        name, column = printable(stored), table[stored]
        if column.ndim == 1:
            found[name] = column
        else:
            flat = column.reshape(len(column), math.prod(column.shape[1:]))
            found |= {f"{name}_{i}": flat[:, i] for i in range(flat.shape[1])}
    return found | _world_columns(found)


def _world_columns(columns: dict[str, Array]) -> dict[str, Array]:
    """Return the places of objects once more as exported surfaces and VTK files have them, upright in ParaView."""
    unit = "nm" if np.isfinite(columns.get("x_nm", np.full(1, np.nan))).all() else "px"
    return {
        f"paraview_{axis}_{unit}": sign * columns[f"{axis}_{unit}"]
        for axis, sign in zip("xyz", WORLD_SIGNS, strict=True)
        if all(f"{a}_{unit}" in columns for a in "xyz")
    }


def as_text(value: Any) -> str:
    """Return a value of a text column as printable text; bytes are UTF-8."""
    return printable(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)


def unit_of(name: str) -> str:
    """Return the unit that a name ends in; "1" for counts and ratios, "" if the name tells none."""
    ending = next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")
    return ending or ("1" if COUNTS.fullmatch(name) else "")


def description_of(name: str) -> str:
    """Return the meaning of a column of our tables, "" if it is not known."""
    stem = re.sub(r"_(?:nm|px)[23]?$", "", name)
    return DESCRIPTIONS.get(name, DESCRIPTIONS.get(stem, ""))
