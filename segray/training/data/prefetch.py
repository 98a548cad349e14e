"""Prefetching: a thread makes the next items while the current one is in use."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Prefetched(Generic[_T]):
    """The items of an iterable, made ahead of use by a thread.

    Args:
        items: iterated in the thread; its exceptions are raised in the consumer.
        ahead: the number of items that are kept ready.

    Attributes:
        waited: the seconds that the consumer has waited for items.
    """

    def __init__(self, items: Iterable[_T], ahead: int = 2) -> None:
        self.waited = 0.0
        self._items = items
        self._ready: queue.Queue[tuple[_T | None, BaseException | None]] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[_T]:
        try:
            while True:
                started = time.monotonic()
                item, error = self._ready.get()
                self.waited += time.monotonic() - started
                if isinstance(error, StopIteration):
                    return
                if error is not None:
                    raise error
                assert item is not None
                yield item
        finally:
            self._stopped.set()

    def _fill(self) -> None:
        end: BaseException = StopIteration()
        try:
            for item in self._items:
                if not self._put(item, None):
                    return
        except BaseException as error:
            end = error
        self._put(None, end)

    def _put(self, item: _T | None, error: BaseException | None) -> bool:
        """Hand over an item; return False if the consumer has gone away."""
        while not self._stopped.is_set():
            try:
                self._ready.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
