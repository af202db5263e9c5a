"""Order and freshness of the stages (fresh, stale, partial, missing, and why), and running them."""

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tomoseg import config
from tomoseg.config import Settings
from tomoseg.errors import InputError, NotReady, StageFailed, TomosegError, is_text, named
from tomoseg.io.input_files import extent_of, sha256
from tomoseg.io.regular import status_of
from tomoseg.parameters import Parameters
from tomoseg.project import PeakMemory, Project, Record, StageState, job_id, new_run_id, now, versions
from tomoseg.project.other_project import alignment_digest, read_alignments
from tomoseg.project.touched import remember_files
from tomoseg.runtime import Runtime, Stopwatch, return_freed_memory
from tomoseg.stages import BY_NAME, STAGES
from tomoseg.stages.base import Stage

NOT_RUN = "not run yet"
CACHE_SHARE = 16  # a stage reads each array through a cache of this part of the memory allowed at most


# --- what is fresh ---


def states(project: Project, settings: Settings, *, compare: bool = False) -> list[StageState]:
    """Return the state of every stage in order, if the project were to have `settings`.

    A result is fresh when it is complete, its fingerprint is unchanged, and every input it consumed is itself fresh
    and still has the run id that was consumed. Files that the settings name are not opened: one that was touched since
    it was read makes a stage stale, unless `compare`, which is for a run, shows its content to be the same.
    """
    found: dict[str, StageState] = {}
    for stage in STAGES:
        state = _state(project, stage, settings[stage.name], found, compare=compare)
        if state.state != "fresh" and _can_continue(project, stage, settings[stage.name], compare=compare):
            how = "interrupted; the next run continues it"
            state = replace(state, state="partial", reasons=[how, *(state.reasons if state.record else [])])
        found[stage.name] = state
    return list(found.values())


def _can_continue(project: Project, stage: Stage, parameters: Parameters, *, compare: bool) -> bool:
    """Return whether a run with these parameters would continue what an interrupted one left."""
    partial = project.partial(stage.name)
    begun = project.past_record(partial.run_id) if partial else None
    if partial is None or begun is None:
        return False
    facts = file_facts(parameters, begun, compare=compare)
    return partial.key == _begin(project, stage, parameters, facts).key


def _state(
    project: Project, stage: Stage, parameters: Parameters, earlier: dict[str, StageState], *, compare: bool
) -> StageState:
    record = project.record(stage.name)
    if record is None:
        return StageState(stage.name, "missing", [NOT_RUN])
    reasons = _own_reasons(stage, _as_recorded(parameters, record), record, compare=compare)
    for name, run_id in record.consumed.items():
        current = earlier[name].record if name in earlier else None
        if current is None:
            reasons.append(f"{name} is missing")
        elif current.run_id != run_id:
            reasons.append(f"{name} was run again{_what_changed(project, run_id, current)}")
        elif earlier[name].state != "fresh":
            reasons.append(f"{name} is {earlier[name].state}")
    if not reasons:
        reasons += _lost(stage, _left(project, stage))
    return StageState(stage.name, "stale" if reasons else "fresh", reasons, record)


def _left(project: Project, stage: Stage) -> dict[str, Any]:
    """Return all attributes of the groups that a stage has written."""
    groups = [artifact for artifact in stage.writes if artifact.is_group and project.has(artifact)]
    return {key: value for group in groups for key, value in project.artifact(group).attrs.items()}


def _lost(stage: Stage, attrs: dict[str, Any]) -> list[str]:
    try:
        return stage.lost(attrs)
    except (KeyError, TypeError, ValueError, OSError, RecursionError):  # something else wrote them
        return ["its record of the exported files cannot be read"]


def _as_recorded(parameters: Parameters, record: Record) -> Parameters:
    """Return parameters with the record's values of those that hold for one run only, which make no result stale."""
    once = {name: record.parameters.get(name) for name in parameters.this_run_fields()}
    return parameters.model_copy(update={name: v for name, v in once.items() if isinstance(v, bool)})


