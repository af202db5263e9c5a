"""What commands print: lines for people and logs, JSON for programs."""

import json
import math
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tomoseg import plain_json, schema
from tomoseg.doctor import Finding
from tomoseg.io.series import size_of
from tomoseg.project import Project, Record, StageState
from tomoseg.words import bytes_as_text, count

if TYPE_CHECKING:
    from tomoseg.io.contents import Contents


def run_summary_lines(project: Project, done: list[StageState]) -> list[str]:
    """Return the outcome of a run: the project file, one line per stage, and where the exported files are."""
    lines = [f"project  {project.path}"]
    for state in done:
        if state.record is not None:
            seconds, mebibytes = state.record.wall_seconds, state.record.peak_memory_bytes / 2**20
            lines.append(f"  {state.name:<12} {seconds:8.1f} s {mebibytes:8.0f} MiB")
            lines += [f"    warning: {text}" for text in state.record.warnings]
    if any(state.name == "export" for state in done) and project.has(schema.EXPORT_INFO):
        info = project.artifact(schema.EXPORT_INFO).attrs
        files = plain_json.load(info["files"])  # each was named as it was written
        size = bytes_as_text(sum(file["bytes"] for file in files))
        lines.append(f"exported {info['directory']}: {count(len(files), 'file')}, {size}")
    return lines


def contents_lines(found: "Contents") -> list[str]:
    """Return what a raw file holds, and what an import would use of it, for people."""
    raw, plan = found.raw, found.plan
    n, height, width = raw.shape
    lines = [str(raw.path), f"  {raw.format}: {n} image{'s' if n != 1 else ''} of {width} x {height} px, {raw.dtype}"]
    if len(raw.signals) > 1:
        lines.append("  signals")
        for i, signal in enumerate(raw.signals):
            used = "  (used)" if i == raw.signal else ""
            lines.append(f"    {i + 1}  {signal.name}  {size_of(signal)}  {signal.dtype}{used}")
    known = not math.isnan(plan.pixel_size_nm)
    size = f"{plan.pixel_size_nm:.6g} nm, from {plan.pixel_size_source}" if known else "unknown"
    lines.append(f"  pixel size   {size}")
    sources = found.angle_sources()
    for i, (name, words, is_used) in enumerate(sources):
        lines.append(f"  {'' if i else 'tilt angles':<12} {name}: {words}{'  (used)' if is_used else ''}")
    lines += [] if sources else ["  tilt angles  unknown"]
    lines.append(f"  tilt axis    {'unknown' if plan.tilt_axis == 'unknown' else f'along {plan.tilt_axis}'}")
    if len(plan.images) not in (0, n):
        lines.append(f"  imported     {len(plan.images)} of {n} images")
    lines += [f"  {line}" for line in raw.table]
    lines += [f"  note: {text}" for text in plan.notes]
    lines += [f"  warning: {text}" for text in plan.warnings]
    return lines + [f"  problem: {text}" for text in found.problems]


def status_lines(project: Project, states: list[StageState], verbose: bool) -> list[str]:
    """Return the state of each stage with its reasons, for people."""
    lines = [str(project.path)]
    for state in states:
        why = "; ".join(state.reasons)
        when = "" if state.record is None else state.record.started[:16].replace("T", " ")
        lines.append(f"  {state.name:<12} {state.state:<8} {when:<17} {why}".rstrip())
        if state.record is not None:
            lines += _details(state.record) if verbose else [f"      warning: {text}" for text in state.record.warnings]
    return [*lines, *_next_step(project, states)]


def _next_step(project: Project, states: list[StageState]) -> list[str]:
    """Say how to go on: with the first stage that is not fresh, or with what there is to look at."""
    path = shlex.quote(str(project.path))
    if any(state.state != "fresh" for state in states):
        return [f"next: tomoseg run {path}"]
    return [f"next: tomoseg report {path} -o report.html, or tomoseg view {path}"]


def _details(record: Record) -> list[str]:
    details = {
        "run": f"{record.run_id} on {record.host} ({record.device}), {record.started}",
        "continues": record.continues,
        "job": record.job_id,
        "duration": f"{record.wall_seconds:.1f} s, peak memory {record.peak_memory_bytes / 2**20:.0f} MiB",
        "parameters": ", ".join(f"{k}={v}" for k, v in record.parameters.items()),
        "inputs": ", ".join(f"{k} {v[:8]}" for k, v in record.consumed.items()),
        "files": ", ".join(f["path"] for f in record.files.values()),
        "versions": ", ".join(f"{k} {v}" for k, v in record.versions.items()),
    }
    lines = [f"      {key}: {value}" for key, value in details.items() if value]
    return lines + [f"      {note}" for note in record.notes] + [f"      warning: {w}" for w in record.warnings]


def status_json(project: Project, states: list[StageState]) -> str:
    """Return the state of each stage with its reasons, for programs."""

    def stage(state: StageState) -> dict[str, Any]:
        record = asdict(state.record) if state.record is not None else None
        return {"name": state.name, "state": state.state, "reasons": state.reasons, "run": record}

    content = {
        "project": str(project.path.absolute()),
        "schema": schema.SCHEMA_VERSION,
        "fresh": all(s.state == "fresh" for s in states),
        "stages": [stage(s) for s in states],
    }
    return json.dumps(content, indent=2)


def history_lines(runs: list[Record]) -> list[str]:
    """Return one line per run, with the parameters that changed since the previous run of the stage."""
    lines = []
    before: dict[str, dict[str, Any]] = {}
    for run in runs:
        known = before.get(run.stage)
        changes = [f"{k} {known[k]} -> {v}" for k, v in run.parameters.items() if known and known.get(k, v) != v]
        before[run.stage] = run.parameters
        job = f" job {run.job_id}" if run.job_id else ""
        continued = f", continued {run.continues[:8]}" if run.continues else ""
        lines.append(
            f"{run.started[:19]}  {run.run_id[:8]}  {run.stage:<12} {run.wall_seconds:8.1f} s  {run.host}{job}  "
            f"{run.outcome}{continued}{'  ' if changes else ''}{', '.join(changes)}"
        )
    return lines


def history_json(runs: list[Record]) -> str:
    """Return the provenance of all runs, for programs."""
    return json.dumps([asdict(run) for run in runs], indent=2)


def doctor_lines(found: list[Finding]) -> list[str]:
    """Return one line per finding."""
    return [f"{finding.verdict:<8} {finding.what:<24} {finding.detail}" for finding in found]
