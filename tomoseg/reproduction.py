"""How to make the present results of a project again: as a command, and as a pipeline file."""

import json
import shlex

from tomoseg import config
from tomoseg.project import Project, Record
from tomoseg.stages import BY_NAME, STAGES

# Parameters that say where files are, or permit something, not what is computed; and those of `import` that `run` has
# options for.
LOCATIONS = {"raw", "export_dir"} | {name for stage in STAGES for name in stage.parameters.this_run_fields()}
RUN_OPTIONS = {"angles": "--angles", "pixel_size": "--pixel-size", "tilt_axis": "--tilt-axis"}


def command(project: Project) -> str:
    """Return the `tomoseg run` command that reproduces the results, with all parameters that are not at their default.

    It is '' if the project holds no results.
    """
    records = _records(project)
    if not records or records[0].stage != STAGES[0].name:
        return ""
    raw = str(records[0].parameters.get("raw") or "RAW")
    words = [["tomoseg", "run", raw], ["-o", f"{project.path.stem}_again.h5"]]
    for record in records:
        defaults = BY_NAME[record.stage].parameters().model_dump(mode="json")
        for name, value in record.parameters.items():
            if name in LOCATIONS or name not in defaults or value == defaults[name]:
                continue
            flag = RUN_OPTIONS.get(name) if record.stage == STAGES[0].name else None
            setting = value if isinstance(value, str) else json.dumps(value)
            words.append([flag, str(value)] if flag else ["--set", f"{record.stage}.{name}={setting}"])
    if len(records) < len(STAGES):
        words.append(["--until", records[-1].stage])
    return " \\\n    ".join(shlex.join(part) for part in words)


def pipeline_text(project: Project, *, ascii_only: bool = False) -> str:
    """Return the text of the pipeline file that reproduces the results; '' if the project holds none."""
    records = _records(project)
    if not records:
        return ""
    raw = next((r.files["raw"] for r in records if "raw" in r.files), {"path": "unknown", "sha256": "unknown"})
    versions = sorted({", ".join(f"{name} {v}" for name, v in r.versions.items()) for r in records})
    head = [
        f"Reproduces the results of {project.path.name}: tomoseg run RAW --pipeline THIS_FILE -o PROJECT.h5",
        f"RAW was {raw['path']}",
        f"sha256 {raw['sha256']}",
        "With the same machine, device and versions, the results are identical to the last bit. The versions were",
        *(f"  {v}" for v in versions),
    ]
    parameters = {r.stage: {k: v for k, v in r.parameters.items() if k not in LOCATIONS} for r in records}
    digests = {r.stage: {k: str(f["sha256"]) for k, f in r.files.items()} for r in records}
    return config.pipeline_text(parameters, digests, head, ascii_only=ascii_only)


def _records(project: Project) -> list[Record]:
    """Return the provenance of the present results, in the order of the stages."""
    return [record for stage in STAGES if (record := project.record(stage.name)) is not None]
