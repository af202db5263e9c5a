"""One table of many series: how each run ended, and the figures that series are compared by."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tomoseg import schema
from tomoseg.batch.outcomes import NO_EXIT_CODE, Outcome
from tomoseg.errors import TomosegError
from tomoseg.io.atomic import atomic_path
from tomoseg.project import Project
from tomoseg.stages import STAGES

TABLE = "series.csv"
FIGURES: dict[str, tuple[schema.Artifact, str]] = {  # columns, and where they come from
    "alignment_error_px": (schema.ALIGNMENT_INFO, "estimated_error_px"),
    "tilt_axis_angle_deg": (schema.ALIGNMENT_INFO, "tilt_axis_angle_deg"),
    "iterations": (schema.RECONSTRUCTION_INFO, "iterations"),
    "resolution_nm": (schema.RECONSTRUCTION_INFO, "resolution_nm"),
    "n_particles": (schema.MEASUREMENT_INFO, "n_particles"),
    "mean_diameter_nm": (schema.MEASUREMENT_INFO, "mean_diameter_nm"),
    "median_diameter_nm": (schema.MEASUREMENT_INFO, "median_diameter_nm"),
    "d32_nm": (schema.MEASUREMENT_INFO, "d32_nm"),
    "porosity": (schema.SUPPORT_INFO, "porosity"),
}
COLUMNS = ("series", "state", "exit_code", "reason", "seconds", "job_id", "project", "n_tilts", *FIGURES, "n_warnings")


@dataclass(frozen=True)
class Row:
    """A series in the table: how its run ended, and the figures of its project, without those it has not."""

    outcome: Outcome
    figures: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def cells(self) -> dict[str, Any]:
        """The cells by column."""
        run = self.outcome
        return {
            "series": run.series.name,
            "state": run.state,
            "exit_code": run.exit_code if run.exit_code != NO_EXIT_CODE else "",
            "job_id": run.job_id,
            "reason": run.reason,
            "seconds": round(run.seconds, 1),
            "project": str(run.series.project),
            **self.figures,
            "n_warnings": len(self.warnings),
        }


def row_of(outcome: Outcome) -> Row:
    """Return the row of a series; a project that cannot be read has no figures."""
    if not outcome.series.project.exists():
        return Row(outcome)
    figures: dict[str, Any] = {}
    warnings: list[str] = []
    try:
        with Project.read(outcome.series.project) as project:
            if project.has(schema.ANGLES):
                figures["n_tilts"] = project.artifact(schema.ANGLES).shape[0]
            for column, (artifact, name) in FIGURES.items():
                value = project.artifact(artifact).attrs.get(name) if project.has(artifact) else None
                if value is not None:
                    figures[column] = value
            for stage in STAGES:
                record = project.record(stage.name)
                warnings += record.warnings if record is not None else []
    except TomosegError:
        return Row(outcome)
    return Row(outcome, figures, warnings)


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the table as CSV."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(row.cells for row in rows)


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Return the table for people: a line per series, and the reasons of those that failed."""
    width = max(len("series"), *(len(row.outcome.series.name) for row in rows))
    head = (
        f"{'series':<{width}}  {'state':<8} {'time':>8} {'align px':>9} {'res nm':>7} {'particles':>9} {'mean nm':>8}"
    )
    lines = [head]
    for row in rows:
        figures = row.figures
        cells = (
            _number(figures.get("alignment_error_px"), 9, 3),
            _number(figures.get("resolution_nm"), 7, 2),
            _number(figures.get("n_particles"), 9, 0),
            _number(figures.get("mean_diameter_nm"), 8, 2),
        )
        run = row.outcome
        lines.append(f"{run.series.name:<{width}}  {run.state:<8} {run.seconds:>6.0f} s {' '.join(cells)}".rstrip())
        if run.reason:
            lines.append(f"    {run.reason}")
    return lines


def _number(value: Any, width: int, digits: int) -> str:
    text = "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
    return f"{text:>{width}}"
