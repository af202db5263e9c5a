"""Columns of tables; lengths, areas and volumes in px and in nm.

In all of `tomoseg.measurement`, `voxel_size_nm` is NaN where it is unknown, and so is then all that is in nm.
"""

from typing import Any

import numpy as np

POWERS = {"px": 1, "px2": 2, "px3": 3}  # of the voxel size, by the unit that a column's name ends in


def row_type(columns: str) -> np.dtype[np.void]:
    """Return the type of a table's rows from the names of its columns: f8, unless a type follows a colon."""
    pairs = (column.partition(":") for column in columns.split())
    return np.dtype([(name, kind or "f8") for name, _, kind in pairs])


def fill_nm(table: Any, voxel_size_nm: float) -> None:
    """Fill the columns of a table in nm, nm2, nm3, per_nm or per_nm2 from those of the same name in px.

    The table, a structured array, has the twin in nm of every column in px.
    """
    for name in table.dtype.names:
        stem, _, unit = name.rpartition("_")
        if unit in POWERS:
            scale = voxel_size_nm ** POWERS[unit]
            twin = f"{stem}_{unit.replace('px', 'nm')}"
            table[twin] = table[name] / scale if stem.endswith("_per") else table[name] * scale


def in_nm_and_px(name: str, value_px: float, voxel_size_nm: float, power: int = 1) -> dict[str, float]:
    """Return a length (power 1), area (2) or volume (3) under its names in nm and in px."""
    digit = "" if power == 1 else str(power)
    return {f"{name}_nm{digit}": value_px * voxel_size_nm**power, f"{name}_px{digit}": value_px}
