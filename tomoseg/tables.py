"""Tables as they are handed out: pandas DataFrames made from the structured arrays that are stored."""

from typing import TYPE_CHECKING

from tomoseg.arrays import Array

if TYPE_CHECKING:
    from pandas import DataFrame


def data_frame(table: Array) -> "DataFrame":
    """Return a structured array (n,) as a pandas DataFrame with the same columns; bytes become text."""
    from pandas import DataFrame

    return DataFrame({name: _readable(table[name]) for name in table.dtype.names or ()})


def _readable(column: Array) -> Array | list[str]:
    if column.dtype.kind == "S":
        return [value.decode() for value in column]
    if column.dtype.kind == "O":
        return [value.decode() if isinstance(value, bytes) else value for value in column]
    return [str(value) for value in column] if column.dtype.kind == "U" else column
