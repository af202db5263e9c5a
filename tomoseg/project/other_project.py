"""The alignment in another project, to be applied to a series recorded at the same tilts."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg import schema
from tomoseg.errors import InputError
from tomoseg.io.shifts import GivenAlignment, ImageCorrections
from tomoseg.parameters import Parameters
from tomoseg.project.file import Project

LARGEST = 1_000_000  # tilts, or px: no measurement gives more
NO_CORRECTION = {"rotation_deg": 0.0, "magnification": 1.0, "tilt_error_deg": 0.0}  # columns, and their neutral values
LARGEST_CORRECTION = (45.0, 0.5, 45.0)  # differences from the neutral values


def read_alignments(parameters: Parameters, own: Path | None = None) -> dict[str, GivenAlignment | None]:
    """Return the alignments of other projects that parameters name, by parameter; InputError if one is `own`."""
    named = parameters.input_files()
    found: dict[str, GivenAlignment | None] = {}
    for name in parameters.other_project_fields():
        path = named[name].expanduser() if name in named else None
        if path is not None and own is not None and path.exists() and own.exists() and path.samefile(own):
            raise InputError(f"{name}: {path} is this project itself; name another project.")
        found[name] = read_alignment(path) if path is not None else None
    return found


def read_alignment(path: Path) -> GivenAlignment:
    """Read the alignment of a project; the project is not changed.

    Raises `InputError` if there is no such project, it is not aligned, or its alignment is damaged.
    """
    with Project.read(path) as project:
        needed = (schema.SHIFTS, schema.ALIGNMENT_INFO, schema.ANGLES, schema.TILT_SERIES, schema.TILT_SERIES_INFO)
        if project.record("align") is None or not all(project.has(artifact) for artifact in needed):
            raise InputError(f"{path} holds no alignment. Run `tomoseg run {path} --until align` first.")
        shifts, info, angles, series, series_info = (project.artifact(artifact) for artifact in needed)
        n = series.shape[0]
        if n > LARGEST or shifts.shape != (n, 2) or angles.shape != (n,):
            raise _damaged(path)
        shifts_px, angles_deg = np.asarray(shifts[:], float), np.asarray(angles[:], float)
        given = GivenAlignment(
            str(path),
            shifts_px,
            angles_deg,
            axis_angle_deg=_number(info.attrs.get("tilt_axis_angle_deg")),
            axis_offset_px=_number(info.attrs.get("tilt_axis_offset_px")),
            image_shape=(int(series.shape[1]), int(series.shape[2])),
            pixel_size_nm=_number(series_info.attrs.get("pixel_size_nm")),
            corrections=_corrections(project, path, n),
        )
    numbers = np.array([*given.shifts_px.ravel(), *angles_deg, given.axis_angle_deg, given.axis_offset_px])
    if not np.isfinite(numbers).all() or np.abs(numbers).max() > LARGEST or not -90 < numbers[-2] <= 90:
        raise _damaged(path)
    return given


def _corrections(project: Project, path: Path, n: int) -> ImageCorrections | None:
    """Return the image corrections; None where there are none, or the project is too old to know of them."""
    if not project.has(schema.TILT_QUALITY):
        return None
    table = project.artifact(schema.TILT_QUALITY)
    if not NO_CORRECTION.keys() <= set(table.dtype.names or ()):  # older projects have no such columns
        return None
    rows = table[:] if table.shape == (n,) else None
    if rows is None or any(rows.dtype[name] != np.float64 for name in NO_CORRECTION):
        raise _damaged(path)
    apart = np.column_stack([rows[name] - neutral for name, neutral in NO_CORRECTION.items()])
    if not (np.abs(apart) <= LARGEST_CORRECTION).all():
        raise _damaged(path)
    return ImageCorrections(*(rows[name].copy() for name in NO_CORRECTION)) if apart.any() else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _damaged(path: Path) -> InputError:
    return InputError(
        f"The alignment in {path} is damaged, or another program changed it. Run `tomoseg align {path}` to make it "
        "again, or restore the file from a backup."
    )


def alignment_digest(path: Path) -> str:
    """Return the SHA-256 of the alignment that `read_alignment` returns, as hex; other stages do not change it.

    It is empty where no alignment can be read.
    """
    try:
        given = read_alignment(path)
    except InputError:
        return ""
    digest = hashlib.sha256()
    arrays = [given.shifts_px, given.angles_deg] + ([] if given.corrections is None else [given.corrections.columns])
    for array in arrays:
        digest.update(np.ascontiguousarray(array, "<f8").data)
    facts = [given.axis_angle_deg, given.axis_offset_px, given.image_shape, given.pixel_size_nm]
    digest.update(json.dumps(facts).encode())
    return digest.hexdigest()
