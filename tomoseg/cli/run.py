"""Commands that compute: `run`, one command per stage, and `simulate`."""

import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from tomoseg import config, engine
from tomoseg.api import IMPORT, opened_to_run, run_layers
from tomoseg.cli.options import AsJson, BreakLock, OutputProject, Pipeline, ProjectFile, Sets, computing, with_options
from tomoseg.cli.render import run_summary_lines, status_json
from tomoseg.config import Raw
from tomoseg.errors import InputError
from tomoseg.io.input_files import as_one
from tomoseg.lengths import require_size
from tomoseg.project import Project
from tomoseg.runtime import Runtime, stopping_on_signals
from tomoseg.stages import STAGES
from tomoseg.terminal import show, show_document

ON_CLUSTER = ("reconstruct", "segment")  # stages whose slabs workers can compute


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("run")(computing(run, on_cluster=True))
    for stage in STAGES:
        command = computing(
            _import if stage.name == IMPORT else _stage_command(stage.name), on_cluster=stage.name in ON_CLUSTER
        )
        app.command(stage.name, help=stage.summary)(with_options(stage.parameters, command, ("raw",)))
    app.command("simulate")(simulate)


def run(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="RAW|PROJECT",
            help="A raw tilt series (a file, or a folder with one file per tilt), or a project to continue or update.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PROJECT", help="The project file to make from RAW.")
    ] = None,
    angles: Annotated[
        str | None,
        typer.Option(
            "--angles",
            metavar="FILE|START:STOP:STEP",
            help="Tilt angles in degrees: .rawtlt, .tlt, .aln, .csv, .mdoc, a list, or a range (--angles=-68:68:2).",
        ),
    ] = None,
    pixel_size: Annotated[
        float | None, typer.Option("--pixel-size", metavar="NM", help="Pixel size in nm, if the file does not hold it.")
    ] = None,
    tilt_axis: Annotated[
        str | None,
        typer.Option("--tilt-axis", metavar="x|y", help="Nominal direction of the tilt axis in the raw image."),
    ] = None,
    signal: Annotated[
        str | None,
        typer.Option("--signal", metavar="NAME|N", help="The signal to read where a file holds several."),
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option("--exclude", metavar="VIEWS", help="Views to leave out: 3,17-19 (from 1), 60deg, -70..-62deg."),
    ] = None,
    pipeline: Pipeline = "",
    sets: Sets = [],  # noqa: B006 - Typer reads the default
    first: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="First stage to run.")] = None,
    last: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Last stage to run.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run stages again even if they are up to date.")] = False,
    export_dir: Annotated[
        Path | None, typer.Option("--export-dir", metavar="DIR", help="Folder for the exported files.")
    ] = None,
    break_lock: BreakLock = False,
    many: Annotated[
        bool,
        typer.Option(
            "--many",
            help="Run each of several series, or those of a list (.csv), one after the other; -o names a folder for "
            "their projects and the table of all.",
        ),
    ] = False,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="N,...", help="With --many: the numbers of the series to run; none: of none."),
    ] = None,
    as_json: AsJson = False,
    *,
    runtime: Runtime,
) -> None:
    """Run the whole pipeline on a raw tilt series, or bring a project up to date; with --many on each of several."""
    given = {"angles": angles, "pixel_size": pixel_size, "tilt_axis": tilt_axis, "signal": signal, "exclude": exclude}
    layers = run_layers(pipeline, config.parse_sets(sets), given, export_dir)
    if many:
        if as_json:
            raise InputError("--json is of a single series: --many writes the table of all to its folder.")
        config.resolve(*layers)
        from tomoseg.cli.many import run_all

        chosen = {**given, "pipeline": pipeline, "from": first, "until": last}
        flags = {"force": force, "break-lock": break_lock}
        options = [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items() if value not in (None, "")]
        options += [f"--{name}" for name, wanted in flags.items() if wanted]
        options += [part for one in sets for part in ("--set", one)]
        run_all(sources, output, options, export_dir, only, runtime)
        return
    if only is not None:
        raise InputError("--only says which of many series to run: it goes with --many.")
    source = as_one(sources)
    opened = opened_to_run(source, output, layers, runtime, force=force, break_lock=break_lock)
    with _stoppable(source, output, layers), opened as (project, settings):
        done = engine.run(project, settings, runtime, first=first, last=last, force=force)
        if runtime.device == "cuda" and not any(state.reasons for state in done):
            from tomoseg.reconstruction.backends.choice import choose

            choose("auto", "cuda")  # nothing was computed, but a GPU that is not there is told all the same
        if as_json:
            show_document(status_json(project, done))
        else:
            show(*run_summary_lines(project, done))


def _import(
    raws: Annotated[list[Path], typer.Argument(metavar="RAW", help="The raw tilt series.", show_default=False)],
    output: OutputProject,
    force: Annotated[bool, typer.Option("--force", help="Replace another series that the project holds.")] = False,
    break_lock: BreakLock = False,
    *,
    options: dict[str, Any],
    runtime: Runtime,
) -> None:
    raw = as_one(raws)
    opened = opened_to_run(raw, output, [{IMPORT: options}], runtime, force=force, break_lock=break_lock)
    with _stoppable(raw, output), opened as (project, settings):
        show(*run_summary_lines(project, [engine.run_one(project, IMPORT, settings, runtime)]))


