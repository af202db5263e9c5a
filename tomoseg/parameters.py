"""Parameters, declared once: the command line, pipeline files, `--set` and Python's keywords are all made from them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tomoseg.errors import InputError, is_text, shown


class InputFileMarker:
    """Marks a parameter that names a file the result depends on: its digest, not its path, enters the fingerprint."""


class AlignmentInputFileMarker(InputFileMarker):
    """Marks an input file that is another project, of which only the alignment counts: its digest is that of it.

    The stage's `run` is given the alignment (`tomoseg.io.shifts.GivenAlignment`, or None) under the parameter's name.
    """


class ThisRunMarker:
    """Marks a parameter that holds for the run it is given to: a project neither remembers it nor may demand it.

    It permits something and has no part in what the result is, so that it makes no result stale.
    """


InputFile = Annotated[Path, InputFileMarker()]
OtherProject = Annotated[Path, AlignmentInputFileMarker()]
ThisRun = ThisRunMarker()


def _rising(limits: tuple[int, int]) -> tuple[int, int]:
    """Refuse a range without a voxel."""
    if not 0 <= limits[0] < limits[1]:
        raise ValueError("must be two whole numbers from 0 on, the second larger than the first")
    return limits


Range = Annotated[tuple[int, int], AfterValidator(_rising)]
LARGEST = 1e15  # of all numbers: beyond it, neighbouring whole numbers are soon the same float


def _refuse_impossible(value: Any) -> None:
    """Refuse numbers that overflow in any computation, and text that no file can hold, at any depth.

    A path is looked at as it will be stored: absolute.
    """
    if isinstance(value, (list, tuple)):
        for part in value:
            _refuse_impossible(part)
    elif isinstance(value, (int, float)) and abs(value) > LARGEST:
        raise ValueError(f"must be a number from {-LARGEST:g} to {LARGEST:g}")
    elif isinstance(value, Path):
        try:
            _refuse_impossible(str(value.expanduser().absolute()))
        except RuntimeError as error:  # ~nobody
            raise ValueError("must be a path; there is no home folder of that name") from error
    elif isinstance(value, str) and not is_text(value):
        raise ValueError("must be text in UTF-8, which provenance can hold: rename the file or folder")


class Parameters(BaseModel):
    """Base of all parameters: frozen, unknown keys are errors, every field has a description with its unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def of(cls, section: str, values: Mapping[str, Any]) -> Self:
        """Return the parameters of a section ('reconstruct') with these values, and defaults for all others.

        Raises
        ------
        InputError
            A value is wrong or a name unknown; all problems are named at once.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise InputError.of(problems_of(error, section, cls)) from error

    @field_validator("*", mode="after")
    @classmethod
    def _possible(cls, value: Any) -> Any:
        _refuse_impossible(value)
        return value

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
    def marked(cls, kind: type) -> list[str]:
        """Return the names of the parameters whose type carries a marker of this kind."""
        return [
            name
            for name, field in cls.model_fields.items()
            if any(isinstance(marker, kind) for marker in (*field.metadata, *_markers(field.annotation)))
        ]

    @classmethod
    def input_file_fields(cls) -> list[str]:
        """Return the names of the parameters that name an input file."""
        return cls.marked(InputFileMarker)

    @classmethod
    def other_project_fields(cls) -> list[str]:
        """Return the names of those among them that name another project."""
        return cls.marked(AlignmentInputFileMarker)

    @classmethod
    def this_run_fields(cls) -> list[str]:
        """Return the names of the parameters that hold for one run only."""
        return cls.marked(ThisRunMarker)

    def input_files(self) -> dict[str, Path]:
        """Return the input files that are set, by parameter name."""
        named = {name: getattr(self, name) for name in self.input_file_fields()}
        return {name: Path(path) for name, path in named.items() if path is not None}

    @classmethod
    def is_known_name(cls, _parameter: str, _text: str) -> bool:
        """Return whether an input file is given as the name of something that ships with tomoseg, not as a path."""
        return False

    @classmethod
    def is_known_file(cls, _parameter: str, _path: Path) -> bool:
        """Return whether an input file is one of those that ship with tomoseg, or that the user keeps for it."""
        return False

    def companions(self) -> dict[str, Path]:
        """Return files found beside the input files that also decide the result, by what they are."""
        return {}


def problems_of(error: ValidationError, section: str, model: type[Parameters]) -> list[str]:
    """Return one sentence for each value that a model refused: which parameter, why, what it is for."""
    return [_explain(section, model, one) for one in error.errors()]


def _explain(section: str, model: type[Parameters], error: Any) -> str:
    key = ".".join(shown(part, 100) for part in error["loc"] if not str(part).startswith(("function-", "constrained")))
    name = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        return (
            f"{section}.{shown(name, 100)}: there is no such parameter; {section} has {', '.join(model.model_fields)}"
        )
    described = model.model_fields[name].description if name in model.model_fields else ""
    got = error.get("input")
    told = f" ({described})" if described else ""
    why = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:  # of several parameters together
        return f"{section}: {why}"
    return f"{section}.{key}: {why[:1].lower()}{why[1:]}, got {shown(repr(got), 100)}{told}"


def _is_list(annotation: Any) -> bool:
    """Return whether a field holds a list or a tuple, perhaps an optional one."""
    return get_origin(annotation) in (list, tuple) or any(_is_list(part) for part in get_args(annotation))


def _markers(annotation: Any) -> Iterator[Any]:
    """Yield what `Annotated` adds to a type, at any depth (`InputFile | None`)."""
    yield from getattr(annotation, "__metadata__", ())
    for part in get_args(annotation):
        yield from _markers(part)


__all__ = ["Field", "InputFile", "OtherProject", "Parameters", "Range", "ThisRun", "problems_of"]
