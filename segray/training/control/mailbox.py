"""The mailbox: what workers tell the driver and each other, past Ray's log."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from segray.nodes import on_this_node
from segray.ticker import ticking
from segray.training.outputs.tracking import History

_LOGGER = logging.getLogger("segray")

_POLL_SECONDS = 0.5
# Timeout in seconds: the node of the mailbox may have left the network.
_ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Position:
    """The position of a worker in the run.

    Attributes:
        barriers: the number of synchronisation points that the worker has reached.
        place: the name of the last one.
        process: the process and its host, for messages.
    """

    barriers: int
    place: str
    process: str


@dataclass(frozen=True)
class Line:
    """A line that a worker logs.

    Attributes:
        text: the line.
        level: its level, as `logging` numbers them.
        logger: the name of its logger.
    """

    text: str
    level: int = logging.WARNING
    logger: str = __name__


class _MailboxActor:
    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._positions: dict[str, dict[int, Position]] = {}
        self._refusals: dict[str, str] = {}
        self._problem, self._shown, self._ended = "", False, False
        self._begun = self._may_grow = False
        self._history: History | None = None

    def put(self, line: Line) -> None:
        self._lines.append(line)

    def set_history(self, history: History) -> None:
        self._history = history
        # The run has made progress, so the problems reported before did not stop it.
        self._refusals.clear()

    def take(self) -> tuple[list[Line], History | None]:
        taken = self._lines, self._history
        self._lines, self._history = [], None
        return taken

    def set_position(self, generation: str, rank: int, position: Position) -> None:
        self._positions.setdefault(generation, {})[rank] = position

    def positions(self, generation: str) -> dict[int, Position]:
        return self._positions.get(generation, {})

    def start(self) -> None:
        self._begun = True
        if self._problem and not self._shown and not self._ended:
            self.put(Line(self._problem))
        self.set_problem("", show=False)

    def set_problem(self, problem: str, show: bool) -> None:
        if self._ended:
            return
        if show and problem != self._problem:
            self.put(Line(problem))
        self._problem, self._shown = problem, show

    def problem(self) -> str:
        return self._problem

    def refuse(self, generation: str, problem: str) -> None:
        if self._refusals.setdefault(problem, generation) != generation:
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


class Mailbox:
    """A mailbox that any process of the cluster can write to.

    Attributes:
        level: the level from which the process that made the mailbox logs.
    """

    def __init__(self) -> None:
        self.level = _LOGGER.getEffectiveLevel()
        mailbox = ray.remote(num_cpus=0, scheduling_strategy=on_this_node())(_MailboxActor)
        self._mailbox: Any = mailbox.remote()

    def put(self, line: Line) -> None:
        """Send a line, without waiting for its arrival."""
        self._mailbox.put.remote(line)

    def set_history(self, history: History) -> None:
        """Send the records of all epochs so far, without waiting for their arrival."""
        self._mailbox.set_history.remote(list(history))

    def take(self) -> tuple[list[Line], History | None]:
        """Return the lines received since the last call, and the newest records, if any."""
        taken: tuple[list[Line], History | None] = ray.get(self._mailbox.take.remote())
        return taken

    def set_position(self, generation: str, rank: int, position: Position) -> None:
        """Send the position of a worker of a generation, without waiting for its arrival.

        Each restart of the workers forms another generation, and the positions of earlier ones are
        no longer looked at.
        """
        self._mailbox.set_position.remote(generation, rank, position)

    def positions(self, generation: str) -> dict[int, Position]:
        """Return the position of each worker of a generation.

        Raises:
            RayError: the mailbox is gone or does not answer within a minute.
        """
        positions: dict[int, Position] = self._ask("positions", generation)
        return positions

    def start(self) -> None:
        """Report that the workers are starting, and print an unprinted problem of earlier ones.

        Raises:
            RayError: the mailbox is gone or does not answer within a minute.
        """
        self._ask("start")

    def set_problem(self, problem: str, show: bool = False) -> None:
        """Set the problem that ends the workers; an empty text clears it.

        Args:
            problem: the problem, on one line.
            show: True to log it, once even if several workers report it.

        Raises:
            RayError: the mailbox is gone or does not answer within a minute.
        """
        self._ask("set_problem", problem, show)

    def problem(self) -> str:
        """Return the problem that ended the workers; empty if none was reported."""
        problem: str = ray.get(self._mailbox.problem.remote())
        return problem

    def refuse(self, generation: str, problem: str) -> None:
        """Report a problem that the user probably has to solve before a worker can continue.

        It may be temporary, such as a store that does not answer, so the workers are restarted
        once. If another generation reports the same problem, the run ends as with `end`.

        Raises:
            RayError: the mailbox is gone or does not answer within a minute.
        """
        self._ask("refuse", generation, problem)

    def end(self, problem: str) -> None:
        """Report a problem that no restart can solve.

        Raises:
            RayError: the mailbox is gone or does not answer within a minute.
        """
        self._ask("end", problem)

    def has_ended(self) -> bool:
        """Return True if the run has ended with a problem that no restart can solve.

        Raises:
            RayError: the mailbox is gone or does not answer within a minute.
        """
        ended: bool = self._ask("has_ended")
        return ended

    def reset(self) -> None:
        """Prepare for the next workers: none have started, and there is no room for more of them.

        Raises:
            RayError: the mailbox is gone or does not answer within a minute.
        """
        self._ask("reset")

    def has_begun(self) -> bool:
        """Return True once the workers have started.

        Raises:
            RayError: the mailbox is gone or does not answer within a minute.
        """
        begun: bool = self._ask("has_begun")
        return begun

    def set_may_grow(self, may_grow: bool) -> None:
        """Set whether there is room for more workers.

        Raises:
            RayError: the mailbox is gone or does not answer within a minute.
        """
        self._ask("set_may_grow", may_grow)

    def may_grow(self) -> bool:
        """Return True if there is room for more workers.

        Raises:
            RayError: the mailbox is gone or does not answer within a minute.
        """
        may_grow: bool = self._ask("may_grow")
        return may_grow

    def _ask(self, method: str, *arguments: Any) -> Any:
        answer = getattr(self._mailbox, method).remote(*arguments)
        return ray.get(answer, timeout=_ANSWER_SECONDS)


@contextlib.contextmanager
def relay_mailbox(track: Callable[[History], None]) -> Iterator[Mailbox]:
    """Open a mailbox for the block; log its lines here, and pass its records to `track`."""
    mailbox = Mailbox()

    def pass_on() -> None:
        # The next call takes what this one could not.
        with contextlib.suppress(RayError):
            lines, history = mailbox.take()
            for line in lines:
                logging.getLogger(line.logger).log(line.level, line.text)
            if history is not None:
                track(history)

    try:
        with ticking(_POLL_SECONDS, pass_on):
            yield mailbox
    finally:
        pass_on()


class _Forwarder(logging.Handler):
    def __init__(self, mailbox: Mailbox) -> None:
        super().__init__()
        self._mailbox = mailbox

    def emit(self, record: logging.LogRecord) -> None:
        self._mailbox.put(Line(record.getMessage(), record.levelno, record.name))


@contextlib.contextmanager
def forward_log(mailbox: Mailbox) -> Iterator[None]:
    """Send what segray logs in this process to a mailbox while the block runs."""
    forwarder, before = _Forwarder(mailbox), (_LOGGER.level, _LOGGER.propagate)
    _LOGGER.setLevel(mailbox.level)
    _LOGGER.addHandler(forwarder)
    _LOGGER.propagate = False  # Ray Train's handlers would bring the lines to the driver again
    try:
        yield
    finally:
        _LOGGER.removeHandler(forwarder)
        _LOGGER.level, _LOGGER.propagate = before
