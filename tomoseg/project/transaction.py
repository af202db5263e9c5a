"""The outputs of a running stage, kept aside until all of them replace the old ones at once."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import h5py
import numpy as np

from tomoseg import schema
from tomoseg.arrays import ArraySink
from tomoseg.errors import Interrupted, StageFailed
from tomoseg.project import layout
from tomoseg.project.journal import Extent
from tomoseg.project.opened import OpenedFile
from tomoseg.project.provenance import Record
from tomoseg.project.validate import read_json, read_record

CHECKPOINT_SECONDS = 5.0  # between checkpoints on the disk, at least
CHECKPOINT_SHARE = 0.03  # of the wall time may go into checkpoints
PENDING_BYTES = 64 << 20  # of writes kept in memory before they are settled
ASIDE = "aside"  # arrays that only keep space from being used, below the outputs of a stage


@dataclass(frozen=True)
class Partial:
    """What an interrupted run of a stage left, to be continued by a run with the same `key`."""

    key: str
    run_id: str
    state: dict[str, Any]


def read_partial(file: h5py.File, stage: str) -> Partial | None:
    """Return what an interrupted run of a stage left, if it can be continued."""
    path = f"{schema.STAGING}/{stage}"
    if path not in file or "state" not in file[path].attrs:
        return None
    attrs = file[path].attrs
    return Partial(str(attrs.get("key")), str(attrs.get("run_id")), read_json(attrs, "state", dict))


class Transaction:
    """`Outputs` of a running stage, under `/staging/<stage>` until the commit."""

    def __init__(self, project: OpenedFile, begun: Record, *, restart: bool) -> None:
        self.is_committed = False
        self._project = project
        self._path = f"{schema.STAGING}/{begun.stage}"
        self._reserved: dict[str, list[Extent]] = {}  # by path, once the space is committed
        self._unsettled: list[str] = []  # paths of arrays whose space is not
        self._movable: dict[str, Callable[[], h5py.Dataset]] = {}  # of those the new ones: how to make them elsewhere
        self.resumed: Mapping[str, Any] | None = None
        self._state: str | None = None  # of the last checkpoint, as JSON
        self._saved_at, self._save_cost = time.monotonic(), 0.0
        file = project.for_writing()
        partial = None if restart else read_partial(file, begun.stage)
        if partial is not None and partial.key == begun.key:
            self.resumed = partial.state
            self._state = json.dumps(partial.state)
            begun = replace(begun, continues=partial.run_id)
            file[self._path].pop(ASIDE, None)
            self._find_reserved(file[self._path])
        else:
            file.pop(self._path, None)
        self.consumed = begun.consumed
        self.begun = begun = replace(begun, sequence=len(file.get(schema.HISTORY, ())) + 1)
        _close_lost_runs(file)
        _write_record(file, f"{schema.HISTORY}/{begun.run_id}", begun)
        file.require_group(self._path).attrs.update({"key": begun.key, "run_id": begun.run_id})
        if not project.is_new:
            self._settle()

    # --- what a stage does ---

    def create(
        self, name: str, shape: tuple[int, ...], dtype: Any = None, attrs: Mapping[str, Any] | None = None
    ) -> ArraySink:
        """Reserve an array to be filled slab by slab; a continued run gets the one that was begun."""
        artifact = schema.BY_NAME[name]
        path = self._path + artifact.path
        file = self._project.file
        if path not in file:

            def make() -> h5py.Dataset:
                made = layout.create_array(self._group, artifact, shape, dtype or artifact.dtype)
                layout.describe(made, artifact)
                made.attrs.update(attrs or {})
                return made

            if layout.is_reserved(make()):
                self._unsettled.append(path)
                self._movable[path] = make
        file[path].attrs.update(attrs or {})
        return _Sink(self, path, shape)

    def put(self, name: str, value: Any, attrs: Mapping[str, Any] | None = None) -> None:
        """Store a small array or table at once; text columns become UTF-8 strings of fixed length."""
        artifact = schema.BY_NAME[name]
        group = self._group
        group.pop(artifact.path.lstrip("/"), None)
        dataset = group.create_dataset(artifact.path.lstrip("/"), data=layout.storable(np.asarray(value)))
        layout.describe(dataset, artifact)
        dataset.attrs.update(attrs or {})

    def set_attrs(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Add attributes to an artifact or attribute group."""
        artifact = schema.BY_NAME[name]
        path = artifact.path.lstrip("/")
        target = self._group.require_group(path) if artifact.is_group else self._group[path]
        target.attrs.update(attrs)

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Note that all written so far, with `state` (JSON values), is enough to continue from here."""
        self._state = json.dumps(state)
        since = time.monotonic() - self._saved_at
        if since >= max(CHECKPOINT_SECONDS, self._save_cost / CHECKPOINT_SHARE):
            self._save()

    def write(self, path: str, key: Any, value: Any) -> None:
        """Write part of an array."""
        with self._project.gate:
            if self._unsettled and not self._project.is_new:
                self._settle()  # space is written in place only once it belongs to this array for good
            self._project.file[path][key] = value
            if self._project.store.pending_bytes > PENDING_BYTES:
                self._settle()
            self._project.check_disk()

    def read(self, path: str, key: Any) -> Any:
        """Return part of an array as it was written."""
        with self._project.gate:
            return self._project.file[path][key]

    # --- how it ends ---

    def commit(self, record: Record) -> None:
        """Put the outputs, which are complete, in place of the old ones."""
        file, group = self._project.file, self._group
        group.pop(ASIDE, None)
        for name in list(group):
            file.pop(name, None)
            file.move(f"{self._path}/{name}", name)
        _drop_obsolete(file, record.stage)
        done = replace(record, continues=self.begun.continues, sequence=self.begun.sequence, outcome="done")
        _write_record(file, f"{schema.HISTORY}/{record.run_id}", done)
        write_provenance(file, done)
        self._project.settle()
        self.is_committed = True

    def end(self, error: BaseException) -> None:
        """Keep what can be continued, after an interruption or a failure; the old result stands."""
        if self.is_committed:
            return
        if isinstance(error, Interrupted) and not self._project.is_new:
            self._save(outcome="interrupted")
            return
        self._project.roll_back()
        is_usable = not self._project.is_new and self._project.store.error is None
        # Nothing is left to forget where the disk failed just after the result had taken the place of the old one.
        if isinstance(error, Exception) and is_usable and self._path in self._project.file:
            # A disk that is full refuses this too; then the next run tidies up.
            with suppress(StageFailed):
                self._forget(f"failed: {error}")

    def _save(self, outcome: str = "") -> None:
        """Bring the last checkpoint to the disk, or drop what was written where there is none."""
        began = time.monotonic()
        if outcome:
            self._note(outcome)
        if self._state is None:
            self._project.file.pop(self._path, None)
            self._unsettled.clear()
            self._movable.clear()
            self._reserved.clear()
        else:
            self._group.attrs["state"] = self._state
        self._settle()
        self._saved_at = time.monotonic()
        self._save_cost = self._saved_at - began

    def _forget(self, outcome: str) -> None:
        self._note(outcome)
        if "state" not in self._group.attrs:
            self._project.file.pop(self._path, None)
        self._project.settle()

    def _note(self, outcome: str) -> None:
        _write_record(self._project.file, f"{schema.HISTORY}/{self.begun.run_id}", replace(self.begun, outcome=outcome))

    def _settle(self) -> None:
        """Commit, and have the arrays reserved by that written in place from now on.

        Their space may have been in use in a state that a reader still looks at: then they are made again elsewhere.
        """
        store = self._project.store
        before = store.still_bytes
        while True:
            file = self._project.file
            self._reserved |= {path: layout.extents(file[path]) for path in self._unsettled}
            extents = [extent for found in self._reserved.values() for extent in found]
            self._project.settle(extents)
            misplaced = [path for path in self._movable if self._reserved[path][0][0] < before]
            if not misplaced or not store.is_put_off:
                break
            self._move(misplaced)
        self._unsettled.clear()
        self._movable.clear()
        store.lend(extents)

    def _move(self, paths: list[str]) -> None:
        """Make arrays elsewhere; what they leave stays occupied until the end, so that it is not offered again."""
        aside = self._group.require_group(ASIDE)
        for path in paths:
            left = self._project.file[path]
            rows = 1 + int(self._project.free_bytes * left.shape[0] // max(left.id.get_storage_size(), 1))
            self._project.file.move(path, f"{aside.name}/{len(aside)}")
            # Twice as much each time, so that any amount of free space is filled soon.
            layout.reserve_like(aside, str(len(aside)), left, min(rows, left.shape[0] * 2 ** len(aside)))
            self._movable[path]()

    def _find_reserved(self, group: h5py.Group) -> None:
        def visit(_name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset) and layout.is_reserved(node):
                self._unsettled.append(node.name)

        group.visititems(visit)

    @property
    def _group(self) -> h5py.Group:
        return self._project.file[self._path]


class _Sink:
    """An array of a running stage; it outlives commits, after which the file is another."""

    def __init__(self, transaction: Transaction, path: str, shape: tuple[int, ...]) -> None:
        self._transaction, self._path, self.shape = transaction, path, shape

    def __setitem__(self, key: Any, value: Any) -> None:
        self._transaction.write(self._path, key, value)

    def __getitem__(self, key: Any) -> Any:
        return self._transaction.read(self._path, key)


def _write_record(file: h5py.File, path: str, record: Record) -> h5py.Group:
    """Store the provenance of a run as JSON; return its group."""
    file.pop(path, None)
    group = file.create_group(path)
    group.attrs["record"] = json.dumps(asdict(record))
    return group


def write_provenance(file: h5py.File, record: Record) -> None:
    """Store the provenance of a stage's present result."""
    _write_facts(_write_record(file, f"{schema.PROVENANCE}/{record.stage}", record), record)


def _write_facts(group: h5py.Group, record: Record) -> None:
    """Store one attribute per fact, for people who look at the file with other programs."""
    for key, value in asdict(record).items():
        group.attrs[key] = value if isinstance(value, (str, int, float)) else json.dumps(value)


def _close_lost_runs(file: h5py.File) -> None:
    """Mark runs whose process ended without recording it: this process is the only writer."""
    for path in [f"{schema.HISTORY}/{run_id}" for run_id in file.get(schema.HISTORY, ())]:
        record = read_record(file, path)
        if record is not None and record.outcome == "running":
            _write_record(file, path, replace(record, outcome="lost: the process or its machine went down"))


def _drop_obsolete(file: h5py.File, stage: str) -> None:
    """Drop this stage's partial result, and those of stages that had read what is being replaced."""
    for name in list(file.get(schema.STAGING, ())):
        path = f"{schema.STAGING}/{name}"
        run = read_record(file, f"{schema.HISTORY}/{file[path].attrs['run_id']}")
        if name == stage or run is None or stage in run.consumed:
            del file[path]
