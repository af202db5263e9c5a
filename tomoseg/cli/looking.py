"""Commands that look and tell: `status`, `check`, `doctor` and `report`."""

from pathlib import Path
from typing import Annotated

import typer

from tomoseg import config, engine
from tomoseg.cli import render
from tomoseg.cli.options import Pipeline, ProjectFile, Sets
from tomoseg.errors import InputError, StageFailed
from tomoseg.project import Project, is_project


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("status")(status)
    app.command("check")(check)
    app.command("report")(report)
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
) -> None:
    """Write one self-contained HTML page with pictures of every stage."""
    from tomoseg.report import StageRecord, write_report

    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"-o {output}: the report is an HTML page, so the name must end in .html.")
    with Project.read(project) as opened:
        states = engine.states(opened, config.resolve(opened.settings))
        records = [StageRecord.from_provenance(s.name, s.state, s.reasons, s.record) for s in states]
        write_report(output, opened.artifacts(), records, project.stem)
    print(output)


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
