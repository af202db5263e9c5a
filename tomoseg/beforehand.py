"""What can be said of a run before it, from the raw series alone: whether disk, memory and network suit it."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg import schema
from tomoseg.config import Settings
from tomoseg.errors import InputError
from tomoseg.lengths import size_or_nan
from tomoseg.machine import available_memory
from tomoseg.project import Project
from tomoseg.stages import BY_NAME
from tomoseg.stages.base import Doubt, Prospect


def doubts_of_raw(settings: Settings, folder: Path) -> list[Doubt]:
    """Return what speaks against a run on a raw series into a new project in a folder; nothing where who knows."""
    from tomoseg.io.contents import contents_of

    try:
        found = contents_of(settings["import"])  # type: ignore[arg-type]
    except (InputError, OSError):
        return []  # the import says why
    n, height, width = found.raw.shape
    if found.plan.tilt_axis == "x":  # the aligned frame has the axis upright
        height, width = width, height
    prospect = _prospect(settings, (n, height, width), found.plan.pixel_size_nm)
    return _disk_doubts(prospect, np.dtype(found.raw.dtype).itemsize, folder) + _doubts(settings, prospect, BY_NAME)


def doubts_of_project(settings: Settings, project: Project, stages: Iterable[str]) -> list[Doubt]:
    """Return what speaks against a run of some stages on what a project holds."""
    if not project.has(schema.TILT_SERIES):
        return []
    held = project.artifact(schema.ALIGNED if project.has(schema.ALIGNED) else schema.TILT_SERIES)
    pixel_size_nm = size_or_nan(project.artifact(schema.TILT_SERIES_INFO).attrs.get("pixel_size_nm"))
    return _doubts(settings, _prospect(settings, held.shape, pixel_size_nm), stages)


def _prospect(settings: Settings, series_shape: tuple[int, ...], pixel_size_nm: float) -> Prospect:
    wanted: Any = settings["reconstruct"]
    n_y, n_x = (side // wanted.binning for side in series_shape[1:])
    volume_shape = (wanted.z_size or n_x, n_y, n_x)
    return Prospect(tuple(series_shape), volume_shape, pixel_size_nm * wanted.binning, available_memory())


def _doubts(settings: Settings, prospect: Prospect, stages: Iterable[str]) -> list[Doubt]:
    return [doubt for name in stages for doubt in BY_NAME[name].foresee(settings[name], prospect)]


def _disk_doubts(prospect: Prospect, raw_itemsize: int, folder: Path) -> list[Doubt]:
    """Say that a project does not fit on the disk of a folder.

    It holds the raw and the aligned series, the volume, labels and confidence; compression is not counted on.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return []  # the making of the file says why
    series, volume = (int(np.prod(shape)) for shape in (prospect.series_shape, prospect.volume_shape))
    needed = series * (raw_itemsize + 4) + volume * (4 + 1 + 1)
    if needed <= free:
        return []
    text = (
        f"a project of this series takes up to {needed / 2**30:.1f} GiB; {free / 2**30:.1f} GiB are free in {folder}: "
        "make room, name another folder, or reconstruct less (reconstruct.binning, reconstruct.z_size)"
    )
    return [Doubt(text, stops=True)]
