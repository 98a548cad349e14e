"""Examples: pairs of image and mask at the network's size, kept decoded or decoded as they come."""

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Semaphore
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import RayError, RayTaskError

from segray.errors import InputError
from segray.nodes import FreeCpus, SharedFiles
from segray.pixels.labels import Labels
from segray.pixels.orientation import Says
from segray.storage.labelled import DEFAULT_READING, Reading
from segray.storage.pairs import Pair
from segray.storage.skipped import Skipped
from segray.training.decoding import Arrays, Finding, decode_batch

Indices = npt.NDArray[np.int64]

_PAIRS_PER_TASK = 32
_NO_FILES = SharedFiles()

# Of streamed examples: the batches that are decoded ahead of the one that is learned from, and
# their bytes; how many of them this process decodes itself at a time; and the seconds after which
# it decodes one that it gave away and has not got back.
_LEAST_AHEAD, _MOST_AHEAD = 4, 64
_AHEAD_BYTES = 1 << 29
_DECODING_HERE = 2
_PATIENCE = 10.0
# Until a block that others hold has come.
_SECONDS_TO_GET = 600.0


@dataclass(frozen=True)
class Examples:
    """Examples that a worker can go through in any order.

    Attributes:
        pairs: the files of each example.
        labels: say which mask value is which class.
        image_size: S, in pixels.
        shared: the local files that a process which reads them has to see.
        blocks: references to decoded `Arrays` in Ray's object store; none where each batch is
            decoded anew.
        positions: int64 [N, 2], the block and the row of each example; empty without blocks.
        rows: how many examples each block holds.
        reading: how the files are read.
    """

    pairs: Sequence[Pair]
    labels: Labels
    image_size: int
    shared: SharedFiles
    blocks: Sequence["ray.ObjectRef[Any]"]
    positions: npt.NDArray[np.int64]
    rows: Sequence[int]
    reading: Reading = DEFAULT_READING

    def __len__(self) -> int:
        return len(self.pairs)

    def holders(self) -> set[str]:
        """Ray's ids of the nodes that hold blocks."""
        return {node for found in self._locations().values() for node in found["node_ids"]}

    def lost(self) -> "list[ray.ObjectRef[Any]]":
        """The blocks that no node holds any more; to get one is to have it decoded anew."""
        return [block for block, found in self._locations().items() if not found["node_ids"]]

    def _locations(self) -> "dict[ray.ObjectRef[Any], dict[str, Any]]":
        if not self.blocks:
            return {}
        locations: dict[ray.ObjectRef[Any], dict[str, Any]]
        locations = ray.experimental.get_object_locations(list(self.blocks))
        return locations

    def open(self, workers: int = 1) -> "DecodedExamples | StreamedExamples":
        """Make them ready to be read in this process, one of so many workers."""
        return DecodedExamples(self) if self.blocks else StreamedExamples(self, workers)


class DecodedExamples:
    """Examples in Ray's object store; on the node that holds them nothing is copied.

    Raises:
        InputError: a block was lost and decoded anew, and other files can be read than before.
        GetTimeoutError: blocks are lost, and there is no CPU to decode them anew.
    """

    def __init__(self, examples: Examples) -> None:
        self._positions = examples.positions
        self._blocks: list[Arrays] = ray.get(list(examples.blocks), timeout=_SECONDS_TO_GET)
        for (images, _), rows in zip(self._blocks, examples.rows, strict=True):
            if len(images) != rows:
                raise InputError(
                    "a lost part of the examples was decoded anew, and not the same pairs can be "
                    "read as when the run was started: put the data back as it was, and run again"
                )

    def __len__(self) -> int:
        return len(self._positions)

    def read(self, batches: Iterable[Indices]) -> Iterator[Arrays]:
        """The images and masks of each batch of indices."""
        for indices in batches:
            places = self._positions[indices].tolist()
            images = np.stack([self._blocks[block][0][row] for block, row in places])
            masks = np.stack([self._blocks[block][1][row] for block, row in places])
            yield images, masks


