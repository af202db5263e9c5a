"""Runtime choices: device, threads, memory and progress. They never change what a result is, only how it is made."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from tomoseg.errors import Interrupted

T = TypeVar("T")
Device = Literal["auto", "cpu", "cuda"]


class Progress(Protocol):
    """Where progress and messages go; see `tomoseg.progress` for the bar, plain-line and silent ones."""

    def start(self, what: str, total: int) -> None:
        """Begin a task of `total` equal steps."""

    def advance(self, done: int) -> None:
        """Say that `done` steps of the current task are finished."""

    def finish(self) -> None:
        """End the current task."""

    def message(self, text: str) -> None:
        """Show a line to the user."""


class Silent:
    """Progress for scripts and tests: nothing is shown."""

    def start(self, what: str, total: int) -> None:
        """Ignore."""

    def advance(self, done: int) -> None:
        """Ignore."""

    def finish(self) -> None:
        """Ignore."""

    def message(self, text: str) -> None:
        """Ignore."""


@dataclass
class Runtime:
    """How a stage computes. `notes` and `warnings` collect what was said, for provenance and report."""

    device: Device = "auto"
    workers: int = field(default_factory=lambda: available_cpus())
    max_memory: int = field(default_factory=lambda: default_memory())  # bytes
    progress: Progress = field(default_factory=Silent)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    device_used: str = "cpu"  # set by a stage that found and used another

    def begin(self, what: str) -> None:
        """Begin a stage: forget what earlier ones said."""
        self.notes.clear()
        self.warnings.clear()
        self.device_used = "cpu"
        self.progress.message(what)

    def track(self, items: Sequence[T], what: str) -> Iterator[T]:
        """Yield `items` while showing progress; stops with `Interrupted` between items once a signal arrived."""
        self.progress.start(what, len(items))
        try:
            for done, item in enumerate(items):
                self.check()
                yield item
                self.progress.advance(done + 1)
            self.check()
        finally:
            self.progress.finish()

    def say(self, text: str) -> None:
        """Tell the user something worth keeping (where a value came from, what was chosen)."""
        self.notes.append(text)
        self.progress.message(text)

    def warn(self, text: str) -> None:
        """Tell the user that a result needs care; kept in the provenance and repeated by the report."""
        self.warnings.append(text)
        self.progress.message(f"warning: {text}")

    def check(self) -> None:
        """Raise `Interrupted` if SIGINT or SIGTERM arrived. Called between units of work."""
        if _signals:
            raise Interrupted(f"stopped by {signal.Signals(_signals[-1]).name}")

    def slab_size(self, bytes_per_item: float, n_items: int, multiple: int = 1) -> int:
        """Return how many items (slices, tilts) of `bytes_per_item` fit in the memory allowed, at least `multiple`."""
        fits = int(self.max_memory / 2 / max(bytes_per_item, 1))
        return max(multiple, min(n_items, fits // multiple * multiple))


def slabs(n: int, size: int) -> list[slice]:
    """Cut `range(n)` into consecutive slices of at most `size`."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def available_cpus() -> int:
    """Return the number of CPUs this process may use (a batch system may give fewer than the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def default_memory() -> int:
    """Return half of the machine's memory in bytes; 4 GiB where it cannot be asked."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (ValueError, OSError, AttributeError):
        return 4 << 30


_signals: list[int] = []


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into an `Interrupted` at the next unit of work; a second one stops at once."""

    def handler(signum: int, _frame: object) -> None:
        _signals.append(signum)
        if len(_signals) > 1:
            raise SystemExit(Interrupted.exit_code)
        print("stopping after the work at hand (once more to stop at once)", file=sys.stderr)

    _signals.clear()
    before = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)
        _signals.clear()


class Stopwatch:
    """Wall time since creation, in seconds."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since creation."""
        return time.monotonic() - self._start
