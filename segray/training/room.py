"""Room: how many workers a cluster has place for, now and later in a run."""

import contextlib
import math
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count

import ray
from ray.exceptions import RayError
from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from segray.errors import InputError
from segray.model.predictor import find_tensorflow_gpus
from segray.nodes import Node, await_node, worker_nodes
from segray.training.config import TrainConfig

#: Begins the names of what `asking_for` asks for, in Ray's table of placement groups.
PLACE = "place for a segray worker"

# For how long what others have just given back may seem to be taken.
_SECONDS_TO_SETTLE = 5.0


def worker_resources(
    config: TrainConfig, tell: Callable[[str], None]
) -> tuple[dict[str, float], int]:
    """What a worker asks Ray for, and how many threads it computes with (0: TensorFlow's pick).

    On CPUs that is as many as the least number of workers find free on the nodes that are there;
    where others hold them all, as many as if there were no others. A GPU's worker asks for next to
    nothing of a CPU, so that it has its GPU beside most that is at work on that node.

    Args:
        config: of the run.
        tell: is called with lines for the user's terminal, while there is no node with a CPU.
    """
    if config.use_gpu:
        return {"CPU": 0.1, "GPU": 1.0}, 0
    while not (nodes := _settled_nodes()):  # they have all gone with the last workers
        await_node("CPU", "a worker", tell)
    wanted = config.least_workers
    free, totals = (
        [resources.get("CPU", 0.0) for resources in kind]
        for kind in ([node.free for node in nodes], [node.total for node in nodes])
    )
    for offered in (free, totals):
        for cpus in range(int(max(offered, default=0)), 0, -1):
            if sum(amount // cpus for amount in offered) >= wanted:
                return {"CPU": float(cpus)}, cpus
    # More workers than CPUs: each gets an equal part of one, rounded down so that all fit.
    parts = next(n for n in count(1) if sum(int(total * n) for total in totals) >= wanted)
    return {"CPU": math.floor(10_000 / parts) / 10_000}, 1


def _settled_nodes() -> list[Node]:
    """The nodes with CPUs, when the CPUs of tasks that have just ended are free again."""
    deadline = time.monotonic() + _SECONDS_TO_SETTLE
    while True:
        nodes = [node for node in worker_nodes() if node.total.get("CPU")]
        held = sum(node.total["CPU"] - node.free.get("CPU", 0.0) for node in nodes)
        if held < 1e-3 or time.monotonic() > deadline:
            return nodes
        time.sleep(0.2)


@contextlib.contextmanager
def checking_gpu(config: TrainConfig) -> Iterator[Callable[[], None]]:
    """While the block runs, find out whether TensorFlow sees a GPU that Ray gives a worker.

    Yields:
        A function that raises InputError when it is known that it does not.
    """
    if not config.workers_use_gpu:
        yield lambda: None
        return
    looking = _look_for_gpu.remote()

    def check() -> None:
        if ray.wait([looking], timeout=0)[0]:
            with contextlib.suppress(RayError):  # the node has gone: the workers look as well
                if problem := ray.get(looking):
                    raise InputError(problem)

    try:
        yield check
    finally:
        ray.cancel(looking)


@ray.remote(num_cpus=0, num_gpus=1, max_retries=0)
def _look_for_gpu() -> str:
    """Why TensorFlow cannot compute on the GPU that this process was given; empty if it can."""
    try:
        find_tensorflow_gpus()
    except InputError as error:
        return str(error)
    return ""


@contextlib.contextmanager
def asking_for(resources: Mapping[str, float], places: int) -> Iterator[Callable[[], int]]:
    """Ask for places as long as the block runs; a cluster that grows starts nodes for them.

    Args:
        resources: of each place, which is that of a worker.
        places: how many are asked for.

    Yields:
        A function that counts the places that there are by now; nobody else gets them.
    """
    # Ray wants names of them that are used once.
    names = [f"{PLACE} {secrets.token_hex(8)}" for _ in range(places)]
    groups = []
    try:
        groups += [placement_group([dict(resources)], name=name) for name in names]
        yield lambda: sum(placement_group_table(group)["state"] == "CREATED" for group in groups)
    finally:
        for group in groups:
            remove_placement_group(group)


def count_workers(config: TrainConfig, resources: Mapping[str, float]) -> int:
    """How many workers to begin with: as many as there is room for now, within --workers.

    Where there is too little for the least number, they have to wait.
    """
    if config.least_workers == config.most_workers:
        return config.most_workers
    with asking_for(resources, config.most_workers) as count_places:
        deadline = time.monotonic() + _SECONDS_TO_SETTLE
        while (found := count_places()) < config.most_workers and time.monotonic() < deadline:
            time.sleep(0.2)
    return max(found, config.least_workers)