class StreamedExamples:
    """Examples that are decoded anew each time, some batches ahead of their use.

    They are decoded by tasks on CPUs of the cluster that are free at that moment, and by threads
    of this process, which have to do where training holds all CPUs.

    Args:
        examples: without blocks.
        workers: how many processes share the CPUs that are free.
    """

    def __init__(self, examples: Examples, workers: int) -> None:
        self._examples = examples
        self._cpus = FreeCpus(workers)
        self._here = Semaphore(_DECODING_HERE)

    def __len__(self) -> int:
        return len(self._examples)

    def read(self, batches: Iterable[Indices]) -> Iterator[Arrays]:
        """The images and masks of each batch of indices.

        Raises:
            InputError: a file that could be read before cannot be read any more.
        """
        pairs, example_bytes = self._examples.pairs, 4 * self._examples.image_size**2
        coming: deque[Future[Arrays]] = deque()
        pool = ThreadPoolExecutor(_MOST_AHEAD)
        try:
            for indices in batches:
                most = max(_LEAST_AHEAD, _AHEAD_BYTES // (example_bytes * len(indices)))
                ahead = min(_LEAST_AHEAD + self._cpus.count(), most, _MOST_AHEAD)
                coming.append(pool.submit(self._read_batch, [pairs[i] for i in indices]))
                while len(coming) > ahead:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _read_batch(self, pairs: Sequence[Pair]) -> Arrays:
        arrays, findings = self._decode_elsewhere(pairs) or self._decode_here(pairs)
        for finding in findings:
            if finding.error:
                raise InputError(f"{finding.error} (it could be read when the run was started)")
        return arrays

    def _decode_here(self, pairs: Sequence[Pair]) -> tuple[Arrays, list[Finding]]:
        examples = self._examples
        with self._here:
            return decode_batch(pairs, examples.labels, examples.image_size, examples.reading)

    def _decode_elsewhere(self, pairs: Sequence[Pair]) -> tuple[Arrays, list[Finding]] | None:
        """Decode on a CPU that is free; None if there is none, or it is not to be had after all."""
        with self._cpus.one() as found:
            if not found:
                return None
            examples = self._examples
            task = _decode_task.remote(
                *(pairs, examples.labels, examples.image_size, examples.shared, examples.reading)
            )
            # Another job may have been faster, the node may be gone, or not see the files.
            with contextlib.suppress(RayError):
                if ray.wait([task], timeout=_PATIENCE)[0]:
                    arrays, findings = ray.get(task)
                    return arrays, findings
            ray.cancel(task)
        return None


@dataclass(frozen=True)
class Decoded:
    """What came of decoding the pairs once.

    Attributes:
        examples: of the pairs that could be decoded, in their order.
        skipped: the other pairs, and why.
        digests: of the content of both files of each example.
        class_pixels: int64 [N, C], how many pixels of each class an example's mask has, at the
            size that it is kept in.
        says: what each example says of how the masks of its set were drawn.
        turned: how many masks were turned with their images.
    """

    examples: Examples
    skipped: list[Skipped]
    digests: list[str]
    class_pixels: npt.NDArray[np.int64]
    says: list[Says]
    turned: int

    @property
    def fingerprint(self) -> str:
        """A digest of names and content of all files decoded, 16 hexadecimal digits."""
        keys = (pair.key for pair in self.examples.pairs)
        named = "".join(key + digest for key, digest in zip(keys, self.digests, strict=True))
        return hashlib.sha256(named.encode()).hexdigest()[:16]


def decode_pairs(
    pairs: Sequence[Pair],
    labels: Labels,
    image_size: int,
    keep: bool,
    progress: Callable[[int], None],
    shared: SharedFiles = _NO_FILES,
    reading: Reading = DEFAULT_READING,
) -> Decoded:
    """Read and decode pairs, each once, on all of the cluster.

    Args:
        pairs: what to read.
        labels: says which mask value is which class.
        image_size: the side of the square that images and masks are scaled to, in pixels.
        keep: whether the decoded examples stay in Ray's object store; otherwise the pairs are
            only checked, and decoded anew when they are used.
        progress: is called with the number of pairs in each part that is done, and with 0 while
            none is done for a second.
        shared: the local files that a process which reads the pairs has to see.
        reading: how the files are read.

    Raises:
        InputError: a node does not see them.
    """
    chunks = [pairs[i : i + _PAIRS_PER_TASK] for i in range(0, len(pairs), _PAIRS_PER_TASK)]
    results = _decode_chunks(chunks, (labels, image_size, shared, reading), keep, progress)
    findings = [finding for _, found in results for finding in found]
    rows = [sum(not finding.error for finding in found) for _, found in results]
    positions = [(block, row) for block, count in enumerate(rows) for row in range(count)]
    kept = [i for i, finding in enumerate(findings) if not finding.error]
    good = [pairs[i] for i in kept]
    return Decoded(
        examples=Examples(
            good,
            labels,
            image_size,
            shared,
            [reference for reference, _ in results] if keep else [],
            np.array(positions if keep else [], dtype=np.int64).reshape(-1, 2),
            rows if keep else [],
            reading,
        ),
        skipped=[
            Skipped(pair.image, pair.mask, finding.error)
            for pair, finding in zip(pairs, findings, strict=True)
            if finding.error
        ],
        digests=[findings[i].digest for i in kept],
        class_pixels=np.array([findings[i].class_pixels for i in kept], dtype=np.int64).reshape(
            -1, len(labels)
        ),
        says=[findings[i].says for i in kept],
        turned=sum(findings[i].turned for i in kept),
    )


def _decode_chunks(
    chunks: Sequence[Sequence[Pair]],
    settings: tuple[Labels, int, SharedFiles, Reading],
    keep: bool,
    progress: Callable[[int], None],
) -> "list[tuple[ray.ObjectRef[Any] | None, list[Finding]]]":
    """For each chunk the reference to its arrays, and the findings; no pixel comes here."""
    results: dict[int, tuple[ray.ObjectRef[Any] | None, list[Finding]]] = {}
    running: dict[ray.ObjectRef[Any], tuple[int, ray.ObjectRef[Any] | None]] = {}
    left = deque(enumerate(chunks))
    while left or running:
        # As many as keep all CPUs busy, also those of nodes that join later; and as many again,
        # for which a cluster that grows starts nodes.
        most = max(4, 2 * int(ray.cluster_resources().get("CPU", 0)))
        while left and len(running) < most:
            number, chunk = left.popleft()
            if keep:
                arrays, found = _decode_task.options(num_returns=2).remote(chunk, *settings)
            else:
                arrays, found = None, _check_task.remote(chunk, *settings)
            running[found] = (number, arrays)
        done = ray.wait(list(running), timeout=1.0)[0]
        for reference in done:
            number, arrays = running.pop(reference)
            try:
                results[number] = (arrays, ray.get(reference))
            except RayTaskError as error:
                raise error.cause from None
            progress(len(chunks[number]))
        if not done:
            progress(0)
    return [results[number] for number in range(len(chunks))]


# Again and again: each node that is lost takes some along.
@ray.remote(max_retries=-1)
def _decode_task(
    pairs: Sequence[Pair], labels: Labels, image_size: int, shared: SharedFiles, reading: Reading
) -> tuple[Arrays, list[Finding]]:
    shared.check()
    return decode_batch(pairs, labels, image_size, reading)


@ray.remote
def _check_task(
    pairs: Sequence[Pair], labels: Labels, image_size: int, shared: SharedFiles, reading: Reading
) -> list[Finding]:
    shared.check()
    return decode_batch(pairs, labels, image_size, reading)[1]
