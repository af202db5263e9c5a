"""How the runs of series ended, kept in the folder of many series: a small file for each, so that jobs share it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tomoseg import plain_json
from tomoseg.batch.series import Series
from tomoseg.io.atomic import atomic_path

State = Literal["done", "failed", "stopped", "running", "not run"]
FOLDER = "outcomes"
NO_EXIT_CODE = -1


@dataclass(frozen=True)
class Outcome:
    """How the run of a series ended, and why it did not where it failed."""

    series: Series
    state: State = "not run"
    exit_code: int = NO_EXIT_CODE
    reason: str = ""
    seconds: float = 0.0
    job_id: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the series is finished."""
        return self.state == "done"


def keep(folder: Path, outcome: Outcome) -> None:
    """Keep an outcome in the folder of the series."""
    path = _path(folder, outcome.series)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "state": outcome.state,
        "exit_code": outcome.exit_code,
        "reason": outcome.reason,
        "seconds": outcome.seconds,
        "job_id": outcome.job_id,
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def known(folder: Path, found: Sequence[Series]) -> list[Outcome]:
    """Return how the last run of each series ended; a file that cannot be read counts as none."""
    return [_read(_path(folder, one), one) for one in found]


def _read(path: Path, series: Series) -> Outcome:
    try:
        content = plain_json.load(path.read_text(encoding="utf-8"))
        outcome = Outcome(
            series,
            content["state"],
            int(content["exit_code"]),
            str(content["reason"]),
            float(content["seconds"]),
            str(content["job_id"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return Outcome(series)
    return outcome if outcome.state in get_args(State) else Outcome(series)


def _path(folder: Path, series: Series) -> Path:
    return folder / FOLDER / f"{series.name}.json"
