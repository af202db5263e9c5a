"""Provenance: what made a result, enough to tell whether it is still valid and to make it again."""

import hashlib
import json
import os
import platform
import socket
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_origin
from uuid import uuid4

from tomoseg import __version__
from tomoseg.errors import InputError

PACKAGES = ("numpy", "scipy", "h5py", "numba", "scikit-image", "astra-toolbox", "tomopy", "tensorflow", "keras", "vtk")
JOB_ID_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")


@dataclass(frozen=True)
class Record:
    """Provenance of one run of one stage.

    `files` holds, for each parameter that names an input file, its path, sha256, size and mtime_ns at the run;
    `consumed` the run id of each stage whose result was read. `outcome` is running, done, interrupted, failed: why, or
    lost: how; `continues` the run id of the interrupted run that this one took up. `sequence` counts the runs of a
    project in the order they began, whatever the clock said; it is 0 in projects of earlier versions.
    """

    stage: str
    run_id: str
    fingerprint: str
    stage_version: int
    parameters: dict[str, Any]
    files: dict[str, dict[str, Any]]
    consumed: dict[str, str]
    started: str
    wall_seconds: float = 0.0
    peak_memory_bytes: int = 0
    device: str = ""
    host: str = field(default_factory=socket.gethostname)
    job_id: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    outcome: str = "running"
    continues: str = ""
    sequence: int = 0

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Record":
        """Return what `dataclasses.asdict` gave.

        Raises `InputError` if a value is missing or of another type: another program wrote it.
        """
        for known in fields(cls):
            kind = get_origin(known.type) or known.type
            kinds = (float, int) if kind is float else kind
            if known.name in content and not isinstance(content[known.name], kinds):  # type: ignore[arg-type]
                raise InputError(f"The provenance of a run in the project file is damaged: {known.name}.")
        try:
            record = cls(**content)
            if not all(isinstance(f, dict) and _are_texts(f, "path", "sha256") for f in record.files.values()):
                raise TypeError("files")
            return record
        except TypeError as error:
            raise InputError(f"The provenance of a run in the project file is damaged: {error}.") from error

    @property
    def key(self) -> str:
        """What must be equal for a partial result to be continued: parameters, inputs and the version of tomoseg."""
        content = json.dumps([self.fingerprint, self.consumed, self.versions.get("tomoseg")], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def _are_texts(content: dict[str, Any], *names: str) -> bool:
    return all(isinstance(content.get(name), str) for name in names)


State = Literal["fresh", "stale", "partial", "missing"]


@dataclass(frozen=True)
class StageState:
    """Where a stage stands: its state, why it is not fresh, and how its present result was made.

    A partial stage was interrupted, and a run with the same settings continues it; an older result may still stand.
    """

    name: str
    state: State
    reasons: list[str] = field(default_factory=list)
    record: Record | None = None


def new_run_id() -> str:
    """Return an id that no other run has."""
    return uuid4().hex


def now() -> str:
    """Return the present time, UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def versions() -> dict[str, str]:
    """Return the versions of everything that can change a number."""
    found = {"tomoseg": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def job_id() -> str:
    """Return the batch system's id of this job, '' outside one."""
    return next((os.environ[v] for v in JOB_ID_VARIABLES if v in os.environ), "")


class PeakMemory:
    """Peak resident memory of this process since creation, in bytes."""

    def __init__(self) -> None:
        try:  # proc(5): writing 5 resets the high-water mark
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return  # then only the mark since the process began is known

    @property
    def bytes(self) -> int:
        """The high-water mark."""
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
        except (OSError, StopIteration):
            import resource

            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
