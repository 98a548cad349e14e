"""The pipeline: images are fetched, decoded, predicted, masked and written.

A process runs it for some chunks of some hundred images at once, so that its network never waits
for the last and slowest image of one chunk. This file has the five stages in their order:

    stage    thread                         limit                          waits for
    -------  -----------------------------  -----------------------------  ------------------------
    fetch    24 for requests,               64 images of a chunk between   the store; room in these
             shared by all chunks           fetch and predict (`threads`   128 MiB; its turn: chunks
                                            and one if they are cut into   ask one after the other
                                            windows); 128 MiB of files
                                            not decoded yet
    decode   that of the request            `threads` images at once       a free CPU
    predict  that of the chunk              a batch of images, or of       a full batch (the last
                                            their windows                  may be short), network
    mask     a pool of `threads`,           a batch of each chunk          the logits
             shared by all chunks
    write    that of the chunk              64 MB of rows, or 20 seconds   the masks of the batch
                                                                           before

While the network predicts a batch of a chunk, the next one is fetched and decoded, and the masks of
the last one are made. An image that fails at a stage becomes a row of errors and leaves the others.

An image may also end its process, by a fault in a library or for want of memory. A chunk that two
processes died with is therefore done image by image, and the image that two more processes died
with becomes a row of errors, too.
"""

import contextlib
import itertools
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Event, Lock, Semaphore

import numpy as np
import numpy.typing as npt

from segray.bulk.config import MaskSize
from segray.bulk.gate import Gate
from segray.bulk.plan import Plan
from segray.bulk.rows import Composition, DecodedImage, Failure, Result
from segray.bulk.tally import Reporter
from segray.bulk.writer import ChunkWriter
from segray.model.bundle import Bundle
from segray.model.predictor import Predictor
from segray.pixels.canvas import OVERLAP
from segray.pixels.decoding import DecodeError, read_picture
from segray.pixels.limits import MAX_PIXELS, Memory
from segray.storage.failures import FetchError
from segray.storage.listing import Entry
from segray.storage.objects import fetched

# The limits of the table. A request waits far more than it computes.
_REQUESTS = 24
_AHEAD = 64
_FETCHED_BYTES = 1 << 27

# An image whose mask is being made, and one of its windows, uint8 [H, W, 3].
Window = tuple[Composition, npt.NDArray[np.uint8]]

# Attempts to do a chunk whose images are in hand together.
_ATTEMPTS = 2

#: Chunks that a process has in hand at once: while one waits for its slowest images, the next one
#: keeps the network busy. All of them are lost with the process, so there are no more.
CHUNKS_AT_ONCE = 3


@dataclass(frozen=True)
class PipelineConfig:
    """The settings of every pipeline of a run.

    Attributes:
        bundle: the model; none of its files is needed.
        output: absolute URI of the output.
        mask_size: size of the masks.
        batch_size: images, or windows of images, that the network takes at a time.
        threads: for decoding, and as many for masks.
        overlap: see `segray.pixels.canvas.Canvas`.
        max_pixels: the maximum number of pixels of an image that is decoded at once.
        min_area: the pixels of the smallest region that counts; None: regions are not wanted.
    """

    bundle: Bundle
    output: str
    mask_size: MaskSize
    batch_size: int
    threads: int
    overlap: float = OVERLAP
    max_pixels: int = MAX_PIXELS
    min_area: int | None = None

    @classmethod
    def of(cls, plan: Plan, threads: int) -> "PipelineConfig":
        """The settings of a run's pipelines, each with so many threads."""
        config = plan.config
        bundle = replace(plan.bundle, files={})
        return cls(
            bundle,
            plan.output,
            config.mask_size,
            plan.batch_size,
            threads,
            config.overlap,
            config.max_pixels,
            config.min_area if config.regions else None,
        )


