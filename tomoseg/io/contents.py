"""What a raw file holds, and what an import would make of it: for `tomoseg inspect`."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tomoseg.errors import InputError
from tomoseg.io.input_files import is_pattern
from tomoseg.io.parameters import ImportParameters
from tomoseg.io.plan import ANGLE_TOLERANCE_DEG, SeriesPlan, examined
from tomoseg.io.raw import open_raw
from tomoseg.io.raw_files import open_images
from tomoseg.io.series import RawSeries, jsonable

# Images are read only where sources of angles contradict each other, and then of files up to this size.
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Contents:
    """What was found; `problems` are the reasons why an import would be refused.

    `raw` is closed: its images cannot be read.
    """

    raw: RawSeries
    plan: SeriesPlan
    problems: list[str]

    def angle_sources(self) -> list[tuple[str, str, bool]]:
        """Return name, words and whether it is used of each source of tilt angles."""
        used = next((s for s in self.plan.sources if s.name == self.plan.angles_source), None)
        found = []
        for source in self.plan.sources:
            known = source.angles_deg[np.isfinite(source.angles_deg)]
            words = f"{len(known)} from {known.min():g} to {known.max():g} degrees"
            if used is not None and source is not used:
                apart = float(np.nanmax(np.abs(source.angles_deg - used.angles_deg), initial=0.0))
                differs = apart > ANGLE_TOLERANCE_DEG
                words += f"; differs by up to {apart:.3g} degrees" if differs else "; agrees"
            found.append((source.name, words, source is used))
        return found

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        raw, plan = self.raw, self.plan
        return {
            "file": str(raw.path),
            "format": raw.format,
            "shape": list(raw.shape),
            "dtype": str(raw.dtype),
            "signals": [
                {
                    "name": s.name,
                    "shape": list(s.shape),
                    "dtype": s.dtype,
                    "images": s.n_images,
                    "used": i == raw.signal,
                }
                for i, s in enumerate(raw.signals)
            ],
            "pixel_size_nm": None if np.isnan(plan.pixel_size_nm) else plan.pixel_size_nm,
            "pixel_size_source": plan.pixel_size_source,
            "angles_deg": plan.angles_deg.tolist(),
            "angles_source": plan.angles_source or None,
            "angle_sources": [
                {"name": s.name, "angles_deg": [None if np.isnan(a) else a for a in s.angles_deg.tolist()]}
                for s in plan.sources
            ],
            "tilt_axis": plan.tilt_axis,
            "images": plan.images.tolist(),
            "metadata": jsonable(raw.metadata),
            "notes": plan.notes,
            "warnings": plan.warnings,
            "problems": self.problems,
        }


def contents_of(params: ImportParameters) -> Contents:
    """Look into a raw file, or a folder of them, without importing it.

    Raises `InputError` if there is nothing that can be read.
    """
    assert params.raw is not None
    path = params.raw
    try:
        raw = open_raw(path, params.signal)
    except InputError:
        if path.is_dir() or is_pattern(path):
            raise
        raw = open_images(path, params.signal)  # perhaps a single image
    with raw:
        if raw.shape[0] == 1:
            of_one = [f"{path} holds a single image, which is no tilt series; give the folder with one file per tilt"]
            return Contents(raw, SeriesPlan(raw, notes=raw.notes, warnings=raw.warnings), of_one)
        n_bytes = int(np.prod(raw.shape, dtype=np.int64)) * raw.dtype.itemsize
        plan, problems = examined(raw, params.wishes(), ask_images=n_bytes <= _MOST_BYTES)
    return Contents(raw, plan, problems)
