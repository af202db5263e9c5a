"""What the environment of the process must offer, settled before anything is loaded or computed."""

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tomoseg.errors import InputError, shown
from tomoseg.io.folders import cache_folder
from tomoseg.machine import available_cpus
from tomoseg.runtime import MOST_WORKERS

# Numbers of threads that libraries read when they are loaded. OpenMP's may be a list, one for each level of nesting.
THREADS = (
    *("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
    *("NUMEXPR_NUM_THREADS", "NUMEXPR_MAX_THREADS", "VECLIB_MAXIMUM_THREADS"),
)
MORE_THREADS = ("VTK_SMP_MAX_THREADS",)
LISTS = ("OMP_NUM_THREADS",)


def prepare_environment(arguments: Sequence[str] = ()) -> None:
    """Settle what libraries take from the environment, for a command with these arguments.

    Raises `InputError` for what they would fail over in words of their own.
    """
    problems = [problem for name in THREADS if (problem := _problem_with_threads(name, os.environ.get(name, "")))]
    if problems:
        raise InputError.of(problems)
    budget = str(_workers(arguments) or available_cpus())
    for name in (*THREADS, *MORE_THREADS):
        os.environ.setdefault(name, budget)
    # Pictures are drawn to files; a backend with windows may not be there, and what is no backend would be an error.
    os.environ["MPLBACKEND"] = "agg"
    _give_numba_a_folder()


def _workers(arguments: Sequence[str]) -> int:
    """Return the number of threads that a command is to use; 0 where it is not said, or wrong, which is told later."""
    for k, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        value = value or "".join(arguments[k + 1 : k + 2])
        if name == "--workers" and value.isdecimal():
            return min(int(value), MOST_WORKERS)
    return 0


def _problem_with_threads(name: str, value: str) -> str:
    numbers = value.split(",") if name in LISTS else [value]
    if not value.strip() or all(re.fullmatch(r"\s*0*[1-9][0-9]{0,3}\s*", number) for number in numbers):
        return ""
    return (
        f"the environment variable {name} is '{shown(value)}': it must be a number of threads from 1 to "
        f"{MOST_WORKERS}; correct it, or `unset {name}`"
    )


def _give_numba_a_folder() -> None:
    """Let compiled functions be kept for this process only where no folder for them can be written to."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    usual = [Path(named)] if named else []
    usual += [Path(__file__).parents[1] / "reconstruction" / "__pycache__", cache_folder().parent / "numba"]
    if any(_can_be_written(folder) for folder in usual):
        return
    folder = tempfile.mkdtemp(prefix="tomoseg-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["NUMBA_CACHE_DIR"] = folder


def _can_be_written(folder: Path) -> bool:
    """Tell whether files can be written to a folder, or to the one that it would be made in, by doing so."""
    existing = next((f for f in (folder, *folder.parents) if os.path.lexists(f)), folder)
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError:
        return False
    return True
