"""Commands that show what there is: `inspect`, `status`, `check`, `report`, `compare`, `preview`, `movie`, `doctor`."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tomoseg import config, engine
from tomoseg.batch.site import is_site_file, site_of
from tomoseg.beforehand import doubts_of_project, doubts_of_raw
from tomoseg.cli import render
from tomoseg.cli.options import AsJson, Pipeline, ProgressKind, ProjectFile, Sets, require_page
from tomoseg.errors import InputError, StageFailed
from tomoseg.io.input_files import as_one
from tomoseg.project import Project, is_project
from tomoseg.reproduction import command
from tomoseg.runtime import Runtime, make_runtime, stopping_on_signals
from tomoseg.stages.base import Doubt
from tomoseg.terminal import show, show_document

WATCH_SECONDS, LOOK_SECONDS = 3.0, 0.1  # between two looks at a project, and at signals


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for one in (inspect, status, check, report, compare, preview, movie, doctor):
        app.command(one.__name__)(one)


def inspect(
    raws: Annotated[
        list[Path],
        typer.Argument(metavar="RAW", help="A raw tilt series: a file, or a folder with one file per tilt."),
    ],
    angles: Annotated[
        str | None, typer.Option("--angles", metavar="FILE|START:STOP:STEP", help="Tilt angles to look at with it.")
    ] = None,
    signal: Annotated[str | None, typer.Option("--signal", metavar="NAME|N", help="The signal to look at.")] = None,
    exclude: Annotated[str | None, typer.Option("--exclude", metavar="VIEWS", help="Views to leave out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a raw file holds and what an import would use: signals, pixel size, tilt angles, tilt axis."""
    from tomoseg.io.contents import contents_of
    from tomoseg.io.parameters import ImportParameters

    options = {"raw": as_one(raws), "angles": angles, "signal": signal, "exclude": exclude}
    found = contents_of(ImportParameters.of("import", options))
    if as_json:
        show_document(json.dumps(found.as_json(), indent=2))
    else:
        show(*render.contents_lines(found))


def status(
    project: ProjectFile,
    pipeline: Pipeline = "",
    sets: Sets = [],  # noqa: B006 - Typer reads the default
    as_json: AsJson = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also show how each result was made.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show again what changes while a job writes, until all is fresh.")
    ] = False,
) -> None:
    """Show which stages are fresh, stale (and why), partial or missing; with --pipeline or --set, as they would be."""
    layers = [config.read_pipeline(pipeline) if pipeline else {}, config.parse_sets(sets)]
    if watch:
        if as_json:
            raise InputError("--watch shows lines for people: leave out --json, or call status --json again and again.")
        _watch(project, layers, verbose=verbose)
        return
    with Project.read(project) as opened:
        states = engine.states(opened, config.resolve(*layers, stored=opened.settings))
        if as_json:
            show_document(render.status_json(opened, states))
        else:
            show(*render.status_lines(opened, states, verbose))


def _watch(project: Path, layers: Sequence[config.Raw], *, verbose: bool) -> None:
    """Show the states whenever they change, and who is writing, until all stages are fresh and nobody writes."""
    from tomoseg.project.lock import holder_of

    before: list[str] = []
    with stopping_on_signals(lambda: "Watching changes nothing."):
        while True:
            with Project.read(project) as opened:
                states = engine.states(opened, config.resolve(*layers, stored=opened.settings))
                lines = render.status_lines(opened, states, verbose)
            holder = holder_of(project)
            if holder is not None:
                lines.append(f"  written by process {holder.pid} on {holder.host} since {holder.since}")
            if lines != before:
                show(time.strftime("%Y-%m-%d %H:%M:%S"), *lines)
                before = lines
            if holder is None and all(state.state == "fresh" for state in states):
                return
            for _ in range(int(WATCH_SECONDS / LOOK_SECONDS)):
                Runtime.check_signals()
                time.sleep(LOOK_SECONDS)


