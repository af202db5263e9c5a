"""Format `alignment`: the alignment as a table and for IMOD, one line per tilt by ascending angle."""

import numpy as np

from tomoseg.arrays import Array
from tomoseg.export.context import NO_CORRECTIONS, AlignmentRecord, ExportContext
from tomoseg.export.formats.base import Format
from tomoseg.export.formats.csv import write_csv
from tomoseg.io.mrc import write_angles
from tomoseg.io.shifts import imod_turns, transforms, write_transforms

FILES = ("shifts.csv", "alignment.xf", "alignment.tlt")


def _write(context: ExportContext) -> None:
    given = context.alignment
    if given is None:
        return
    with context.writing("shifts.csv") as path:
        write_csv(path, shift_table(given))
    corrections = given.image_corrections
    lines = transforms(
        np.asarray(given.shifts_px, float),
        given.tilt_axis_angle_deg,
        given.tilt_axis_offset_px,
        np.asarray(corrections.get("rotation_deg", 0.0), float),
        np.asarray(corrections.get("magnification", 1.0), float),
        rows_up=imod_turns(str(context.records.get("tilt_series", {}).get("source", ""))),
    )
    height, width = given.aligned_shape
    with context.writing("alignment.xf", f", for newstack -xform alignment.xf -size {width},{height}") as path:
        write_transforms(path, lines)
    angles_deg = given.angles_deg if given.refined_angles_deg is None else given.refined_angles_deg
    with context.writing("alignment.tlt") as path:
        write_angles(path, np.asarray(angles_deg))


def shift_table(given: AlignmentRecord) -> Array:
    """Return the alignment with a row per tilt; columns of image corrections only if an image has some."""
    shifts = np.asarray(given.shifts_px, float)
    corrections = {name: np.asarray(values) for name, values in given.image_corrections.items()}
    corrected = any(np.any(values != NO_CORRECTIONS[name]) for name, values in corrections.items())
    columns = {
        "angle_deg": np.asarray(given.angles_deg),
        "dy_px": shifts[:, 0],
        "dx_px": shifts[:, 1],
        "outlier": np.zeros(len(shifts), bool) if given.outliers is None else np.asarray(given.outliers),
        **(corrections if corrected else {}),
    }
    table = np.zeros(len(shifts), [(name, "?" if name == "outlier" else "f8") for name in columns])
    for name, values in columns.items():
        table[name] = values
    return table


FORMAT = Format(
    name="alignment",
    description="shifts.csv, and alignment.xf with alignment.tlt for IMOD, one line per tilt by ascending angle",
    files=lambda context: dict.fromkeys(
        ("shifts.csv", "alignment.xf", "alignment.tlt") if context.alignment else (), 0
    ),
    write=_write,
    by_default=True,
)
