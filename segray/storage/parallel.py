"""A parallel map that yields results in order and computes few of them ahead of use."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def count_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> Iterator[_Result]:
    """Apply a function in threads; for one that mostly waits, such as a request to a store.

    Args:
        function: called by several threads at once.
        items: consumed as needed.
        threads: the number of concurrent calls; at most as many results are held.
    """
    coming: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                coming.append(pool.submit(function, item))
                if len(coming) > threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            # What is not wanted any more need not begin, as after Ctrl-C.
            for future in coming:
                future.cancel()