def check(
    pipeline: Annotated[
        str,
        typer.Argument(
            metavar="PIPELINE",
            help="A file, or a pipeline that ships with tomoseg; may be left out before RAW or PROJECT.",
        ),
    ],
    source: Annotated[
        Path | None, typer.Argument(metavar="[RAW|PROJECT]", help="The input that it is to run on.")
    ] = None,
    sets: Sets = [],  # noqa: B006 - Typer reads the default
    angles: Annotated[Path | None, typer.Option("--angles", help="The tilt angles of RAW.")] = None,
    as_json: AsJson = False,
) -> None:
    """Validate a pipeline and its input, or a recipe of training, and report all problems; nothing is computed."""
    try:
        name, unseen, warnings = _checked(pipeline, source, sets, angles)
    except InputError as error:
        if not as_json:
            raise
        show_document(json.dumps({"problems": error.problems, "warnings": [], "not_checked": {}}, indent=2))
        raise typer.Exit(error.exit_code) from error
    if as_json:
        show_document(json.dumps({"problems": [], "warnings": warnings, "not_checked": unseen}, indent=2))
        return
    show(f"{name}: no problems found", *(f"warning: {text}" for text in warnings))
    for stage, named in unseen.items():
        show(
            f"{stage} was not checked: the project itself names its files ({', '.join(named)}), which only a run opens"
        )


def _checked(
    pipeline: str, source: Path | None, sets: list[str], angles: Path | None
) -> tuple[str, dict[str, list[str]], list[str]]:
    """Return what was checked, the files, by stage, that only a run opens, and warnings.

    Raises `InputError` with all problems.
    """
    if source is None and _is_input(Path(pipeline)):
        pipeline, source = "default", Path(pipeline)
    if is_site_file(Path(pipeline)):
        site_of(Path(pipeline), {})
        return pipeline, {}, []
    if config.is_recipe(pipeline):
        if source is not None or sets or angles:
            raise InputError(f"{pipeline} holds the parameters of a training, which are checked by themselves.")
        from tomoseg.segmentation.training.parameters import check as problems_with_training
        from tomoseg.segmentation.training.parameters import preset

        problems = problems_with_training(preset("paper", **config.read_recipe(pipeline)))
        if problems:
            raise InputError.of(problems)
        return pipeline, {}, []
    extra = {"angles": str(angles)} if angles else {}
    layers = [config.read_pipeline(pipeline), config.parse_sets(sets), {"import": extra}]
    unseen: list[str] = []
    doubts: list[Doubt] = []
    if source is None:
        settings = config.resolve(*layers)
        config.check_stages(settings, [name for name in settings if name != "import"])
    elif is_project(source):
        with Project.read(source) as opened:
            settings = config.resolve(*layers, stored=opened.settings)
            stages = [s.name for s in engine.states(opened, settings) if s.state != "fresh"]
            unseen = [name for name in stages if engine.files_not_given(settings, name)]
            seen = [name for name in stages if name not in unseen]
            config.check_stages(settings, seen)
            doubts = doubts_of_project(settings, opened, seen)
    else:
        settings = config.resolve(*layers, {"import": {"raw": str(source.absolute())}})
        config.check_stages(settings)
        doubts = doubts_of_raw(settings, Path.cwd())
    if stopping := [doubt.text for doubt in doubts if doubt.stops]:
        raise InputError.of(stopping)
    not_given = {name: [f"{name}.{field}" for field in engine.files_not_given(settings, name)] for name in unseen}
    return pipeline, not_given, [doubt.text for doubt in doubts]


def _is_input(path: Path) -> bool:
    """Tell whether a path is of a raw series or a project, not of a pipeline: a folder, or a file that is no text."""
    if not path.is_file():
        return path.is_dir()
    with path.open("rb") as file:
        return b"\0" in file.read(4096)


