"""Format `parquet`: each table as Parquet with units and descriptions, for pandas, R and polars."""

from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomoseg.export.context import ExportContext, Facts, as_texts
from tomoseg.export.formats.base import Format
from tomoseg.export.tables import as_text, columns_of, description_of, unit_of
from tomoseg.io.limits import reason_of


def write_parquet(path: Path, table: NDArray[np.void], facts: Facts | None = None) -> None:
    """Write a structured array (n,) as Parquet.

    The metadata of each field hold its `unit` and, where known, a `description`; those of the file hold `facts`. NaN is
    null, which readers of Parquet take as missing.
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
    schema = pa.schema(fields, metadata=as_texts(facts or {}))
    parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="zstd")


def why_missing() -> str:
    """Return why Parquet cannot be written here and what to install, or an empty string."""
    try:
        with redirect_stderr(StringIO()):  # NumPy writes pages about modules that were built for another one
            import_module("pyarrow.parquet")
    except Exception as error:  # one that was built for another NumPy raises more than ImportError
        package = "'pyarrow<26'" if np.__version__.startswith("1.") else "--upgrade pyarrow"
        return f"parquet needs pyarrow, which cannot be loaded ({reason_of(error)}): pip install {package}"
    return ""


def _write(context: ExportContext) -> None:
    for name, table in context.tables.items():
        with context.writing(f"{name}.parquet") as path:
            write_parquet(path, table[:], context.facts)


FORMAT = Format(
    name="parquet",
    description="the tables with units, for pandas, R and polars",
    files=lambda context: {f"{name}.parquet": 0 for name in context.tables},
    write=_write,
    why_missing=why_missing,
)
