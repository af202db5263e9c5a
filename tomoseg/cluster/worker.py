"""What runs on a worker: one part at a time, on the threads, the memory and the GPU that the worker was given."""

import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from tomoseg import __version__
from tomoseg.errors import StageFailed
from tomoseg.reconstruction.backends.gpu import listed, visible
from tomoseg.runtime import Device, Runtime, default_memory

R = TypeVar("R")
_one_at_a_time = threading.Lock()  # a part takes all threads of its worker
_held: list[int] = []  # descriptors of the locks of GPUs
_shared: dict[str, Any] = {}  # what parts share, by its digest
MOST_SHARED = 2


@dataclass(frozen=True)
class Answer(Generic[R]):
    """What a worker returns: a result, what was said on the way, the device used, and the seconds it took."""

    result: R
    notes: list[str]
    warnings: list[str]
    device_used: str
    seconds: float


@dataclass(frozen=True)
class Unknown:
    """What a worker returns that has not been sent yet what parts share."""


def compute(
    version: str,
    device: Device,
    function: Callable[[Any, Any, Runtime], R],
    digest: str,
    content: bytes | None,
    item: Any,
) -> Answer[R] | Unknown:
    """Return ``function(shared, item, runtime)`` with the runtime of this worker.

    What is shared is known by its `digest`, once it was sent as pickled `content`. Raises `StageFailed` where another
    version of tomoseg asks, and what `function` does.
    """
    from distributed import get_worker

    with _one_at_a_time:
        if digest not in _shared:
            if content is None:
                return Unknown()
            while len(_shared) >= MOST_SHARED:
                del _shared[next(iter(_shared))]
            _shared[digest] = pickle.loads(content)  # noqa: S301  Dask loads calls in the same way
        return _answered(get_worker(), version, device, partial(function, _shared[digest], item))


def answer(
    version: str, device: Device, function: Callable[[Any, Runtime], R], content: bytes, dask_worker: Any = None
) -> Answer[R]:
    """Return ``function(argument, runtime)``, with the argument pickled as `content`; otherwise as `compute`.

    Dask gives its own worker.
    """
    with _one_at_a_time:
        return _answered(dask_worker, version, device, partial(function, pickle.loads(content)))  # noqa: S301


def _answered(worker: Any, version: str, device: Device, function: Callable[[Runtime], R]) -> Answer[R]:
    if version != __version__:
        raise StageFailed(
            f"the worker {worker.address} has tomoseg {__version__}, and this is {version}: install the same version"
        )
    if device != "cpu" and not _held:
        take_gpu(Path(tempfile.gettempdir()))
    limit = worker.memory_manager.memory_limit
    memory = limit // 2 if limit else default_memory()
    runtime = Runtime(device=device, workers=worker.state.nthreads, max_memory=memory)
    began = time.monotonic()
    result = function(runtime)
    return Answer(result, runtime.notes, runtime.warnings, runtime.device_used, time.monotonic() - began)


def take_gpu(folder: Path) -> None:
    """Of several GPUs, have this process use the first that no other worker of this user on this machine uses.

    Each is held by a lock on a file in `folder`, which ends with the process. Where all are taken, nothing is changed.
    """
    import fcntl  # not on Windows

    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = visible(listed(), setting, by_place=True)
    if len(found) < 2:
        return
    for one in found:
        descriptor = os.open(folder / f"tomoseg-{os.getuid()}-{one.uuid}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            continue
        _held.append(descriptor)
        os.environ["CUDA_VISIBLE_DEVICES"] = one.uuid
        return
