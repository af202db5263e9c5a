"""Runtime choices (device, threads, memory, progress): how a result is computed, never what it is."""

import contextlib
import ctypes
import os
import re
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, cast, get_args

from tomoseg.errors import InputError, Interrupted, printable, shown
from tomoseg.machine import available_cpus, available_memory
from tomoseg.progress import Progress, make_progress

MOST_WORKERS = 9999
MOST_MEMORY = 1 << 50  # bytes
MOST_SLAB_BYTES = 512 << 20  # larger slabs are not faster
RETURNED_BYTES = 4 << 20  # smaller arrays are allocated too often to be given back each time

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")
Device = Literal["auto", "cpu", "cuda"]


class Track(Protocol):
    """Yields items one after the other while their progress is shown, as `Runtime.track` does."""

    def __call__(self, items: Sequence[T], what: str, /) -> Iterable[T]:
        """Yield the items; `what` describes them to the user."""


def untracked(items: Sequence[T], _what: str, /) -> Iterable[T]:
    """Yield items without showing progress."""
    return items


class Cluster(Protocol):
    """Workers on other machines, or other processes, that compute parts of a stage. They see no file of this one."""

    def address(self, runtime: "Runtime") -> str:
        """Return the address of the scheduler, by which other processes may use the workers, too."""

    def n_workers(self, runtime: "Runtime") -> int:
        """Return how many workers there are now; waits for the first."""

    def each(
        self,
        function: "Callable[[S, T, Runtime], R]",
        shared: S,
        items: Iterable[tuple[str, T]],
        runtime: "Runtime",
    ) -> Generator[R]:
        """Yield ``function(shared, item, runtime)`` of each item in order, computed by workers with their own runtime.

        A few items per worker are taken ahead. What a worker lost is computed again by another. Each item comes with a
        name for messages. Function, items and results are sent: the function is one of a module.

        Raises what the function does, `StageFailed` where an item ended several workers or the cluster is gone, and
        `Interrupted` as `Runtime.check`.
        """

    def everywhere(self, function: "Callable[[S, Runtime], R]", argument: S, runtime: "Runtime") -> list[R]:
        """Return what `function` does on each worker that there is now."""


