"""Parameters of an export."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import field_validator

from tomoseg.errors import is_text, shown
from tomoseg.export.formats import FORMATS
from tomoseg.parameters import Field, Parameters, ThisRun

ALL_FORMATS = tuple(f.name for f in FORMATS)
DEFAULT_FORMATS = tuple(f.name for f in FORMATS if f.by_default)
if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = Literal[ALL_FORMATS]


class ExportFolder(Parameters):
    """Where to write."""

    export_dir: str | None = Field(
        None, description="Folder to write to, created if missing. Default: <project>_export beside the project."
    )


class ExportOptions(Parameters):
    """What to write, and how."""

    formats: tuple[FormatName, ...] = Field(
        DEFAULT_FORMATS,
        min_length=1,
        description="Formats to write, or 'all'. " + "; ".join(f"{f.name}: {f.description}" for f in FORMATS) + ".",
    )
    smoothing_iterations: int = Field(
        20,
        ge=0,
        le=500,
        description="Iterations of the windowed-sinc filter that smooths the surfaces without shrinking them; 0: no "
        "smoothing.",
    )
    target_triangles: int = Field(
        1_000_000,
        ge=0,
        description="Triangles per surface. A surface that would have more is meshed from cells of several voxels, or "
        "simplified; 0: no limit.",
    )
    overwrite: Annotated[bool, ThisRun] = Field(
        False,
        description="Also replace files in the folder that were not written by an earlier export. It holds for the run "
        "it is given to.",
    )

    @field_validator("formats", mode="before")
    @classmethod
    def _all(cls, formats: Any) -> Any:
        """Expand 'all' to every format."""
        return ALL_FORMATS if isinstance(formats, (list, tuple)) and "all" in formats else formats


class ExportParameters(ExportOptions, ExportFolder):  # in this order `export_dir` is listed first
    """Where to write, what, and how."""


def problems(params: ExportOptions, folder: str | Path | None = None) -> list[str]:
    """Return what is wrong with the formats and with a folder, which need not exist.

    Formats may refer to files of others, and none of them may be possible on this machine.
    """
    found = [
        f"export.formats: {f.name} refers to files of {' and '.join(f.refers_to)}; add "
        f"{f.refers_to[0] if len(f.refers_to) == 1 else 'one of them'}"
        for f in FORMATS
        if f.name in params.formats and f.refers_to and not set(f.refers_to) & set(params.formats)
    ]
    chosen = [f for f in FORMATS if f.name in params.formats]
    if all(f.why_missing() for f in chosen):  # where only some cannot be written, the others are
        found += [f"export.formats: {f.why_missing()}, or choose other formats" for f in chosen]
    if folder is None:
        return found
    folder = Path(folder)
    if not is_text(folder.absolute()):
        found.append(f"export.export_dir: {shown(folder, 300)} is not text in UTF-8; name another folder")
    existing = next((p for p in (folder, *folder.absolute().parents) if p.exists()), None)
    if existing is not None and not existing.is_dir():
        found.append(f"export.export_dir: {existing} is a file; name a folder")
    elif existing is not None and not os.access(existing, os.W_OK):
        found.append(f"export.export_dir: {existing} cannot be written to; name another folder")
    return found
