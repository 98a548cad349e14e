"""The sizes of chunks: how many images make one, and how many chunks a run has."""

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from segray.bulk.plan import Plan
from segray.storage.listing import Entry

# Images in a chunk: few enough that a small job is spread over the CPUs and seldom loses work, many
# enough that a large one leaves no heap of small files.
_LEAST, _MOST = 16, 512
#: Chunks of a run whose size is known: on a cluster, however small, as it may grow; and in one
#: process.
CLUSTER_CHUNKS, LOCAL_CHUNKS = 128, 8


@dataclass(frozen=True)
class Chunks:
    """The chunks of a run.

    Attributes:
        images: number of images of all chunks.
        size: images of a chunk; a last one may have fewer.
        count: number of chunks.
    """

    images: int
    size: int
    count: int


def divide(parts: Sequence[int], size: int, apart: bool) -> Chunks:
    """Return the chunks of images that are found in several parts of a search.

    Args:
        parts: number of images in each part.
        size: images of a chunk.
        apart: True if no chunk has images of two parts, as on a cluster.
    """
    images = sum(parts)
    count = sum(math.ceil(part / size) for part in (parts if apart else [images]))
    return Chunks(images, size, count)


def chunk_size(plan: Plan, chunks: int) -> int:
    """The images of a chunk in a run that should have about so many chunks."""
    if plan.missing is None:
        return _MOST
    return min(max(math.ceil(plan.missing / chunks), _LEAST), _MOST)


def max_chunks(plan: Plan) -> int:
    """The most chunks that a run can have, at least 1."""
    return sys.maxsize if plan.missing is None else max(1, math.ceil(plan.missing / _LEAST))


def split_into_chunks(found: Iterable[list[Entry]], size: int) -> Iterator[list[Entry]]:
    """Lists of `size` images each, as a search finds them; the last one may be shorter."""
    entries = chain.from_iterable(found)
    while chunk := list(islice(entries, size)):
        yield chunk
