"""Work: how the images of a run are divided, and what a process does them with."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, islice

from segray.bulk.chunk import Orders
from segray.bulk.plan import Plan
from segray.model.predictor import Predictor, load_gpu_predictor, load_predictor
from segray.storage.listing import Entry

# Images in a chunk: few enough that a small job is spread over the CPUs and seldom loses work, many
# enough that a large one leaves no heap of small files.
_CHUNK_IMAGES = (16, 512)
#: Into how many chunks images of a known number are cut for a cluster, whatever its size: it may
#: grow.
CHUNKS = 128


def in_chunks(found: Iterable[list[Entry]], size: int) -> Iterator[list[Entry]]:
    """What a search finds, in lists of so many; the last one may be shorter."""
    entries = chain.from_iterable(found)
    while chunk := list(islice(entries, size)):
        yield chunk


def chunk_images(plan: Plan, chunks: int) -> int:
    """How many images make a chunk, where about so many chunks are wanted."""
    low, high = _CHUNK_IMAGES
    if plan.missing is None:
        return high
    return min(max(math.ceil(plan.missing / chunks), low), high)


def most_chunks(plan: Plan) -> int:
    """How many chunks a run can have at most; at least 1."""
    if plan.missing is None:
        return sys.maxsize
    return max(1, math.ceil(plan.missing / _CHUNK_IMAGES[0]))


def make_orders(plan: Plan, threads: int) -> Orders:
    """What each chunk of a run is done by, with so many threads in a process."""
    config = plan.config
    bundle = replace(plan.bundle, files={})
    return Orders(bundle, plan.output, config.mask_size, config.batch_size, threads)


def predictor_loader(plan: Plan, threads: int) -> Callable[[], Predictor]:
    """What makes the network ready to run, on the GPU or on so many cores of a process."""
    if plan.config.use_gpu:
        batch_size = plan.config.batch_size
        return partial(load_gpu_predictor, plan.bundle, plan.engine, batch_size)
    return partial(load_predictor, plan.bundle, plan.engine, threads)
