"""Format `csv`: each table as CSV, for spreadsheets."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.export.context import ExportContext
from tomoseg.export.formats.base import Format
from tomoseg.export.tables import as_text, columns_of


def write_csv(path: Path, table: NDArray[np.void]) -> None:
    """Write a structured array (n,) as CSV in UTF-8: a line of column names, then one line per row.

    Numbers read back exactly. NaN is an empty cell, which spreadsheets and pandas take as missing; truth values are
    `true` and `false`.
    """
    columns = columns_of(table)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(column[i]) for column in columns.values()] for i in range(len(table)))


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return as_text(value)
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else repr(float(value))
    return str(value)


def _write(context: ExportContext) -> None:
    for name, table in context.tables.items():
        with context.writing(f"{name}.csv") as path:
            write_csv(path, table[:])


FORMAT = Format(
    name="csv",
    description="the tables, for spreadsheets",
    files=lambda context: {f"{name}.csv": 0 for name in context.tables},
    write=_write,
    by_default=True,
)
