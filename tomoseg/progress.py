"""How progress looks: a bar on a terminal, plain lines that a log can hold, or nothing. All of it on stderr."""

import time
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
            percent = 100 * done // max(self._total, 1)
            self.message(f"{self._what}: {percent} % ({done}/{self._total}), {self._shown - self._began:.0f} s")

    def finish(self) -> None:
        """Say how long the task took, if it is worth a line."""
        seconds = time.monotonic() - self._began
        running, self._running = self._running, False
        if running and seconds >= 1:
            self.message(f"{self._what}: {self._done}/{self._total} in {seconds:.1f} s")

    def message(self, text: str) -> None:
        """Write a line."""
        terminal.tell(text)


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
