"""The command `view`: a project in napari, and the alignment corrected by hand there."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tomoseg import config, engine
from tomoseg.cli.inspect import results_of
from tomoseg.cli.options import ProjectFile, runtime_of
from tomoseg.cli.render import run_summary_lines
from tomoseg.project import Project
from tomoseg.runtime import stopping_on_signals
from tomoseg.terminal import show


def add_commands(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("view")(view)


def view(
    project: ProjectFile,
    stage: Annotated[
        Literal["align"] | None,
        typer.Option("--stage", help="Look at what a stage made: align shows each tilt, and lets you move it by hand."),
    ] = None,
) -> None:
    """Open the project in napari: volume, labels and particles, to scale, or the aligned tilts."""
    if stage == "align":
        _view_alignment(project)
        return
    from tomoseg.report.viewer import open_viewer

    with Project.read(project) as opened:
        open_viewer(results_of(opened))


def _view_alignment(project: Path) -> None:
    """Show the aligned tilts, and align again with the shifts that were set by hand."""
    from tomoseg.report.align_viewer import open_align_viewer

    with Project.read(project) as opened:
        results = results_of(opened)
        state = results.stage("align")
        fresh = state is not None and state.state == "fresh"
        if not fresh:
            show("the alignment is out of date: what you move by hand cannot be saved. Run `tomoseg align` first.")
        nudges = open_align_viewer(results)
        forgotten = [results.tilt_name(i) for i in nudges.unsaved]
        settings = None if not (fresh and nudges.saved.size) else with_shifts_set(results, opened.settings, nudges)
    if forgotten:
        show(f"not saved: what was moved at {', '.join(forgotten)}")
    if settings is None:
        return
    runtime = runtime_of("auto", 0, "", "auto")
    with stopping_on_signals(), Project.write(project, runtime.progress.message) as opened:
        done = engine.run_one(opened, "align", config.resolve(settings, stored=opened.settings), runtime)
        show(*run_summary_lines(opened, [done]))


def with_shifts_set(results: Any, settings: Any, nudges: Any) -> dict[str, dict[str, Any]]:
    """Return the settings of the alignment with all shifts that were set by hand, before and now."""
    from tomoseg.alignment.images.warp import unrotate_vectors
    from tomoseg.io.set_shifts import as_text, parse_shifts

    angles, shifts = results.angles_deg, results.rows("shifts_px")
    steps = unrotate_vectors(nudges.saved_px, results.number("alignment_info", "tilt_axis_angle_deg"))
    before = settings.get("align", {}).get("set_shift")
    chosen = {} if before is None else parse_shifts(before)
    for i in nudges.saved:
        known = [tilt for tilt in chosen if int(abs(angles - tilt).argmin()) == i]
        dy, dx = (shifts[i] + steps[i]).round(3).tolist()
        chosen[known[0] if known else float(angles[i])] = (dy, dx)
    return {"align": {"set_shift": as_text(chosen)}}
