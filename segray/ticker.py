"""A ticker: call a function periodically beside other work."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def ticking(seconds: float, do: Callable[[], None]) -> Iterator[None]:
    """Call a function in a separate thread at intervals while the block runs.

    Args:
        seconds: the time between the end of one call and the next call.
        do: the function. It is not called after the block has ended, which waits for a running
            call.
    """
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(seconds):
            do()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
