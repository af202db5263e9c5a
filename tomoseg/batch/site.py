"""What jobs ask a batch system for: the defaults of a site, from a small YAML file, and what the command line says."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tomoseg import plain_yaml
from tomoseg.errors import InputError
from tomoseg.parameters import Parameters
from tomoseg.runtime import parse_memory

SECTION = "site"
LARGEST_FILE = 64 << 10  # bytes
Scheduler = Literal["slurm", "pbs", "lsf"]
COMMANDS = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub"}  # that submit a job


def _memory(text: str) -> str:
    """Refuse what is no amount of memory."""
    try:
        parse_memory(text)
    except InputError as error:
        raise ValueError("must be an amount of memory such as 32G or 500M") from error
    return text


def _time(text: str) -> str:
    """Refuse what is no time."""
    seconds(text)
    return text


def seconds(text: str) -> int:
    """Turn '90m', '4h', '1h30m' or '2-12:30:00', '04:00:00', '30:00' (h:m:s, m:s) into seconds."""
    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    match = match or re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    parts = match.groups("0") if match else ()
    total = sum(unit * int(part) for unit, part in zip((86400, 3600, 60, 1), parts, strict=False))
    if not 60 <= total <= 366 * 86400:
        raise ValueError("must be a time from 1m to 366d, such as 90m, 4h, 1h30m or 04:00:00")
    return total


def _line(text: str) -> str:
    """Refuse text that would begin another line of a script."""
    if not text.isprintable():
        raise ValueError("must be one line of text")
    return text


def _as_lines(value: Any) -> Any:
    """Take a list for the lines of a text."""
    return "\n".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _lines(text: str) -> str:
    """Refuse what is no text of lines."""
    for line in text.splitlines():
        _line(line)
    return text


Memory = Annotated[str, AfterValidator(_memory)]
Time = Annotated[str, AfterValidator(_time)]
Line = Annotated[str, AfterValidator(_line)]


@dataclass(frozen=True)
class Resources:
    """What a job asks for: CPUs, memory as it is written, seconds, and the partition or queue, which may be empty."""

    cpus: int
    memory: str
    seconds: int
    partition: str


class Site(Parameters):
    """What jobs ask for."""

    scheduler: Scheduler = Field("slurm", description="The batch system")
    account: Line = Field("", description="Account or project that is charged")
    partition: Line = Field("", description="Partition or queue of jobs on CPUs")
    cpus: int = Field(8, ge=1, le=9999, description="CPUs of a job")
    memory: Memory = Field("32G", description="Memory of a job")
    time: Time = Field("4h", description="Time limit of a job; before it, the job keeps its state and is queued again")
    gpus: int = Field(
        0, ge=0, le=64, description="GPUs of the job that reconstructs and segments; 0: one job on CPUs does everything"
    )
    gpu_partition: Line = Field("", description="Partition or queue of jobs on GPUs")
    gpu_cpus: int | None = Field(None, ge=1, le=9999, description="CPUs of a job on GPUs, if others")
    gpu_memory: Memory | None = Field(None, description="Memory of a job on GPUs, if another")
    gpu_time: Time | None = Field(None, description="Time limit of a job on GPUs, if another")
    tries: int = Field(5, ge=1, le=100, description="How often a job that reached its time limit runs, at most")
    mail: Line = Field("", description="Address to which the batch system writes when a job fails or all are done")
    at_once: int = Field(0, ge=0, le=10_000, description="Series that run at the same time, at most; 0: as many as can")
    setup: str = Field("", description="Lines of a script before tomoseg: modules to load, an environment to enter")
    options: Annotated[str, BeforeValidator(_as_lines), AfterValidator(_lines)] = Field(
        "",
        description="Further option of the batch system, such as --constraint=x; in a file, a list or one on each line",
        json_schema_extra={"repeated": "\n", "metavar": "OPTION"},
    )
    interface: Line = Field(
        "",
        description="Network interface by which jobs reach the machine that runs tomoseg, such as ib0; for --cluster",
    )
    jobs: int = Field(2, ge=1, le=9999, description="Jobs with workers that --cluster asks for")
    template: Path | None = Field(None, description="A copy of the script pipelines/submit.*, changed to your needs")

    def resources(self, *, on_gpu: bool) -> Resources:
        """Return what a job on CPUs or on GPUs asks for."""
        if not on_gpu:
            return Resources(self.cpus, self.memory, seconds(self.time), self.partition)
        cpus, memory, time = self.gpu_cpus or self.cpus, self.gpu_memory or self.memory, self.gpu_time or self.time
        return Resources(cpus, memory, seconds(time), self.gpu_partition)


def default_path() -> Path:
    """Return where the defaults of the site are looked for: ``tomoseg/site.yaml`` in the user's configuration."""
    folder = os.environ.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path.home() / ".config") / "tomoseg" / "site.yaml"


def is_site_file(path: Path) -> bool:
    """Tell whether a file holds the defaults of a site, by its section."""
    try:
        content = plain_yaml.read(path, "site file", LARGEST_FILE)
    except InputError:
        return False
    return isinstance(content, dict) and SECTION in content


def site_of(path: Path | None, given: Mapping[str, Any]) -> Site:
    """Return what jobs ask for: what is given, before what a file says, by default that of the user if there is one.

    Raises `InputError`: the file cannot be read, or a value is wrong.
    """
    values: dict[str, Any] = {}
    if path is not None or default_path().is_file():
        path = path or default_path()
        content = plain_yaml.read(path, "site file", LARGEST_FILE)
        section = content.get(SECTION) if isinstance(content, dict) else None
        if not isinstance(section, dict) or len(content) > 1:
            raise InputError(f"{path} must hold one section `{SECTION}:` of indented lines such as `account: abc`.")
        values = {str(name): value for name, value in section.items()}
        try:
            Site.of(SECTION, values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        template = values.get("template")
        if isinstance(template, str):
            values["template"] = path.parent.absolute() / Path(template).expanduser()
    return Site.of(SECTION, values | dict(given))
