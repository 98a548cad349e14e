"""The watchdog: no worker waits forever for another.

TensorFlow's own timeout of collectives is meant for debugging only (it starts a thread for each)
and does not say who is missing. So each worker counts the synchronisation points that it reaches
and sends the count to the others. A worker that waits too long finds out who is missing, reports
it, and ends its process; Ray Train then ends all workers, and the run restarts from the last
finished epoch.

While TensorFlow connects the workers it holds the interpreter's lock, so no thread can watch. The
workers therefore first wait for each other through the mailbox; then a timer in C ends the process
if connecting takes too long.
"""

import contextlib
import faulthandler
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from segray.training.control.mailbox import Mailbox, Position

_TICK_SECONDS = 1.0
_START = "the start"


class Watchdog:
    """The watchdog of one worker.

    Args:
        mailbox: the mailbox that all workers share.
        addresses: the addresses of the workers, host:port by rank; they change with each restart.
        rank: the rank of this worker.
        timeout: the seconds to wait for the others.
        leave: ends this process.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        addresses: Sequence[str],
        rank: int,
        timeout: float,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self._mailbox, self._rank, self._timeout, self._leave = mailbox, rank, timeout, leave
        self._addresses, self._generation = addresses, " ".join(addresses)
        self._process = f"process {os.getpid()} on {socket.gethostname()}"
        self._barriers, self._place = 0, _START
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

    def gather(self) -> None:
        """Wait until all workers are running.

        Raises:
            RayError: the mailbox is gone or does not answer within a minute.
        """
        with self.barrier(_START):
            while len(self._mailbox.positions(self._generation)) < len(self._addresses):
                time.sleep(min(_TICK_SECONDS, self._timeout) / 4)

    @contextlib.contextmanager
    def connecting(self) -> Iterator[None]:
        """Watch the block, in which TensorFlow connects the workers after `gather`.

        Raises:
            RayError: the mailbox is gone or does not answer within a minute.
        """
        if self._rank == 0:
            # Reported in advance, because afterwards no worker might be able to.
            self._mailbox.set_problem(
                f"the workers did not connect to each other ({', '.join(self._addresses)}): "
                "every node has to reach the others at all ports"
            )
        with Path(os.devnull).open("w") as nowhere:
            faulthandler.dump_traceback_later(self._timeout, exit=True, file=nowhere)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
        if self._rank == 0:
            self._mailbox.set_problem("")

    @contextlib.contextmanager
    def barrier(self, place: str) -> Iterator[None]:
        """Mark the block as the synchronisation point `place`, where workers wait for others."""
        if place != self._place:  # rank 0 passes a place twice if it reports
            self._barriers, self._place = self._barriers + 1, place
        self._waiting_since = time.monotonic()
        try:
            yield
        finally:
            self._waiting_since = None

    def _watch(self) -> None:
        told = -1
        while True:
            if self._barriers != told:
                told = self._barriers
                position = Position(self._barriers, self._place, self._process)
                self._mailbox.set_position(self._generation, self._rank, position)
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self._timeout:
                # If nobody can be notified any more, there is even less reason to wait.
                with contextlib.suppress(Exception):
                    self._mailbox.set_problem(self._describe(), show=True)
                self._leave(1)
                return
            if self._stopped.wait(min(_TICK_SECONDS, self._timeout / 4)):
                return

    def _describe(self) -> str:
        positions = self._mailbox.positions(self._generation)
        late = []
        for rank, address in enumerate(self._addresses):
            position = positions.get(rank)
            if position is None:
                late.append(f"worker {rank} (at {address}; it has not begun)")
            elif position.barriers < self._barriers:
                late.append(f"worker {rank} ({position.process}; it was last at {position.place})")
        within = f"within {self._timeout:g} s; ending all workers"
        if not late:
            return (
                f"all workers reached {self._place} and did not complete it {within}: check the "
                "network between them"
            )
        return f"{' and '.join(late)} did not reach {self._place} {within}"
