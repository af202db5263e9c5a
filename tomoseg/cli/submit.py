"""The command `submit`: jobs of a batch system that run the pipeline on one series, or on each of many."""

import csv
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tomoseg import config, engine
from tomoseg.batch.scripts import SUBMIT, Job, jobs_of, resources_words, summary_job, write_jobs
from tomoseg.batch.series import LIST_ENDING, Series, series_of
from tomoseg.batch.site import COMMANDS, Site, default_path, site_of
from tomoseg.cli.options import Pipeline, Sets, with_options
from tomoseg.errors import InputError, StageFailed, TomosegError
from tomoseg.io.atomic import atomic_path
from tomoseg.project import Project
from tomoseg.stages import STAGES
from tomoseg.terminal import show

LIST, NUMBERS = "series.csv", "numbers.txt"


def add_commands(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("submit")(with_options(Site, submit, ("setup", "interface", "jobs")))


def submit(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="RAW|PROJECT...", help="A raw tilt series or a project; or several, a pattern, or a list (.csv)."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PROJECT|FOLDER", help="The project to make; of several, their folder."),
    ] = None,
    angles: Annotated[
        str | None, typer.Option("--angles", metavar="FILE|START:STOP:STEP", help="Tilt angles, as for `run`.")
    ] = None,
    pixel_size: Annotated[float | None, typer.Option("--pixel-size", metavar="NM", help="Pixel size in nm.")] = None,
    tilt_axis: Annotated[
        str | None, typer.Option("--tilt-axis", metavar="x|y", help="Nominal direction of the tilt axis.")
    ] = None,
    pipeline: Pipeline = "",
    sets: Sets = [],  # noqa: B006 - Typer reads the default
    first: Annotated[str, typer.Option("--from", metavar="STAGE", help="First stage to run.")] = STAGES[0].name,
    last: Annotated[str, typer.Option("--until", metavar="STAGE", help="Last stage to run.")] = STAGES[-1].name,
    site_file: Annotated[
        Path | None,
        typer.Option("--site", metavar="FILE", help="Defaults of the site in place of ~/.config/tomoseg/site.yaml."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Of many series, submit also those that are finished.")
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Submit the jobs; otherwise their scripts are only written.")
    ] = False,
    *,
    options: dict[str, Any],
) -> None:
    """Write the scripts of jobs that run the pipeline under Slurm, PBS or LSF, and with --now submit them.

    With GPUs there are three jobs, each of which waits for the one before: import and align on CPUs, reconstruct and
    segment on GPUs, measure and export on CPUs. A job that reaches its time limit keeps its state and is queued again,
    up to --tries times. Of many series each is a task of an array; a last job writes the table of all. The same command
    again submits only those that are not finished.
    """
    site = site_of(site_file, options)
    given = {"angles": angles, "pixel-size": pixel_size, "tilt-axis": tilt_axis, "pipeline": pipeline}
    run = [f"--{name}={value}" for name, value in given.items() if value not in (None, "")]
    run += [part for one in sets for part in ("--set", one)]
    config.resolve(config.read_pipeline(pipeline) if pipeline else {}, config.parse_sets(sets))
    stages = engine.stages_between(first, last)
    is_many = len(sources) > 1 or sources[0].suffix.lower() == LIST_ENDING or not sources[0].exists()
    if is_many:
        folder, jobs = _of_many(site, series_of(sources, _folder(output)), _folder(output), run, stages, force=force)
    else:
        folder, jobs = _of_one(site, sources[0], output, run, stages)
    if not jobs:
        show("All series are finished: there is nothing to submit (--force submits them all the same).")
        return
    written = write_jobs(site, jobs, folder)
    show(*written, f"{len(jobs)} job{'s' if len(jobs) > 1 else ''} for {site.scheduler}", *resources_words(jobs))
    if now:
        _submit(site, folder / SUBMIT)
    else:
        defaults = "" if site_file or default_path().is_file() else f"; defaults of your site go in {default_path()}"
        show(f"Look at the scripts, then submit them with `bash {written[-1]}`, or with --now{defaults}.")


def _folder(output: Path | None) -> Path:
    if output is None:
        raise InputError("Name a folder for the projects and the table of several series: -o FOLDER.")
    return output.absolute()


def _program(site: Site) -> str:
    """Return the command for a shell: that of this installation, unless a job enters an environment of its own."""
    if site.setup:
        return "tomoseg"
    beside = Path(sys.executable).with_name("tomoseg")
    return shlex.quote(str(beside)) if beside.exists() else f"{shlex.quote(sys.executable)} -m tomoseg"


def _of_one(
    site: Site, source: Path, output: Path | None, run: Sequence[str], stages: Sequence[str]
) -> tuple[Path, list[Job]]:
    source = source.absolute()
    (one,) = series_of([source], Path())
    is_project = one.raw == one.project
    if not is_project and output is None:
        raise InputError(f"Name the project file to make: `tomoseg submit {source} -o PROJECT.h5`.")
    project = source if is_project or output is None else output.absolute()
    place = [] if is_project else ["-o", shlex.quote(str(project))]
    arguments = [shlex.quote(str(source)), *place, *map(shlex.quote, run)]
    jobs = jobs_of(site, _program(site), arguments, project.stem, stages)
    return project.with_name(f"{project.stem}_jobs") / _stamp(), jobs


def _of_many(
    site: Site, found: Sequence[Series], output: Path, run: Sequence[str], stages: Sequence[str], *, force: bool
) -> tuple[Path, list[Job]]:
    """Return the folder of the scripts and the jobs of many series; a list of these is kept beside the scripts."""
    left = [k for k, one in enumerate(found, 1) if force or not _is_finished(one, stages[-1])]
    folder = output / "jobs" / _stamp()
    if not left:
        return folder, []
    folder.mkdir(parents=True, exist_ok=True)
    listed, numbers = folder / LIST, folder / NUMBERS
    with atomic_path(listed) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["raw", "name", "project", "options"])
        writer.writerows([one.raw, one.name, one.project, shlex.join(one.options)] for one in found)
    with atomic_path(numbers) as temporary:
        temporary.write_text("".join(f"{k}\n" for k in left), encoding="utf-8")
    many = ["--many", shlex.quote(str(listed)), "-o", shlex.quote(str(output)), *map(shlex.quote, run)]
    one_of = [*many, "--only", f'"$(sed -n "${{TASK}}p" {shlex.quote(str(numbers))})"']
    jobs = jobs_of(site, _program(site), one_of, output.name, stages, series=len(left))
    return folder, [*jobs, summary_job(site, _program(site), many, output.name)]


def _stamp() -> str:
    return time.strftime("%Y%m%d-%H%M%S")


def _is_finished(one: Series, last: str) -> bool:
    """Tell whether the stages of a series up to the last one wanted are fresh."""
    if not one.project.exists():
        return False
    try:
        with Project.read(one.project) as project:
            states = engine.states(project, config.resolve(stored=project.settings))
    except TomosegError:
        return False
    names = [state.name for state in states]
    return all(state.state == "fresh" for state in states[: names.index(last) + 1])


def _submit(site: Site, script: Path) -> None:
    command = COMMANDS[site.scheduler]
    if shutil.which(command) is None:
        raise InputError(
            f"`{command}` is not here, so nothing was submitted: run this on a login node of the cluster, or copy the "
            f"scripts there and run `bash {script}`."
        )
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    show(*done.stdout.splitlines())
    if done.returncode:
        raise StageFailed(f"{site.scheduler} refused a job: {done.stderr.strip() or f'exit code {done.returncode}'}")
