"""Messages: what workers tell the driver and each other, without Ray's log prefixes."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from segray.training.tracking import History

_POLL_SECONDS = 0.5
# What a watchdog asks may be asked of a node that has left the network.
_ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Position:
    """How far a worker has come.

    Attributes:
        meetings: how often it has come to where all workers wait for each other.
        place: what it came to, in words.
        process: where it runs, in words.
    """

    meetings: int
    place: str
    process: str


class _Mailbox:
    def __init__(self) -> None:
        self._lines: list[str] = []
        self._positions: dict[int, Position] = {}
        self._problem = ""
        self._history: History | None = None

    def put(self, line: str) -> None:
        self._lines.append(line)

    def set_history(self, history: History) -> None:
        self._history = history

    def take(self) -> tuple[list[str], History | None]:
        taken = self._lines, self._history
        self._lines, self._history = [], None
        return taken

    def set_position(self, rank: int, position: Position) -> None:
        self._positions[rank] = position

    def positions(self) -> dict[int, Position]:
        return self._positions

    def set_problem(self, problem: str, tell: bool) -> None:
        if tell and problem != self._problem:
            self._lines.append(problem)
        self._problem = problem

    def problem(self) -> str:
        return self._problem


class Messages:
    """A mailbox that any process of the cluster can write to; call it with a line."""

    def __init__(self) -> None:
        # On the driver's own node: no other node's end takes it away.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(_Mailbox).remote()

    def __call__(self, line: str) -> None:
        """Send a line, without waiting for it to arrive."""
        self._mailbox.put.remote(line)

    def set_history(self, history: History) -> None:
        """Hand over the records of all epochs so far, without waiting for them to arrive."""
        self._mailbox.set_history.remote(list(history))

    def take(self) -> tuple[list[str], History | None]:
        """The lines that came since the last call, and the newest records if some came."""
        taken: tuple[list[str], History | None] = ray.get(self._mailbox.take.remote())
        return taken

    def set_position(self, rank: int, position: Position) -> None:
        """Say how far a worker has come, without waiting for it to arrive."""
        self._mailbox.set_position.remote(rank, position)

    def positions(self) -> dict[int, Position]:
        """How far each worker has come.

        Raises:
            RayError: the mailbox is gone, or does not answer within a minute.
        """
        answer = self._mailbox.positions.remote()
        positions: dict[int, Position] = ray.get(answer, timeout=_ANSWER_SECONDS)
        return positions

    def set_problem(self, problem: str, tell: bool = False) -> None:
        """Say what ends the workers, or by an empty text that it is over.

        Args:
            problem: on one line.
            tell: whether it becomes a line for the terminal, once whoever says it.

        Raises:
            RayError: the mailbox is gone, or does not answer within a minute.
        """
        ray.get(self._mailbox.set_problem.remote(problem, tell), timeout=_ANSWER_SECONDS)

    def problem(self) -> str:
        """What the workers said that ended them; empty if nothing."""
        problem: str = ray.get(self._mailbox.problem.remote())
        return problem


@contextlib.contextmanager
def relay_messages(
    tell: Callable[[str], None], track: Callable[[History], None]
) -> Iterator[Messages]:
    """A mailbox whose lines are passed on to `tell`, and records to `track`, in the block."""
    messages = Messages()
    finished = threading.Event()

    def pass_on() -> None:
        lines, history = messages.take()
        for line in lines:
            tell(line)
        if history is not None:
            track(history)

    def relay() -> None:
        while not finished.wait(_POLL_SECONDS):
            pass_on()

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield messages
    finally:
        finished.set()
        thread.join()
        pass_on()