@dataclass
class Runtime:
    """How a stage computes. `notes` and `warnings` collect what was said, for provenance and report.

    `stop_at`, in seconds of `time.monotonic`, is when computing must have ended; `budget` is what to call that.
    """

    device: Device = "auto"
    workers: int = field(default_factory=available_cpus)
    max_memory: int = field(default_factory=lambda: default_memory())  # bytes
    progress: Progress = field(default_factory=Progress)
    stop_at: float | None = None
    budget: str = "the time budget"
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    device_used: str = "cpu"  # set by a stage that found and used another
    cluster: Cluster | None = None  # whose workers compute what can be divided

    def begin(self, what: str) -> None:
        """Begin a stage: clear the notes and warnings of earlier ones."""
        self.notes.clear()
        self.warnings.clear()
        self.device_used = "cpu"
        self.progress.message(what)

    def track(self, items: Sequence[T], what: str) -> Iterator[T]:
        """Yield `items` while showing progress; stops with `Interrupted` between items, as `check` does.

        An item is not begun where the time budget would end before it, if it takes as long as the longest so far. One
        during which the process was stopped (Ctrl-Z, a batch system that suspends) tells nothing about that.
        """
        self.progress.start(what, len(items))
        longest = 0.0
        try:
            for done, item in enumerate(items):
                self.check(longest)
                watch, pauses = Stopwatch(), len(_pauses)
                yield item
                longest = max(longest, watch.seconds) if len(_pauses) == pauses else longest
                self.progress.advance(done + 1)
            self.check()
        finally:
            self.progress.finish()

    @contextmanager
    def parts(self, total: int, what: str) -> Iterator[Callable[[int], None]]:
        """Show the progress of work in `total` parts of its own; yields what to call with the number of those done."""
        self.progress.start(what, total)
        try:
            yield self.progress.advance
            self.progress.advance(total)
            self.check()
        finally:
            self.progress.finish()

    def say(self, text: str) -> None:
        """Report something worth keeping (where a value came from, what was chosen)."""
        self.notes.append(text)
        self.progress.message(text)

    def warn(self, text: str) -> None:
        """Warn that a result needs care; kept with its provenance and repeated in the report."""
        self.warnings.append(text)
        self.progress.message(f"warning: {text}")

    def check(self, seconds: float = 0.0) -> None:
        """Raise `Interrupted` if a signal to stop arrived, or if the time budget does not last for `seconds` more.

        Called between units of work.
        """
        self.check_signals()
        if self.stop_at is not None and time.monotonic() + seconds > self.stop_at:
            raise Interrupted(f"{self.budget} is used up")

    @staticmethod
    def check_signals() -> None:
        """Raise `Interrupted` if a signal to stop arrived."""
        if _signals:
            raise Interrupted(f"stopped by {signal.Signals(_signals[0]).name}")

    def each(self, function: Callable[[S, T, "Runtime"], R], shared: S, items: Iterable[tuple[str, T]]) -> Generator[R]:
        """Yield ``function(shared, item, runtime)`` of each named item: here, or by the cluster where there is one."""
        if self.cluster is not None:
            yield from self.cluster.each(function, shared, items, self)
            return
        for _, item in items:
            yield function(shared, item, self)

    def slab_size(self, bytes_per_item: float, n_items: int, multiple: int = 1) -> int:
        """Return how many items (slices, tilts) of `bytes_per_item` fit in the memory allowed, at least `multiple`."""
        fits = int(min(self.max_memory / 2, MOST_SLAB_BYTES) / max(bytes_per_item, 1))
        return max(multiple, min(n_items, fits // multiple * multiple))


def make_runtime(
    device: str = "auto",
    workers: int | None = None,
    max_memory: int | str | None = None,
    progress: str | Progress | None = None,
) -> Runtime:
    """Return a runtime: threads (None or 0: all CPUs of this process), memory (None or '': half of what it may use)."""
    if device not in get_args(Device):
        raise InputError(f"device is {device}: it must be one of {', '.join(get_args(Device))}.")
    return Runtime(
        device=cast(Device, device),
        workers=_checked_workers(workers or available_cpus()),
        max_memory=parse_memory(max_memory) if max_memory else default_memory(),
        progress=make_progress(progress) if isinstance(progress, str) else progress or Progress(),  # type: ignore[arg-type]
    )


def parse_memory(text: int | str) -> int:
    """Turn '8G', '500M' or a number of bytes into bytes."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)(i?B)?\s*", str(text), re.IGNORECASE)
    size = float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ") if match else 0
    if not 64 << 20 <= size <= MOST_MEMORY:
        raise InputError(f"--max-memory {shown(text)}: give 64M to 1024T, for example 8G or 500M.")
    return int(size)


def _checked_workers(workers: int) -> int:
    if not 1 <= workers <= MOST_WORKERS:
        raise InputError(
            f"--workers {shown(workers)}: give a number of threads from 1 to {MOST_WORKERS}, or 0 for all CPUs."
        )
    return workers


def slabs(n: int, size: int, first: int = 0) -> list[slice]:
    """Cut `range(first, n)` into consecutive slices of at most `size`, which end at multiples of `size`."""
    starts = range(first // size * size, n, size)
    return [slice(max(first, start), min(start + size, n)) for start in starts if max(first, start) < n]


def default_memory() -> int:
    """Return half of the memory this process may use, in bytes."""
    return available_memory() // 2


def return_freed_memory() -> None:
    """Give back to the system what is free, and from now on every array of `RETURNED_BYTES` or more when it is freed.

    The C library of Linux would keep arrays of up to 32 MiB for later use, in pieces that others do not fit in: with a
    small --max-memory that is half as much again as what is held. Elsewhere this does nothing.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):  # the GNU C library
        library.mallopt(-3, RETURNED_BYTES)  # M_MMAP_THRESHOLD
        library.malloc_trim(0)


# --- signals ---

HANGUP = tuple(signal.Signals[name] for name in ("SIGHUP",) if hasattr(signal, name))  # Windows has neither
CONTINUED = tuple(signal.Signals[name] for name in ("SIGCONT",) if hasattr(signal, name))
STOPPING = (signal.SIGINT, signal.SIGTERM, *HANGUP)
GRACE_SECONDS = 8.0  # from a signal until the process leaves whatever it is doing: batch systems kill soon after
ECHO_SECONDS = 1.0  # `timeout`, `srun` and terminals may send the signal to the process and to its group: that is one

_signals: list[int] = []
_pauses: list[int] = []  # a SIGCONT for each time that the process was stopped and went on
_clean_ups: list[Callable[[], object]] = []


def obey(signals: Iterable[int], act: Callable[[int], object]) -> dict[int, Any]:
    """Have `act` called with the number of each of these signals that arrives; return what was done before.

    SIGHUP, which a terminal sends when it is lost, stays ignored where it was, as `nohup` arranges. Otherwise what is
    still written to that terminal goes nowhere from then on: the system would refuse it, which is no reason to fail.
    """

    def handle(signum: int, _frame: object) -> None:
        if signum in HANGUP:
            _let_go_of_a_lost_terminal()
        act(signum)

    ignored = {s for s in HANGUP if signal.getsignal(s) == signal.SIG_IGN}
    return {s: signal.signal(s, handle) for s in signals if s not in ignored}


def _let_go_of_a_lost_terminal() -> None:
    """Turn those of the standard descriptors that are a terminal which is gone to /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(standard).st_mode) and not os.isatty(standard):
                os.dup2(null, standard)
    os.close(null)


def on_abrupt_exit(clean_up: Callable[[], object]) -> Callable[[], None]:
    """Register what to do if the process must exit in the middle of its work; return a function that undoes this.

    It is called in another thread while the work goes on, the latest first. It must be short and wait for nothing that
    the work may hold: removing a file is what it is for.
    """
    _clean_ups.append(clean_up)
    return lambda: _clean_ups.remove(clean_up)


def leaving_on_signals() -> None:
    """From now on leave at once on SIGINT, SIGTERM and SIGHUP, with a line and exit code 130, and no file half written.

    For what has no state worth keeping; `stopping_on_signals` takes over where there is some.
    """
    obey(STOPPING, lambda came: _leave(f"tomoseg: stopped by {signal.Signals(came).name}."))


@contextmanager
def stopping_on_signals(
    advice: Callable[[], str] = lambda: "Nothing was kept; start the same command again.",
) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into an `Interrupted` at the next unit of work; a second one stops at once.

    `advice()` says how to go on; it ends the message of every `Interrupted`. A process that did not stop within
    `GRACE_SECONDS`, such as one in the midst of a long call of a library, says it too and leaves with exit code 130,
    after what was registered with `on_abrupt_exit`. All files must be in order at any instant for that, as they must
    be for a process that is killed.
    """
    _signals.clear()
    with _watchdog(advice):
        before = obey(STOPPING, _signals.append)
        before |= {s: signal.signal(s, lambda signum, _: _pauses.append(signum)) for s in CONTINUED}
        try:
            yield
        except Interrupted as error:
            raise Interrupted(f"{error}. {advice()}") from error
        finally:
            for signum, old in before.items():
                signal.signal(signum, old)
            _signals.clear()
            _pauses.clear()


@contextmanager
def _watchdog(advice: Callable[[], str]) -> Iterator[None]:
    """Watch from a thread that signals are obeyed.

    Python calls its signal handlers in the main thread, and only between two of its own instructions. The number of the
    signal is written to the wakeup socket at once, whatever the main thread does.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    thread = threading.Thread(target=_watch, args=(ours, advice), name="watchdog", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        theirs.close()  # ends the thread
        thread.join()
        ours.close()


def _watch(wakeups: socket.socket, advice: Callable[[], str]) -> None:
    """Wait for a signal; leave the process at the next one, or when the time to stop is over."""
    while (number := wakeups.recv(1)) and number[0] not in STOPPING:
        continue
    if not number:
        return
    arrived = time.monotonic()
    _write_to_stderr("stopping after the current step (send the signal again to stop at once)")
    while (left := arrived + GRACE_SECONDS - time.monotonic()) > 0:
        wakeups.settimeout(left)
        try:
            another = wakeups.recv(1)
        except TimeoutError:
            break
        if not another:
            return
        if another[0] in STOPPING and time.monotonic() > arrived + ECHO_SECONDS:
            break
    _leave(f"tomoseg: stopped by {signal.Signals(number[0]).name} in the middle of a step. {advice()}")


def _leave(message: str) -> None:
    """End the process here and now."""
    for clean_up in reversed(_clean_ups):
        with contextlib.suppress(Exception):  # the others are to be tried all the same
            clean_up()
    _write_to_stderr(message)
    os._exit(Interrupted.exit_code)


def _write_to_stderr(line: str) -> None:
    """Write a line past Python's buffer, whose lock the main thread may hold."""
    with contextlib.suppress(OSError):  # nobody reads it any more
        os.write(2, f"{printable(line)}\n".encode())


def be_a_helper() -> None:
    """Begin a process of a pool: let the first process decide about signals, end with it, and use one thread."""
    if sys.platform == "linux":  # prctl(2): PR_SET_PDEATHSIG; a first process that is killed cannot end the others
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_THREAD_LIMIT"):
        os.environ[name] = "1"


class Stopwatch:
    """Wall time since creation, in seconds."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since creation."""
        return time.monotonic() - self._start
