"""Format `json`: a summary of the numbers that one cites."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg import __version__
from tomoseg.export.context import ExportContext
from tomoseg.export.formats.base import Format
from tomoseg.export.tables import as_text, columns_of

SOURCE = ("source", "source_sha256", "pixel_size_nm", "pixel_size_source", "angles_source", "tilt_axis")
LARGE_TABLES = ("particles", "pores")  # a row per object: files of their own


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write numbers and texts as JSON in UTF-8; what is not printable is escaped.

    NaN and infinite values become null, arrays lists, and tables lists of objects.
    """
    plain = _plain(content)
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
    if not text.replace("\n", "").isprintable():
        text = json.dumps(plain, indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Convert a value to one that JSON can hold, see `write_json`."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.names:
        columns = columns_of(value)
        return [{name: _plain(column[i]) for name, column in columns.items()} for i in range(len(value))]
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return as_text(value) if isinstance(value, bytes) else value


def _write(context: ExportContext) -> None:
    source = context.records.get("tilt_series", {})
    summary = {
        "written_by": f"tomoseg {__version__}",
        "units": "in the names: _nm, _nm2, _nm3, _px (of the reconstruction) and so on; null: unknown or none",
        "tilt_series": {name: source.get(name) for name in SOURCE},
        "voxel_size_nm": context.voxel_size_nm,
        "volume_zyx_px": list(context.volume.shape),
        **{topic: dict(numbers) for topic, numbers in context.records.items() if topic != "tilt_series"},
        "tables": {name: table[:] for name, table in context.tables.items() if name not in LARGE_TABLES},
    }
    with context.writing("summary.json") as path:
        write_json(path, summary)


FORMAT = Format(
    name="json",
    description="a summary of the results and the small tables",
    files=lambda _: {"summary.json": 0},
    write=_write,
    by_default=True,
)
