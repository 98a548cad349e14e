"""Node time: the hours for which a run has had nodes, and their CPUs, whether busy or not."""

import contextlib
import time
from collections.abc import Callable, Iterator

from segray.ticker import ticking

_SECONDS_BETWEEN_LOOKS = 5.0


class NodeTime:
    """Adds up the time of nodes.

    Args:
        look: returns the number of nodes that do work at present, and the sum of their CPUs.

    Attributes:
        node_hours: hours of nodes so far.
        cpu_hours: hours of CPUs so far.
    """

    def __init__(self, look: Callable[[], tuple[int, float]]) -> None:
        self._look = look
        self.node_hours = self.cpu_hours = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Add up while a block runs; a node that joins counts from the last look."""
        looked = time.monotonic()

        def add() -> None:
            nonlocal looked
            # A cluster that does not answer now is asked the next time.
            with contextlib.suppress(Exception):
                nodes, cpus = self._look()
                hours = (time.monotonic() - looked) / 3600
                looked += 3600 * hours
                self.node_hours += nodes * hours
                self.cpu_hours += cpus * hours

        try:
            with ticking(_SECONDS_BETWEEN_LOOKS, add):
                yield
        finally:
            add()
