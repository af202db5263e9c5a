"""Parts of a stage on the workers of a Dask cluster: a bounded number at a time, in order, none of them lost.

To Dask, parts are tasks that depend on nothing and may run anywhere, so that it can give those of a lost worker to
another. What they share is sent along until a worker has it.
"""

import asyncio
import contextlib
import hashlib
import itertools
import pickle
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

from tomoseg import __version__
from tomoseg.cluster import worker
from tomoseg.cluster.asked import Asked
from tomoseg.cluster.start import connected
from tomoseg.errors import StageFailed
from tomoseg.runtime import Runtime

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
AHEAD = 2  # parts for each worker: one that it computes, one that waits there
SMALL = 1 << 16  # bytes that are sent along with every part
LOOK_S = 0.01
COUNT_S = 2.0  # between counts of the workers
TELL_S = 30.0  # between messages that nothing happens
PATIENCE_S, PATIENCE = 300.0, 10  # a part is given away once more after so long, or so many times the longest
MOST_TIMES = 3  # that a part is given away

Reply = worker.Answer[Any] | worker.Unknown


@dataclass
class _Part:
    """A part that is on its way: `send(with_shared)` gives it to the cluster and returns Dask's future."""

    name: str
    send: Callable[[bool], Any]
    futures: list[Any] = field(default_factory=list)
    replies: "list[Future[Reply]]" = field(default_factory=list)
    times: int = 0
    sent: float = 0.0
    is_alone: bool = False  # nothing else was with the cluster while it was computed

    @property
    def is_back(self) -> bool:
        return any(reply.done() for reply in self.replies)


