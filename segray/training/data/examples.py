"""Examples: decoded pairs of image and mask, cached or decoded on the fly."""

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

from segray.data.labelled import DEFAULT_READING, Reading
from segray.data.pairs import Pair
from segray.data.skipped import Skipped
from segray.errors import InputError
from segray.nodes import FreeCpus, SharedFiles
from segray.pixels.framing import Frame
from segray.pixels.labels import Labels
from segray.pixels.orientation import Says
from segray.training.data.crops import Crops
from segray.training.data.decoding import Arrays, Block, Finding, decode_batch

Indices = npt.NDArray[np.int64]
#: What makes a batch: whole examples, or crops of images that have sizes of their own.
Request = Indices | Crops

# The pairs that a task decodes and holds; fewer of images that keep their own size.
_PAIRS_PER_TASK, _LARGE_PAIRS_PER_TASK = 32, 4
_NO_FILES = SharedFiles()

# Settings of streamed examples: the number of batches decoded ahead of use, at least and at most,
# and their size in bytes; the number of batches that this process decodes concurrently; and the
# timeout in seconds, and for each pair, after which it decodes a batch itself that it had submitted
# to a task.
_LEAST_AHEAD, _MOST_AHEAD = 4, 64
_AHEAD_BYTES = 1 << 29
_DECODING_HERE = 2
_PATIENCE, _PATIENCE_FOR_A_PAIR, _PATIENCE_FOR_A_LARGE_PAIR = 10.0, 0.2, 2.0
# Timeout in seconds for blocks that another node holds.
_SECONDS_TO_GET = 600.0


@dataclass(frozen=True)
class Examples:
    """Examples that can be read in any order.

    Attributes:
        pairs: the files of each example.
        labels: the mapping from mask values to classes.
        frame: the frame of images and masks. With ``tile``, images have sizes of their own, and are
            read in crops.
        shared: local files that must be visible to each process that reads the examples.
        sizes: int64 [N, 2], height and width of each image.
        blocks: references to decoded `Block` in Ray's object store; empty if each batch is decoded
            on the fly.
        positions: int64 [N, 2], the block and the row of each example; empty without blocks.
        rows: the number of examples in each block.
        reading: the settings with which the files are read.
    """

    pairs: Sequence[Pair]
    labels: Labels
    frame: Frame
    shared: SharedFiles
    sizes: npt.NDArray[np.int64]
    blocks: Sequence["ray.ObjectRef[Any]"]
    positions: npt.NDArray[np.int64]
    rows: Sequence[int]
    reading: Reading = DEFAULT_READING

    def __len__(self) -> int:
        return len(self.pairs)

    def holders(self) -> set[str]:
        """Return the Ray ids of the nodes that hold blocks."""
        return {node for found in self._locations().values() for node in found["node_ids"]}

    def lost(self) -> "list[ray.ObjectRef[Any]]":
        """Return the blocks that no node holds any more; `ray.get` has them decoded again."""
        return [block for block, found in self._locations().items() if not found["node_ids"]]

    def _locations(self) -> "dict[ray.ObjectRef[Any], dict[str, Any]]":
        if not self.blocks:
            return {}
        locations: dict[ray.ObjectRef[Any], dict[str, Any]]
        locations = ray.experimental.get_object_locations(list(self.blocks))
        return locations

    def open(self, workers: int = 1) -> "DecodedExamples | StreamedExamples":
        """Open the examples for reading in this process, which is one of `workers` processes."""
        return DecodedExamples(self) if self.blocks else StreamedExamples(self, workers)


class DecodedExamples:
    """Examples in Ray's object store, read without a copy on a node that holds them.

    Raises:
        InputError: a lost block was decoded again, and not the same files could be read as before.
        GetTimeoutError: blocks are lost, and no CPU is free to decode them again.
    """

    def __init__(self, examples: Examples) -> None:
        self._positions = examples.positions
        self._blocks: list[Block] = ray.get(list(examples.blocks), timeout=_SECONDS_TO_GET)
        for (images, _), rows in zip(self._blocks, examples.rows, strict=True):
            if len(images) != rows:
                raise InputError(
                    "a lost block of examples was decoded again, and not the same pairs can be "
                    "read as when the run was started: put the data back as it was, and run again"
                )

    def __len__(self) -> int:
        return len(self._positions)

    def read(self, batches: Iterable[Request]) -> Iterator[Arrays]:
        """Yield the images and masks of each batch."""
        for batch in batches:
            places = self._positions[_indices_of(batch)].tolist()
            images = [self._blocks[block][0][row] for block, row in places]
            masks = [self._blocks[block][1][row] for block, row in places]
            yield _assemble(images, masks, batch)


