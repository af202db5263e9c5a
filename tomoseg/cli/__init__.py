"""The command line: parse, call, render, exit code."""

from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and exit with the code of DESIGN.md: 0, 1, 2, 3, 4 or 130."""
    from tomoseg.runtime import leaving_on_signals

    leaving_on_signals()  # now: loading the commands may take seconds
    from tomoseg.cli.app import main as run

    run(arguments)


__all__ = ["main"]
