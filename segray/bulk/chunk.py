"""Chunks: some hundred images are fetched, segmented and written by one process, as one piece.

A chunk's files have names made of its images' ids. A chunk that is done once more, because its
process died, finds what the first attempt has written and does the rest.
"""

import contextlib
import hashlib
import itertools
import os
import socket
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Lock, Semaphore
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segray.bulk.candidates import SIDE, Candidates
from segray.bulk.config import MaskSize
from segray.bulk.tally import Reporter
from segray.model.bundle import Bundle
from segray.model.predictor import Predictor
from segray.pixels.decoding import DecodeError, Picture, read_picture
from segray.pixels.labels import Labels
from segray.pixels.limits import Memory
from segray.pixels.masks import encode_mask, segment_logits
from segray.pixels.statistics import ClassStatistics
from segray.pixels.thumbnails import encode_thumbnail
from segray.storage.failures import FetchError
from segray.storage.listing import Entry
from segray.storage.objects import fetch
from segray.storage.tables import ERRORS_SCHEMA, GALLERY_SCHEMA, PartWriter, results_schema
from segray.storage.uri import join_uri

# What is fetched ahead of the network: requests of a process under way at once (a request waits
# far more than it computes), the images of a chunk, and the bytes of all files that are fetched
# and not decoded yet.
_REQUESTS = 24
_AHEAD = 64
_FETCHED_BYTES = 1 << 27

#: Chunks that a process has in hand at once: while one waits for its last and slowest images, the
#: next one keeps the network busy, and so on. What is in hand is lost with the process, so the next
#: one begins no sooner.
CHUNKS_AT_ONCE = 3

# When rows are written before their chunk is done: what they hold, and how long they have waited.
_FILE_BYTES = 1 << 26
_FILE_SECONDS = 20.0


@dataclass(frozen=True)
class Orders:
    """What every chunk of a run is done by.

    Attributes:
        bundle: the model; none of its files is needed.
        output: the absolute URI of the output.
        mask_size: size of the masks.
        batch_size: images that the network takes at a time.
        threads: that decode, and as many that make masks, at the same time.
    """

    bundle: Bundle
    output: str
    mask_size: MaskSize
    batch_size: int
    threads: int


@dataclass(frozen=True)
class _Failure:
    """Why an image has no mask: a row of errors."""

    entry: Entry
    stage: Literal["fetch", "decode", "predict"]
    error: str
    message: str


@dataclass(frozen=True)
class _Decoded:
    entry: Entry
    picture: Picture


# An image whose row of results is being made.
_Coming = tuple[Picture, Future[dict[str, Any] | _Failure]]


class ChunkSegmenter:
    """Segments chunks with one network; any number of threads may call it, each with a chunk.

    Args:
        orders: of the run.
        predictor: the network, in this process or another one.
        reporter: is told how far a chunk is.
    """

    def __init__(self, orders: Orders, predictor: Predictor, reporter: Reporter) -> None:
        self._orders, self._predictor, self._reporter = orders, predictor, reporter
        self._requests = ThreadPoolExecutor(_REQUESTS)
        self._asking = Lock()
        self._fetched = Memory(_FETCHED_BYTES)
        self._decoding = Semaphore(orders.threads)
        self._masks = ThreadPoolExecutor(orders.threads)
        self._stopped = Event()

    def stop(self) -> None:
        """Give up what is under way; what is not written yet is done by the next run.

        It takes as long as requests that wait for an answer, ten seconds at most.
        """
        self._stopped.set()
        self._requests.shutdown(wait=False, cancel_futures=True)

    def segment(self, entries: list[Entry]) -> None:
        """Write a row of results or of errors for each image.

        Args:
            entries: the chunk; of an id that is there twice the first counts.

        Raises:
            InputError: nothing can be written, or there is no network to be had.
        """
        chunk = _Chunk(entries, self._orders, self._reporter)
        # While the network works on a batch, other threads read the next and make the masks of
        # the last.
        rows: list[_Coming] = []
        for batch in _in_batches(self._read(chunk), self._orders.batch_size):
            logits = self._predictor.predict(np.stack([item.picture.pixels for item in batch]))
            chunk.add(rows)
            rows = [
                (item.picture, self._masks.submit(_make_row, item, values, self._orders))
                for item, values in zip(batch, logits, strict=True)
            ]
        chunk.add(rows)
        if not self._stopped.is_set():
            chunk.finish()

    def _read(self, chunk: "_Chunk") -> Iterator[_Decoded]:
        """The images that can be read, as they come; the others become rows of errors."""
        under_way: set[Future[_Decoded | _Failure]] = set()
        done: SimpleQueue[Future[_Decoded | _Failure]] = SimpleQueue()
        waiting = deque(chunk.missing)
        with contextlib.ExitStack() as turn:
            turn.enter_context(self._asking)
            while (waiting or under_way) and not self._stopped.is_set():
                while waiting and len(under_way) < _AHEAD:
                    request = self._requests.submit(self._read_one, waiting.popleft(), chunk)
                    under_way.add(request)
                    request.add_done_callback(done.put)
                if not waiting:
                    turn.close()
                # Not in order: nobody waits for the one whose request is tried again and again.
                outcome = done.get()
                if self._stopped.is_set():
                    return
                under_way.remove(outcome)
                item = outcome.result()
                if isinstance(item, _Failure):
                    chunk.fail(item)
                else:
                    yield item

    def _read_one(self, entry: Entry, chunk: "_Chunk") -> _Decoded | _Failure:
        with contextlib.ExitStack() as room:

            def make_room(length: int) -> None:
                room.enter_context(self._fetched.reserved(length))

            def retry(_: str) -> None:
                room.close()  # until the next attempt
                chunk.count_retry()

            try:
                content = fetch(entry.uri, entry.size, entry.etag, retry, make_room, self._stopped)
            except FetchError as error:
                return _Failure(entry, "fetch", error.kind, error.message)
            try:
                # One large image takes hundreds of megabytes: no more of them at once than CPUs.
                bundle = self._orders.bundle
                with self._decoding:
                    picture = read_picture(content, bundle.image_size, bundle.value_range)
                return _Decoded(entry, picture)
            except DecodeError as error:
                return _Failure(entry, "decode", error.kind, str(error))


