"""Commands for the past and the size of a project: `history`, `export-pipeline`, `cite` and `compact`."""

from pathlib import Path
from typing import Annotated

import typer

from tomoseg.cli import render
from tomoseg.cli.options import AsJson, BreakLock, ProgressKind, ProjectFile, runtime_of
from tomoseg.errors import InputError, NotReady
from tomoseg.project import Project, compact
from tomoseg.reproduction import pipeline_text
from tomoseg.runtime import stopping_on_signals
from tomoseg.terminal import can_show, show, show_document


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("history")(history)
    app.command("export-pipeline")(export_pipeline)
    app.command("cite")(cite)
    app.command("compact")(_compact)


def history(project: ProjectFile, as_json: AsJson = False) -> None:
    """List every run of every stage, and how it ended."""
    with Project.read(project) as opened:
        runs = opened.history()
    if as_json:
        show_document(render.history_json(runs))
    else:
        show(*render.history_lines(runs))


def export_pipeline(
    project: ProjectFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PIPELINE.yaml", help="File to write. Default: print it.")
    ] = None,
) -> None:
    """Write the pipeline file that reproduces the project's present results from its raw file."""
    with Project.read(project) as opened:
        text = pipeline_text(opened)
        if output is None and not can_show(text):
            text = pipeline_text(opened, ascii_only=True)
    if text and output is not None and output.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"-o {output}: the name of a pipeline file must end in .yaml.")
    _give(text, output, project)


def cite(
    project: ProjectFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="METHODS.md", help="File to write. Default: print it.")
    ] = None,
) -> None:
    """Write a paragraph on methods for an article, with references and all parameters."""
    from tomoseg.cli.inspect import results_of
    from tomoseg.report.methods import methods_text

    with Project.read(project) as opened:
        parameters = pipeline_text(opened)
        text = methods_text(results_of(opened), parameters) if parameters else ""
    _give(text, output, project)


def _give(text: str, output: Path | None, project: Path) -> None:
    """Print a text made of a project's results, or write it to a file. Raises `NotReady` where it is empty."""
    from tomoseg.io.atomic import atomic_path

    if not text:
        raise NotReady(f"{project} holds no results yet; run `tomoseg run {project}` first.")
    if output is None:
        show_document(text)
        return
    with atomic_path(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    show(output)


def _compact(project: ProjectFile, progress: ProgressKind = "auto", break_lock: BreakLock = False) -> None:
    """Rewrite the project without the gaps that re-run stages left. Needs free space for a second copy meanwhile."""
    runtime = runtime_of("cpu", 1, "", progress)
    with stopping_on_signals(lambda: f"{project} is unchanged; start the same command again."):
        saved = compact(project, runtime.check, runtime.progress.message, break_lock=break_lock)
    show(f"{project}: {project.stat().st_size / 1e6:.1f} MB, {saved / 1e6:.1f} MB less")
