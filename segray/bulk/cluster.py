"""The cluster: a segmentation by Ray Data, from the parts of a listing to written chunks."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError

from segray.bulk.chunk import CHUNKS_AT_ONCE, ChunkSegmenter, Orders
from segray.bulk.plan import Plan
from segray.bulk.progress import Progress
from segray.bulk.run import chunk_images, in_chunks, make_orders, most_chunks
from segray.bulk.search import Found, Search
from segray.bulk.tally import Counts, Tally
from segray.errors import InputError
from segray.storage.listing import Entry

# Shares of a CPU that a search and a predictor ask Ray for: less than one, so that on any machine,
# one core included, predictors never hold all of the CPUs that the searches wait for.
_SEARCH_CPUS = 0.25
_PREDICTOR_CPUS = 0.5
# A row is a chunk, and Ray Data passes a task's rows on when they come to so many bytes: at once.
# Its own `repartition` would be one more task, which asks for a whole CPU.
_BLOCK_BYTES = 1

# Ray Data hands an actor several chunks at once only if it is told that its class is thread-safe.
_CHUNKS_IN_AN_ACTOR: dict[str, Any] = {
    "enable_true_multi_threading": True,
    "max_concurrent_calls_per_actor": CHUNKS_AT_ONCE,
    "max_tasks_in_flight_per_actor": CHUNKS_AT_ONCE + 1,
}

# Seconds that an answer of the tally may take.
_PATIENCE = 30.0

_IMAGE = pa.struct([("uri", pa.string()), ("size", pa.int64()), ("etag", pa.string())])
_CHUNKS = pa.schema(
    [
        ("images", pa.list_(_IMAGE)),
        # Why a search cannot go on. An exception would reach the driver without its cause.
        ("problem", pa.string()),
    ]
)
_WRITTEN = pa.schema([("problem", pa.string())])


class _RemoteReporter:
    """Sends reports to a tally in another process; only for a chunk's last one it waits."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def found(self, part: int, found: Found) -> None:
        self._actor.found.remote(part, found)

    def done(self, chunk: str, predictor: str, counts: Counts, last: bool = False) -> None:
        arrives = self._actor.done.remote(chunk, predictor, counts)
        if last:
            # A tally that was lost with its node is begun anew: its counts are for people only.
            with contextlib.suppress(RayError):
                ray.get(arrives, timeout=_PATIENCE)


def segment_on_ray(plan: Plan, tell: Callable[[str], None]) -> Progress:
    """Segment the images that have no row yet with all of a cluster.

    Args:
        plan: of the run.
        tell: is called with lines for the user's terminal.

    Raises:
        InputError: a search cannot go on, or nothing can be written.
    """
    context = ray.data.DataContext.get_current()
    # Ray Data gives a job up after half an hour without a block; nodes may take longer.
    context.execution_no_progress_timeout_s = -1
    context.target_max_block_size = _BLOCK_BYTES
    tally = ray.remote(num_cpus=0, max_restarts=-1)(Tally).remote()
    progress = Progress(lambda: _ask(tally.totals), plan.missing, tell)
    with progress.running():
        written = _pipeline(plan, _RemoteReporter(tally))
        for batch in written.iter_batches(batch_size=None, batch_format="pyarrow"):
            plan.check()
            for problem in batch["problem"].to_pylist():
                if problem:
                    raise InputError(problem)
    with contextlib.suppress(RayError):  # a tally that was lost with its node ends no run
        progress.predictors = _ask(tally.predictors)
    return progress


def _ask(method: Any) -> dict[str, int]:
    """What a method of the tally answers."""
    answer: dict[str, int] = ray.get(method.remote(), timeout=_PATIENCE)
    return answer


def _pipeline(plan: Plan, reporter: _RemoteReporter) -> ray.data.Dataset:
    """The whole job: parts of a listing in, files written, one row out for each chunk."""
    predictors, pool = _predictors(plan)
    gpus = 1 if plan.config.use_gpu else 0
    orders = make_orders(plan, _threads(plan, predictors))
    parts = [{"part": part} for part in range(len(plan.search.parts))]
    search = _SearchTask(plan.search, ray.put(plan.done), chunk_images(plan, predictors), reporter)
    return (
        ray.data.from_items(parts, override_num_blocks=len(parts))
        .map_batches(search, batch_size=1, num_cpus=_SEARCH_CPUS)
        .map_batches(
            _Predictor,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_args=(orders, reporter),
            compute=pool,
            num_cpus=_predictor_cpus(predictors),
            num_gpus=gpus,
        )
    )


@dataclass(frozen=True)
class _SearchTask:
    """The number of a part -> chunks of the images that are missing in it, as they are found."""

    search: Search
    done: Any  # a reference to the ids that have a row
    size: int  # of a chunk
    reporter: _RemoteReporter

    def __call__(self, parts: dict[str, Any]) -> Iterator[pa.Table]:
        done, [part] = ray.get(self.done), parts["part"].tolist()
        try:
            missing = self.search.missing(part, done, partial(self.reporter.found, part))
            for entries in in_chunks(missing, self.size):
                images = [vars(entry) for entry in entries]
                yield pa.Table.from_pylist([{"images": images}], _CHUNKS)
        except InputError as error:
            yield pa.Table.from_pylist([{"problem": str(error)}], _CHUNKS)
        yield _CHUNKS.empty_table()


class _Predictor:
    """A chunk of images -> their files, written."""

    def __init__(self, orders: Orders, reporter: _RemoteReporter) -> None:
        self._segmenter = ChunkSegmenter(orders, reporter)

    def __call__(self, chunks: pa.Table) -> pa.Table:
        problems = []
        for chunk in chunks.to_pylist():
            problem = chunk["problem"]
            try:
                self._segmenter.segment([Entry(**image) for image in chunk["images"] or []])
            except InputError as error:
                problem = str(error)
            problems.append({"problem": problem})
        return pa.Table.from_pylist(problems, _WRITTEN)


def _predictors(plan: Plan) -> tuple[int, ray.data.ActorPoolStrategy]:
    """How many predictors to start with, and their pool."""
    kind = "GPU" if plan.config.use_gpu else "CPU"
    now = plan.config.workers or int(ray.cluster_resources().get(kind, 0))
    if not now:
        # A cluster that starts its nodes when they are asked for: ask until it has no more.
        return 1, ray.data.ActorPoolStrategy(
            min_size=1, max_size=plan.missing or None, **_CHUNKS_IN_AN_ACTOR
        )
    # Never more predictors than there can be chunks.
    predictors = min(now, most_chunks(plan))
    return predictors, ray.data.ActorPoolStrategy(
        min_size=1, max_size=predictors, initial_size=predictors, **_CHUNKS_IN_AN_ACTOR
    )


def _predictor_cpus(predictors: int) -> float:
    """What a predictor asks for: with all of them, half of the CPUs stay free for searches."""
    share = min(_PREDICTOR_CPUS, ray.cluster_resources().get("CPU", math.inf) / 2 / predictors)
    return math.floor(share * 10_000) / 10_000


def _threads(plan: Plan, predictors: int) -> int:
    """How many threads decode and make masks beside each network."""
    if not plan.config.use_gpu:
        return 1
    return max(1, int(ray.cluster_resources().get("CPU", 1) // predictors))
