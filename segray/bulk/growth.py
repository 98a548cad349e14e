"""Growth of a cluster: requests for CPUs that make it start nodes for the chunks that wait.

Ray Data asks for twice the CPUs that it has, as one demand, and Ray's autoscaler starts no node at
all for a demand that goes beyond what the cluster may grow to: one of three nodes stays at two.
Tasks that wait for room are demands of their own, and are met as far as it goes.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.exceptions import RayError

from segray.nodes import do_nothing
from segray.ticker import ticking

_SECONDS_BETWEEN_LOOKS = 5.0
# Pending tasks are noted by the scheduler one by one; a cluster that has started so many CPUs is
# asked for more the next time.
_MOST_AT_ONCE = 256


@contextlib.contextmanager
def asking_for_room(cpus: float, lacking: Callable[[], int]) -> Iterator[None]:
    """While the block runs, keep tasks waiting for CPUs, which they do nothing with.

    Args:
        cpus: CPUs that each task asks for.
        lacking: returns the number of tasks that should wait now.
    """
    ask = do_nothing.options(num_cpus=cpus)
    waiting: list[Any] = []

    def look() -> None:
        nonlocal waiting
        # A cluster that does not answer now is asked the next time.
        with contextlib.suppress(RayError):
            if waiting:
                _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=0)
            wanted = min(max(0, lacking()), _MOST_AT_ONCE)
            for surplus in waiting[wanted:]:
                ray.cancel(surplus)
            waiting = waiting[:wanted]
            waiting += [ask.remote() for _ in range(wanted - len(waiting))]

    try:
        with ticking(_SECONDS_BETWEEN_LOOKS, look):
            yield
    finally:
        for task in waiting:
            ray.cancel(task)
