"""A segmentation on a cluster, by Ray Data: the parts of a search in, written chunks out."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import ray
import ray.data
from ray.exceptions import RayError

from segray.bulk.gpus import GpuPool
from segray.bulk.growth import asking_for_room
from segray.bulk.pipeline import CHUNKS_AT_ONCE, PipelineConfig
from segray.bulk.plan import Plan
from segray.bulk.progress import Progress
from segray.bulk.sizes import CLUSTER_CHUNKS, chunk_size, max_chunks
from segray.bulk.tally import Tally
from segray.bulk.tasks import TALLY_TIMEOUT, ChunkWorker, RemoteReporter, SearchTask
from segray.errors import InputError
from segray.model.predictor import Predictor
from segray.nodes import SharedFiles, first_files, on_this_node, reporting_waits, worker_nodes
from segray.storage.lock import LOCK
from segray.storage.uri import absolute_uri, is_local, join_uri

#: A worker asks for the CPU that it keeps busy, but for a rest that all searches find room in: on
#: any machine, one core included, neither keeps the other waiting for ever. A search waits for the
#: store nearly all the time.
WORKER_CPUS = 0.9
SEARCH_CPUS = 0.01
_SEARCHES = 8

# A row is a chunk, and Ray Data passes a task's rows on when they come to so many bytes: at once.
# Its own `repartition` would be one more task, which asks for a whole CPU.
_BLOCK_BYTES = 1

# Ray Data hands an actor several chunks at once only if it is told that its class is thread-safe.
_CHUNKS_IN_AN_ACTOR: dict[str, Any] = {
    "enable_true_multi_threading": True,
    "max_concurrent_calls_per_actor": CHUNKS_AT_ONCE,
    "max_tasks_in_flight_per_actor": CHUNKS_AT_ONCE + 1,
}
# Shares of the chunks that workers could have in hand: with one chunk for each worker the pool
# grows, by one worker for each chunk that waits, and when half of the workers have none it shrinks.
_GROW_AT = 1 / CHUNKS_AT_ONCE
_SHRINK_AT = _GROW_AT / 2


def segment_on_ray(plan: Plan, load: Callable[[], Predictor] | None = None) -> Progress:
    """Segment the images that have no row yet with all of a cluster.

    Args:
        plan: the plan of the run.
        load: loads the network; default: the loader of the plan.

    Raises:
        InputError: a search cannot go on, nothing can be written, a node does not see local files,
            or a GPU cannot be used.
    """
    context = ray.data.DataContext.get_current()
    # Ray Data gives a job up after half an hour without a block; nodes may take longer.
    context.execution_no_progress_timeout_s = -1
    context.target_max_block_size = _BLOCK_BYTES
    context.autoscaling_config.actor_pool_util_upscaling_threshold = _GROW_AT
    context.autoscaling_config.actor_pool_util_downscaling_threshold = _SHRINK_AT
    shared = find_shared(plan)
    shared.check_nodes()
    here = on_this_node()
    tally = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Tally).remote()
    with providing_network(plan, load or plan.predictor_loader(threads=1)) as (connect, is_ready):
        plan.claim()
        progress = Progress(lambda: _ask(tally.totals), plan.missing, is_ready)
        room = reporting_waits("a worker", {"CPU": WORKER_CPUS}, lambda: _is_idle(progress))
        growth = asking_for_room(WORKER_CPUS, lambda: _lacking_cpus(plan, progress))
        with progress.running(), room, growth:
            written = _pipeline(plan, connect, RemoteReporter(tally), shared)
            for batch in written.iter_batches(batch_size=None, batch_format="pyarrow"):
                plan.check()
                for problem in batch["problem"].to_pylist():
                    if problem:
                        raise InputError(problem)
    with contextlib.suppress(RayError):  # a tally that has died ends no run
        progress.predictors = _ask(tally.predictors)
        progress.requests = _ask(tally.requests)
    return progress


def count_nodes() -> tuple[int, float]:
    """The number of nodes that do work at present, and the sum of their CPUs."""
    nodes = worker_nodes()
    return len(nodes), sum(node.total.get("CPU", 0.0) for node in nodes)


def find_shared(plan: Plan) -> SharedFiles:
    """Find local files that every node has to see: of the images, and of the output."""
    root, manifest = plan.search.root, plan.config.manifest
    return SharedFiles.of(
        {
            "--output": join_uri(plan.output, LOCK),
            "--images": first_files(root) if root and is_local(root) else None,
            "--manifest": absolute_uri(manifest) if manifest else None,
        }
    )


def _is_idle(progress: Progress) -> bool:
    """Return True before the first chunk, and while there is no node that could work."""
    return not progress.begun or not any(node.total.get("CPU") for node in worker_nodes())


def _ask(method: Any) -> Any:
    """Call a method of the tally."""
    return ray.get(method.remote(), timeout=TALLY_TIMEOUT)


@contextlib.contextmanager
def providing_network(
    plan: Plan, load: Callable[[], Predictor]
) -> Iterator[tuple[Callable[[], Predictor], Callable[[], bool]]]:
    """While the block runs, provide workers with the network.

    A worker loads it in its own process, or sends its batches to processes that have a GPU.

    Yields:
        A function that a worker calls for its predictor, and one that says whether it is ready.
    """
    if not plan.config.use_gpu:
        yield load, lambda: True
        return
    pool = GpuPool(load, plan.config.workers or sys.maxsize)
    waits = reporting_waits("a predictor", {"GPU": 1.0}, lambda: not pool.is_ready())
    with pool.running(), waits:
        if plan.config.overwrite or plan.config.retry_errors:
            # They delete nothing before the network can run.
            pool.await_ready()
        yield pool.connect, pool.is_ready


def _pipeline(
    plan: Plan,
    connect: Callable[[], Predictor],
    reporter: RemoteReporter,
    shared: SharedFiles,
) -> ray.data.Dataset:
    """The whole job: parts of a search in, files written, a row out for each chunk."""
    config = PipelineConfig.of(plan, threads=1)
    parts = [{"part": part} for part in range(len(plan.search.parts))]
    size = chunk_size(plan, CLUSTER_CHUNKS)
    search = SearchTask(plan.search, ray.put(plan.done), size, reporter, shared)
    return (
        ray.data.from_items(parts, override_num_blocks=len(parts))
        .map_batches(
            search,
            batch_size=1,
            compute=ray.data.TaskPoolStrategy(size=min(len(parts), _SEARCHES)),
            num_cpus=SEARCH_CPUS,
        )
        .map_batches(
            ChunkWorker,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_args=(config, connect, reporter, shared),
            compute=_pool(plan),
            num_cpus=WORKER_CPUS,
        )
    )


def _pool(plan: Plan) -> ray.data.ActorPoolStrategy:
    """The pool of workers: at most one for each chunk, for each CPU, and --workers.

    It grows and shrinks with the cluster, and starts with the CPUs that are there now. With GPUs,
    --workers counts these and not the workers on CPUs.
    """
    most = most_workers(plan)
    now = int(ray.cluster_resources().get("CPU", 0))
    return ray.data.ActorPoolStrategy(
        min_size=1, max_size=most, initial_size=min(max(1, now), most), **_CHUNKS_IN_AN_ACTOR
    )


def most_workers(plan: Plan) -> int:
    """The largest number of workers that a run may have."""
    asked = None if plan.config.use_gpu else plan.config.workers
    return min(asked or sys.maxsize, max_chunks(plan))


def _lacking_cpus(plan: Plan, progress: Progress) -> int:
    """The number of CPUs that the cluster should have beyond those that are there now.

    Each worker should have several chunks to do: for a single one it would hardly have started.
    """
    chunks = math.ceil(progress.left / chunk_size(plan, CLUSTER_CHUNKS))
    wanted = min(math.ceil(chunks / CHUNKS_AT_ONCE), most_workers(plan))
    return wanted - int(ray.cluster_resources().get("CPU", 0))
