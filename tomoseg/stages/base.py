"""What a stage is: declared data plus a function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tomoseg.parameters import Parameters
from tomoseg.schema import Artifact


def no_problems(_params: Any) -> list[str]:
    """Find nothing wrong beyond what the parameter model checks."""
    return []


def as_given(params: Any, _project: Path) -> Any:
    """Return the parameters as they are: they need nothing that only the project knows."""
    return params


def no_doubts(_params: Any, _project: Path, _left: Mapping[str, Any]) -> list[str]:
    """Find nothing outside the project that the stage should not touch unasked."""
    return []


class Doubt(NamedTuple):
    """What speaks against a run before it: it `stops` the run, or is a warning."""

    text: str
    stops: bool


@dataclass(frozen=True)
class Prospect:
    """What a run will have, as far as the series alone tells.

    `series_shape` is (n_tilt, y, x) and `volume_shape` (z, y, x); `voxel_size_nm` is NaN where unknown, and `memory`
    the bytes that this process may use.
    """

    series_shape: tuple[int, ...]
    volume_shape: tuple[int, ...]
    voxel_size_nm: float
    memory: int


def nothing_foreseen(_params: Any, _prospect: Prospect) -> list[Doubt]:
    """Find nothing that speaks against a run of the stage."""
    return []


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    `run(*, <artifact names it reads>, params, runtime, outputs)` computes and leaves its results in `outputs`; it
    opens no project file. Artifacts arrive as `tomoseg.arrays.Input`; see `tomoseg.arrays.Outputs` for leaving them.
    `version` is raised whenever the same parameters would give another result. `check(params)` lists what is wrong
    with the parameters and the files they name, cheaply, before anything is computed.
    """

    name: str
    version: int
    summary: str
    parameters: type[Parameters]
    reads: tuple[Artifact, ...]
    writes: tuple[Artifact, ...]
    run: Callable[..., None]
    check: Callable[[Any], list[str]] = no_problems
    # Fills in what depends on where the project file is, given its path.
    beside: Callable[[Any, Path], Any] = as_given
    # The parameter that names the raw data: a project holds those of one series.
    source: str = ""
    # The parameter that names a place to write to outside the project, and, where nobody named one for this run, why
    # not to write there: given the parameters, the project's path, and the attributes that the last run left.
    writes_to: str = ""
    doubts: Callable[[Any, Path, Mapping[str, Any]], list[str]] = no_doubts
    # What the stage left outside the project (export files) and is no longer there, given its attribute artifacts.
    lost: Callable[[dict[str, Any]], list[str]] = no_problems
    # What of a series, known by its shape and pixel size, the stage cannot work on, or not well.
    foresee: Callable[[Any, Prospect], list[Doubt]] = nothing_foreseen
