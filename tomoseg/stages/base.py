"""What a stage is: declared data plus a function."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tomoseg.schema import Artifact


class InputFileMarker:
    """Marks a parameter that names a file the result depends on: its digest, not its path, enters the fingerprint."""


class AlignmentInputFileMarker(InputFileMarker):
    """Marks an input file that is another project: of it only the alignment counts, and its digest is that of it.

    The stage's `run` is given the alignment (`tomoseg.io.shifts.GivenAlignment`, or None) under the parameter's name.
    """


InputFile = Annotated[Path, InputFileMarker()]
OtherProject = Annotated[Path, AlignmentInputFileMarker()]


class Parameters(BaseModel):
    """Base of all stage parameters: frozen, unknown keys are errors, every field has a description with its unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: Any) -> Any:
        """Take 'vti,mrc' for the list [vti, mrc], as it is written on a command line."""
        if not isinstance(values, dict):
            return values
        return {
            name: [word.strip() for word in value.split(",")]
            if isinstance(value, str) and name in cls.model_fields and _is_list(cls.model_fields[name].annotation)
            else value
            for name, value in values.items()
        }

    @classmethod
    def input_file_fields(cls) -> list[str]:
        """Return the names of the parameters that name an input file."""
        return [n for n, f in cls.model_fields.items() if "InputFileMarker" in repr(f.annotation) + repr(f.metadata)]

    @classmethod
    def other_project_fields(cls) -> list[str]:
        """Return the names of those among them that name another project."""
        return [n for n, f in cls.model_fields.items() if "AlignmentInput" in repr(f.annotation) + repr(f.metadata)]

    def input_files(self) -> dict[str, Path]:
        """Return the input files that are set, by parameter name."""
        named = {name: getattr(self, name) for name in self.input_file_fields()}
        return {name: Path(path) for name, path in named.items() if path is not None}

    @classmethod
    def is_known_name(cls, _parameter: str, _text: str) -> bool:
        """Tell whether what stands for an input file is no path but the name of something that tomoseg knows."""
        return False

    def companions(self) -> dict[str, Path]:
        """Return files that were found beside those and decide the result too, by what they are."""
        return {}


def _is_list(annotation: Any) -> bool:
    """Return whether a field holds a list or a tuple, perhaps an optional one."""
    return get_origin(annotation) in (list, tuple) or any(_is_list(part) for part in get_args(annotation))


def no_problems(_params: Any) -> list[str]:
    """Find nothing wrong beyond what the parameter model checks."""
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
    # What the stage left outside the project (export files) and is no longer there, given its attribute artifacts.
    lost: Callable[[dict[str, Any]], list[str]] = no_problems


__all__ = ["Field", "InputFile", "OtherProject", "Parameters", "Stage"]
