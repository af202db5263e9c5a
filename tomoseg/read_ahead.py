"""Reading the next part of an array while this one is worked on."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(read: Callable[[slice], T], parts: Sequence[slice]) -> Generator[T]:
    """Yield `read(part)` for each part, reading the next part in another thread meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        coming: Future[T] | None = pool.submit(read, parts[0]) if parts else None
        for following in [*parts[1:], None]:
            if coming is None:
                return
            done = coming.result()
            coming = pool.submit(read, following) if following is not None else None
            yield done
