"""Messages: what workers tell the driver and each other, without Ray's log prefixes."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from segray.nodes import on_this_node
from segray.ticker import ticking
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
        self._positions: dict[str, dict[int, Position]] = {}
        self._refusals: dict[str, str] = {}
        self._problem, self._told, self._ended = "", False, False
        self._begun = self._may_grow = False
        self._history: History | None = None

    def put(self, line: str) -> None:
        self._lines.append(line)

    def set_history(self, history: History) -> None:
        self._history = history
        # The run has come further: what was refused before is no obstacle to it.
        self._refusals.clear()

    def take(self) -> tuple[list[str], History | None]:
        taken = self._lines, self._history
        self._lines, self._history = [], None
        return taken

    def set_position(self, team: str, rank: int, position: Position) -> None:
        self._positions.setdefault(team, {})[rank] = position

    def positions(self, team: str) -> dict[int, Position]:
        return self._positions.get(team, {})

    def start(self) -> None:
        self._begun = True
        if self._problem and not self._told and not self._ended:
            self.put(self._problem)
        self.set_problem("", tell=False)

    def set_problem(self, problem: str, tell: bool) -> None:
        if self._ended:
            return
        if tell and problem != self._problem:
            self.put(problem)
        self._problem, self._told = problem, tell

    def problem(self) -> str:
        return self._problem

    def refuse(self, team: str, problem: str) -> None:
        if self._refusals.setdefault(problem, team) != team:
            self.end(problem)

    def end(self, problem: str) -> None:
        self._problem, self._ended = problem, True

    def has_ended(self) -> bool:
        return self._ended

    def reset(self) -> None:
        self._begun = self._may_grow = False

    def has_begun(self) -> bool:
        return self._begun

    def set_may_grow(self, may_grow: bool) -> None:
        self._may_grow = may_grow

    def may_grow(self) -> bool:
        return self._may_grow


class Messages:
    """A mailbox that any process of the cluster can write to; call it with a line."""

    def __init__(self) -> None:
        mailbox = ray.remote(num_cpus=0, scheduling_strategy=on_this_node())(_Mailbox)
        self._mailbox: Any = mailbox.remote()

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

    def set_position(self, team: str, rank: int, position: Position) -> None:
        """Say how far a worker of a team has come, without waiting for it to arrive.

        After each restart the workers are another team: those before are heard of no more.
        """
        self._mailbox.set_position.remote(team, rank, position)

    def positions(self, team: str) -> dict[int, Position]:
        """How far each worker of a team has come.

        Raises:
            RayError: the mailbox is gone, or does not answer within a minute.
        """
        positions: dict[int, Position] = self._ask("positions", team)
        return positions

    def start(self) -> None:
        """Say that the workers begin; what ended those before them is told, if it was not.

        Raises:
            RayError: the mailbox is gone, or does not answer within a minute.
        """
        self._ask("start")

    def set_problem(self, problem: str, tell: bool = False) -> None:
        """Say what ends the workers, or by an empty text that it is over.

        Args:
            problem: on one line.
            tell: whether it becomes a line for the terminal, once whoever says it.

        Raises:
            RayError: the mailbox is gone, or does not answer within a minute.
        """
        self._ask("set_problem", problem, tell)

    def problem(self) -> str:
        """What the workers said that ended them; empty if nothing."""
        problem: str = ray.get(self._mailbox.problem.remote())
        return problem

    def refuse(self, team: str, problem: str) -> None:
        """Say what the user has to mend before a worker of a team can go on, it seems.

        A store that did not answer may do so after a restart. What was said by another team in
        the same words is the end, as by `end`.

        Raises:
            RayError: the mailbox is gone, or does not answer within a minute.
        """
        self._ask("refuse", team, problem)

    def end(self, problem: str) -> None:
        """Say what no restart would mend.

        Raises:
            RayError: the mailbox is gone, or does not answer within a minute.
        """
        self._ask("end", problem)

    def has_ended(self) -> bool:
        """Whether there is nothing that a worker could still do.

        Raises:
            RayError: the mailbox is gone, or does not answer within a minute.
        """
        ended: bool = self._ask("has_ended")
        return ended

    def reset(self) -> None:
        """Say that other workers are about to begin, and that there is no room for more of them.

        Raises:
            RayError: the mailbox is gone, or does not answer within a minute.
        """
        self._ask("reset")

    def has_begun(self) -> bool:
        """Whether the workers have begun.

        Raises:
            RayError: the mailbox is gone, or does not answer within a minute.
        """
        begun: bool = self._ask("has_begun")
        return begun

    def set_may_grow(self, may_grow: bool) -> None:
        """Say whether there is room for more workers.

        Raises:
            RayError: the mailbox is gone, or does not answer within a minute.
        """
        self._ask("set_may_grow", may_grow)

    def may_grow(self) -> bool:
        """Whether there is room for more workers.

        Raises:
            RayError: the mailbox is gone, or does not answer within a minute.
        """
        may_grow: bool = self._ask("may_grow")
        return may_grow

    def _ask(self, method: str, *arguments: Any) -> Any:
        answer = getattr(self._mailbox, method).remote(*arguments)
        return ray.get(answer, timeout=_ANSWER_SECONDS)


@contextlib.contextmanager
def relay_messages(
    tell: Callable[[str], None], track: Callable[[History], None]
) -> Iterator[Messages]:
    """A mailbox whose lines are passed on to `tell`, and records to `track`, in the block."""
    messages = Messages()

    def pass_on() -> None:
        # The next call takes what this one could not.
        with contextlib.suppress(RayError):
            lines, history = messages.take()
            for line in lines:
                tell(line)
            if history is not None:
                track(history)

    try:
        with ticking(_POLL_SECONDS, pass_on):
            yield messages
    finally:
        pass_on()
