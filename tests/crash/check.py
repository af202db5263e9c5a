"""What must hold after a crash: nothing committed is lost, and continuing leads to the very same results.

`record` runs the scenario undisturbed and keeps what could be seen of the project at every commit. A `Checker` takes
what a crash left and compares: with the states that the project may be in, and at the end with the undisturbed run.
"""

import hashlib
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import h5py

from tests.crash.operations import Op
from tests.crash.recorder import Log, Recorder, interposed, without_waiting
from tests.crash.replay import Disk, Folder
from tests.crash.scenario import COMMANDS, NAME, contents, exported, issue, no_chance, not_fresh, results
from tomoseg import schema
from tomoseg.project import Project
from tomoseg.project.journal import JournaledFile

COMPUTED = ("import", "align", "reconstruct", "segment", "measure")  # what exports wrote is not part of a crash here


class Lost(Exception):
    """Something that must hold does not."""


@dataclass(frozen=True)
class State:
    """What can be seen of a project: all its contents, and the run ids of unfinished stages."""

    contents: Mapping[str, str] = field(default_factory=dict)
    partial: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, project: Project) -> "State":
        """Return the state of an open project."""
        partial = {name: project.partial(name) for name in project.file.get(schema.STAGING, ())}
        found = {name: p.run_id for name, p in partial.items() if p is not None}
        return cls(contents(project.file), found)

    def __bool__(self) -> bool:
        return bool(self.contents)


NOTHING = State()  # no project


@dataclass
class Commits:
    """The states that a process committed, in order, and the one that it was just about to commit.

    After `ops[i]` operations `states[i]` was certain; the first is what the process found. Until it was certain, it was
    one of `before`.
    """

    states: list[State]
    ops: list[int] = field(default_factory=lambda: [0])
    before: Sequence[State] = ()
    intended: list[State] = field(default_factory=list)

    def possible(self, point: int) -> list[State]:
        """Return the states a project may be in after a crash at an operation: as committed, or as being committed."""
        last = bisect_right(self.ops, point) - 1
        return list(self.before) if last < 0 else self.states[last : last + 2]

    @contextmanager
    def watched(self, position: Callable[[], int] = int) -> Iterator[None]:
        """Note the commits of this process; `position` tells the number of operations so far."""
        commit = JournaledFile.commit

        def watched_commit(file: JournaledFile, *reserved: Any) -> None:
            if file.error is None:
                with h5py.File(file, "r") as staged:
                    self.intended = [State.of(Project(file.path, staged))]
            commit(file, *reserved)
            self.states.append(look(file.path))
            self.ops.append(position())
            if self.states[-1] != self.intended.pop():
                raise Lost("a reader does not see what has just been committed")

        with mock.patch.object(JournaledFile, "commit", watched_commit):
            yield


@dataclass(frozen=True)
class Point:
    """The end of a command of the undisturbed run: number of operations before it, and what there is."""

    ops: int
    state: State
    folder: Folder
    results: Mapping[str, str]
    exported: Mapping[str, str]


@dataclass
class History:
    """An undisturbed run of all commands: `ends[i]` is where command i begins, and command i - 1 had ended."""

    log: Log
    commits: Commits
    ends: list[Point]

    @property
    def ops(self) -> list[Op]:
        """The operations."""
        return self.log.ops

    def command(self, point: int) -> int:
        """Return the number of the command that was running; the last one after its end too."""
        return min(bisect_right([end.ops for end in self.ends], point), len(COMMANDS)) - 1


def record(folder: Path, raw: Path) -> History:
    """Run the scenario on a new project in an empty folder, which is removed afterwards."""
    recorder = Recorder(folder)
    history = History(recorder.log, Commits([NOTHING]), [Point(0, NOTHING, {}, {}, {})])
    project = folder / NAME
    with interposed(recorder), no_chance(), history.commits.watched(lambda: len(recorder.log.ops)):
        for command in COMMANDS:
            with Project.read(project) if command.is_looked_at else nullcontext() as reader:
                seen = State.of(reader) if reader else NOTHING
                issue(command, project, raw)
                if reader and State.of(reader) != seen:
                    raise Lost("a reader does not see what it opened any more")
            state, files = look(project), read_folder(folder)
            history.ends.append(Point(len(history.ops), state, files, computed(project), exported(project)))
            if not command.is_looked_at and (problem := not_left_tidy(folder)):
                raise Lost(f"after {command.title}: {problem}")
    shutil.rmtree(folder)
    return history


def look(project: Path) -> State:
    """Return what a reader sees, who must change nothing."""
    if not project.exists():
        return NOTHING
    with interposed(_forbidden), Project.read(project) as opened:
        return State.of(opened)


def computed(project: Path) -> dict[str, str]:
    """Return a digest of all that was computed, the same for runs that did the same."""
    with Project.read(project) as opened:
        return results(opened)


def _forbidden(name: str, _real: Callable[..., Any], *arguments: Any) -> Any:
    raise Lost(f"a reader changes the disk: {name} {arguments}")