def _own_reasons(stage: Stage, parameters: Parameters, record: Record, *, compare: bool) -> list[str]:
    facts = file_facts(parameters, record, compare=compare) | _gone_companions(parameters, record)
    wanted, default = config.plain(parameters), config.plain(type(parameters)())
    # Parameters that came later do what was done before, unless they are set.
    later = {name for name in wanted if name not in record.parameters and wanted[name] == default[name]}
    made_like_this = (fingerprint(stage, parameters, facts), fingerprint(stage, parameters, facts, without=later))
    if record.fingerprint in made_like_this:
        return []
    if _source_is_gone(stage, parameters):  # the project holds what was imported, which cannot be made anew
        as_then = replace(stage, version=record.stage_version)
        if record.fingerprint == fingerprint(as_then, parameters, facts, without=later):
            return []
    reasons = [] if record.stage_version == stage.version else [f"tomoseg's {stage.name} has changed since then"]
    for name in sorted(facts.keys() | record.files.keys()):
        new, old = facts.get(name), record.files.get(name)
        if new is None or old is None:
            reasons.append(f"{name} {_show(old and old['path'])} -> {_show(new and new['path'])}")
        elif new["sha256"] != old["sha256"]:
            is_project = name in parameters.other_project_fields()
            reasons.append(_file_reason(name, new, old, is_project=is_project))
    return reasons + _differences(record.parameters, wanted, later | set(parameters.input_file_fields()))


def _source_is_gone(stage: Stage, parameters: Parameters) -> bool:
    """Tell whether the raw data are no longer where they were."""
    path = getattr(parameters, stage.source, None) if stage.source else None
    return path is not None and extent_of(Path(path).expanduser()) is None


def _file_reason(name: str, new: dict[str, Any], old: dict[str, Any], *, is_project: bool) -> str:
    path = new["path"]
    if path != old["path"]:
        return f"{name} -> {path}"
    if new["sha256"]:
        return f"{name} file {path} has changed"
    if is_project or new["size"] == old.get("size"):
        what = "alignment" if is_project else "content"
        return f"{name} file {path} was touched since it was read; the next run compares its {what}"
    return f"{name} file {path} has another size than when it was read"


def _differences(old: dict[str, Any], new: dict[str, Any], skip: set[str]) -> list[str]:
    keys = [k for k in {**new, **old} if k not in skip and old.get(k) != new.get(k)]
    return [f"{key} {_show(old.get(key))} -> {_show(new.get(key))}" for key in keys]


def _show(value: Any) -> str:
    return "none" if value is None else str(value)


def _what_changed(project: Project, consumed_run: str, current: Record) -> str:
    past = project.past_record(consumed_run)
    changes = _differences(past.parameters, current.parameters, set()) if past else []
    return f" ({', '.join(changes)})" if changes else ""


