"""From a pipeline file, `--set` and options to typed parameters of every stage; all errors are reported at once."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tomoseg import plain_yaml
from tomoseg.errors import InputError, printable, shown
from tomoseg.parameters import Parameters, problems_of
from tomoseg.stages import BY_NAME, STAGES
from tomoseg.stages.base import Stage

Raw = Mapping[str, Mapping[str, Any]]

# The longest pipeline, with every parameter and its description, has some 10 kB.
_LARGEST_PIPELINE = 256 * 1024  # bytes
_MOST_PROBLEMS = 30  # in one message
TRAINING = "train"  # the section of a file with the parameters of a training, which is no stage


class Settings(dict[str, Parameters]):
    """The parameters of every stage; `given` are the names ('export.export_dir') of those that the user gave.

    All others have their default, or are what a project remembers, which may be a stranger's.
    """

    def __init__(self, given: Iterable[str] = ()) -> None:
        super().__init__()
        self.given = frozenset(given)


def resolve(*layers: Raw, stored: Raw | None = None) -> Settings:
    """Merge layers of {stage: {parameter: value}}, later ones first in rank, and validate every stage.

    `layers` are what the user gave, `stored` what the project remembers, whose rank is the lowest. Parameters that hold
    for one run are not taken from there. Raises `InputError` with all problems found.
    """
    settings = Settings(f"{stage}.{name}" for layer in layers for stage, values in layer.items() for name in values)
    layers = (_remembered(stored or {}), *layers)
    unknown = sorted({stage for layer in layers for stage in layer} - set(BY_NAME))
    problems = [f"there is no stage '{shown(name, 100)}'; the stages are {', '.join(BY_NAME)}" for name in unknown]
    for stage in STAGES:
        merged: dict[str, Any] = {}
        for layer in layers:
            merged.update(layer.get(stage.name, {}))
        try:
            settings[stage.name] = stage.parameters(**merged)
        except ValidationError as error:
            problems += problems_of(error, stage.name, stage.parameters)
    if len(problems) > _MOST_PROBLEMS:
        problems[_MOST_PROBLEMS:] = [f"and {len(problems) - _MOST_PROBLEMS} problems more"]
    if problems:
        raise InputError.of(problems)
    return settings


def _remembered(values: Raw) -> Raw:
    """Return settings without those that hold for one run only."""
    once = {name: stage.parameters.this_run_fields() for name, stage in BY_NAME.items()}
    return {
        stage: {name: value for name, value in section.items() if name not in once.get(stage, ())}
        for stage, section in values.items()
    }


def read_pipeline(name: str | Path) -> dict[str, dict[str, Any]]:
    """Read a pipeline file, or one that ships along, by its name ('catalyst', 'default', 'genc2022', 'quick').

    Relative paths of input files are taken from the pipeline file's folder.
    """
    path = pipeline_path(name)
    content = _content_of(path)
    content = {} if content is None else content
    if _is_of_training(content):
        raise InputError(f"{path} holds the parameters of a training: give it to `tomoseg train --pipeline {name}`.")
    sections = [section or {} for section in content.values()] if isinstance(content, dict) else [None]
    if not all(isinstance(section, dict) and all(isinstance(key, str) for key in section) for section in sections):
        raise InputError(
            f"The pipeline file {path} must hold one section of `parameter: value` lines for each stage "
            f"({', '.join(BY_NAME)}), such as `reconstruct:` followed by an indented `iterations: 30`."
        )
    pipeline = {str(stage): dict(section or {}) for stage, section in content.items()}
    for stage_name, section in pipeline.items():
        if stage_name in BY_NAME:
            parameters = BY_NAME[stage_name].parameters
            for key in parameters.input_file_fields():
                named = section.get(key)
                if isinstance(named, str):
                    target = path.parent.absolute() / _expanded_home(named)
                    section[key] = (
                        named if parameters.is_known_name(key, named) and not target.is_file() else str(target)
                    )
    return pipeline


def read_recipe(name: str | Path) -> dict[str, Any]:
    """Read the parameters of a training from a file with the section `train`, or from one that ships along by its name.

    A relative path of encoder weights is taken from the file's folder, if the file of weights is there. The parameters
    are not checked.
    """
    path = pipeline_path(name, shipped_recipes())
    content = _content_of(path)
    section = content.get(TRAINING) if isinstance(content, dict) else None
    if not isinstance(section, dict) or len(content) > 1 or not all(isinstance(key, str) for key in section):
        raise InputError(
            f"{path} must hold one section `{TRAINING}:` of indented `parameter: value` lines, such as `epochs: 40`, "
            f"and no other: it is read by `tomoseg train`. One ships with tomoseg: {', '.join(shipped_recipes())}."
        )
    weights = section.get("encoder_weights")
    if isinstance(weights, str) and "://" not in weights:
        file, hash_mark, digest = weights.partition("#")
        beside = path.parent.absolute() / _expanded_home(file)
        return section | ({"encoder_weights": f"{beside}{hash_mark}{digest}"} if beside.is_file() else {})
    return dict(section)


def _content_of(path: Path) -> Any:
    """Return what a pipeline file holds, as plain values."""
    return plain_yaml.read(path, "pipeline file", _LARGEST_PIPELINE)


def _expanded_home(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~nobody
        raise InputError(f"There is no home folder for {shown(text, 100)}.") from error


def pipeline_path(name: str | Path, told: Iterable[str] | None = None) -> Path:
    """Return a pipeline file given by path, or by the name of one that ships with tomoseg.

    Where there is none, the error tells these names, by default those of pipelines of stages.
    """
    path, shipped = Path(name), _shipped_files()
    if path.is_file():
        return path
    if str(name) in shipped:
        return shipped[str(name)]
    raise InputError(
        f"There is no pipeline file {name}, and none of that name ships with tomoseg "
        f"({', '.join(shipped_pipelines() if told is None else told)})."
    )


def shipped_pipelines() -> dict[str, Path]:
    """Return the pipeline files that ship with tomoseg, by name, without those of trainings."""
    return {name: path for name, path in _shipped_files().items() if not _is_of_training(_content_of(path))}


def shipped_recipes() -> dict[str, Path]:
    """Return the files of parameters of trainings that ship with tomoseg, by name."""
    return {name: path for name, path in _shipped_files().items() if _is_of_training(_content_of(path))}


def is_recipe(name: str | Path) -> bool:
    """Tell whether a file, or the name of one that ships with tomoseg, is of a training and not of stages."""
    path = Path(name)
    return _is_of_training(_content_of(path)) if path.is_file() else str(name) in shipped_recipes()


def _is_of_training(content: Any) -> bool:
    return isinstance(content, dict) and TRAINING in content


def _shipped_files() -> dict[str, Path]:
    """Return the YAML files that ship with tomoseg, by name."""
    return {path.stem: path for path in sorted(pipelines_folder().glob("*.yaml"))}


def pipelines_folder() -> Path:
    """Return the folder of the files that people copy: pipelines, recipes and scripts of jobs."""
    package = Path(__file__).parent
    # Installed they lie in the package; in a source checkout at the top, where people find them to copy.
    return next(f for f in (package / "pipelines", package.parent / "pipelines") if f.is_dir())


def parse_sets(assignments: list[str]) -> dict[str, dict[str, Any]]:
    """Turn ['reconstruct.iterations=40', ...] into {stage: {parameter: value}}."""
    problems: list[str] = []
    settings: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        stage, dot, parameter = key.strip().partition(".")
        if equals and dot and stage and parameter:
            settings[f"{stage}.{parameter.replace('-', '_')}"] = parse_value(value.strip())
        else:
            problems.append(f"--set {assignment}: write STAGE.PARAM=VALUE, for example reconstruct.iterations=40")
    if problems:
        raise InputError.of(problems)
    return by_stage(settings)


def by_stage(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Turn {'reconstruct.iterations': 40, ...} into {stage: {parameter: value}}."""
    layer: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        stage, dot, parameter = key.partition(".")
        if not (dot and stage and parameter):
            raise InputError(f"The setting {shown(key, 100)} is not STAGE.PARAM, for example reconstruct.iterations.")
        layer.setdefault(stage, {})[parameter] = value
    return layer


