"""The alignment that another project holds, to be used for a series taken at the same time."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg import schema
from tomoseg.errors import InputError
from tomoseg.io.shifts import GivenAlignment
from tomoseg.project.file import Project

LARGEST = 1_000_000  # tilts, or px: more is nothing that was measured
BESIDES = {"rotation_deg": 0.0, "magnification": 1.0, "tilt_error_deg": 0.0}  # columns, and what changes nothing
MOST_BESIDES = (45.0, 0.5, 45.0)  # from there


def read_alignment(path: Path) -> GivenAlignment:
    """Read the alignment of a project, which is not changed by it.

    Raises
    ------
    InputError
        There is no such project, it was not aligned, or it holds what makes no sense.
    """
    with Project.read(path) as project:
        needed = (schema.SHIFTS, schema.ALIGNMENT_INFO, schema.ANGLES, schema.TILT_SERIES, schema.TILT_SERIES_INFO)
        if project.record("align") is None or not all(project.has(artifact) for artifact in needed):
            raise InputError(f"{path} holds no alignment to be used. Run `tomoseg run {path} --until align` first.")
        shifts, info, angles, series, series_info = (project.artifact(artifact) for artifact in needed)
        n = series.shape[0]
        if n > LARGEST or shifts.shape != (n, 2) or angles.shape != (n,):
            raise _senseless(path)
        shifts_px, angles_deg = np.asarray(shifts[:], float), np.asarray(angles[:], float)
        given = GivenAlignment(
            str(path),
            shifts_px,
            angles_deg,
            axis_angle_deg=_number(info.attrs.get("tilt_axis_angle_deg")),
            axis_offset_px=_number(info.attrs.get("tilt_axis_offset_px")),
            image_shape=(int(series.shape[1]), int(series.shape[2])),
            pixel_size_nm=_number(series_info.attrs.get("pixel_size_nm")),
            besides=_besides(project, path, n),
        )
    numbers = np.array([*given.shifts_px.ravel(), *angles_deg, given.axis_angle_deg, given.axis_offset_px])
    if not np.isfinite(numbers).all() or np.abs(numbers).max() > LARGEST or not -90 < numbers[-2] <= 90:
        raise _senseless(path)
    return given


def _besides(project: Project, path: Path, n: int) -> NDArray[np.float64] | None:
    """Return what single images need besides shifts, (n, 3); None where that is nothing, or not known."""
    if not project.has(schema.TILT_QUALITY):
        return None
    table = project.artifact(schema.TILT_QUALITY)
    if not BESIDES.keys() <= set(table.dtype.names or ()):  # older projects have no such columns
        return None
    rows = table[:] if table.shape == (n,) else None
    if rows is None or any(rows.dtype[name] != np.float64 for name in BESIDES):
        raise _senseless(path)
    apart = np.column_stack([rows[name] - usual for name, usual in BESIDES.items()])
    if not (np.abs(apart) <= MOST_BESIDES).all():
        raise _senseless(path)
    return np.column_stack([rows[name] for name in BESIDES]) if apart.any() else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _senseless(path: Path) -> InputError:
    return InputError(
        f"The alignment in {path} is not what tomoseg writes: the file was changed by something else, or is damaged. "
        f"Run `tomoseg align {path}` to make it again, or take the file from a backup."
    )


def alignment_digest(path: Path) -> str:
    """Return the SHA-256 of what `read_alignment` gives, as hex: other stages of that project do not change it.

    Empty where there is nothing that can be read.
    """
    try:
        given = read_alignment(path)
    except InputError:
        return ""
    digest = hashlib.sha256()
    arrays = [given.shifts_px, given.angles_deg] + ([] if given.besides is None else [given.besides])
    for array in arrays:
        digest.update(np.ascontiguousarray(array, "<f8").data)
    facts = [given.axis_angle_deg, given.axis_offset_px, given.image_shape, given.pixel_size_nm]
    digest.update(json.dumps(facts).encode())
    return digest.hexdigest()
