"""Messages: lines that a worker wants on the driver's terminal, without Ray's prefixes."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_POLL_SECONDS = 0.5


class _Mailbox:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def put(self, line: str) -> None:
        self._lines.append(line)

    def take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines


class Messages:
    """A mailbox that any process of the cluster can write to; call it with a line."""

    def __init__(self) -> None:
        # On the driver's own node: no other node's end takes it away.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(_Mailbox).remote()

    def __call__(self, line: str) -> None:
        """Send a line, without waiting for it to arrive."""
        self._mailbox.put.remote(line)

    def take(self) -> list[str]:
        """The lines that came since the last call."""
        lines: list[str] = ray.get(self._mailbox.take.remote())
        return lines


@contextlib.contextmanager
def relay_messages(tell: Callable[[str], None]) -> Iterator[Messages]:
    """A mailbox whose lines are passed on to `tell` while the block runs."""
    messages = Messages()
    finished = threading.Event()

    def relay() -> None:
        while not finished.wait(_POLL_SECONDS):
            for line in messages.take():
                tell(line)

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield messages
    finally:
        finished.set()
        thread.join()
        for line in messages.take():
            tell(line)
