"""Import: bring a raw tilt series, its angles and its pixel size into the project."""

import json
from typing import Any

from tomoseg.arrays import Outputs
from tomoseg.io.input_files import sha256
from tomoseg.io.parameters import ImportParameters, check
from tomoseg.runtime import Runtime
from tomoseg.schema import ANGLES, FURTHER_SIGNALS, TILT_SERIES, TILT_SERIES_INFO
from tomoseg.stages.base import Stage

METADATA_CHARACTERS = 60_000  # an HDF5 attribute holds 64 KiB at most


def run(*, params: ImportParameters, runtime: Runtime, outputs: Outputs) -> None:
    """Copy the series into the project, sorted by angle; see `tomoseg.io.api.copy_series`."""
    from tomoseg.io.api import copy_series

    found = copy_series(params, runtime, outputs)
    assert params.raw is not None  # or there was nothing to copy
    attrs = {
        "pixel_size_nm": float(found.pixel_size_nm),
        "pixel_size_source": found.pixel_size_source,
        "angles_source": found.angles_source,
        "tilt_axis": found.tilt_axis,
        "source": str(params.raw.absolute()),
        "source_sha256": sha256(found.raw.path),
        "metadata": metadata_json(found.raw.format, found.raw.metadata),
    }
    outputs.set_attrs("tilt_series_info", attrs)


def metadata_json(kind: str, metadata: dict[str, Any], most: int = METADATA_CHARACTERS) -> str:
    """Return format and metadata as JSON of at most `most` characters, without the longest entries if need be."""
    kept: dict[str, Any] = {"format": kind, **metadata}
    text = json.dumps(kept)
    while len(text) > most:
        longest = max((key for key in kept if key != "left_out"), key=lambda key: len(json.dumps(kept[key])))
        del kept[longest]
        kept["left_out"] = [*kept.get("left_out", []), longest]
        text = json.dumps(kept)
    return text


STAGE = Stage(
    name="import",
    version=2,
    summary="bring a raw tilt series, its angles and its pixel size into the project",
    parameters=ImportParameters,
    reads=(),
    writes=(TILT_SERIES, ANGLES, TILT_SERIES_INFO, FURTHER_SIGNALS),
    run=run,
    check=check,
    source="raw",
)
