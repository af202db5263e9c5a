"""Tables as CSV."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_csv(path: Path, table: NDArray[np.void]) -> None:
    """Write a structured array (n,) as CSV in UTF-8: a line of column names, then one line per row.

    Numbers are written so that they read back exactly; NaN is an empty cell, which spreadsheets and pandas take as
    missing; truth values are `true` and `false`.
    """
    names = table.dtype.names or ()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_cell(row[name]) for name in names] for row in table)


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else repr(float(value))
    return str(value)