def parse_value(text: str) -> Any:
    """Read a value as written on the command line: 'null' and [lists] as in YAML, all else typed by its parameter."""
    if text == "null":
        return None
    if text.startswith("["):
        try:
            return plain_yaml.load(text)
        except ValueError as error:
            raise InputError(
                f"The list {shown(text, 100)} is not written as in YAML, for example [vti, mrc]: {error}."
            ) from error
    return text


def as_raw(settings: Settings) -> Raw:
    """Return what a project remembers of parameters, as plain values that JSON can hold; paths become absolute."""
    return _remembered({name: plain(parameters) for name, parameters in settings.items()})


def plain(parameters: Parameters) -> dict[str, Any]:
    """Return one stage's parameters as plain values that JSON can hold; paths become absolute."""
    values = parameters.model_dump(mode="json")
    values |= {name: str(path.expanduser().absolute()) for name, path in parameters.input_files().items()}
    return values


def check_stages(settings: Settings, stages: list[str] | None = None) -> None:
    """Raise `InputError` with every problem the named stages (all by default) find in their parameters and files."""
    problems = [
        problem
        for stage in STAGES
        if stages is None or stage.name in stages
        for problem in stage.check(settings[stage.name])
    ]
    if stages is None or {"segment", "measure"} <= set(stages):
        problems += _between_segment_and_measure(settings)
    if problems:
        raise InputError.of(problems)