def read_folder(folder: Path) -> Folder:
    """Return the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def not_left_tidy(folder: Path) -> str:
    """Say what an ended command left that does not belong there, '' if nothing."""
    left = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != NAME)
    if left:
        return f"left in the folder: {', '.join(left)}"
    with h5py.File(folder / NAME, "r") as file:
        staged = list(file.get(schema.STAGING, ()))
    return f"left in the file: {', '.join(staged)}" if staged else ""


@dataclass
class Checker:
    """Looks at what crashes left, in a folder of its own; `raw` is the series of the scenario."""

    history: History
    raw: Path
    folder: Path
    looked: int = 0
    continued: int = 0
    resumed: int = 0  # stages that went on from a checkpoint
    _known: set[str] = field(default_factory=set)  # digests of files that were looked at or continued, and were fine

    @property
    def project(self) -> Path:
        """The project file."""
        return self.folder / NAME

    def check(self, found: Folder, possible: Sequence[State], command: int) -> None:
        """Raise `Lost` if a project is in none of the `possible` states, or the command that crashed cannot go on.

        Files that were met before and were fine are not continued again.
        """
        self.lay(found)
        with interposed(without_waiting):
            state = self.recovered(possible)
            self._once(lambda: self.go_on(state, command), read_folder(self.folder), command)

    def glance(self, found: Folder, possible: Sequence[State]) -> None:
        """Raise `Lost` if a project is in none of the `possible` states; it is not continued."""
        self.lay(found)
        with interposed(without_waiting):
            self._once(lambda: self.recovered(possible), found, *(sorted(state.contents.items()) for state in possible))

    def _once(self, look: Callable[[], object], *what: Any) -> None:
        """Call `look` unless it found nothing wrong before with the same."""
        key = hashlib.sha256(repr(what).encode()).hexdigest()
        if key not in self._known:
            look()
            self._known.add(key)

    def lay(self, found: Folder) -> None:
        """Put files into the folder, and nothing else."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name, content in found.items():
            (self.folder / name).write_bytes(content)

    def recovered(self, possible: Sequence[State]) -> State:
        """Return the state of the project, read by tomoseg before and after recovery, and by h5py alone."""
        self.looked += 1
        before = read_folder(self.folder)
        state = self._look()
        if read_folder(self.folder) != before:
            raise Lost("reading changed the files")
        if not any(state.contents == other.contents for other in possible):
            raise Lost(f"what a reader sees was never committed: {_differences(state, possible)}")
        if not state:
            return state
        try:
            with Project.write(self.project) as opened:
                written = contents(opened.file)
            with h5py.File(self.project, "r") as file:
                plain = contents(file)
        except Exception as error:
            raise Lost(f"cannot be opened: {type(error).__name__}: {error}") from error
        if written != state.contents:
            raise Lost(f"a writer sees another state than a reader: {_differing(written, state.contents)}")
        if plain != state.contents:
            raise Lost(f"h5py alone sees another state than tomoseg: {_differing(plain, state.contents)}")
        left = [name for name in read_folder(self.folder) if name != NAME]
        if left:
            raise Lost(f"recovery left {', '.join(left)}")
        return state

    def go_on(self, state: State, number: int) -> None:
        """Issue a command again, and what the undisturbed run did to make all fresh; compare with its end."""
        self.continued += 1
        for i in range(number, number + (2 if COMMANDS[number].only else 1)):
            try:
                issue(COMMANDS[i], self.project, self.raw)
            except Exception as error:
                raise Lost(f"cannot be continued: {type(error).__name__}: {error}") from error
            self._compare_end(i)
            if i == number:
                self._compare_work(state, number)
        if stale := not_fresh(self.project):
            raise Lost(f"continued, but {', '.join(stale)}")

    def _look(self) -> State:
        try:
            return look(self.project)
        except Lost:
            raise
        except Exception as error:
            raise Lost(f"cannot be read: {type(error).__name__}: {error}") from error

    def _compare_end(self, number: int) -> None:
        expected = self.history.ends[number + 1]
        if problem := not_left_tidy(self.folder):
            raise Lost(f"continued, but {problem}")
        found = computed(self.project)
        if found != expected.results:
            raise Lost(f"other results than undisturbed: {_differing(found, expected.results)}")
        files = exported(self.project)
        if not COMMANDS[number].only and files != expected.exported:
            raise Lost(f"other exported files: {_differing(files, expected.exported)}")

    def _compare_work(self, crashed: State, number: int) -> None:
        """See that nothing was computed again that had been finished, or saved by a checkpoint."""
        begin, end = (self.history.ends[i].state.contents for i in (number, number + 1))
        now = look(self.project).contents
        again = []
        for path in (f"{schema.PROVENANCE}/{stage}" for stage in COMPUTED):
            had_finished = crashed.contents.get(path) != begin.get(path)
            was_not_to_run = begin.get(path) == end[path]
            if (had_finished or was_not_to_run) and crashed.contents.get(path) != now[path]:
                again.append(path)
        if again and not COMMANDS[number].only:
            raise Lost(f"computed again although it had been committed: {', '.join(again)}")
        with Project.read(self.project) as opened:
            taken_up = {stage: getattr(opened.record(stage), "continues", "") for stage in crashed.partial}
        self.resumed += len(taken_up)
        if taken_up != dict(crashed.partial):
            raise Lost(f"a checkpoint was not used: {_differing(taken_up, crashed.partial)}")


def after(start: Disk, checker: Checker, command: int, possible: Sequence[State]) -> tuple[Log, Commits]:
    """Have a second process recover and continue the project in the checker's folder; return what it did.

    `start` is the state of the disk that the first process left. Until recovery has ended all that was `possible` may
    still be found.
    """
    recorder = Recorder(checker.folder, start)
    with interposed(recorder):
        state = look(checker.project)
        if state:
            with Project.write(checker.project):
                pass
        commits = Commits([state], [len(recorder.log.ops)], possible)
        with commits.watched(lambda: len(recorder.log.ops)):
            issue(COMMANDS[command], checker.project, checker.raw)
    return recorder.log, commits


def _differences(state: State, possible: Sequence[State]) -> str:
    return "; or ".join(_differing(state.contents, other.contents) for other in possible)


def _differing(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    names = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
    how = {True: "differs", False: "is missing"}
    words = [f"{n} {how[n in found] if n in expected else 'is there'}" for n in names[:6]]
    return ", ".join(words) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
