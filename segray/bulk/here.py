"""A segmentation in the job's own process, without Ray."""

from collections.abc import Iterator
from functools import partial
from itertools import chain

from segray.bulk.pipeline import Pipeline, PipelineConfig
from segray.bulk.plan import Plan
from segray.bulk.progress import Progress
from segray.bulk.sizes import LOCAL_CHUNKS, chunk_size, split_into_chunks
from segray.bulk.tally import Reporter, Tally
from segray.storage.listing import Entry
from segray.storage.parallel import count_cpus


def segment_here(plan: Plan) -> Progress:
    """Segment the images that have no row yet on the cores of this machine.

    Args:
        plan: the plan of the run.

    Raises:
        InputError: a search cannot go on, or nothing can be written.
    """
    tally = Tally()
    threads = count_cpus()
    progress = Progress(tally.totals, plan.missing)

    def make() -> Pipeline:
        return Pipeline(PipelineConfig.of(plan, threads), plan.predictor_loader(threads)(), tally)

    pipeline = make() if plan.missing != 0 else None
    plan.claim()
    with progress.running():
        chunks = _chunks(plan, tally)
        if first := next(chunks, None):
            (pipeline or make()).segment_all(chain([first], chunks))
    progress.predictors = tally.predictors()
    return progress


def count_this_node() -> tuple[int, float]:
    """One node, and the CPUs that this process may use."""
    return 1, float(count_cpus())


def _chunks(plan: Plan, reporter: Reporter) -> Iterator[list[Entry]]:
    """Search for the images that are missing, in chunks, as long as the output is this run's."""
    for chunk in split_into_chunks(_missing(plan, reporter), chunk_size(plan, LOCAL_CHUNKS)):
        plan.check()
        yield chunk


def _missing(plan: Plan, reporter: Reporter) -> Iterator[list[Entry]]:
    for part in range(len(plan.search.parts)):
        yield from plan.search.list_and_record(part, plan.done, partial(reporter.found, part))
