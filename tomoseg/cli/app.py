"""The `tomoseg` program: its commands, and how errors become one paragraph and an exit code."""

import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from tomoseg import __version__
from tomoseg.cli import annotate, evaluate, history, inspect, run, train
from tomoseg.errors import InputError, Interrupted, TomosegError
from tomoseg.runtime import STOPPING, obey

app = typer.Typer(
    name="tomoseg",
    help="From a raw electron-tomography tilt series to a measured, segmented 3D volume.\n\n"
    "Start with: tomoseg run RAW.mrc --angles RAW.rawtlt -o PROJECT.h5",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tomoseg {__version__}")
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
for _part in (run, inspect, history, train, evaluate, annotate):
    _part.add_commands(app)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and exit with the code of DESIGN.md: 0, 1, 2, 3, 4 or 130."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # --debug is accepted anywhere on the line, since it is added after something went wrong.
    if "--debug" in arguments:
        arguments = ["--debug", *(a for a in arguments if a != "--debug")]
    obey(STOPPING, lambda _: sys.exit(Interrupted.exit_code))  # before and after the work itself, which stops in order
    try:
        _run(arguments)
    finally:
        # What is left is Python's own end, which would put the default back, and with it another exit code.
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)


def _run(arguments: Sequence[str]) -> NoReturn:
    try:
        app(arguments)
    except TomosegError as error:
        _show(f"tomoseg: {error}", error)
        sys.exit(error.exit_code)
    except OSError as error:
        _show(f"tomoseg: {error.strerror or error}: {error.filename or 'a file of this run'}.", error)
        sys.exit(InputError.exit_code if isinstance(error, FileNotFoundError) else TomosegError.exit_code)
    except Exception as error:
        _show(
            f"tomoseg: something went wrong that should not have: {type(error).__name__}: {error}. "
            "Run the same command with --debug for the details, and please report it.",
            error,
        )
        sys.exit(TomosegError.exit_code)
    sys.exit(0)


def _show(paragraph: str, error: BaseException) -> None:
    if _debug:
        traceback.print_exception(error)
    print(paragraph, file=sys.stderr)
