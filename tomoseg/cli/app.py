"""The `tomoseg` program: its commands, and how errors become one paragraph and an exit code."""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from tomoseg import __version__, terminal
from tomoseg.cli.environment import prepare_environment
from tomoseg.cli.examples import epilog
from tomoseg.errors import InputError, TomosegError
from tomoseg.runtime import STOPPING

# What `tomoseg --help` says of each command, in a line of 80 characters.
SECTIONS = {
    "Pipeline": {
        "run": "a raw tilt series from import to export, or a project",
        "import": "a raw tilt series, its angles and its pixel size",
        "align": "bring the tilt images into register",
        "reconstruct": "the volume, from the aligned series",
        "segment": "a class for every voxel, by a network or thresholds",
        "measure": "volumes, surfaces, particles, pores, layers, facets",
        "export": "files for ParaView, napari, Fiji, IMOD, Blender",
        "submit": "the pipeline as jobs of Slurm, PBS or LSF",
    },
    "Before and after": {
        "simulate": "a raw tilt series of a catalyst with known truth",
        "inspect": "what a raw file holds, and what an import would use",
        "check": "a pipeline and its input, without computing",
        "doctor": "what this machine offers, and what is missing",
    },
    "Look at a project": {
        "status": "which stages are fresh, stale (and why) or partial",
        "report": "a self-contained page with pictures, plots and tables",
        "try": "parameters on a slice or a few, side by side",
        "compare": "several projects: figures, sizes, differences",
        "preview": "one picture: slices, labels, particles",
        "movie": "the labelled classes, turning (.mp4, .gif)",
        "view": "the project in napari",
        "history": "every run of every stage, and how it ended",
        "export-pipeline": "the pipeline file that reproduces the results",
        "cite": "a paragraph on methods, references, parameters",
        "compact": "rewrite the project without gaps",
    },
    "Networks": {
        "models": "the networks known by name",
        "annotate": "paint labels on slices of a project",
        "check-data": "labelled slices, before a training",
        "train": "a network on labelled slices or simulated worlds",
        "evaluate": "a network on labelled slices",
    },
    "Micrographs": {"images": "find and measure particles in single images"},
}


# The module in `tomoseg.cli` that has the command, where it is not one of the command's own name.
MODULES = {
    **dict.fromkeys(("import", "align", "reconstruct", "segment", "measure", "export", "simulate"), "run"),
    **dict.fromkeys(("check", "doctor", "status", "report", "compare", "preview", "movie"), "inspect"),
    **dict.fromkeys(("export-pipeline", "cite", "compact"), "history"),
    **dict.fromkeys(("models", "check-data"), "annotate"),
    "try": "trial",
}


class Sections(TyperGroup):
    """The program's commands, in sections, with a line for each; a module is imported when its command is asked for.

    Help for all of them needs none of it: importing everything takes most of a second.
    """

    def list_commands(self, _ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return [name for rows in SECTIONS.values() for name in rows]

    def get_command(self, ctx: Any, name: str) -> Any:
        """Return a command; None where there is none of that name."""
        if name not in self.commands and name in self.list_commands(ctx):
            part = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
            import_module(f"tomoseg.cli.{MODULES.get(name, name)}").add_commands(part)
            for command in part.registered_commands:
                command.epilog = epilog(command.name or "")
            self.commands.update(typer.main.get_group(part).commands)
        return self.commands.get(name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands into the help."""
        width = max(len(name) for rows in SECTIONS.values() for name in rows)
        for title, rows in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows.items()])


app = typer.Typer(
    name="tomoseg",
    cls=Sections,
    help="From a raw electron-tomography tilt series to a measured, segmented 3D volume.\n\n"
    "Start with: tomoseg run RAW.mrc --angles RAW.rawtlt -o PROJECT.h5",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        terminal.show(f"tomoseg {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    _version_: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    global _debug  # noqa: PLW0603 - the one switch that outlives a command: how its errors are shown
    _debug = debug


_debug = False


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and exit with the code of DESIGN.md: 0, 1, 2, 3, 4 or 130."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    # --debug is accepted anywhere on the line, since it is added after something went wrong.
    if "--debug" in arguments:
        arguments = ["--debug", *(a for a in arguments if a != "--debug")]
    try:
        with terminal.guarded():
            _run(arguments)
    finally:
        # What is left is Python's own end, which would put the default back, and with it another exit code.
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)


def _run(arguments: Sequence[str]) -> NoReturn:
    try:
        prepare_environment(arguments)
        app(arguments)
    except TomosegError as error:
        _fail(error.lines, error, error.exit_code)
    except OSError as error:
        code = InputError.exit_code if isinstance(error, FileNotFoundError) else TomosegError.exit_code
        _fail((_explained(error),), error, code)
    except MemoryError as error:
        what = "there is not enough memory for this. Lower --max-memory, or work on less data at a time."
        _fail((what,), error, TomosegError.exit_code)
    except Exception as error:
        what = (
            f"something went wrong that should not have: {type(error).__name__}: {error}. "
            "Run the same command with --debug for the details, and please report it."
        )
        _fail((what,), error, TomosegError.exit_code)
    sys.exit(0)


def _explained(error: OSError) -> str:
    """Return a sentence about an error of the operating system that nothing has explained."""
    if error.filename is not None:
        return f"{error.strerror}: {os.fsdecode(error.filename)}."
    if error.errno == errno.ENOENT and not _has_folder():
        return "the folder that you are in no longer exists: change to another one."
    return f"{error.strerror or error}: a file of this run."


def _has_folder() -> bool:
    try:
        return Path.cwd().is_dir()
    except FileNotFoundError:
        return False


def _fail(lines: Sequence[str], error: BaseException, code: int) -> NoReturn:
    """Say what went wrong, and exit."""
    if _debug:
        terminal.tell(*"".join(traceback.format_exception(error)).splitlines())
    terminal.tell(f"tomoseg: {lines[0]}", *lines[1:])
    sys.exit(code)
