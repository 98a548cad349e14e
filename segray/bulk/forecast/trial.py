"""A trial: a sample of images goes through the pipeline of the run, into a temporary folder.

It shows what a process of the run does with these images, and measures what that takes. The CPU
time of all threads, divided by the images, is what an image costs; how many CPUs are kept busy
while the pipeline is full says what comes of it in a second, whatever it is that the pipeline waits
for. Neither depends on how long the pipeline takes to fill and to empty.
"""

import contextlib
import itertools
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock, Timer
from typing import Any

import numpy as np
import numpy.typing as npt

from segray.bulk.pipeline import Pipeline, PipelineConfig
from segray.bulk.report.gallery import shrink_mask
from segray.bulk.rows import Composition, DecodedImage, Failure, Result
from segray.bulk.sizes import split_into_chunks
from segray.bulk.tally import Counts, Tally
from segray.bulk.writer import ChunkWriter
from segray.errors import InputError
from segray.model.predictor import Predictor
from segray.pixels.labels import Labels
from segray.storage.listing import Entry
from segray.storage.requests import requests_sent
from segray.storage.tables import read_table, read_tables, table_uris, write_table
from segray.storage.uri import join_uri
from segray.ticker import ticking

#: The stages whose CPU time is measured; ``predict`` is the rest of that of the process.
STAGES = ("fetch", "decode", "predict", "mask", "write", "pictures")

# The sample goes through once, and again until so many seconds have passed, or so often; after
# more seconds no chunk is begun, and after still more those under way are given up.
_ENOUGH_SECONDS, _ROUNDS = 10.0, 4
_BEGIN_SECONDS, _END_SECONDS = 15.0, 30.0
_SLICE_SECONDS = 0.5
_WARM = 4  # images that go before
_DRAWN = 4  # masks of a file that are made small
# Chunks of a sample, several for each that is under way; and images of a chunk, at least.
_CHUNKS, _LEAST = 8, 16


@dataclass
class Trial:
    """What a process has done with a sample, and what that took.

    Attributes:
        images: images that were segmented or failed, with those that went through again.
        seconds: CPU seconds of each stage, of all images together.
        costs: CPU seconds of fetching, decoding and masks of each image, by its id, as often as it
            went through.
        times: how often each image went through, by its id.
        busy: mean number of CPUs that a process kept busy, in each of some slices of the time in
            which its pipeline was full.
        waits: seconds from a request for an image to its whole file, of each image.
        sizes: width and height of each image that was segmented, by its id.
        failures: stage, kind, URI and message of each image that failed, by its id.
        masks: sizes of the masks in the files of results, in bytes.
        drawing: seconds in which masks were made small for the report, of a few of them.
        files: number of these files.
        file_bytes: size of one of them without its rows.
        bytes: sizes of all files of results, errors, regions and the gallery, by folder.
        pictures: number of pictures in the gallery.
        requests: requests that were sent, see `segray.storage.requests`.
    """

    images: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    costs: dict[int, float] = field(default_factory=dict)
    times: Counter[int] = field(default_factory=Counter)
    busy: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    failures: dict[int, tuple[str, str, str, str]] = field(default_factory=dict)
    masks: list[int] = field(default_factory=list)
    drawing: list[float] = field(default_factory=list)
    files: int = 0
    file_bytes: int = 0
    bytes: Counter[str] = field(default_factory=Counter)
    pictures: int = 0
    requests: Counter[str] = field(default_factory=Counter)

    def stage_seconds(self, pictures: float) -> dict[str, float]:
        """CPU seconds per image of each stage in a run that keeps so many pictures per image."""
        seconds = {stage: self.seconds.get(stage, 0.0) / self.images for stage in STAGES}
        seconds["pictures"] *= pictures * self.images / max(1, self.pictures)
        return seconds

    def join(self, other: "Trial") -> None:
        """Add the trial of another process, which went on at the same time."""
        self.images += other.images
        for stage, seconds in other.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        for id, cost in other.costs.items():
            self.costs[id] = self.costs.get(id, 0.0) + cost
        self.times += other.times
        self.busy += other.busy
        self.waits += other.waits
        self.sizes |= other.sizes
        self.failures |= other.failures
        self.masks += other.masks
        self.drawing += other.drawing
        self.files += other.files
        self.file_bytes = max(self.file_bytes, other.file_bytes)
        self.bytes += other.bytes
        self.pictures += other.pictures
        self.requests += other.requests


