"""A segmentation in the job's own process, without Ray."""

import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial

from segray.bulk.pipeline import CHUNKS_AT_ONCE, Pipeline, PipelineConfig
from segray.bulk.plan import Plan
from segray.bulk.progress import Progress
from segray.bulk.sizes import LOCAL_CHUNKS, chunk_size, split_into_chunks
from segray.bulk.tally import Reporter, Tally
from segray.storage.listing import Entry


def segment_here(plan: Plan) -> Progress:
    """Segment the images that have no row yet on the cores of this machine.

    Args:
        plan: the plan of the run.

    Raises:
        InputError: a search cannot go on, or nothing can be written.
    """
    tally = Tally()
    threads = len(os.sched_getaffinity(0))
    progress = Progress(tally.totals, plan.missing)

    def make() -> Pipeline:
        return Pipeline(PipelineConfig.of(plan, threads), plan.predictor_loader(threads)(), tally)

    pipeline = make() if plan.missing != 0 else None
    plan.claim()
    with progress.running(), ThreadPoolExecutor(CHUNKS_AT_ONCE) as lanes:
        under_way: set[Future[None]] = set()
        try:
            for entries in split_into_chunks(_missing(plan, tally), chunk_size(plan, LOCAL_CHUNKS)):
                if len(under_way) == CHUNKS_AT_ONCE:
                    under_way = _await_one(under_way)
                plan.check()
                pipeline = pipeline or make()
                under_way.add(lanes.submit(pipeline.segment, entries))
            while under_way:
                under_way = _await_one(under_way)
        except BaseException:
            if pipeline:
                pipeline.stop()
            raise
    progress.predictors = tally.predictors()
    return progress


def _await_one(under_way: set[Future[None]]) -> set[Future[None]]:
    """Wait until a chunk is done, raise its exception if it has one, and return the others."""
    done, others = wait(under_way, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return others


def _missing(plan: Plan, reporter: Reporter) -> Iterator[list[Entry]]:
    for part in range(len(plan.search.parts)):
        yield from plan.search.list_and_record(part, plan.done, partial(reporter.found, part))
