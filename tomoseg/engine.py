"""Order and freshness of the stages (fresh, stale, partial, missing, and why), and running them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tomoseg import config
from tomoseg.config import Settings
from tomoseg.errors import InputError, NotReady, StageFailed
from tomoseg.io.digest import sha256
from tomoseg.parameters import Parameters
from tomoseg.project import PeakMemory, Project, Record, StageState, job_id, new_run_id, now, versions
from tomoseg.project.other_project import alignment_digest, read_alignments
from tomoseg.runtime import Runtime, Stopwatch, return_freed_memory
from tomoseg.stages import BY_NAME, STAGES
from tomoseg.stages.base import Stage

NOT_RUN = "not run yet"
CACHE_SHARE = 16  # a stage reads each array through a cache of this part of the memory allowed at most


# --- what is fresh ---


def states(project: Project, settings: Settings) -> list[StageState]:
    """Return the state of every stage in order, if the project were to have `settings`.

    A result is fresh when it is complete, its fingerprint is unchanged, and every input it consumed is itself fresh
    and still has the run id that was consumed.
    """
    found: dict[str, StageState] = {}
    for stage in STAGES:
        state = _state(project, stage, settings[stage.name], found)
        if state.state != "fresh" and _can_continue(project, stage, settings[stage.name]):
            how = "interrupted; the next run continues it"
            state = replace(state, state="partial", reasons=[how, *(state.reasons if state.record else [])])
        found[stage.name] = state
    return list(found.values())


def _can_continue(project: Project, stage: Stage, parameters: Parameters) -> bool:
    """Return whether a run with these parameters would continue what an interrupted one left."""
    partial = project.partial(stage.name)
    begun = project.past_record(partial.run_id) if partial else None
    if partial is None or begun is None:
        return False
    facts = file_facts(parameters, begun)
    return partial.key == _begin(project, stage, parameters, facts).key


def _state(project: Project, stage: Stage, parameters: Parameters, earlier: dict[str, StageState]) -> StageState:
    record = project.record(stage.name)
    if record is None:
        return StageState(stage.name, "missing", [NOT_RUN])
    reasons = _own_reasons(stage, parameters, record)
    for name, run_id in record.consumed.items():
        current = earlier[name].record if name in earlier else None
        if current is None:
            reasons.append(f"{name} is missing")
        elif current.run_id != run_id:
            reasons.append(f"{name} was run again{_what_changed(project, run_id, current)}")
        elif earlier[name].state != "fresh":
            reasons.append(f"{name} is {earlier[name].state}")
    if not reasons:
        for artifact in stage.writes:
            if artifact.is_group and project.has(artifact):
                reasons += _lost(stage, project.artifact(artifact).attrs)
    return StageState(stage.name, "stale" if reasons else "fresh", reasons, record)


def _lost(stage: Stage, attrs: Mapping[str, Any]) -> list[str]:
    try:
        return stage.lost(dict(attrs))
    except (KeyError, TypeError, ValueError, OSError):  # something else wrote them
        return ["its record of the exported files cannot be read"]


def _own_reasons(stage: Stage, parameters: Parameters, record: Record) -> list[str]:
    facts = file_facts(parameters, record) | _gone_companions(parameters, record)
    if record.fingerprint == fingerprint(stage, parameters, facts):
        return []
    wanted = config.plain(parameters)
    reasons = [] if record.stage_version == stage.version else [f"tomoseg's {stage.name} has changed since then"]
    for name in sorted(facts.keys() | record.files.keys()):
        new, old = facts.get(name), record.files.get(name)
        if new is None or old is None:
            reasons.append(f"{name} {_show(old and old['path'])} -> {_show(new and new['path'])}")
        elif new["sha256"] != old["sha256"]:
            same_path = new["path"] == old["path"]
            reasons.append(f"{name} file {new['path']} has changed" if same_path else f"{name} -> {new['path']}")
    skip = set(parameters.input_file_fields())
    return reasons + _differences(record.parameters, wanted, skip)


def _differences(old: dict[str, Any], new: dict[str, Any], skip: set[str]) -> list[str]:
    keys = [k for k in {**new, **old} if k not in skip and old.get(k) != new.get(k)]
    return [f"{key} {_show(old.get(key))} -> {_show(new.get(key))}" for key in keys]


def _show(value: Any) -> str:
    return "none" if value is None else str(value)


def _what_changed(project: Project, consumed_run: str, current: Record) -> str:
    past = project.past_record(consumed_run)
    changes = _differences(past.parameters, current.parameters, set()) if past else []
    return f" ({', '.join(changes)})" if changes else ""


def fingerprint(stage: Stage, parameters: Parameters, facts: dict[str, dict[str, Any]]) -> str:
    """Hash what decides a stage's result: name, version, scientific parameters, digests of the files it uses."""
    values = config.plain(parameters)
    for name in {*parameters.input_file_fields(), *facts}:
        values[name] = facts[name]["sha256"] if name in facts else None
    content = json.dumps([stage.name, stage.version, values], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def file_facts(parameters: Parameters, record: Record | None = None) -> dict[str, dict[str, Any]]:
    """Return path, sha256, size and mtime_ns of each input file; digests known from `record` are not computed again.

    A file that is no longer at the path it was read from keeps its recorded facts: the project holds what was in it.
    """
    facts = {}
    other_projects = parameters.other_project_fields()
    for name, given in {**parameters.input_files(), **parameters.companions()}.items():
        path = given.expanduser().absolute()
        known = record.files.get(name, {}) if record else {}
        same_path = known.get("path") == str(path)
        if not path.is_file():
            facts[name] = known if same_path else {"path": str(path), "sha256": "", "size": 0, "mtime_ns": 0}
            continue
        stat = path.stat()
        unchanged = (known.get("size"), known.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns)
        digest_of = alignment_digest if name in other_projects else sha256
        digest = known["sha256"] if unchanged and same_path else digest_of(path)
        facts[name] = {"path": str(path), "sha256": digest, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    return facts


def _gone_companions(parameters: Parameters, record: Record) -> dict[str, dict[str, Any]]:
    """Return the recorded facts of companion files that are gone: the project holds what was in them."""
    named = parameters.input_file_fields()
    return {name: f for name, f in record.files.items() if name not in named and not Path(f["path"]).exists()}


# --- running ---


def run(
    project: Project,
    settings: Settings,
    runtime: Runtime,
    *,
    first: str | None = None,
    last: str | None = None,
    force: bool = False,
) -> list[StageState]:
    """Run the stages from `first` to `last` that are stale or missing; with `force` also those that are fresh.

    Returns the state of each of these stages; its `reasons` say why it was run.

    Raises `InputError` before anything is computed where the settings cannot work, and `NotReady` where a stage
    before `first` is not fresh.
    """
    names = list(BY_NAME)
    chosen = _between(first or names[0], last or names[-1])
    before = {state.name: state for state in states(project, settings)}
    for name in names[: names.index(chosen[0])]:
        _refuse_unless_fresh(project, before[name])
    pending = [name for name in chosen if force or before[name].state != "fresh"]
    # Everything after a stage that runs again runs too: its inputs get a new run id.
    if pending:
        pending = chosen[chosen.index(pending[0]) :]
    config.check_stages(settings, pending)
    for name in pending:
        read_alignments(settings[name], project.path)
    project.store_settings(config.as_raw(settings))
    done = []
    for name in chosen:
        if name in pending:
            record = run_stage(project, BY_NAME[name], settings, runtime, before[name].reasons, restart=force)
            done.append(StageState(name, "fresh", before[name].reasons, record))
        else:
            runtime.progress.message(f"{name}: up to date")
            done.append(before[name])
    return done


def _between(first: str, last: str) -> list[str]:
    """Return the names of the stages from the first to the last one."""
    names = list(BY_NAME)
    for name in (first, last):
        if name not in names:
            raise InputError(f"There is no stage '{name}'; the stages are {', '.join(names)}.")
    chosen = names[names.index(first) : names.index(last) + 1]
    if not chosen:
        raise InputError(f"--from {first} comes after --until {last}; the stages in order are {', '.join(names)}.")
    return chosen


def run_one(
    project: Project, name: str, settings: Settings, runtime: Runtime, *, allow_stale: bool = False
) -> StageState:
    """Run a single stage on what the project holds. Raises `NotReady` where an input is missing, or stale."""
    current = {state.name: state for state in states(project, settings)}
    for needed in _stages_read(BY_NAME[name]):
        if current[needed].record is None or not allow_stale:
            _refuse_unless_fresh(project, current[needed])
    config.check_stages(settings, [name])
    read_alignments(settings[name], project.path)
    project.store_settings(config.as_raw(settings))
    record = run_stage(project, BY_NAME[name], settings, runtime)
    return StageState(name, "fresh", [], record)


def refuse_other_series(project: Project, settings: Settings) -> None:
    """Raise `InputError` if the raw data asked for are not those that the project holds."""
    for stage in STAGES:
        record = project.record(stage.name) if stage.source else None
        if record is None:
            continue
        wanted = file_facts(settings[stage.name], record).get(stage.source, {})
        held = record.files.get(stage.source, {})
        if wanted.get("sha256") != held.get("sha256"):
            raise InputError(
                f"{project.path} holds another tilt series, {held.get('path')}. Choose another -o for "
                f"{wanted.get('path')}, or add --force to replace what the project holds."
            )


def _refuse_unless_fresh(project: Project, state: StageState) -> None:
    if state.state == "fresh":
        return
    hint = "" if state.record is None else ", or add --allow-stale to use it all the same"
    raise NotReady(
        f"The result of {state.name} in {project.path} is {state.state} ({'; '.join(state.reasons)}). "
        f"Run `tomoseg run {project.path} --until {state.name}` first{hint}."
    )


def _stages_read(stage: Stage) -> list[str]:
    """Return the stages whose results `stage` reads, in order."""
    return [s.name for s in STAGES if any(artifact in stage.reads for artifact in s.writes)]


def run_stage(
    project: Project,
    stage: Stage,
    settings: Settings,
    runtime: Runtime,
    why: list[str] | None = None,
    *,
    restart: bool = False,
) -> Record:
    """Run one stage and replace its result; if it fails, the old result stands.

    An interrupted run of the same stage with the same parameters and inputs is continued, unless `restart`.
    """
    parameters = settings[stage.name]
    others = read_alignments(parameters, project.path)
    return_freed_memory()
    watch, memory = Stopwatch(), PeakMemory()
    changed = [reason for reason in why or () if reason != NOT_RUN]
    runtime.begin(f"{stage.name}: starting" + (f" ({'; '.join(changed)})" if changed else ""))
    runtime.check()
    begun = _begin(project, stage, parameters, file_facts(parameters, project.record(stage.name)))
    with project.transaction(begun, restart=restart) as outputs:
        cache_bytes = runtime.max_memory // CACHE_SHARE
        there = (artifact for artifact in stage.reads if not artifact.optional or project.has(artifact))
        inputs = {artifact.name: project.artifact(artifact, cache_bytes) for artifact in there}
        if outputs.resumed is not None:
            runtime.progress.message(f"{stage.name}: continuing an interrupted run")
        try:
            filled = stage.beside(parameters, project.path.absolute())
            stage.run(**inputs, **others, params=filled, runtime=runtime, outputs=outputs)
        except MemoryError as error:
            raise StageFailed(
                f"{stage.name} ran out of memory. Lower --max-memory (now {runtime.max_memory / 2**30:.1f} GiB), or "
                "reconstruct a smaller volume."
            ) from error
        except BaseException:
            runtime.progress.finish()  # now, and not when the task that was left is collected as garbage
            raise
        record = replace(
            begun,
            wall_seconds=round(watch.seconds, 3),
            peak_memory_bytes=memory.bytes,
            device=runtime.device_used,
            notes=list(runtime.notes),
            warnings=list(runtime.warnings),
        )
        outputs.commit(record)
    runtime.progress.message(
        f"{stage.name}: done in {record.wall_seconds:.1f} s, peak memory {record.peak_memory_bytes / 2**20:.0f} MiB"
    )
    return record


def _begin(project: Project, stage: Stage, parameters: Parameters, facts: dict[str, dict[str, Any]]) -> Record:
    """Return the provenance record of a run that begins now."""
    consumed = {name: project.record(name) for name in _stages_read(stage)}
    return Record(
        stage=stage.name,
        run_id=new_run_id(),
        fingerprint=fingerprint(stage, parameters, facts),
        stage_version=stage.version,
        parameters=config.plain(parameters),
        files=facts,
        consumed={name: r.run_id for name, r in consumed.items() if r is not None},
        started=now(),
        job_id=job_id(),
        versions=versions(),
    )
