"""Room: the number of workers that fit on a cluster, now and later in a run."""

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

#: Prefix of the placement groups of `asking_for`, in Ray's table of placement groups.
PLACE = "place for a segray worker"

# The time for which resources that were just released may still appear to be in use.
_SECONDS_TO_SETTLE = 5.0


def worker_resources(config: TrainConfig) -> tuple[dict[str, float], int]:
    """Return the resources that a worker requests from Ray, and its number of compute threads.

    On CPUs, a worker requests as many CPUs as the least number of workers find idle on the present
    nodes or, if others hold them all, as many as there would be without the others. A worker with a
    GPU requests next to no CPU, so that it fits on a node whose CPUs are busy; its number of
    threads is 0, which leaves it to TensorFlow.

    Args:
        config: the configuration of the run.
    """
    if config.use_gpu:
        return {"CPU": 0.1, "GPU": 1.0}, 0
    while not (nodes := _settled_nodes()):  # all were lost with the last workers
        await_node("CPU", "a worker")
    wanted = config.least_workers
    free, totals = (
        [resources.get("CPU", 0.0) for resources in kind]
        for kind in ([node.free for node in nodes], [node.total for node in nodes])
    )
    for offered in (free, totals):
        for cpus in range(int(max(offered, default=0)), 0, -1):
            if sum(amount // cpus for amount in offered) >= wanted:
                return {"CPU": float(cpus)}, cpus
    # More workers than CPUs: each gets an equal share of a CPU, rounded down so that all fit.
    parts = next(n for n in count(1) if sum(int(total * n) for total in totals) >= wanted)
    return {"CPU": math.floor(10_000 / parts) / 10_000}, 1


def _settled_nodes() -> list[Node]:
    """Return the nodes with CPUs, once the CPUs of tasks that just ended are idle again."""
    deadline = time.monotonic() + _SECONDS_TO_SETTLE
    while True:
        nodes = [node for node in worker_nodes() if node.total.get("CPU")]
        held = sum(node.total["CPU"] - node.free.get("CPU", 0.0) for node in nodes)
        if held < 1e-3 or time.monotonic() > deadline:
            return nodes
        time.sleep(0.2)


@contextlib.contextmanager
def checking_gpu(config: TrainConfig) -> Iterator[Callable[[], None]]:
    """Test, while the block runs, that TensorFlow sees the GPU that Ray assigns to a worker.

    Yields:
        A function that raises InputError as soon as the test has failed.
    """
    if not config.workers_use_gpu:
        yield lambda: None
        return
    looking = _look_for_gpu.remote()

    def check() -> None:
        if ray.wait([looking], timeout=0)[0]:
            with contextlib.suppress(RayError):  # the node is gone; the workers test it, too
                if problem := ray.get(looking):
                    raise InputError(problem)

    try:
        yield check
    finally:
        ray.cancel(looking)


@ray.remote(num_cpus=0, num_gpus=1, max_retries=0)
def _look_for_gpu() -> str:
    """Return the reason why TensorFlow cannot use the GPU of this process; empty if it can."""
    try:
        find_tensorflow_gpus()
    except InputError as error:
        return str(error)
    return ""


@contextlib.contextmanager
def asking_for(resources: Mapping[str, float], places: int) -> Iterator[Callable[[], int]]:
    """Reserve places for workers during the block; autoscaling clusters start nodes for them.

    Args:
        resources: the resources of each place, which are those of a worker.
        places: the number of places to reserve.

    Yields:
        A function that returns the number of places reserved so far; nobody else gets these.
    """
    # Ray requires unique names.
    names = [f"{PLACE} {secrets.token_hex(8)}" for _ in range(places)]
    groups = []
    try:
        groups += [placement_group([dict(resources)], name=name) for name in names]
        yield lambda: sum(placement_group_table(group)["state"] == "CREATED" for group in groups)
    finally:
        for group in groups:
            remove_placement_group(group)


def count_workers(config: TrainConfig, resources: Mapping[str, float]) -> int:
    """Return the number of workers to start: as many as fit now, within --workers.

    If there is not even room for the least number, that number is returned, and they have to wait.
    """
    if config.least_workers == config.most_workers:
        return config.most_workers
    with asking_for(resources, config.most_workers) as count_places:
        deadline = time.monotonic() + _SECONDS_TO_SETTLE
        while (found := count_places()) < config.most_workers and time.monotonic() < deadline:
            time.sleep(0.2)
    return max(found, config.least_workers)
