"""Examples: pairs of image and mask at the network's size, kept decoded or decoded as they come."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from PIL import Image

from segray.errors import InputError
from segray.pixels.labels import IGNORED, Labels
from segray.storage.labelled import read_pair
from segray.storage.pairs import Pair
from segray.storage.skipped import Skipped
from segray.storage.uri import describe_error

# Images uint8 [B, S, S, 3] and masks uint8 [B, S, S] of class ids or `IGNORED`.
Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
Indices = npt.NDArray[np.int64]

_PAIRS_PER_TASK = 32
# Batches that are being decoded ahead of the one that is learned from.
_BATCHES_AHEAD = 4


@dataclass(frozen=True)
class Examples:
    """Examples that a worker can go through in any order.

    Attributes:
        pairs: the files of each example.
        labels: say which mask value is which class.
        image_size: S, in pixels.
        blocks: references to decoded `Arrays` in Ray's object store; none where each batch is
            decoded anew.
        positions: int64 [N, 2], the block and the row of each example; empty without blocks.
    """

    pairs: Sequence[Pair]
    labels: Labels
    image_size: int
    blocks: Sequence["ray.ObjectRef[Any]"]
    positions: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pairs)

    def open(self) -> "DecodedExamples | StreamedExamples":
        """Make them ready to be read in this process."""
        return DecodedExamples(self) if self.blocks else StreamedExamples(self)


class DecodedExamples:
    """Examples in Ray's object store; on the node that holds them nothing is copied."""

    def __init__(self, examples: Examples) -> None:
        self._positions = examples.positions
        used = np.unique(examples.positions[:, 0])
        arrays = ray.get([examples.blocks[block] for block in used])
        self._blocks: dict[int, Arrays] = dict(zip(used.tolist(), arrays, strict=True))

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
    """Examples that the cluster decodes anew each time, some batches ahead of their use."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def read(self, batches: Iterable[Indices]) -> Iterator[Arrays]:
        """The images and masks of each batch of indices.

        Raises:
            InputError: a file that could be read before cannot be read any more.
        """
        examples = self._examples
        # The workers hold the CPUs: a task that asked for one would wait for them without end.
        decode = _decode_batch.options(num_cpus=0, scheduling_strategy="SPREAD")
        waiting: deque[ray.ObjectRef[Any]] = deque()
        for indices in batches:
            pairs = [examples.pairs[i] for i in indices]
            waiting.append(decode.remote(pairs, examples.labels, examples.image_size))
            if len(waiting) > _BATCHES_AHEAD:
                yield self._get(waiting.popleft())
        while waiting:
            yield self._get(waiting.popleft())

    def _get(self, reference: "ray.ObjectRef[Any]") -> Arrays:
        arrays, findings = ray.get(reference)
        for finding in findings:
            if finding.error:
                raise InputError(f"{finding.error} (it could be read when the run was started)")
        images, masks = arrays
        return images, masks


@dataclass(frozen=True)
class Decoded:
    """What came of decoding the pairs once.

    Attributes:
        examples: of the pairs that could be decoded, in their order.
        skipped: the other pairs, and why.
        digests: of the content of both files of each example.
        class_pixels: int64 [N, C], how many pixels of each class an example's mask has, at the
            size that it is kept in.
    """

    examples: Examples
    skipped: list[Skipped]
    digests: list[str]
    class_pixels: npt.NDArray[np.int64]

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
) -> Decoded:
    """Read and decode pairs, each once, on all of the cluster.

    Args:
        pairs: what to read.
        labels: says which mask value is which class.
        image_size: the side of the square that images and masks are scaled to, in pixels.
        keep: whether the decoded examples stay in Ray's object store; otherwise the pairs are
            only checked, and decoded anew when they are used.
        progress: is called with the number of pairs in each part that is done.
    """
    chunks = [pairs[i : i + _PAIRS_PER_TASK] for i in range(0, len(pairs), _PAIRS_PER_TASK)]
    results = _decode_chunks(chunks, labels, image_size, keep, progress)
    findings = [finding for _, found in results for finding in found]
    positions = [
        (block, row)
        for block, (_, found) in enumerate(results)
        for row in range(sum(not finding.error for finding in found))
    ]
    kept = [i for i, finding in enumerate(findings) if not finding.error]
    good = [pairs[i] for i in kept]
    return Decoded(
        examples=Examples(
            good,
            labels,
            image_size,
            [reference for reference, _ in results] if keep else [],
            np.array(positions if keep else [], dtype=np.int64).reshape(-1, 2),
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
    )


@dataclass(frozen=True)
class _Finding:
    """What the driver learns of a pair: why it cannot be used, or what is in it."""

    error: str = ""
    digest: str = ""
    class_pixels: Sequence[int] = ()


def _decode_chunks(
    chunks: Sequence[Sequence[Pair]],
    labels: Labels,
    image_size: int,
    keep: bool,
    progress: Callable[[int], None],
) -> "list[tuple[ray.ObjectRef[Any] | None, list[_Finding]]]":
    """For each chunk the reference to its arrays, and the findings; no pixel comes here."""
    results: dict[int, tuple[ray.ObjectRef[Any] | None, list[_Finding]]] = {}
    running: dict[ray.ObjectRef[Any], tuple[int, ray.ObjectRef[Any] | None]] = {}
    left = deque(enumerate(chunks))
    while left or running:
        # As many as keep all CPUs busy, also those of nodes that join later.
        most = max(4, 2 * int(ray.cluster_resources().get("CPU", 0)))
        while left and len(running) < most:
            number, chunk = left.popleft()
            if keep:
                arrays, found = _decode_batch.options(num_returns=2).remote(
                    chunk, labels, image_size
                )
            else:
                arrays, found = None, _check_batch.remote(chunk, labels, image_size)
            running[found] = (number, arrays)
        for reference in ray.wait(list(running), timeout=1.0)[0]:
            number, arrays = running.pop(reference)
            results[number] = (arrays, ray.get(reference))
            progress(len(chunks[number]))
    return [results[number] for number in range(len(chunks))]


def _decode(
    pairs: Sequence[Pair], labels: Labels, image_size: int
) -> tuple[Arrays, list[_Finding]]:
    images, masks, findings = [], [], []
    for pair in pairs:
        try:
            labelled = read_pair(pair, labels, image_size)
        except InputError as error:
            findings.append(_Finding(error=str(error)))
            continue
        except Exception as error:
            # Whatever a store raises for one object, the other objects are not concerned.
            findings.append(_Finding(error=describe_error(pair.image, error)))
            continue
        mask = Image.fromarray(labelled.class_ids)
        small = np.asarray(mask.resize((image_size, image_size), Image.Resampling.NEAREST))
        images.append(labelled.picture.pixels)
        masks.append(small)
        counts = np.bincount(small.ravel(), minlength=IGNORED + 1)[: len(labels)].tolist()
        findings.append(_Finding(digest=labelled.digest, class_pixels=counts))
    shape = (-1, image_size, image_size)
    arrays = (
        np.array(images, dtype=np.uint8).reshape(*shape, 3),
        np.array(masks, dtype=np.uint8).reshape(shape),
    )
    return arrays, findings


_decode_batch = ray.remote(_decode)


@ray.remote
def _check_batch(pairs: Sequence[Pair], labels: Labels, image_size: int) -> list[_Finding]:
    return _decode(pairs, labels, image_size)[1]