def fingerprint(
    stage: Stage, parameters: Parameters, facts: dict[str, dict[str, Any]], without: Collection[str] = ()
) -> str:
    """Hash what decides a stage's result: name, version, scientific parameters, digests of the files it uses.

    Parameters named in `without` are left out.
    """
    values = {name: value for name, value in config.plain(parameters).items() if name not in without}
    for name in {*parameters.input_file_fields(), *facts} - set(without):
        values[name] = facts[name]["sha256"] if name in facts else None
    content = json.dumps([stage.name, stage.version, values], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def file_facts(parameters: Parameters, record: Record | None = None, *, compare: bool) -> dict[str, dict[str, Any]]:
    """Return path, sha256, size and mtime_ns of each input file; those known from `record` are not read again.

    A file that is no longer at the path it was read from, or may no longer be read, keeps its recorded facts: the
    project holds what was in it. Without `compare` no file is opened, and the sha256 of one that was touched is ''.
    """
    facts = {}
    for name, given in {**parameters.input_files(), **parameters.companions()}.items():
        path = given.expanduser().absolute()
        known = record.files.get(name, {}) if record else {}
        same_path = known.get("path") == str(path)
        status = extent_of(path)
        there = {"size": status.size, "mtime_ns": status.mtime_ns} if status else {"size": 0, "mtime_ns": 0}
        digest = ""
        if same_path and all(known.get(what) == value for what, value in there.items()):
            digest = known["sha256"]
        elif status and compare:
            try:
                digest = alignment_digest(path) if name in parameters.other_project_fields() else sha256(path)
            except OSError:
                status = None
        facts[name] = known if same_path and not status else {"path": str(path), "sha256": digest, **there}
    return facts


def _gone_companions(parameters: Parameters, record: Record) -> dict[str, dict[str, Any]]:
    """Return the recorded facts of companion files that are gone: the project holds what was in them."""
    named = parameters.input_file_fields()
    return {name: f for name, f in record.files.items() if name not in named and not status_of(Path(f["path"]))}


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
    _require_text_name(project)
    names = list(BY_NAME)
    chosen = stages_between(first or names[0], last or names[-1])
    before = {state.name: state for state in states(project, settings, compare=True)}
    for name in names[: names.index(chosen[0])]:
        _refuse_unless_fresh(project, before[name])
    pending = [name for name in chosen if force or before[name].state != "fresh"]
    # Everything after a stage that runs again runs too: its inputs get a new run id.
    if pending:
        pending = chosen[chosen.index(pending[0]) :]
    known = project.settings
    if pending:
        _prepare(project, settings, pending, before)
    done = []
    for name in chosen:
        if name in pending:
            with _settings_kept(project, BY_NAME[name], known, before, changed=pending[0] != name):
                record = run_stage(project, BY_NAME[name], settings, runtime, before[name].reasons, restart=force)
            done.append(StageState(name, "fresh", before[name].reasons, record))
        else:
            runtime.progress.message(f"{name}: up to date")
            done.append(before[name])
    return done


def _require_text_name(project: Project) -> None:
    """Raise `InputError` if the project's path is not text: exports are named after it, and list their paths."""
    path = project.path.absolute()
    if not is_text(path):
        raise InputError(f"The path of the project, {path}, is not text in UTF-8: rename the file or the folder.")


def stages_between(first: str, last: str) -> list[str]:
    """Return the names of the stages from the first to the last one. Raises `InputError` where there are none."""
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
    _require_text_name(project)
    current = {state.name: state for state in states(project, settings, compare=True)}
    for needed in _stages_read(BY_NAME[name]):
        if current[needed].record is None or not allow_stale:
            _refuse_unless_fresh(project, current[needed])
    known = project.settings
    _prepare(project, settings, [name], current)
    with _settings_kept(project, BY_NAME[name], known, current, changed=False):
        record = run_stage(project, BY_NAME[name], settings, runtime)
    return StageState(name, "fresh", [], record)


@contextmanager
def _settings_kept(
    project: Project, stage: Stage, known: dict[str, Any], before: dict[str, StageState], *, changed: bool
) -> Iterator[None]:
    """Have a stage that fails leave the settings as they were, unless the run `changed` a result before.

    Good results would otherwise be stale for parameters that nothing was made with. Where there is no result yet, and
    after an interruption, the settings stay: the next run goes on with them. What a stage refuses, it is never to have.
    """
    try:
        yield
    except (InputError, StageFailed) as error:
        if project.is_new:  # and never comes to be
            raise
        if not changed and any(state.record is not None for state in before.values()):
            project.store_settings(known)
            project.settle()
        elif isinstance(error, InputError):
            result = project.record(stage.name)
            project.store_settings({**project.settings, stage.name: result.parameters if result else {}})
            project.settle()
        raise


def _prepare(project: Project, settings: Settings, names: list[str], found: dict[str, StageState]) -> None:
    """Raise `InputError` where the stages named cannot run, before anything is computed; note what the run is to have.

    `found` are the states of all stages, with files compared: the times of those whose content is the same are noted.
    """
    if project.path.exists() and not os.access(project.path, os.W_OK):
        raise InputError(f"{project.path} may only be read: ask its owner for the right to write, or work on a copy.")
    doubts = [doubt for name in names for doubt in _doubts(project, BY_NAME[name], settings)]
    if doubts:
        raise InputError.of(doubts)
    config.check_stages(settings, names)
    for name in names:
        read_alignments(settings[name], project.path)
    project.store_settings(config.as_raw(settings))
    for state in found.values():
        if state.state == "fresh" and state.record is not None and state.name not in names:
            remember_files(project, state.record, file_facts(settings[state.name], state.record, compare=True))


def _doubts(project: Project, stage: Stage, settings: Settings) -> list[str]:
    """Say what a stage would use outside the project that nobody but the project itself names."""
    found = []
    for name, path in files_not_given(settings, stage.name).items():
        is_regular = extent_of(path) is not None
        is_known = is_regular and (_lies_beside(path, project.path) or _was_read(project, stage.name, name, path))
        if (is_regular or os.path.lexists(path)) and not is_known:
            why = f"no run of {stage.name} has read" if is_regular else "is no regular file"
            found.append(
                f"The project names {named(path)} as {stage.name}.{name}, which {why}; add --set "
                f"{stage.name}.{name}={named(path)} to use it."
            )
    if f"{stage.name}.{stage.writes_to}" not in settings.given:
        found += stage.doubts(settings[stage.name], project.path.absolute(), _left(project, stage))
    return found


def files_not_given(settings: Settings, name: str) -> dict[str, Path]:
    """Return the input files of a stage, by parameter, that the user did not name now: the project remembers them."""
    parameters = settings[name]
    return {
        field: path.expanduser().absolute()
        for field, path in parameters.input_files().items()
        if f"{name}.{field}" not in settings.given and not parameters.is_known_file(field, path)
    }


def _lies_beside(path: Path, project: Path) -> bool:
    """Tell whether a file, links followed, lies in the folder that a project is in."""
    return path.resolve().parent == project.parent.resolve()


def _was_read(project: Project, stage: str, name: str, path: Path) -> bool:
    """Tell whether a run of a stage read this file for a parameter, as far as the project knows."""
    runs = (run for run in project.history() if run.stage == stage)
    return any(run.files.get(name, {}).get("path") == str(path) for run in runs)


def refuse_other_series(project: Project, settings: Settings) -> None:
    """Raise `InputError` if the raw data asked for are not those that the project holds."""
    for stage in STAGES:
        record = project.record(stage.name) if stage.source else None
        if record is None:
            continue
        wanted = file_facts(settings[stage.name], record, compare=True).get(stage.source, {})
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
    changed = [reason for reason in why or () if reason != NOT_RUN]
    runtime.begin(f"{stage.name}: starting" + (f" ({'; '.join(changed)})" if changed else ""))
    runtime.check()
    facts = file_facts(parameters, project.record(stage.name), compare=True)
    begun = _begin(project, stage, parameters, facts)
    event = runtime.progress.event
    event("stage_started", stage=stage.name, project=str(project.path), run_id=begun.run_id, job_id=begun.job_id)
    try:
        record = _committed(project, stage, parameters, runtime, begun, others, restart=restart)
    except TomosegError as error:
        event("stage_failed", stage=stage.name, run_id=begun.run_id, error=str(error), exit_code=error.exit_code)
        raise
    event(
        "stage_finished",
        stage=stage.name,
        run_id=begun.run_id,
        seconds=record.wall_seconds,
        peak_memory_bytes=record.peak_memory_bytes,
        device=record.device,
        warnings=record.warnings,
    )
    runtime.progress.message(
        f"{stage.name}: done in {record.wall_seconds:.1f} s, peak memory {record.peak_memory_bytes / 2**20:.0f} MiB"
    )
    return record


def _committed(
    project: Project,
    stage: Stage,
    parameters: Parameters,
    runtime: Runtime,
    begun: Record,
    others: dict[str, Any],
    *,
    restart: bool,
) -> Record:
    """Compute and commit the result of a stage; `others` are alignments of other projects, by parameter."""
    watch, memory = Stopwatch(), PeakMemory()
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
