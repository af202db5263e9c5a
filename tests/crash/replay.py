"""A model of a disk: what a folder holds after a crash at any operation of a log.

Killed: the process is gone, the system lives: all that was done before is there, and perhaps the beginning of the write
at hand. Power loss: only what was synced is certain, the content of a file by `sync`, names by `sync_folder`. Of what
came after, any part may have reached the disk, in any order, a write also in part (its beginning, or some pages), and
space that was taken but not written may hold whatever the disk held there before.
"""

import random
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from tests.crash.operations import Create, Op, Remove, Rename, Resize, Sync, SyncFolder, Write

Folder = dict[str, bytes]  # name -> content
PAGE = 4096
T = TypeVar("T")
SHARES = (0.0, 0.2, 0.5, 0.8, 1.0)  # of what was not synced that happened all the same


@dataclass
class _File:
    """Content as programs see it, content that is certain, and the changes that lead from the second to the first.

    `pending` were not synced; `settled` were, and come before those. Of them those marked True were pending when a sync
    failed: the system may have dropped them although programs still see them, and no later sync brings them back.
    """

    seen: bytearray
    certain: bytearray
    settled: list[tuple[Write | Resize, bool]] = field(default_factory=list)
    pending: list[Write | Resize] = field(default_factory=list)


class Disk:
    """The state of a disk between two operations; `apply` the next one to go on."""

    def __init__(self, initial: Folder) -> None:
        self._files = {i: _File(bytearray(content), bytearray(content)) for i, content in enumerate(initial.values())}
        self.names = {name: i for i, name in enumerate(initial)}
        self._certain_names = dict(self.names)
        self._pending_names: list[dict[str, int | None]] = []

    @property
    def n_files(self) -> int:
        """Files that ever were, which is the number of the next one."""
        return len(self._files)

    def apply(self, op: Op) -> None:
        """Perform an operation."""
        if isinstance(op, Write | Resize):
            file = self._files[op.file]
            _change(file.seen, op)
            file.pending.append(op)
        elif isinstance(op, Sync):
            self._sync(self._files[op.file], op.failed)
        elif isinstance(op, SyncFolder):
            self._certain_names = dict(self.names)
            self._pending_names.clear()
        else:
            if isinstance(op, Create):
                self._files[op.file] = _File(bytearray(), bytearray())
            change = self._renaming(op)
            _rename(self.names, change)
            self._pending_names.append(change)

    @staticmethod
    def _sync(file: _File, failed: bool) -> None:
        if failed or file.settled:
            file.settled += [(change, failed) for change in file.pending]
        else:
            for change in file.pending:
                _change(file.certain, change)
        file.pending.clear()

    def _renaming(self, op: Create | Rename | Remove) -> dict[str, int | None]:
        """Return what an operation makes of names: name -> file, None where there is none afterwards."""
        if isinstance(op, Create):
            return {op.name: op.file}
        if isinstance(op, Remove):
            return {op.name: None}
        return {op.source: None, op.target: self.names[op.source]}

    # --- crashes

    def killed(self) -> Folder:
        """Return the folder after the process was killed between two operations."""
        return {name: bytes(self._files[number].seen) for name, number in self.names.items()}

    def torn(self, op: Write, rng: random.Random) -> Folder:
        """Return the folder after the process was killed in the midst of a write."""
        folder = self.killed()
        begun = Write(op.file, op.offset, op.data[: rng.randrange(len(op.data))] if op.data else b"")
        for name, number in self.names.items():
            if number == op.file:
                content = bytearray(folder[name])
                _change(content, begun)
                folder[name] = bytes(content)
        return folder

    def powered_off(self, op: Op | None, rng: random.Random) -> Folder:
        """Return the folder after the power failed while `op` was being performed."""
        renamings = list(self._pending_names)
        if isinstance(op, Create | Rename | Remove):
            renamings.append(self._renaming(op))
        names = dict(self._certain_names)
        for change in _some(renamings, rng):
            _rename(names, change)
        at_hand = [op] if isinstance(op, Write | Resize) else []
        folder = {}
        for name, number in sorted(names.items()):
            # A file that is being created when the power fails may be there, and empty.
            file = self._files.get(number, _File(bytearray(), bytearray()))
            changes = [*file.pending, *(change for change in at_hand if change.file == number)]
            folder[name] = _survived(file, changes, rng)
        return folder


def crashes(
    start: Disk, ops: list[Op], points: Iterable[int], variants: int, seed: int
) -> Iterator[tuple[int, str, Folder]]:
    """Yield (point, kind of crash, folder) for crashes while operation number `point` is performed, or after the last.

    `points` ascend. The same seed gives the same crashes at a point, whichever points are asked for.
    """
    disk, done = deepcopy(start), 0
    for point in points:
        for op in ops[done:point]:
            disk.apply(op)
        done = point
        at_hand = ops[point] if point < len(ops) else None
        yield point, "killed", disk.killed()
        if isinstance(at_hand, Write):
            yield point, "torn", disk.torn(at_hand, random.Random(f"{seed} {point}"))
        for variant in range(variants):
            yield point, f"power loss {variant}", disk.powered_off(at_hand, random.Random(f"{seed} {point} {variant}"))


# --- changes of a file and of names


def _change(content: bytearray, op: Write | Resize, filler: random.Random | None = None) -> None:
    """Apply a change; space without content is zero, or noise from `filler`."""
    if isinstance(op, Resize):
        _grow(content, op.size, filler)
        del content[op.size :]
    elif op.data:
        _grow(content, op.offset, filler)
        content[op.offset : op.offset + len(op.data)] = op.data


def _grow(content: bytearray, size: int, filler: random.Random | None) -> None:
    missing = max(0, size - len(content))
    content.extend(filler.randbytes(missing) if filler else bytes(missing))


def _rename(names: dict[str, int], change: dict[str, int | None]) -> None:
    for name, number in change.items():
        names.pop(name, None)
        if number is not None:
            names[name] = number


def _some(items: list[T], rng: random.Random) -> list[T]:
    """Return a random part of items, in order or not."""
    share = rng.choice(SHARES)
    chosen = [item for item in items if rng.random() < share]
    if rng.random() < 0.5:
        rng.shuffle(chosen)
    return chosen


def _survived(file: _File, pending: list[Write | Resize], rng: random.Random) -> bytes:
    """Return what a file may hold when some of its pending changes happened."""
    content = bytearray(file.certain)
    for settled, doubtful in file.settled:
        if not doubtful or rng.random() < 0.5:
            _change(content, settled)
    noise = rng if rng.random() < 0.25 else None
    for change in _some(pending, rng):
        for part in _parts(change, rng):
            _change(content, part, noise)
    return bytes(content)


def _parts(change: Write | Resize, rng: random.Random) -> list[Write | Resize]:
    """Return a change whole, cut at a byte, or some of its pages."""
    how = rng.random()
    if isinstance(change, Resize) or how < 0.6 or not change.data:
        return [change]
    if how < 0.8:
        return [Write(change.file, change.offset, change.data[: rng.randrange(len(change.data))])]
    bounds = [0, *range(PAGE - change.offset % PAGE, len(change.data), PAGE), len(change.data)]
    pages = [Write(change.file, change.offset + a, change.data[a:b]) for a, b in pairwise(bounds)]
    return [page for page in pages if rng.random() < 0.5]
