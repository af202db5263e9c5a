"""What commands print: plain text that a person or a log can read."""

import json
from typing import Any

from tomoseg import schema
from tomoseg.engine import StageState
from tomoseg.project import Project


def run_summary(project: Project, done: list[StageState]) -> str:
    """Return the result of a run: one line per stage, the project file, and the exported files."""
    lines = [f"project  {project.path}"]
    for state in done:
        if state.record is not None:
            seconds, mebibytes = state.record.wall_seconds, state.record.peak_memory_bytes / 2**20
            lines.append(f"  {state.name:<12} {seconds:8.1f} s {mebibytes:8.0f} MiB")
            lines += [f"    warning: {text}" for text in state.record.warnings]
    if any(state.name == "export" for state in done) and project.has(schema.EXPORT_INFO):
        info = project.artifact(schema.EXPORT_INFO).attrs
        lines += [f"file     {info['directory']}/{file['name']}" for file in json.loads(info["files"])]
    return "\n".join(lines)


def status_text(project: Project, states: list[StageState], verbose: bool) -> str:
    """Return where each stage stands and why, for people."""
    lines = [str(project.path)]
    for state in states:
        why = f"  {'; '.join(state.reasons)}" if state.reasons else ""
        lines.append(f"  {state.name:<12} {state.state:<8}{why}")
        if verbose and state.record is not None:
            lines += _details(state)
    return "\n".join(lines)


def _details(state: StageState) -> list[str]:
    record = state.record
    if record is None:
        return []
    details = {
        "run": f"{record.run_id} on {record.host} ({record.device}), {record.started}",
        "took": f"{record.wall_seconds:.1f} s, peak memory {record.peak_memory_bytes / 2**20:.0f} MiB",
        "parameters": ", ".join(f"{k}={v}" for k, v in record.parameters.items()),
        "consumed": ", ".join(f"{k} {v[:8]}" for k, v in record.consumed.items()),
        "files": ", ".join(f["path"] for f in record.files.values()),
        "versions": ", ".join(f"{k} {v}" for k, v in record.versions.items()),
    }
    lines = [f"      {key}: {value}" for key, value in details.items() if value]
    return lines + [f"      {note}" for note in record.notes] + [f"      warning: {w}" for w in record.warnings]


def status_json(project: Project, states: list[StageState]) -> str:
    """Return where each stage stands and why, for programs."""
    from dataclasses import asdict

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