class _Chunk:
    """The rows of a chunk on their way into its files."""

    def __init__(self, entries: list[Entry], orders: Orders, reporter: Reporter) -> None:
        entry_of = {entry.id: entry for entry in reversed(entries)}
        ids = sorted(entry_of)
        self._name = hashlib.blake2b(np.array(ids, "<i8").tobytes(), digest_size=12).hexdigest()
        self._reporter = reporter
        self._predictor = f"{socket.gethostname()}:{os.getpid()}"
        self._classes = orders.bundle.labels.names
        self._candidates = Candidates(len(ids))
        schema = results_schema(orders.bundle.labels)
        self._results = PartWriter(join_uri(orders.output, "results"), self._name, schema)
        self._errors = PartWriter(join_uri(orders.output, "errors"), self._name, ERRORS_SCHEMA)
        self._gallery = PartWriter(join_uri(orders.output, "gallery"), self._name, GALLERY_SCHEMA)
        before = (self._results.found_ids(), self._errors.found_ids())
        self.missing = [
            entry
            for id, entry in reversed(entry_of.items())
            if id not in before[0] and id not in before[1]
        ]
        self._size_of = {entry.id: entry.size or 0 for entry in entries}
        self._counts = {
            "segmented": len(before[0]),
            "failed": len(before[1]),
            "bytes": 0,
            "retries": 0,
        }
        self._bytes = 0
        self._written = time.monotonic()
        self._reporter.done(self._name, self._predictor, self._counts)  # it has been begun

    def count_retry(self) -> None:
        """A request is about to be tried again."""
        self._counts["retries"] += 1

    def add(self, rows: list[_Coming]) -> None:
        """Take rows of results."""
        for picture, future in rows:
            row = future.result()
            if isinstance(row, _Failure):
                self.fail(row)
                continue
            self._results.rows.append(row)
            fractions = [row[f"fraction_{name}"] for name in self._classes]
            confidences = [row[f"confidence_{name}"] for name in self._classes]
            self._candidates.add(row["id"], fractions, confidences, picture)
            self._count("segmented", row["id"], len(row["mask"]["bytes"]))
        self._write_if_due()

    def fail(self, failure: _Failure) -> None:
        """Take a row of errors."""
        entry = failure.entry
        self._errors.rows.append(
            {
                "id": entry.id,
                "uri": entry.uri,
                "stage": failure.stage,
                "error": failure.error,
                "message": failure.message,
            }
        )
        self._count("failed", entry.id, len(failure.message))

    def finish(self) -> None:
        """Write what is left, and the pictures of the candidates.

        Those of images that an earlier attempt has segmented are lost.
        """
        self._results.flush()
        self._errors.flush()
        self._gallery.rows = [
            {"id": id, "image": encode_thumbnail(picture, SIDE)}
            for id, picture in self._candidates.pictures.items()
        ]
        self._gallery.flush()
        self._reporter.done(self._name, self._predictor, self._counts, last=True)

    def _count(self, kind: str, image: int, bytes: int) -> None:
        self._counts[kind] += 1
        self._counts["bytes"] += self._size_of[image]
        self._bytes += bytes

    def _write_if_due(self) -> None:
        now = time.monotonic()
        if self._bytes > _FILE_BYTES or now - self._written > _FILE_SECONDS:
            self._results.flush()
            self._errors.flush()
            self._bytes, self._written = 0, now
        self._reporter.done(self._name, self._predictor, self._counts)


def _make_row(
    decoded: _Decoded, logits: npt.NDArray[np.float32], orders: Orders
) -> dict[str, Any] | _Failure:
    """A row of results, unless the network's answer is of no use."""
    picture, labels = decoded.picture, orders.bundle.labels
    own = orders.mask_size == "original"
    height, width = (picture.height, picture.width) if own else logits.shape[:2]
    try:
        mask, statistics = segment_logits(logits, height, width)
    except ValueError as error:
        return _Failure(decoded.entry, "predict", "NotFinite", str(error))
    name = decoded.entry.uri.rpartition("/")[2].rpartition(".")
    return {
        "id": decoded.entry.id,
        "uri": decoded.entry.uri,
        "width": picture.width,
        "height": picture.height,
        "mask": {
            "bytes": encode_mask(mask, labels.palette),
            "path": f"{name[0] or name[2]}.png",
        },
        **_statistics_columns(statistics, labels),
        "model": orders.bundle.digest,
    }


def _statistics_columns(statistics: ClassStatistics, labels: Labels) -> dict[str, Any]:
    columns = zip(
        labels.names,
        statistics.pixels.tolist(),
        statistics.fractions.tolist(),
        statistics.confidences,
        strict=True,
    )
    row = {}
    for name, pixels, fraction, confidence in columns:
        row[f"pixels_{name}"] = pixels
        row[f"fraction_{name}"] = fraction
        row[f"confidence_{name}"] = confidence
    return row


def _in_batches(items: Iterator[_Decoded], size: int) -> Iterator[list[_Decoded]]:
    while batch := list(itertools.islice(items, size)):
        yield batch