def _between_segment_and_measure(settings: Settings) -> list[str]:
    """Say where the class to count is none of those that the segmentation will make."""
    segment: Any = settings["segment"]
    measure: Any = settings["measure"]
    wanted, names = measure.particle_class, segment.expected_class_names()
    if wanted == "last" or names is None or wanted in names:
        return []
    return [
        f"measure.particle_class: there will be no class {wanted!r}; segment makes {', '.join(map(repr, names))}. "
        "'last' stands for the highest index."
    ]


def default_pipeline_text() -> str:
    """Return a pipeline file with every parameter at its default, and its description as a comment."""
    head = (
        "# Every parameter of every stage, at its default. Copy this file, keep the lines you change, and give it to\n"
        "# `tomoseg run --pipeline FILE`. `tomoseg check FILE` finds mistakes. Any line is also an option of its\n"
        "# stage (`tomoseg reconstruct PROJECT.h5 --iterations 40`) and of `--set reconstruct.iterations=40`.\n"
    )
    return head + "".join(_section(stage) for stage in STAGES)


def _section(stage: Stage) -> str:
    lines = ["", f"# {stage.summary}", f"{stage.name}:"]
    for name, field in stage.parameters.model_fields.items():
        if name == "raw":  # given on the command line
            continue
        lines += textwrap.wrap(field.description or "", 112, initial_indent="  # ", subsequent_indent="  # ")
        lines.append(_line(name, stage.parameters().model_dump(mode="json")[name]))
    return "\n".join(lines) + "\n"


def _line(name: str, value: Any, *, ascii_only: bool = False) -> str:
    return f"  {plain_yaml.dump(name)}: {plain_yaml.dump(value, ascii_only=ascii_only)}"


def pipeline_text(
    parameters: Raw, digests: Mapping[str, Mapping[str, str]], head: Sequence[str], *, ascii_only: bool = False
) -> str:
    """Return a pipeline file of the given parameters, every line printable.

    Parameters
    ----------
    digests : of the files that the parameters name, by stage and parameter; a comment tells each
    head : lines of comment to begin with
    ascii_only : escape all other characters
    """
    lines = [f"# {printable(line)}".rstrip() for line in head]
    for stage, values in parameters.items():
        lines += ["", f"{plain_yaml.dump(stage)}:"]
        for name, value in values.items():
            digest = digests.get(stage, {}).get(name)
            lines += [f"  # sha256 {printable(digest)}"] if digest else []
            lines.append(_line(name, value, ascii_only=ascii_only))
        lines += [] if values else ["  {}"]
    return "\n".join(lines) + "\n"