class _TimedPipeline(Pipeline):
    """The pipeline of a run, which notes the CPU time of its stages.

    Args:
        trial: receives the times.
    """

    def __init__(self, trial: Trial, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._trial, self._lock = trial, Lock()

    @contextlib.contextmanager
    def _timed(self, stage: str, id: int | None = None) -> Iterator[None]:
        begun = time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - begun
            trial = self._trial
            with self._lock:
                trial.seconds[stage] = trial.seconds.get(stage, 0.0) + spent
                if id is not None:
                    trial.costs[id] = trial.costs.get(id, 0.0) + spent

    @contextlib.contextmanager
    def _fetch(self, entry: Entry, writer: ChunkWriter) -> Iterator[bytes]:
        begun = time.monotonic()
        with self._lock:
            self._trial.times[entry.id] += 1
        with contextlib.ExitStack() as stack:
            with self._timed("fetch", entry.id):
                content = stack.enter_context(super()._fetch(entry, writer))
            self._trial.waits.append(time.monotonic() - begun)
            yield content

    def _decode(self, entry: Entry, content: bytes) -> DecodedImage:
        with self._timed("decode", entry.id):
            return super()._decode(entry, content)

    def _compose(
        self, composition: Composition, logits: npt.NDArray[np.float32]
    ) -> Result | Failure | None:
        with self._timed("mask", composition.id):
            return super()._compose(composition, logits)

    def _write(self, masks: list[Future[Result | Failure | None]], writer: ChunkWriter) -> None:
        with self._timed("write"):
            super()._write(masks, writer)

    def _finish(self, writer: ChunkWriter) -> None:
        with self._timed("write"):
            writer.write_rows()
        with self._timed("pictures"):  # which is all that is left
            super()._finish(writer)


class _Watch(Tally):
    """The tally of a trial, which notes when the first image was done."""

    filled: float | None = None

    def done(self, chunk: str, predictor: str, counts: Counts, last: bool = False) -> None:
        super().done(chunk, predictor, counts, last)
        if self.filled is None and counts["segmented"] + counts["failed"]:
            self.filled = time.monotonic()


def take_trial(config: PipelineConfig, predictor: Predictor, sample: Sequence[Entry]) -> Trial:
    """Segment a sample as a process of the run does.

    Args:
        config: settings of the run's pipelines.
        predictor: the network.
        sample: the images.

    Raises:
        InputError: there is no network to be had, no room for the temporary files, or no image is
            done in time.
    """
    with tempfile.TemporaryDirectory(prefix="segray-trial-") as folder:
        # What a process does once is no part of what an image costs.
        warm = Pipeline(replace(config, output=join_uri(folder, "warm")), predictor, Tally())
        with _given_up(warm):
            warm.segment(list(sample[:_WARM]))
        config = replace(config, output=join_uri(folder, "trial"))
        trial, watch = Trial(), _Watch()
        pipeline = _TimedPipeline(trial, config, predictor, watch)
        before, began = requests_sent(), time.process_time()
        looks = [(time.monotonic(), began)]
        emptied = 0.0

        def look() -> None:
            looks.append((time.monotonic(), time.process_time()))

        def chunks() -> Iterator[list[Entry]]:
            nonlocal emptied
            yield from _chunks(sample)
            emptied = time.monotonic()

        with ticking(_SLICE_SECONDS, look), _given_up(pipeline):
            pipeline.segment_all(chunks())
        look()
        total = watch.totals()
        trial.images = total["segmented"] + total["failed"]
        if not trial.images:
            raise InputError(
                f"no image of the sample was done within {_END_SECONDS:.0f} s: see whether the "
                "store answers, or run again when other work on this machine has ended; images of "
                "hundreds of megapixels cannot be forecast"
            )
        spent = time.process_time() - began
        trial.seconds["predict"] = max(0.0, spent - sum(trial.seconds.values()))
        trial.busy = _slices(looks, watch.filled or looks[0][0], emptied)
        trial.requests = requests_sent() - before
        _read_rows(trial, config.output, config.bundle.labels)
        return trial


def _chunks(sample: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Chunks of the sample, until there are enough; each round has others, as good as always.

    A chunk of the same images would be found done, and count for nothing.
    """
    begun, order = time.monotonic(), random.Random(0)
    images = list(sample)
    size = max(_LEAST, math.ceil(len(images) / _CHUNKS))
    rounds = _ROUNDS if len(images) > size else 1
    for number in range(rounds):
        if number and time.monotonic() - begun > _ENOUGH_SECONDS:
            return
        for chunk in split_into_chunks([images], size):
            if time.monotonic() - begun > _BEGIN_SECONDS:
                return
            yield chunk
        order.shuffle(images)


@contextlib.contextmanager
def _given_up(pipeline: Pipeline) -> Iterator[None]:
    """Stop a pipeline for which the block runs too long."""
    timer = Timer(_END_SECONDS, pipeline.stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _slices(looks: Sequence[tuple[float, float]], filled: float, emptied: float) -> list[float]:
    """The CPUs that were busy between every two looks; of a short trial, all of its time."""
    full = [look for look in looks if filled <= look[0] <= emptied]
    if len(full) < 4:
        full = [looks[0], looks[-1]]
    return [
        (cpu - cpu_before) / max(now - before, 1e-9)
        for (before, cpu_before), (now, cpu) in itertools.pairwise(full)
    ]


def _read_rows(trial: Trial, output: str, labels: Labels) -> None:
    """Read what the trial has written."""
    for table in read_tables(join_uri(output, "results"), ["id", "width", "height", "mask"]):
        rows = table.to_pylist()
        masks = [len(row["mask"]["bytes"]) for row in rows]
        trial.files += 1
        trial.masks += masks
        for row in rows[:_DRAWN]:
            begun = time.monotonic()
            shrink_mask(row["mask"]["bytes"], row["width"], row["height"], labels)
            trial.drawing.append(time.monotonic() - begun)
        trial.sizes |= {row["id"]: (row["width"], row["height"]) for row in rows}
    columns = ["stage", "error", "uri", "message"]
    for table in read_tables(join_uri(output, "errors"), ["id", *columns]):
        for row in table.to_pylist():
            stage, error, uri, message = (row[name] for name in columns)
            trial.failures[row["id"]] = stage, error, uri, message
    trial.pictures = sum(len(table) for table in read_tables(join_uri(output, "gallery"), ["id"]))
    for path in Path(output).rglob("*.parquet"):
        trial.bytes[path.parent.name] += path.stat().st_size
    if trial.files:
        trial.file_bytes = _empty_file(output)


def _empty_file(output: str) -> int:
    """The size of a file of results without its rows, from one with a single row."""
    [uri, *_] = table_uris(join_uri(output, "results"))
    single = join_uri(output, "single.parquet")
    row = read_table(uri).slice(0, 1)
    write_table(single, row)
    return Path(single).stat().st_size - len(row["mask"][0]["bytes"].as_py())
