"""What `tomoseg run --many` does: series one after the other, and the table of all."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tomoseg import __version__
from tomoseg.batch import outcomes
from tomoseg.batch.many import run_many
from tomoseg.batch.outcomes import Outcome
from tomoseg.batch.series import Series, series_of
from tomoseg.batch.summary import COLUMNS, TABLE, Row, row_of, table_lines, write_table
from tomoseg.errors import InputError, StageFailed
from tomoseg.report.series import SeriesPage, write_series_page
from tomoseg.runtime import Runtime, stopping_on_signals
from tomoseg.terminal import show

PAGE = "series.html"
NONE = "none"


def run_all(
    sources: Sequence[Path],
    output: Path | None,
    options: Sequence[str],
    export_dir: Path | None,
    only: str | None,
    runtime: Runtime,
) -> None:
    """Run series with the options common to them, and write the table of all into the folder `output`.

    `only` are the numbers of those to run, from 1, or 'none'. Raises `StageFailed` if one of all is not finished.
    """
    if output is None:
        raise InputError("Name a folder for the projects and the table: `tomoseg run --many SERIES... -o FOLDER`.")
    found = series_of(sources, output)
    if export_dir is not None:
        exports = export_dir.absolute()
        found = [replace(one, options=(*one.options, f"--export-dir={exports / one.name}")) for one in found]
    chosen = _chosen(found, only)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"-o {output}: {error.strerror}; name a folder that can be written") from error
    machine = [f"--device={runtime.device}", f"--workers={runtime.workers}", f"--max-memory={runtime.max_memory}"]
    if runtime.cluster is not None:
        machine.append(f"--cluster={runtime.cluster.address(runtime)}")

    known: dict[Series, Row] = {}

    def rows() -> list[Row]:
        """Return the rows of all series; other jobs may have run some. A project is read when its run has ended."""
        for outcome in outcomes.known(output, found):
            if outcome.series not in known or known[outcome.series].outcome != outcome:
                known[outcome.series] = row_of(outcome)
        return [known[one] for one in found]

    def told(outcome: Outcome) -> None:
        outcomes.keep(output, outcome)
        if outcome.state != "running":
            _write(output, rows())

    with stopping_on_signals(lambda: "The same command continues with the series that are left."):
        run_many(chosen, [*options, *machine], runtime, told)
    _write(output, rows())
    ended = [known[one] for one in (found if only == NONE else chosen)]
    show(*table_lines(ended), output / TABLE, output / PAGE)
    left = [row.outcome for row in ended if not row.outcome.is_done]
    if left:
        names = ", ".join(outcome.series.name for outcome in left[:5]) + (", ..." if len(left) > 5 else "")
        raise StageFailed(
            f"not finished: {len(left)} of {len(ended)} series ({names}). {output / TABLE} says why; the same command "
            "goes on with those."
        )


def _chosen(found: Sequence[Series], only: str | None) -> list[Series]:
    """Return the series of these numbers."""
    if only is None:
        return list(found)
    if only == NONE:
        return []
    try:
        numbers = [int(text) for text in only.split(",")]
    except ValueError as error:
        raise InputError(f"--only {only}: give numbers of series from 1, such as 2,5, or {NONE}.") from error
    if not all(1 <= number <= len(found) for number in numbers):
        raise InputError(f"--only {only}: there are the series 1 to {len(found)}.")
    return [found[number - 1] for number in numbers]


def _write(folder: Path, rows: Sequence[Row]) -> None:
    """Write the table of all series as CSV and as a page."""
    write_table(folder / TABLE, rows)
    warnings = {row.outcome.series.name: row.warnings for row in rows if row.warnings}
    page = SeriesPage(folder.absolute().name, [row.cells for row in rows], COLUMNS, warnings, __version__)
    write_series_page(folder / PAGE, page)
