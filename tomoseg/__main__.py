"""The program `tomoseg`, also as `python -m tomoseg`."""

import os
import sys
from typing import NoReturn

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def main() -> NoReturn:
    """Run the program, with all three standard streams open."""
    open_standard_streams()
    from tomoseg.cli import main as run

    run()


def open_standard_streams() -> None:
    """Lead to nowhere those of stdin, stdout and stderr that are closed, as `<&- >&- 2>&-` in a shell does.

    Else the next files that are opened get their numbers, and what is said to the user is written into them.
    """
    for number, (name, mode) in enumerate(STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    main()