class DaskCluster:
    """The workers of a Dask cluster, found or started when they are first needed; `tomoseg.runtime.Cluster`."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._open = contextlib.ExitStack()
        self._client: Any = None
        self._address = ""
        self._n_workers = 0
        self._counted = 0.0
        self._longest = 0.0  # seconds that a part took

    def connect(self, runtime: Runtime) -> None:
        """Find or start the scheduler. Raises `InputError` where none answers."""
        if self._client is None:
            self._client = self._open.enter_context(connected(self.asked, runtime))
            self._address = str(self._client.scheduler.address)

    def close(self) -> None:
        """End what was started, and take back what is still waiting."""
        self._open.close()
        self._client = None

    def address(self, runtime: Runtime) -> str:
        """Return the address of the scheduler."""
        self.connect(runtime)
        return self._address

    def n_workers(self, runtime: Runtime) -> int:
        """Return how many workers there are now; waits for the first."""
        self.connect(runtime)
        began = told = time.monotonic()
        while not self._count(runtime):
            runtime.check()
            time.sleep(0.2)
            now = time.monotonic()
            if now - told > TELL_S or told == began:
                told = now
                runtime.progress.message(f"waiting for the first worker of {self._address}")
        return self._n_workers

    def everywhere(self, function: Callable[[S, Runtime], R], argument: S, runtime: Runtime) -> list[R]:
        """Return what `function` does on each worker that there is now."""
        self.n_workers(runtime)
        content = pickle.dumps(argument)
        call = (__version__, runtime.device, function, content)
        replies = self._waited(self._client.run(worker.answer, *call, asynchronous=True), runtime)
        return [reply.result for _, reply in sorted(replies.items())]

    def each(
        self,
        function: Callable[[S, T, Runtime], R],
        shared: S,
        items: Iterable[tuple[str, T]],
        runtime: Runtime,
    ) -> Generator[R]:
        """Yield ``function(shared, item, runtime)`` of each item in order; see `tomoseg.runtime.Cluster`."""
        content = pickle.dumps(shared, protocol=5)
        common = (__version__, runtime.device, function, hashlib.sha256(content).hexdigest())
        waiting: deque[_Part] = deque()
        source = iter(items)
        try:
            while True:
                n = self.n_workers(runtime)
                self._say_once(f"on the workers of {self._address}", runtime)
                free = AHEAD * n - len(waiting)
                for name, item in itertools.islice(source, max(0, free)):
                    part = self._part(name, common, content, item)
                    self._give(part)
                    waiting.append(part)
                if not waiting:
                    return
                answer = self._answer(waiting, runtime)
                self._take_back([waiting.popleft()])
                yield answer
        finally:
            self._take_back(waiting)

    # --- parts ---

    def _part(self, name: str, common: tuple[Any, ...], content: bytes, item: Any) -> _Part:
        def send(with_shared: bool) -> Any:
            sent = content if with_shared or len(content) <= SMALL else None
            return self._client.submit(worker.compute, *common, sent, item, key=f"tomoseg-{uuid4().hex}", pure=False)

        return _Part(name, send)

    def _give(self, part: _Part, *, with_shared: bool = False) -> None:
        """Give a part to the cluster; the reply is fetched as soon as it is there."""
        future = part.send(with_shared)
        part.futures.append(future)
        part.replies.append(self._begun(self._client.gather(future, direct=True, asynchronous=True)))
        part.times += 1
        part.sent = time.monotonic()

    def _answer(self, waiting: "deque[_Part]", runtime: Runtime) -> Any:
        """Wait for the first part, and return its result; say what its worker said."""
        from distributed import KilledWorker

        part = waiting[0]
        while True:
            self._wait(part, runtime)
            try:
                reply = self._received(part)
            except KilledWorker as error:
                if part.is_alone:
                    raise StageFailed(
                        f"{part.name} ended several workers one after the other, the last of them "
                        f"{error.last_worker.address}. Usually they had too little memory: give workers more, or fewer "
                        "threads each."
                    ) from error
                # Other parts that were on the same workers may be to blame.
                for other in waiting:
                    if other is not part:
                        self._wait(other, runtime)
                part.is_alone = True
                self._give(part, with_shared=True)
                continue
            if isinstance(reply, worker.Unknown):
                self._give(part, with_shared=True)
                continue
            self._tell(reply, runtime)
            return reply.result

    def _wait(self, part: _Part, runtime: Runtime) -> None:
        """Wait until a reply for a part is there; where none comes for long, have another worker compute it, too."""
        told = time.monotonic()
        while not part.is_back:
            time.sleep(LOOK_S)
            runtime.check()
            self._require_scheduler()
            now = time.monotonic()
            if now - told > TELL_S and not self._count(runtime):
                told = part.sent = now
                runtime.progress.message("no worker is left; waiting for another")
            seconds = now - part.sent
            if seconds > max(PATIENCE_S, PATIENCE * self._longest):
                if part.times >= MOST_TIMES:
                    raise StageFailed(
                        f"{part.name} was given to workers {part.times} times and did not come back, the last time "
                        f"within {seconds:.0f} s. Look at the logs of the workers."
                    )
                runtime.warn(f"{part.name} did not come back within {seconds:.0f} s: another worker computes it, too")
                self._give(part, with_shared=True)

    def _received(self, part: _Part) -> Reply:
        """Return the reply that is there; what is raised in its place is forgotten."""
        from distributed.client import FutureCancelledError

        (reply, *_) = (one for one in part.replies if one.done())
        part.replies.remove(reply)
        try:
            return reply.result()
        except (FutureCancelledError, asyncio.CancelledError) as error:
            raise self._gone() from error
        except ModuleNotFoundError as error:
            raise StageFailed(
                f"a worker lacks the package {error.name}: install tomoseg there as it is here"
            ) from error
        except RuntimeError as error:
            if "deserialization" in str(error):
                raise StageFailed(
                    f"the Dask scheduler at {self._address} cannot read what it is given: install the same versions of "
                    "tomoseg and of its packages there and here"
                ) from error
            raise

    def _tell(self, answer: "worker.Answer[Any]", runtime: Runtime) -> None:
        """Say what a worker said, but for what others have said already."""
        for note in answer.notes:
            self._say_once(note, runtime)
        for warning in answer.warnings:
            if warning not in runtime.warnings:
                runtime.warn(warning)
        runtime.device_used = answer.device_used
        self._longest = max(self._longest, answer.seconds)

    @staticmethod
    def _say_once(note: str, runtime: Runtime) -> None:
        if note not in runtime.notes:
            runtime.say(note)

    def _take_back(self, parts: Iterable[_Part]) -> None:
        """Have the cluster forget parts."""
        if self._client is not None and self._client.status == "running":
            futures = [future for part in parts for future in part.futures]
            self._begun(self._client.cancel(futures, asynchronous=True, force=True))

    # --- workers and scheduler ---

    def _count(self, runtime: Runtime) -> int:
        """Return how many workers there are, or were a moment ago."""
        now = time.monotonic()
        if not self._n_workers or now - self._counted > COUNT_S:
            self._n_workers = len(self._waited(self._client.scheduler.ncores(), runtime))
            self._counted = now
        return self._n_workers

    def _begun(self, coroutine: Coroutine[Any, Any, R]) -> "Future[R]":
        """Begin something in the loop of the client."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._client.loop.asyncio_loop)

    def _waited(self, coroutine: Coroutine[Any, Any, R], runtime: Runtime) -> R:
        """Return what a coroutine of the client returns, checking for signals meanwhile."""
        begun = self._begun(coroutine)
        try:
            while not begun.done():
                time.sleep(LOOK_S / 5)
                runtime.check()
                self._require_scheduler()
            return begun.result()
        except OSError as error:
            raise self._gone() from error

    def _require_scheduler(self) -> None:
        if self._client.status != "running":
            raise self._gone()

    def _gone(self) -> StageFailed:
        return StageFailed(
            f"the Dask scheduler at {self._address} is gone, or took back what it was given. What was finished is "
            "kept: the same command goes on where it stopped."
        )
