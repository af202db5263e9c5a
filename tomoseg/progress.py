"""How progress looks: a bar on a terminal, plain lines that a log can hold, or nothing. All of it on stderr."""

import contextlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tomoseg import terminal
from tomoseg.errors import printable

Kind = Literal["auto", "bar", "plain", "none"]


class Progress:
    """Where progress and messages go. This one, for scripts and tests, shows nothing."""

    def start(self, what: str, total: int) -> None:
        """Begin a task of `total` equal steps."""

    def advance(self, done: int) -> None:
        """Say that `done` steps of the current task are finished."""

    def finish(self) -> None:
        """End the current task, if there is one."""

    def message(self, text: str) -> None:
        """Show a line to the user."""

    def event(self, name: str, **facts: Any) -> None:
        """Note something for programs that watch: `facts` are JSON values."""


def make_progress(kind: Kind) -> Progress:
    """Return the progress asked for; 'auto' is a bar on a terminal and plain lines elsewhere."""
    if kind == "none":
        return Progress()
    if kind == "bar" or (kind == "auto" and terminal.is_terminal()):
        return Bar()
    return Plain()


class Plain(Progress):
    """A line when a task begins, at most one every `every_seconds` while it runs, and one when it ends."""

    def __init__(self, every_seconds: float = 15.0) -> None:
        self._every = every_seconds
        self._what, self._total, self._done, self._running = "", 0, 0, False
        self._began = self._shown = 0.0

    def start(self, what: str, total: int) -> None:
        """Begin a task."""
        self._what, self._total, self._done, self._running = what, total, 0, True
        self._began = self._shown = time.monotonic()

    def advance(self, done: int) -> None:
        """Say where the task stands, if the last line is old enough."""
        self._done = done
        if time.monotonic() - self._shown >= self._every:
            self._shown = time.monotonic()
            self.message(f"{self._what}: {progress_words(done, self._total, self._shown - self._began)}")

    def finish(self) -> None:
        """Say how long the task took, if it is worth a line."""
        seconds = time.monotonic() - self._began
        running, self._running = self._running, False
        if running and seconds >= 1:
            self.message(f"{self._what}: {self._done}/{self._total} in {seconds:.1f} s")

    def message(self, text: str) -> None:
        """Write a line."""
        terminal.tell(text)


def progress_words(done: int, total: int, seconds: float) -> str:
    """Say how far a task is, how fast, and how much time is left at that rate.

    Examples
    --------
    >>> progress_words(30, 120, 60.0)
    '25 % (30/120), 60 s, 2 s each, 3 min left'
    >>> progress_words(600, 1200, 60.0)
    '50 % (600/1200), 60 s, 10 per second, 60 s left'
    """
    words = f"{100 * done // max(total, 1)} % ({done}/{total}), {duration(seconds)}"
    if not 0 < done < total:
        return words
    rate = done / seconds
    speed = f"{rate:.3g} per second" if rate >= 1 else f"{1 / rate:.3g} s each"
    return f"{words}, {speed}, {duration((total - done) / rate)} left"


def duration(seconds: float) -> str:
    """Return a duration in words: seconds up to 100, then minutes, then hours.

    Examples
    --------
    >>> duration(99), duration(600), duration(10000)
    ('99 s', '10 min', '2.8 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class Events(Progress):
    """What another progress shows, and each of it as a line of JSON in a file, for programs that watch.

    Every line has `time` (UTC, ISO 8601) and `event`; docs/hpc.md tells the others.
    """

    def __init__(self, shown: Progress, path: Path) -> None:
        self._shown, self._path = shown, path
        self._what, self._total, self._written = "", 0, 0.0
        path.open("a").close()  # raises where it cannot be written

    def start(self, what: str, total: int) -> None:
        """Begin a task."""
        self._shown.start(what, total)
        self._what, self._total, self._written = what, total, time.monotonic()
        self.event("task_started", task=what, total=total)

    def advance(self, done: int) -> None:
        """Say where the task stands; to the file once a second at most."""
        self._shown.advance(done)
        if time.monotonic() - self._written >= 1 or done == self._total:
            self._written = time.monotonic()
            self.event("task_progress", task=self._what, done=done, total=self._total)

    def finish(self) -> None:
        """End the task."""
        self._shown.finish()
        if self._what:
            self.event("task_ended", task=self._what)
            self._what = ""

    def message(self, text: str) -> None:
        """Show a line."""
        self._shown.message(text)
        self.event("message", text=printable(text))

    def event(self, name: str, **facts: Any) -> None:
        """Write a line of JSON."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        # What cannot be written any more, as on a full disk, must not end a computation.
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": now, "event": name, **facts}) + "\n")


class Bar(Progress):
    """A moving bar."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(file=terminal.canvas(), markup=False, emoji=False, highlight=False)
        self._bar: Any = None
        self._task: Any = None

    def start(self, what: str, total: int) -> None:
        """Show a bar for a task."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        name = TextColumn("  {task.description}", markup=False)
        columns = (name, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # What others write goes through the door, not through this console.
        self._bar = Progress(
            *columns, console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._task = self._bar.add_task(printable(what), total=total)
        self._bar.start()

    def advance(self, done: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done)

    def finish(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def message(self, text: str) -> None:
        """Write a line above the bar."""
        self._console.print(printable(text))
