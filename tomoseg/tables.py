"""Tables: structured arrays as they are stored, and DataFrames as people want them."""

from typing import TYPE_CHECKING

import numpy as np

from tomoseg.arrays import Array

if TYPE_CHECKING:
    from pandas import DataFrame


def as_frame(rows: Array) -> "DataFrame":
    """Return a structured array as a DataFrame: the same columns, bytes as text."""
    import pandas as pd

    columns = {name: rows[name] for name in rows.dtype.names or ()}
    return pd.DataFrame({n: np.char.decode(c, "utf-8") if c.dtype.kind == "S" else c for n, c in columns.items()})
