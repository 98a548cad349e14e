"""A segmentation run: from a bucket of images to Parquet."""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, islice
from typing import Any

from segray.bulk.chunk import CHUNKS_AT_ONCE, ChunkSegmenter, Orders
from segray.bulk.outcome import Outcome, settle
from segray.bulk.plan import RECORD, Plan
from segray.bulk.progress import Progress
from segray.bulk.report import write_report
from segray.bulk.tally import Reporter, Tally
from segray.packages import package_versions
from segray.storage.files import write_bytes
from segray.storage.listing import Entry
from segray.storage.uri import join_uri

# Images in a chunk: few enough that a small job is spread over the CPUs and seldom loses work, many
# enough that a large one leaves no heap of small files.
_CHUNK_IMAGES = (16, 512)
_CHUNKS_PER_PREDICTOR = 8

_PACKAGES = ("ray", "onnxruntime", "tensorflow", "pillow", "pyarrow", "numpy")


@dataclass(frozen=True)
class SegmentSummary:
    """What is in the output after a run, and how the run went.

    Attributes:
        output: its absolute URI.
        outcome: the counts.
        processed: images that this run worked on.
        seconds: that this run took from its plan to the last row.
        shares: per class, its share of the pixels of all segmented images; 0 to 1.
    """

    output: str
    outcome: Outcome
    processed: int
    seconds: float
    shares: dict[str, float]

    @property
    def images_per_second(self) -> float:
        """Of this run, the start of its processes included."""
        return self.processed / self.seconds


def segment(plan: Plan, tell: Callable[[str], None], on_ray: bool) -> SegmentSummary:
    """Segment the images that have no row yet, and see to it that each has one.

    Args:
        plan: of `segray.bulk.plan.make_plan`.
        tell: is called with lines for the user's terminal.
        on_ray: whether Ray has been started and does the work, or this process.

    Raises:
        InputError: something the user gave cannot be used, or nothing can be written.
    """
    started = time.monotonic()
    images = "images" if plan.missing is None else f"{plan.missing} images"
    if plan.missing != 0:
        tell(f"segmenting {images} with {plan.engine}" + " in this process" * (not on_ray))
    if on_ray:
        from segray.bulk.cluster import segment_on_ray

        progress = segment_on_ray(plan, tell)
    else:
        progress = _segment_here(plan, tell)
    seconds = time.monotonic() - started
    plan.check()
    tell("checking that each image has a row")
    labels = plan.bundle.labels
    plan.forget_done()
    outcome = settle(plan.search, labels, plan.config.prune, tell)
    last = progress.timeline[-1]
    total = max(1, int(outcome.pixels.sum()))
    summary = SegmentSummary(
        output=plan.output,
        outcome=outcome,
        processed=last.segmented + last.failed,
        seconds=seconds,
        shares=dict(zip(labels.names, (outcome.pixels / total).tolist(), strict=True)),
    )
    record = _make_record(plan, summary, progress)
    write_report(plan.output, labels, record, progress.timeline, tell)
    write_bytes(join_uri(plan.output, RECORD), json.dumps(record, indent=2).encode())
    return summary


def _segment_here(plan: Plan, tell: Callable[[str], None]) -> Progress:
    tally = Tally()
    threads = len(os.sched_getaffinity(0))
    progress = Progress(tally.totals, plan.missing, tell)
    segmenter: ChunkSegmenter | None = None  # made for the first chunk, if there is one
    with progress.running(), ThreadPoolExecutor(CHUNKS_AT_ONCE) as lanes:
        under_way: set[Future[None]] = set()
        try:
            for entries in in_chunks(_missing(plan, tally), chunk_images(plan, 1)):
                if len(under_way) == CHUNKS_AT_ONCE:
                    under_way = _await_one(under_way)
                plan.check()
                segmenter = segmenter or ChunkSegmenter(make_orders(plan, threads), tally)
                under_way.add(lanes.submit(segmenter.segment, entries))
            while under_way:
                under_way = _await_one(under_way)
        except BaseException:
            if segmenter:
                segmenter.stop()
            raise
    progress.predictors = tally.predictors()
    return progress


def _await_one(under_way: set[Future[None]]) -> set[Future[None]]:
    """Wait until a chunk is done, and raise what it raises; the others."""
    done, others = wait(under_way, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return others


def _missing(plan: Plan, reporter: Reporter) -> Iterator[list[Entry]]:
    for part in range(len(plan.search.parts)):
        yield from plan.search.missing(part, plan.done, partial(reporter.found, part))


def in_chunks(found: Iterable[list[Entry]], size: int) -> Iterator[list[Entry]]:
    """What a search finds, in lists of so many; the last one may be shorter."""
    entries = chain.from_iterable(found)
    while chunk := list(islice(entries, size)):
        yield chunk


def chunk_images(plan: Plan, predictors: int) -> int:
    """How many images make a chunk."""
    low, high = _CHUNK_IMAGES
    if plan.missing is None:
        return high
    return min(max(math.ceil(plan.missing / (_CHUNKS_PER_PREDICTOR * predictors)), low), high)


def most_chunks(plan: Plan) -> int:
    """How many chunks a run can have at most; at least 1."""
    if plan.missing is None:
        return sys.maxsize
    return max(1, math.ceil(plan.missing / _CHUNK_IMAGES[0]))


def make_orders(plan: Plan, threads: int) -> Orders:
    """What each chunk of a run is done by, with so many threads in a process."""
    config = plan.config
    return Orders(
        plan.bundle, plan.engine, plan.output, config.mask_size, config.batch_size, threads
    )


def _make_record(plan: Plan, summary: SegmentSummary, progress: Progress) -> dict[str, Any]:
    outcome = summary.outcome
    return {
        "configuration": plan.config.to_json(),
        "model": plan.bundle.digest,
        "engine": plan.engine,
        "labels": plan.bundle.labels.to_json(),
        "versions": package_versions(*_PACKAGES),
        "counts": {
            "listed": outcome.listed,
            "segmented": outcome.segmented,
            "failed": outcome.failed,
            "processed": summary.processed,
            "stale": outcome.stale,
            "left_out": {
                name: count
                for name, count in asdict(outcome.left_out).items()
                if name not in ("images", "missing")
            },
        },
        "seconds": round(summary.seconds, 3),
        "images_per_second": round(summary.images_per_second, 3),
        "shares": summary.shares,
        "predictors": progress.predictors,
        "timeline": [list(vars(moment).values()) for moment in progress.timeline],
    }
