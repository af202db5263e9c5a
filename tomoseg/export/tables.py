"""Tables as CSV and Parquet, and numbers as JSON. Units stand in the names of columns and keys."""

import csv
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array

# Endings of names and the units they stand for; the first that fits.
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
    "neighbour_distance": "from centre to centre of the nearest other particle",
    "mean_intensity": "mean of the reconstruction over the voxels",
    "touches_border": "whether the border of the volume cuts it",
    "from": "lower edge of the bin",
    "to": "upper edge of the bin",
    "count": "number in the bin",
    "number_fraction": "part of the number",
}


def columns_of(table: NDArray[np.void]) -> dict[str, Array]:
    """Return the columns (n,) of a structured array; one of m numbers per row becomes NAME_0 ... NAME_m-1."""
    found: dict[str, Array] = {}
    for name in table.dtype.names or ():
        column = table[name]
        if column.ndim == 1:
            found[name] = column
        else:
            flat = column.reshape(len(column), math.prod(column.shape[1:]))
            found |= {f"{name}_{i}": flat[:, i] for i in range(flat.shape[1])}
    return found


def as_text(value: Any) -> str:
    """Return what a column of texts holds as a text: bytes are UTF-8."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def unit_of(name: str) -> str:
    """Return the unit that the name of a column or a number says, "" where it says none, "1" for counts and ratios."""
    ending = next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")
    return ending or ("1" if COUNTS.fullmatch(name) else "")


def description_of(name: str) -> str:
    """Return what a column of our tables means, "" for one that is not known."""
    stem = re.sub(r"_(?:nm|px)[23]?$", "", name)
    return DESCRIPTIONS.get(name, DESCRIPTIONS.get(stem, ""))


def write_csv(path: Path, table: NDArray[np.void]) -> None:
    """Write a structured array (n,) as CSV in UTF-8: a line of column names, then one line per row.

    Numbers are written so that they read back exactly; NaN is an empty cell, which spreadsheets and pandas take as
    missing; truth values are `true` and `false`.
    """
    columns = columns_of(table)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(column[i]) for column in columns.values()] for i in range(len(table)))


def write_parquet(path: Path, table: NDArray[np.void], facts: Mapping[str, str] | None = None) -> None:
    """Write a structured array (n,) as Parquet.

    Each field carries `unit` and, where known, `description` in its metadata, the file the texts of `facts`. NaN is
    null, which Parquet's readers take as missing.
    """
    import pyarrow as pa
    from pyarrow import parquet

    arrays, fields = [], []
    for name, column in columns_of(table).items():
        if column.dtype.kind in "OSU":
            array = pa.array([as_text(value) for value in column], pa.string())
        else:
            array = pa.array(np.ascontiguousarray(column, column.dtype.newbyteorder("=")), from_pandas=True)
        metadata = {"unit": unit_of(name), "description": description_of(name)}
        fields.append(pa.field(name, array.type, metadata={key: text for key, text in metadata.items() if text}))
        arrays.append(array)
    schema = pa.schema(fields, metadata=dict(facts or {}))
    parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="zstd")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write numbers and texts as JSON in UTF-8; NaN and infinite are null, arrays lists, tables lists of objects."""
    text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: see `write_json`."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.names:
        columns = columns_of(value)
        return [{name: plain(column[i]) for name, column in columns.items()} for i in range(len(value))]
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return as_text(value) if isinstance(value, bytes) else value


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return as_text(value)
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else repr(float(value))
    return str(value)
