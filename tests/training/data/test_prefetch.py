import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from segray.training.data.prefetch import Prefetched


def wait_until(true: Callable[[], bool]) -> bool:
    """Whether it became true within some seconds."""
    deadline = time.monotonic() + 10
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def slowly(items: range, seconds: float) -> Iterator[int]:
    for item in items:
        time.sleep(seconds)
        yield item


@pytest.mark.parametrize("ahead", [1, 2, 50])
def test_items_come_in_their_order_and_all_of_them(ahead: int) -> None:
    assert list(Prefetched(range(20), ahead)) == list(range(20))
    assert list(Prefetched([], ahead)) == []


def test_items_are_made_in_another_thread() -> None:
    [thread] = Prefetched(threading.current_thread() for _ in range(1))
    assert thread is not threading.current_thread()


def test_an_error_is_raised_where_its_item_is_taken() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("the disk is gone")

    taken = iter(Prefetched(items()))
    assert [next(taken) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(taken)


@pytest.mark.parametrize("ahead", [1, 3])
def test_so_many_items_are_made_ahead_and_no_more(ahead: int) -> None:
    """One more than are kept ready: the one that waits for a place."""
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in itertools.count():
            made.append(item)
            yield item

    taker = iter(Prefetched(items(), ahead))
    for taken in range(1, 4):
        next(taker)
        assert wait_until(lambda: len(made) == taken + ahead + 1)  # noqa: B023
        time.sleep(0.1)
        assert len(made) == taken + ahead + 1


def test_leaving_early_ends_the_thread() -> None:
    threads = []
    for thread in Prefetched(threading.current_thread() for _ in itertools.count()):
        threads.append(thread)
        break
    assert wait_until(lambda: not threads[0].is_alive())


def test_an_error_of_the_taker_ends_the_thread() -> None:
    threads = []

    def take() -> None:
        for thread in Prefetched(threading.current_thread() for _ in itertools.count()):
            threads.append(thread)
            raise RuntimeError("the taker gives up")

    with pytest.raises(RuntimeError, match="the taker gives up"):
        take()
    assert wait_until(lambda: not threads[0].is_alive())


def test_a_taker_waits_for_a_slow_source_and_not_for_a_fast_one() -> None:
    slow = Prefetched(slowly(range(8), 0.05))
    assert list(slow) == list(range(8))
    assert (
        0.3 < slow.waited < 5
    )  # eight times 0.05 s, less what was made before the first was taken

    fast = Prefetched(range(8))
    started = time.monotonic()
    for _ in fast:
        time.sleep(0.05)
    assert fast.waited < 0.5 * (time.monotonic() - started)
