"""The watchdog: no worker waits for another without end.

TensorFlow's own time-out of collectives is for debugging only (it starts a thread for each), and
names nobody. So each worker counts the meetings, where all of them wait for each other, and tells
the others its count. One that waits too long finds out who is missing, says so, and ends its
process: Ray Train then restarts all of them from the last finished epoch.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from segray.training.messages import Messages, Position

_TICK_SECONDS = 1.0


class Watchdog:
    """Of one worker.

    Args:
        messages: shared by all workers.
        rank: of this worker.
        timeout: seconds to wait for the others.
        leave: ends this process.
    """

    def __init__(
        self,
        messages: Messages,
        rank: int,
        timeout: float,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self._messages, self._rank, self._timeout, self._leave = messages, rank, timeout, leave
        self._process = f"process {os.getpid()} on {socket.gethostname()}"
        self._meetings, self._place = 0, "the start"
        self._waiting_since: float | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Watch while the block runs."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._thread.join()

    @contextlib.contextmanager
    def meeting(self, place: str) -> Iterator[None]:
        """In the block this worker waits for the others, at `place`."""
        if place != self._place:  # rank 0 comes twice where it reports
            self._meetings, self._place = self._meetings + 1, place
        self._waiting_since = time.monotonic()
        try:
            yield
        finally:
            self._waiting_since = None

    def _watch(self) -> None:
        told = -1
        while not self._stopped.wait(min(_TICK_SECONDS, self._timeout / 4)):
            if self._meetings != told:
                told = self._meetings
                position = Position(self._meetings, self._place, self._process)
                self._messages.set_position(self._rank, position)
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self._timeout:
                # Where nobody can be told any more, there is all the less to wait for.
                with contextlib.suppress(Exception):
                    self._messages.set_problem(self._describe(), tell=True)
                self._leave(1)
                return

    def _describe(self) -> str:
        others = self._messages.positions()
        late = [
            f"worker {rank} ({position.process}; it was last at {position.place})"
            for rank, position in sorted(others.items())
            if position.meetings < self._meetings
        ]
        who = " and ".join(late) if late else "the network between the workers, where all are,"
        return f"{who} did not come to {self._place} within {self._timeout:g} s: the workers end"
