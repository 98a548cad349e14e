"""A ticker: something that is done again and again beside other work."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def ticking(seconds: float, do: Callable[[], None]) -> Iterator[None]:
    """While a block runs, call a function in a thread of its own, every so many seconds.

    Args:
        seconds: between the end of one call and the next.
        do: is called; not once the block has ended, which waits for a call that is under way.
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