class Pipeline:
    """Segments chunks with one network; any number of threads may call it, each with a chunk.

    Args:
        config: settings of the run.
        predictor: the network, in this process or another one.
        reporter: receives the counts of each chunk.
    """

    def __init__(self, config: PipelineConfig, predictor: Predictor, reporter: Reporter) -> None:
        self._config, self._predictor, self._reporter = config, predictor, reporter
        self._requests = ThreadPoolExecutor(_REQUESTS)
        self._turn = Lock()
        self._gate = Gate()
        self._fetched = Memory(_FETCHED_BYTES)
        self._decoders = Semaphore(config.threads)
        self._maskers = ThreadPoolExecutor(config.threads)
        self._stopped = Event()

    def stop(self) -> None:
        """Give up the chunks that are under way; the next run does what is not written yet.

        It takes as long as requests that wait for an answer, ten seconds at most.
        """
        self._stopped.set()
        self._requests.shutdown(wait=False, cancel_futures=True)

    def segment_all(self, chunks: Iterable[list[Entry]]) -> None:
        """Segment chunks as they come, `CHUNKS_AT_ONCE` at a time.

        Args:
            chunks: see `segment`. If it raises an exception, the pipeline is stopped.

        Raises:
            InputError: as `segment`.
        """
        with ThreadPoolExecutor(CHUNKS_AT_ONCE) as lanes:
            under_way: set[Future[None]] = set()
            try:
                for entries in chunks:
                    if len(under_way) == CHUNKS_AT_ONCE:
                        under_way = _await_one(under_way)
                    under_way.add(lanes.submit(self.segment, entries))
                while under_way:
                    under_way = _await_one(under_way)
            except BaseException:
                self.stop()
                raise

    def segment(self, entries: list[Entry]) -> None:
        """Write a row of results or of errors for each image of a chunk.

        Args:
            entries: the chunk; of an id that is there twice the first counts.

        Raises:
            InputError: a file cannot be written, or there is no network to be had.
        """
        config = self._config
        regions = config.min_area is not None
        writer = ChunkWriter(entries, config.output, config.bundle.labels, self._reporter, regions)
        attempt = self._reporter.begin(writer.name)
        alone = attempt.number > _ATTEMPTS
        if alone:
            gate, images = self._gate.alone(), self._read_alone(writer, attempt.deadly)
        else:
            gate, images = self._gate.beside_others(), self._read_ahead(writer)
        batch_size = 1 if alone else config.batch_size
        masks: list[Future[Result | Failure | None]] = []
        # Closed at an exception, too: it holds the turn that other chunks wait for.
        with gate, contextlib.closing(images):
            windows = self._cut(images, writer)
            while batch := list(itertools.islice(windows, batch_size)):
                logits = self._predict(batch)
                self._write(masks, writer)  # an image takes its windows in their order
                masks = self._mask(batch, logits)
                if alone:
                    wait(masks)
        self._write(masks, writer)
        if not self._stopped.is_set():
            self._finish(writer)

    def _read_ahead(self, writer: ChunkWriter) -> Generator[DecodedImage]:
        """Fetch and decode the images of a chunk, and yield them as they come."""
        under_way: set[Future[DecodedImage | Failure]] = set()
        done: SimpleQueue[Future[DecodedImage | Failure]] = SimpleQueue()
        waiting = deque(writer.missing)
        # Images that are cut into windows are large, and each keeps the network busy for longer.
        large = self._config.bundle.fit == "tile"
        ahead = self._config.threads + 1 if large else _AHEAD
        with contextlib.ExitStack() as turn:
            turn.enter_context(self._turn)
            while (waiting or under_way) and not self._stopped.is_set():
                while waiting and len(under_way) < ahead:
                    try:
                        future = self._requests.submit(self._read, waiting.popleft(), writer)
                    except RuntimeError:
                        return  # it was stopped between the look and the call
                    under_way.add(future)
                    future.add_done_callback(done.put)
                if not waiting:
                    turn.close()  # the next chunk may ask
                # Not in order: no image waits for one whose request is tried again and again.
                future = done.get()
                if self._stopped.is_set():
                    return
                under_way.remove(future)
                image = future.result()
                if isinstance(image, Failure):
                    writer.add(image)
                else:
                    yield image

    def _read_alone(self, writer: ChunkWriter, deadly: Collection[int]) -> Generator[DecodedImage]:
        """Fetch, decode and yield one image at a time."""
        for entry in writer.missing:
            if self._stopped.is_set():
                return
            if entry.id in deadly:
                message = (
                    "several processes died while they had this image in hand: it may take more "
                    "memory than there is"
                )
                writer.add(Failure(entry, "process", "ProcessDied", message))
                continue
            self._reporter.hold_alone(writer.name, entry.id)
            image = self._read(entry, writer)
            if isinstance(image, Failure):
                writer.add(image)
            else:
                yield image

    def _read(self, entry: Entry, writer: ChunkWriter) -> DecodedImage | Failure:
        """The first two stages for one image; its file takes room until it is decoded."""
        try:
            with self._fetch(entry, writer) as content:
                return self._decode(entry, content)
        except FetchError as error:
            return Failure(entry, "fetch", error.kind, error.message)
        except DecodeError as error:
            return Failure(entry, "decode", error.kind, str(error))

    def _fetch(self, entry: Entry, writer: ChunkWriter) -> AbstractContextManager[bytes]:
        return fetched(
            *(self._fetched, entry.uri, entry.size, entry.etag),
            *(lambda _: writer.count_retry(), self._stopped),
        )

    def _decode(self, entry: Entry, content: bytes) -> DecodedImage:
        bundle, most = self._config.bundle, self._config.max_pixels
        # One large image takes hundreds of megabytes: no more of them at once than CPUs.
        with self._decoders:
            picture = read_picture(content, bundle.frame, bundle.value_range, True, most)
        return DecodedImage(entry, picture)

    def _cut(self, images: Iterator[DecodedImage], writer: ChunkWriter) -> Iterator[Window]:
        """Yield the windows of images, one image after the other."""
        config = self._config
        for image in images:
            composition = Composition(
                image, config.bundle, config.mask_size, config.overlap, config.min_area
            )
            try:
                for pixels in composition.windows():
                    if self._stopped.is_set():
                        return
                    yield composition, pixels
            except DecodeError as error:
                # A large image is decoded while it is cut. Without its last window it has no mask.
                writer.add(Failure(image.entry, "decode", error.kind, str(error)))

    def _predict(self, batch: list[Window]) -> npt.NDArray[np.float32]:
        return self._predictor.predict(np.stack([pixels for _, pixels in batch]))

    def _mask(
        self, batch: list[Window], logits: npt.NDArray[np.float32]
    ) -> list[Future[Result | Failure | None]]:
        masks, start = [], 0
        for composition, windows in itertools.groupby(composition for composition, _ in batch):
            end = start + len(list(windows))
            masks.append(self._maskers.submit(self._compose, composition, logits[start:end]))
            start = end
        return masks

    def _compose(
        self, composition: Composition, logits: npt.NDArray[np.float32]
    ) -> Result | Failure | None:
        return composition.add(logits)

    def _write(self, masks: list[Future[Result | Failure | None]], writer: ChunkWriter) -> None:
        for mask in masks:
            row = mask.result()
            if row is not None:
                writer.add(row)
        writer.write_if_due()

    def _finish(self, writer: ChunkWriter) -> None:
        writer.finish()


def _await_one(under_way: set[Future[None]]) -> set[Future[None]]:
    """Wait until a chunk is done, raise its exception if it has one, and return the others."""
    done, others = wait(under_way, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return others