def report(
    project: ProjectFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="REPORT.html", help="The page to write.")],
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Also write each plot to a file in this folder.")
    ] = None,
    figure_format: Annotated[
        Literal["pdf", "svg", "png"], typer.Option("--figure-format", help="The format of these files.")
    ] = "pdf",
) -> None:
    """Write a self-contained HTML page with pictures, plots and tables of all stages."""
    from tomoseg.report.figure_files import write_figures
    from tomoseg.report.page.page import write_report

    require_page(output, "report")
    with Project.read(project) as opened:
        results = results_of(opened)
        write_report(output, results, command(opened))
        written = [] if figures is None else write_figures(figures, figure_format, results)
    show(output, *written)


def results_of(project: Project) -> Any:
    """Return the results of a project, with the states of its stages."""
    from tomoseg.report.results import Results

    return Results(
        project.artifacts(), engine.states(project, config.resolve(stored=project.settings)), project.path.stem
    )


def compare(
    projects: Annotated[list[Path], typer.Argument(metavar="PROJECT...", help="Two project files or more.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="COMPARE.html", help="The page to write; a .csv is written beside it."),
    ],
) -> None:
    """Put projects side by side: figures, size distributions, and tests of whether these differ."""
    from tomoseg import __version__
    from tomoseg.report.compare import Compared, named, write_comparison, write_figures_csv

    if len(projects) < 2:
        raise InputError("compare needs two projects or more.")
    require_page(output, "comparison")
    samples = []
    for name, path in zip(named(projects), projects, strict=True):
        with Project.read(path) as opened:
            samples.append(Compared.of(name, results_of(opened)))
    table = output.with_suffix(".csv")
    write_comparison(output, samples, __version__)
    write_figures_csv(table, samples)
    show(output, table)


def preview(
    project: ProjectFile,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PICTURE",
            help="A .png, .pdf or .svg file; default: PROJECT_preview.png beside the project.",
        ),
    ] = None,
) -> None:
    """Draw one picture of the project: slices, labels, surfaces, particle sizes and key numbers, as far as known."""
    from tomoseg.report.preview import is_ours, write_preview

    path = output or project.with_name(f"{project.stem}_preview.png")
    if output is None and path.exists() and not is_ours(path):
        raise InputError(f"{path} was not written by this command; choose another name with -o.")
    with Project.read(project) as opened:
        write_preview(path, results_of(opened))
    show(path)


def movie(
    project: ProjectFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="TURN.mp4", help="An .mp4 or .gif file.")],
    seconds: Annotated[float, typer.Option("--seconds", help="Length of one turn.", min=0.5, max=120)] = 6.0,
    size: Annotated[int, typer.Option("--size", metavar="PX", help="Side of the picture.", min=64, max=2160)] = 720,
    dark: Annotated[bool, typer.Option("--dark", help="On black instead of white.")] = False,
    progress: ProgressKind = "auto",
) -> None:
    """Write a movie of the labelled classes, turning once about the tilt axis."""
    from tomoseg.report.movie import check_movie, write_movie

    check_movie(output)
    with Project.read(project) as opened, stopping_on_signals():
        runtime = make_runtime(progress=progress)
        write_movie(output, results_of(opened), seconds, size, dark=dark, runtime=runtime)
    show(output)


def doctor(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[FOLDER]", help="Try instead what projects need of the file system of this folder."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what this machine offers: packages, CPUs, memory, GPU, optional programs; or what a file system does."""
    from tomoseg.doctor import findings, findings_in

    found = findings() if folder is None else findings_in(folder)
    if as_json:
        show_document(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        show(*render.doctor_lines(found))
    if folder is not None:
        if failed := [finding.what for finding in found if finding.verdict == "missing"]:
            raise StageFailed(
                f"projects are not safe in {folder}, which has no working {', '.join(failed)}: keep them elsewhere."
            )
        return
    missing = [finding.what for finding in found if finding.verdict == "missing"]
    if missing:
        raise StageFailed(f"tomoseg cannot work without {', '.join(missing)}; reinstall it: pip install tomoseg.")
