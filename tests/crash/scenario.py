"""A small experiment: commands one after the other on one project, and what is to be compared of their results.

All the ways in which the project file is written are walked through: a new file, arrays in reserved space, checkpoints,
results replaced and their space used again, a stage alone while somebody looks, so that its commits are put off.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import h5py
import numpy as np

from tomoseg import config, engine, schema
from tomoseg.io.mrc import write_angles, write_mrc
from tomoseg.project import Project, layout, opened, transaction
from tomoseg.runtime import Progress, Runtime
from tomoseg.simulate import simulate_series

NAME = "p.h5"
MEMORY = 1_200_000  # bytes: slabs of few planes


@dataclass(frozen=True)
class Command:
    """`tomoseg run` with some parameters, or one stage `only`; undisturbed, somebody may look all the time."""

    title: str
    parameters: Mapping[str, Mapping[str, Any]]
    only: str = ""
    is_looked_at: bool = False


_QUICK = {"align": {"method": "none"}, "export": {"formats": ("vti", "csv")}}
_FIRST = {**_QUICK, "reconstruct": {"iterations": 2, "backend": "cpu"}}
_CHANGED = {**_FIRST, "reconstruct": {"iterations": 3, "backend": "cpu"}, "segment": {"smooth": 0.4}}
_ALONE = {**_CHANGED, "reconstruct": {"iterations": 1, "backend": "cpu"}}
COMMANDS = (
    Command("a first run from raw to export", _FIRST),
    Command("a second run with other parameters", _CHANGED),
    Command("one stage alone", _ALONE, only="reconstruct", is_looked_at=True),
    Command("a run of what that made stale", _ALONE),
)


def write_series(folder: Path) -> Path:
    """Write a raw series of 11 images of 64 x 32 pixels; return its path."""
    series = simulate_series(32, 4, max_tilt_deg=60, tilt_step_deg=12, jitter_px=0.5, drift_px=1)
    raw = folder / "raw.mrc"
    write_mrc(raw, np.tile(series.raw, (1, 2, 1)), 0.5, kind="stack", label="crash tests")
    write_angles(raw.with_suffix(".rawtlt"), series.angles_deg)
    return raw


@contextmanager
def small_steps() -> Iterator[None]:
    """Have a checkpoint after every slab, and treat small arrays as large ones; look without a process of its own."""
    limits: list[tuple[Any, str, Any]] = [
        (transaction, "CHECKPOINT_SECONDS", 0.0),
        (transaction, "CHECKPOINT_SHARE", 1e9),
        (transaction, "PENDING_BYTES", 1 << 16),
        (layout, "BULK_BYTES", 1 << 14),
        (opened, "survives", lambda _read: True),
        (opened, "FINISH_SECONDS", 0.0),
    ]
    with _patched(limits):
        yield


@contextmanager
def no_chance() -> Iterator[None]:
    """Take clocks and random ids away, so that the same operations are recorded every time."""
    ids = (f"{number:032x}" for number in count())
    facts: list[tuple[Any, str, Any]] = [
        (engine, "new_run_id", lambda: next(ids)),
        (engine, "now", lambda: "2026-01-01T00:00:00+00:00"),
        (engine, "Stopwatch", lambda: SimpleNamespace(seconds=1.0)),
        (engine, "PeakMemory", lambda: SimpleNamespace(bytes=1 << 28)),
    ]
    with _patched(facts):
        yield


@contextmanager
def _patched(values: list[tuple[Any, str, Any]]) -> Iterator[None]:
    with ExitStack() as stack:
        for module, name, value in values:
            stack.enter_context(mock.patch.object(module, name, value))
        yield


def issue(command: Command, project: Path, raw: Path, progress: Progress | None = None) -> None:
    """Do what the command line does with a command."""
    runtime = Runtime(device="cpu", workers=1, max_memory=MEMORY, progress=progress or Progress())
    layers = [command.parameters, {"import": {"raw": str(raw)}}]
    with Project.write(project) if project.exists() else Project.create(project) as opened:
        settings = config.resolve(opened.settings, *layers)
        if command.only:
            engine.run_one(opened, command.only, settings, runtime)
        else:
            engine.run(opened, settings, runtime)


def not_fresh(project: Path) -> list[str]:
    """Return the stages that are not fresh, with the settings that the project holds."""
    with Project.read(project) as opened:
        found = engine.states(opened, config.resolve(opened.settings))
    return [f"{state.name} is {state.state}: {'; '.join(state.reasons)}" for state in found if state.state != "fresh"]


# --- what is compared


def contents(project: h5py.File) -> dict[str, str]:
    """Return a digest of every group and array, by path: attributes and data, but no data of unfinished stages."""
    digests = {"/": _digest(project)}
    project.visititems(lambda name, node: digests.update({f"/{name}": _digest(node, f"/{name}")}))
    return {path: digest for path, digest in digests.items() if path.count("/") < 3 or not _is_staged(path)}


def _is_staged(path: str) -> bool:
    return path.startswith(f"{schema.STAGING}/")


def _digest(node: Any, path: str = "/") -> str:
    content = hashlib.sha256(repr(sorted((key, _plain(value)) for key, value in node.attrs.items())).encode())
    if isinstance(node, h5py.Dataset):
        data = np.asarray(node[()])
        if not _is_staged(path):
            content.update(repr((data.dtype, data.shape)).encode() + data.tobytes())
    return content.hexdigest()


def _plain(value: Any) -> Any:
    return (value.dtype.str, value.shape, value.tolist()) if isinstance(value, np.ndarray | np.generic) else value


def results(project: Project) -> dict[str, str]:
    """Return a digest of what was computed, by artifact, and of how; the same for two runs that did the same.

    Times, run ids and folders are left out.
    """
    digests = {}
    for artifact in schema.ARTIFACTS:
        if project.has(artifact):
            digests[artifact.name] = _digest(project.file[artifact.path])
    if project.has(schema.EXPORT_INFO):
        files = json.loads(project.artifact(schema.EXPORT_INFO).attrs["files"])
        digests[schema.EXPORT_INFO.name] = repr(sorted((file["name"], file["bytes"]) for file in files))
    for name in config.BY_NAME:
        record = project.record(name)
        if record is not None:
            digests[f"how {name} was made"] = record.fingerprint
    return digests


def exported(project: Path) -> dict[str, str]:
    """Return a digest of every exported file but the list of them, which holds times."""
    folder = project.with_name(f"{project.stem}_export")
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.suffix != ".json"}
