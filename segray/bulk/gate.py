"""The gate of a process: chunks that are done side by side, or one alone."""

import contextlib
from collections.abc import Iterator
from threading import Condition


class Gate:
    """Chunks go through it side by side, or one alone, which waits until the others are done."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._inside, self._is_closed = 0, False

    @contextlib.contextmanager
    def beside_others(self) -> Iterator[None]:
        """Let the block run beside others like it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_closed)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let the block run while no other one does."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_closed)
            self._is_closed = True  # no others come in between
            self._changed.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._changed:
                self._is_closed = False
                self._changed.notify_all()
