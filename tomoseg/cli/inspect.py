"""Commands that look and tell: `status`, `check`, `report`, `preview`, `view` and `doctor`."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tomoseg import config, engine
from tomoseg.cli import render
from tomoseg.cli.options import Pipeline, ProjectFile, Sets
from tomoseg.errors import InputError, StageFailed
from tomoseg.project import Project, is_project
from tomoseg.stages import BY_NAME, STAGES

if TYPE_CHECKING:
    from tomoseg.report import StageRecord

# Parameters that say where files are, not what is computed; and those of `import` that `run` has options for.
WHERE_THINGS_LIE = {"raw", "export_dir"}
RUN_OPTIONS = {"angles": "--angles", "pixel_size": "--pixel-size", "tilt_axis": "--tilt-axis"}


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("status")(status)
    app.command("check")(check)
    app.command("report")(report)
    app.command("preview")(preview)
    app.command("view")(view)
    app.command("doctor")(doctor)


def status(
    project: ProjectFile,
    pipeline: Pipeline = "",
    sets: Sets = [],  # noqa: B006 - Typer reads the default
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="How each result was made.")] = False,
) -> None:
    """Say which stages are fresh, stale (and why) or missing; with --pipeline or --set, what they would make stale."""
    layers = [config.read_pipeline(pipeline) if pipeline else {}, config.parse_sets(sets)]
    with Project.read(project) as opened:
        states = engine.states(opened, config.resolve(opened.settings, *layers))
        print(render.status_json(opened, states) if as_json else render.status_text(opened, states, verbose))


def check(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="A file, or the name of one that ships along.")],
    source: Annotated[Path | None, typer.Argument(metavar="[RAW|PROJECT]", help="What it is to run on.")] = None,
    sets: Sets = [],  # noqa: B006 - Typer reads the default
    angles: Annotated[Path | None, typer.Option("--angles", help="Tilt angles that go with RAW.")] = None,
) -> None:
    """Validate a pipeline and its input, report every problem, compute nothing."""
    extra = {"angles": str(angles)} if angles else {}
    layers = [config.read_pipeline(pipeline), config.parse_sets(sets), {"import": extra}]
    if source is None:
        settings = config.resolve(*layers)
        config.check_stages(settings, [name for name in settings if name != "import"])
    elif is_project(source):
        with Project.read(source) as opened:
            settings = config.resolve(opened.settings, *layers)
            config.check_stages(settings, [s.name for s in engine.states(opened, settings) if s.state != "fresh"])
    else:
        config.check_stages(config.resolve(*layers, {"import": {"raw": str(source.absolute())}}))
    print(f"{pipeline}: no problems found")


def report(
    project: ProjectFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="REPORT.html", help="The page to write.")],
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Write its plots there too, each as a file.")
    ] = None,
    figure_format: Annotated[
        Literal["pdf", "svg", "png"], typer.Option("--figure-format", help="Of those files.")
    ] = "pdf",
) -> None:
    """Write one self-contained HTML page with pictures of every stage."""
    from tomoseg.report import write_report
    from tomoseg.report.figures import write_figures

    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"-o {output}: the report is an HTML page, so the name must end in .html.")
    with Project.read(project) as opened:
        artifacts, records = opened.artifacts(), _records(opened)
        write_report(output, artifacts, records, project.stem, _command(opened))
        written = [] if figures is None else write_figures(figures, figure_format, artifacts, records, project.stem)
    print(output)
    for path in written:
        print(path)


def preview(
    project: ProjectFile,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PICTURE", help="A .png, .pdf or .svg; default: PROJECT_preview.png beside it."
        ),
    ] = None,
) -> None:
    """Draw the one picture: slices, labels, surfaces, sizes and the key numbers, as far as there are any."""
    from tomoseg.report.preview import is_ours, write_preview

    path = output or project.with_name(f"{project.stem}_preview.png")
    if output is None and path.exists() and not is_ours(path):
        raise InputError(f"{path} was not written by this command; name the picture with -o.")
    with Project.read(project) as opened:
        write_preview(path, opened.artifacts(), _records(opened), project.stem)
    print(path)


def view(project: ProjectFile) -> None:
    """Open the project in napari: volume, labels and particles, to scale."""
    from tomoseg.report.viewer import open_viewer

    with Project.read(project) as opened:
        open_viewer(opened.artifacts(), project.stem)


def _records(opened: Project) -> "list[StageRecord]":
    from tomoseg.report import StageRecord

    states = engine.states(opened, config.resolve(opened.settings))
    return [StageRecord.from_provenance(s.name, s.state, s.reasons, s.record) for s in states]


def _command(opened: Project) -> str:
    """Return the command that makes the project's present results again; '' where there are none.

    Of the parameters those are given that differ from the default.
    """
    records = [record for stage in STAGES if (record := opened.record(stage.name)) is not None]
    if not records or records[0].stage != STAGES[0].name:
        return ""
    raw = str(records[0].parameters.get("raw") or "RAW")
    words = [["tomoseg", "run", raw], ["-o", f"{opened.path.stem}_again.h5"]]
    for record in records:
        defaults = BY_NAME[record.stage].parameters().model_dump(mode="json")
        for name, value in record.parameters.items():
            if name in WHERE_THINGS_LIE or name not in defaults or value == defaults[name]:
                continue
            flag = RUN_OPTIONS.get(name) if record.stage == STAGES[0].name else None
            setting = f"{record.stage}.{name}={_written(value)}"
            words.append([flag, str(value)] if flag else ["--set", setting])
    if len(records) < len(STAGES):
        words.append(["--until", records[-1].stage])
    return " \\\n    ".join(shlex.join(part) for part in words)


def _written(value: Any) -> str:
    """Return a parameter's value as `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def doctor() -> None:
    """Say what this machine offers: packages, CPUs, memory, GPU, optional programs."""
    from tomoseg.doctor import findings

    failed = []
    for finding in findings():
        print(f"{finding.verdict:<8} {finding.what:<16} {finding.detail}")
        if finding.verdict == "missing":
            failed.append(finding.what)
    if failed:
        raise StageFailed(f"tomoseg cannot work without {', '.join(failed)}; install it again: pip install tomoseg.")