def _stage_command(name: str) -> Callable[..., None]:
    def command(
        project: ProjectFile,
        pipeline: Pipeline = "",
        sets: Sets = [],  # noqa: B006 - Typer reads the default
        allow_stale: Annotated[bool, typer.Option("--allow-stale", help="Use inputs that are out of date.")] = False,
        break_lock: BreakLock = False,
        *,
        options: dict[str, Any],
        runtime: Runtime,
    ) -> None:
        layers = [config.read_pipeline(pipeline) if pipeline else {}, config.parse_sets(sets), {name: options}]
        with (
            _stoppable(project, None, layers),
            Project.write(project, runtime.progress.message, break_lock=break_lock) as opened,
        ):
            settings = config.resolve(*layers, stored=opened.settings)
            done = engine.run_one(opened, name, settings, runtime, allow_stale=allow_stale)
            show(*run_summary_lines(opened, [done]))

    return command


def _stoppable(source: Path, output: Path | None = None, layers: Sequence[Raw] = ()) -> AbstractContextManager[None]:
    """Stop cleanly on SIGINT, SIGTERM and SIGHUP, and say how to go on with the project."""
    project = output or source

    def advice() -> str:
        if project.exists():
            return f"What was finished is kept; `tomoseg run {' '.join([str(project), *_places(layers)])}` continues."
        return "The import had not finished, so nothing was kept; start the same command again."

    return stopping_on_signals(advice)


def _places(layers: Sequence[Raw]) -> list[str]:
    """Return options that name once more the files and folders outside the project that the user named.

    What the project remembers of them is not enough where no run has used them yet; the import, of which there is no
    project without, has.
    """
    given = {
        (stage, name): value for layer in layers for stage, section in layer.items() for name, value in section.items()
    }
    places = {s.name: {*s.parameters.input_file_fields(), s.writes_to} for s in STAGES if s.name != IMPORT}
    named = [(key, value) for key, value in given.items() if value is not None and key[1] in places.get(key[0], ())]
    return [f"--set {shlex.quote(f'{stage}.{name}={value}')}" for (stage, name), value in named]


def simulate(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RAW.mrc", help="The raw series to write.")],
    truth: Annotated[
        Path | None, typer.Option("--truth", metavar="TRUTH.h5", help="Where the true volume, shifts and particles go.")
    ] = None,
    size: Annotated[int, typer.Option(help="Width, height and thickness in pixels.", min=32, max=8192)] = 192,
    particles: Annotated[int, typer.Option(help="Number of particles.", min=0, max=100_000)] = 60,
    max_tilt: Annotated[float, typer.Option(help="Tilts run from minus to plus this, in degrees.", min=1)] = 68.0,
    step: Annotated[float, typer.Option(help="Degrees between tilts.", min=0.1)] = 2.0,
    jitter: Annotated[float, typer.Option(help="Random shift of each tilt, standard deviation in pixels.")] = 3.0,
    drift: Annotated[float, typer.Option(help="Slow drift over the series, in pixels.")] = 8.0,
    tilt_axis_angle: Annotated[float, typer.Option(help="Tilt axis from the vertical, in degrees.")] = 3.0,
    tilt_axis_offset: Annotated[float, typer.Option(help="Tilt axis from the image centre, in pixels.")] = 4.0,
    dose: Annotated[float, typer.Option(help="Mean electrons per pixel where the object is; sets the noise.")] = 400.0,
    pixel_size: Annotated[float, typer.Option(metavar="NM", help="Pixel size in nm.")] = 0.25,
    seed: Annotated[int, typer.Option(help="The same seed gives the same series.", min=0, max=2**63)] = 0,
) -> None:
    """Simulate a raw tilt series of a supported catalyst with known truth."""
    from tomoseg.io.mrc import write_angles, write_mrc
    from tomoseg.project.truth import write_truth
    from tomoseg.simulate import simulate_series

    if output.suffix.lower() not in (".mrc", ".st"):
        raise InputError(f"-o {output}: the raw series is written as MRC, so the name must end in .mrc or .st.")
    require_size("--pixel-size", pixel_size)
    series = simulate_series(
        size,
        particles,
        max_tilt_deg=max_tilt,
        tilt_step_deg=step,
        jitter_px=jitter,
        drift_px=drift,
        tilt_axis_angle_deg=tilt_axis_angle,
        tilt_axis_offset_px=tilt_axis_offset,
        dose=dose,
        pixel_size_nm=pixel_size,
        seed=seed,
    )
    write_mrc(output, series.raw, pixel_size, kind="stack", label="simulated by tomoseg")
    write_angles(output.with_suffix(".rawtlt"), series.angles_deg)
    show(output, output.with_suffix(".rawtlt"))
    if truth is not None:
        phantom = series.truth.phantom
        write_truth(
            truth,
            angles_deg=series.angles_deg,
            shifts_px=series.truth.shifts_px,
            tilt_axis_angle_deg=series.truth.tilt_axis_angle_deg,
            tilt_axis_offset_px=series.truth.tilt_axis_offset_px,
            volume=phantom.density,
            voxel_size_nm=series.pixel_size_nm,
            labels=phantom.labels,
            class_names=phantom.class_names,
            particles=phantom.particles,
        )
        show(truth)
