"""Work on the next items while the caller is busy with this one."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def ahead(function: Callable[[S], T], items: Iterable[S], workers: int = 1) -> Generator[T]:
    """Yield `function(item)` for each item in order, computing up to `workers` more in threads meanwhile.

    Items are taken in the thread of the caller.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="ahead") as pool:
        coming: deque[Future[T]] = deque()
        try:
            for item in items:
                coming.append(pool.submit(function, item))
                if len(coming) > workers:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for one in coming:
                one.cancel()
