"""The trial of a run that Ray does: as many workers as the run has on a node, all at once."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from segray.bulk.cluster import (
    SEARCH_CPUS,
    WORKER_CPUS,
    find_shared,
    most_workers,
    providing_network,
)
from segray.bulk.fleet import Fleet
from segray.bulk.forecast.trial import Trial, take_trial
from segray.bulk.pipeline import PipelineConfig
from segray.bulk.plan import Plan
from segray.errors import InputError
from segray.model.predictor import Predictor
from segray.nodes import (
    Node,
    SharedFiles,
    await_node,
    name_resources,
    reporting_waits,
    worker_nodes,
    works_alone,
)
from segray.storage.listing import Entry


class _TrialWorker:
    """What a worker of the run is, for a trial.

    Args:
        config: settings of the run's pipelines.
        connect: makes the network available to this process.
        shared: the files that a node has to see.
    """

    def __init__(
        self, config: PipelineConfig, connect: Callable[[], Predictor], shared: SharedFiles
    ) -> None:
        self._config, self._shared = config, shared
        self._predictor = connect()

    def problem(self) -> str:
        """The reason why it cannot work; empty if it can."""
        try:
            self._shared.check()
        except InputError as error:
            return str(error)
        return ""

    def take(self, sample: Sequence[Entry]) -> Trial | str:
        """Take the trial, or return the reason why it cannot be taken."""
        try:
            return take_trial(self._config, self._predictor, sample)
        except InputError as error:
            return str(error)


def take_trial_on_node(plan: Plan, sample: Sequence[Entry]) -> tuple[Trial, Fleet, float]:
    """Segment a sample with as many workers as a run has on one node of a cluster, or as fit now.

    With --use-gpu, they send their batches to one predictor on a GPU.

    Args:
        plan: the plan of the run.
        sample: the images.

    Returns:
        The trial, the nodes of the run, and the time at which the workers were ready.

    Raises:
        InputError: a node does not see local files, or cannot run the network.
    """
    await_node("CPU", "the trial")
    nodes = [node for node in worker_nodes() if node.total.get("CPU")]
    kinds = Counter(_kind(node) for node in nodes)
    node = max(nodes, key=lambda node: (kinds[_kind(node)], node.free.get("CPU", 0.0)))
    most = most_workers(plan)
    # Other jobs may hold some of its CPUs, for as long as they like.
    free = int(min(node.total["CPU"], node.free.get("CPU", 0.0) / WORKER_CPUS))
    count = min(max(1, free), most)
    shared = find_shared(plan)
    one = replace(plan, config=replace(plan.config, workers=1, overwrite=False))
    _start_ray_data(len(plan.search.parts))
    with providing_network(one, plan.predictor_loader(threads=1)) as (connect, _):
        make = ray.remote(
            num_cpus=WORKER_CPUS,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        )(_TrialWorker).remote
        config = PipelineConfig.of(plan, threads=1)
        workers = [make(config, connect, shared) for _ in range(count)]
        ready = False
        try:
            with reporting_waits("the trial", {"CPU": WORKER_CPUS}, lambda: not ready):
                for problem in ray.get([worker.problem.remote() for worker in workers]):
                    if problem:
                        raise InputError(problem)
                ready = True
            began = time.monotonic()
            trial = _take_all(workers, sample)
        except ray.exceptions.RayError as error:
            raise InputError(
                f"a worker of the trial died on the node {node.name} ({type(error).__name__}), as "
                "it may for lack of memory: run the same command again, or give --exclude for the "
                "largest images"
            ) from error
    cpus = sum(max(1, int(node.total["CPU"])) for node in nodes)
    fleet = Fleet(
        nodes=len(nodes),
        kind=_kind(node),
        workers=min(cpus, most),
        workers_per_node=max(1, int(node.total["CPU"])),
        most_workers=most,
        cpus_of_job=node.total["CPU"] if works_alone() else 0.0,
    )
    return trial, fleet, began


def _start_ray_data(parts: int) -> None:
    """Run Ray Data on nothing: its own processes have to be started for a run, which takes time."""
    rows = ray.data.from_items([{"part": part} for part in range(parts)])
    rows.map_batches(lambda batch: batch, num_cpus=SEARCH_CPUS).materialize()


def _kind(node: Node) -> str:
    return name_resources(
        {kind: node.total[kind] for kind in ("CPU", "GPU") if node.total.get(kind)}
    )


def _take_all(workers: Sequence[Any], sample: Sequence[Entry]) -> Trial:
    """The trials of all workers at the same time, joined; each begins elsewhere in the sample."""
    turns = [len(sample) * number // len(workers) for number in range(len(workers))]
    answers = ray.get(
        [
            worker.take.remote([*sample[turn:], *sample[:turn]])
            for worker, turn in zip(workers, turns, strict=True)
        ]
    )
    joined = Trial()
    for answer in answers:
        if isinstance(answer, str):
            raise InputError(answer)
        joined.join(answer)
    for worker in workers:
        ray.kill(worker)
    return joined