class StreamedExamples:
    """Examples that are decoded each time they are read, some batches ahead of use.

    They are decoded by Ray tasks on idle CPUs of the cluster and by threads of this process. The
    threads suffice where training occupies all CPUs.

    Args:
        examples: examples without blocks.
        workers: the number of processes that share the idle CPUs.
    """

    def __init__(self, examples: Examples, workers: int) -> None:
        self._examples = examples
        self._cpus = FreeCpus(workers)
        self._here = Semaphore(_DECODING_HERE)

    def __len__(self) -> int:
        return len(self._examples)

    def read(self, batches: Iterable[Request]) -> Iterator[Arrays]:
        """Yield the images and masks of each batch.

        Raises:
            InputError: a file that was readable at the start of the run no longer is.
        """
        pairs, example_bytes = self._examples.pairs, 4 * self._examples.frame.pixels
        coming: deque[Future[Arrays]] = deque()
        pool = ThreadPoolExecutor(_MOST_AHEAD)
        try:
            for batch in batches:
                indices = _indices_of(batch)
                most = max(_LEAST_AHEAD, _AHEAD_BYTES // (example_bytes * len(indices)))
                ahead = min(_LEAST_AHEAD + self._cpus.count(), most, _MOST_AHEAD)
                coming.append(pool.submit(self._read_batch, [pairs[i] for i in indices], batch))
                while len(coming) > ahead:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _read_batch(self, pairs: Sequence[Pair], batch: Request) -> Arrays:
        arrays, findings = self._decode_elsewhere(pairs, batch) or self._decode_here(pairs, batch)
        for finding in findings:
            if finding.error:
                raise InputError(f"{finding.error} (it could be read when the run was started)")
        assert arrays is not None
        return arrays

    def _decode_here(
        self, pairs: Sequence[Pair], batch: Request
    ) -> tuple[Arrays | None, list[Finding]]:
        examples = self._examples
        with self._here:
            return _read_pairs(pairs, examples.labels, examples.frame, examples.reading, batch)

    def _decode_elsewhere(
        self, pairs: Sequence[Pair], batch: Request
    ) -> tuple[Arrays | None, list[Finding]] | None:
        """Decode on an idle CPU of the cluster; return None if there is none or the task fails."""
        with self._cpus.one() as found:
            if not found:
                return None
            examples = self._examples
            task = _read_task.remote(
                *(pairs, examples.labels, examples.frame, examples.shared, examples.reading, batch)
            )
            # The CPU may have been taken by another job, or the node be lost or not see the files.
            with contextlib.suppress(RayError):
                large = examples.frame.fit == "tile"
                each = _PATIENCE_FOR_A_LARGE_PAIR if large else _PATIENCE_FOR_A_PAIR
                if ray.wait([task], timeout=_PATIENCE + each * len(set(pairs)))[0]:
                    arrays, findings = ray.get(task)
                    return arrays, findings
            ray.cancel(task)
        return None


@dataclass(frozen=True)
class Decoded:
    """The result of decoding all pairs once.

    Attributes:
        examples: the pairs that could be decoded, in their order.
        skipped: the other pairs, with the reason.
        digests: the digest of the content of both files of each example.
        class_pixels: int64 [N, C], the number of pixels of each class in the mask of each example,
            at the resolution at which it is kept.
        says: each example's evidence on the orientation in which the masks of its set were drawn.
        turned: the number of masks that were rotated with their images.
    """

    examples: Examples
    skipped: list[Skipped]
    digests: list[str]
    class_pixels: npt.NDArray[np.int64]
    says: list[Says]
    turned: int

    @property
    def fingerprint(self) -> str:
        """A digest of the names and the content of all decoded files, 16 hexadecimal digits."""
        keys = (pair.key for pair in self.examples.pairs)
        named = "".join(key + digest for key, digest in zip(keys, self.digests, strict=True))
        return hashlib.sha256(named.encode()).hexdigest()[:16]


def decode_pairs(
    pairs: Sequence[Pair],
    labels: Labels,
    frame: Frame,
    keep: bool,
    progress: Callable[[int], None],
    shared: SharedFiles = _NO_FILES,
    reading: Reading = DEFAULT_READING,
) -> Decoded:
    """Read and decode each pair once, on the whole cluster.

    Args:
        pairs: the pairs to read.
        labels: the mapping from mask values to classes.
        frame: the frame that images and masks are brought to.
        keep: True to cache the decoded examples in Ray's object store. Otherwise the pairs are only
            checked here, and decoded again whenever they are read.
        progress: called with the number of pairs in each chunk that is done, and with 0 once a
            second while none is.
        shared: local files that must be visible to each process that reads the pairs.
        reading: the settings with which the files are read.

    Raises:
        InputError: the files are not visible on a node.
    """
    step = _LARGE_PAIRS_PER_TASK if frame.fit == "tile" else _PAIRS_PER_TASK
    chunks = [pairs[i : i + step] for i in range(0, len(pairs), step)]
    results = _decode_chunks(chunks, (labels, frame, shared, reading), keep, progress)
    findings = [finding for _, found in results for finding in found]
    rows = [sum(not finding.error for finding in found) for _, found in results]
    positions = [(block, row) for block, count in enumerate(rows) for row in range(count)]
    kept = [i for i, finding in enumerate(findings) if not finding.error]
    good = [pairs[i] for i in kept]
    return Decoded(
        examples=Examples(
            good,
            labels,
            frame,
            shared,
            np.array([findings[i].size for i in kept], dtype=np.int64).reshape(-1, 2),
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
    settings: tuple[Labels, Frame, SharedFiles, Reading],
    keep: bool,
    progress: Callable[[int], None],
) -> "list[tuple[ray.ObjectRef[Any] | None, list[Finding]]]":
    """Return a reference to each chunk's arrays, and its findings, without fetching pixels."""
    results: dict[int, tuple[ray.ObjectRef[Any] | None, list[Finding]]] = {}
    running: dict[ray.ObjectRef[Any], tuple[int, ray.ObjectRef[Any] | None]] = {}
    left = deque(enumerate(chunks))
    while left or running:
        # Enough tasks to keep all CPUs busy, including those of nodes that join later, and as many
        # again, which make an autoscaling cluster start nodes.
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
            except RayError as error:
                first = chunks[number][0].image
                raise InputError(
                    f"the processes that read {len(chunks[number])} pairs, the first of {first}, "
                    f"were lost again and again ({type(error).__name__}): is there a file that "
                    "takes more memory than a node has?"
                ) from error
            progress(len(chunks[number]))
        if not done:
            progress(0)
    return [results[number] for number in range(len(chunks))]


# Many retries, because each lost node takes some blocks with it; but not for ever, because a file
# may end each process that reads it.
@ray.remote(max_retries=100)
def _decode_task(
    pairs: Sequence[Pair], labels: Labels, frame: Frame, shared: SharedFiles, reading: Reading
) -> tuple[Block, list[Finding]]:
    shared.check()
    return decode_batch(pairs, labels, frame, reading)


@ray.remote
def _read_task(
    pairs: Sequence[Pair],
    labels: Labels,
    frame: Frame,
    shared: SharedFiles,
    reading: Reading,
    batch: Request,
) -> tuple[Arrays | None, list[Finding]]:
    shared.check()
    return _read_pairs(pairs, labels, frame, reading, batch)


def _read_pairs(
    pairs: Sequence[Pair], labels: Labels, frame: Frame, reading: Reading, batch: Request
) -> tuple[Arrays | None, list[Finding]]:
    """Decode the examples of a batch, and put it together; None if one cannot be read."""
    # Several crops of an image need it once, and it is let go when they are cut.
    step = _LARGE_PAIRS_PER_TASK if isinstance(batch, Crops) else len(pairs)
    order, parts, findings = list[int](), list[Arrays](), list[Finding]()
    distinct = list(dict.fromkeys(pairs))
    for start in range(0, len(distinct), step):
        some = distinct[start : start + step]
        (images, masks), found = decode_batch(some, labels, frame, reading)
        findings += found
        if any(finding.error for finding in found):
            return None, findings
        mine = [number for number, pair in enumerate(pairs) if pair in some]
        places = [some.index(pairs[number]) for number in mine]
        part = batch.take(mine) if isinstance(batch, Crops) else batch
        parts.append(_assemble([images[i] for i in places], [masks[i] for i in places], part))
        order += mine
        del images, masks
    if len(parts) == 1:  # in order, and not to be copied again
        return parts[0], findings
    back = np.argsort(order)
    pixels, class_ids = (np.concatenate(arrays)[back] for arrays in zip(*parts, strict=True))
    return (pixels, class_ids), findings


def _indices_of(batch: Request) -> Indices:
    return batch.examples if isinstance(batch, Crops) else batch


def _assemble(
    images: list[npt.NDArray[np.uint8]], masks: list[npt.NDArray[np.uint8]], batch: Request
) -> Arrays:
    """Make the arrays of a batch from the images and masks of its examples."""
    if isinstance(batch, Crops):
        return batch.cut(images, masks)
    return np.stack(images), np.stack(masks)


@ray.remote(max_retries=10)
def _check_task(
    pairs: Sequence[Pair], labels: Labels, frame: Frame, shared: SharedFiles, reading: Reading
) -> list[Finding]:
    shared.check()
    return decode_batch(pairs, labels, frame, reading)[1]
