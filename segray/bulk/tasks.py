"""The tasks of a cluster: searching a part of the images, and segmenting chunks of them.

What passes between them, and back to the driver, are small tables: names of images, and problems
that end the run. An exception would reach the driver without its cause.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError

from segray.bulk.manifest import Found
from segray.bulk.pipeline import Pipeline, PipelineConfig
from segray.bulk.search import Search
from segray.bulk.sizes import split_into_chunks
from segray.bulk.tally import Attempt, Counts, process_name
from segray.errors import InputError
from segray.model.predictor import Predictor
from segray.nodes import SharedFiles
from segray.storage.listing import Entry
from segray.storage.requests import requests_sent

#: Seconds that an answer of the tally may take.
TALLY_TIMEOUT = 30.0

_IMAGE = pa.struct([("uri", pa.string()), ("size", pa.int64()), ("etag", pa.string())])
_CHUNKS = pa.schema([("images", pa.list_(_IMAGE)), ("problem", pa.string())])
_WRITTEN = pa.schema([("problem", pa.string())])


class RemoteReporter:
    """Sends reports to a tally in another process, and waits for the answer where there is one.

    A tally whose process has died is begun anew: what is lost with it are counts for people, and
    how often processes died.

    Args:
        tally: the actor.
    """

    def __init__(self, tally: Any) -> None:
        self._tally = tally

    def begin(self, chunk: str) -> Attempt:
        with contextlib.suppress(RayError):
            attempt: Attempt = ray.get(self._tally.begin.remote(chunk), timeout=TALLY_TIMEOUT)
            return attempt
        return Attempt(1, frozenset())

    def hold_alone(self, chunk: str, id: int) -> None:
        with contextlib.suppress(RayError):
            ray.get(self._tally.hold_alone.remote(chunk, id), timeout=TALLY_TIMEOUT)

    def found(self, part: int, found: Found) -> None:
        self._tally.found.remote(part, found)
        self._tally.note_requests.remote(process_name(), requests_sent())

    def done(self, chunk: str, process: str, counts: Counts, last: bool = False) -> None:
        arrives = self._tally.done.remote(chunk, process, counts)
        if last:
            self._tally.note_requests.remote(process_name(), requests_sent())
            with contextlib.suppress(RayError):
                ray.get(arrives, timeout=TALLY_TIMEOUT)


@dataclass(frozen=True)
class SearchTask:
    """Searches a part: its number -> chunks of the images that are missing, as they are found.

    Attributes:
        search: the search.
        done: reference to the ids that have a row.
        size: images of a chunk.
        reporter: receives the counts.
        shared: the files that a node has to see.
    """

    search: Search
    done: Any
    size: int
    reporter: RemoteReporter
    shared: SharedFiles

    def __call__(self, parts: dict[str, Any]) -> Iterator[pa.Table]:
        done, [part] = ray.get(self.done), parts["part"].tolist()
        try:
            self.shared.check()
            missing = self.search.list_and_record(part, done, partial(self.reporter.found, part))
            for entries in split_into_chunks(missing, self.size):
                images = [vars(entry) for entry in entries]
                yield pa.Table.from_pylist([{"images": images}], _CHUNKS)
        except InputError as error:
            yield pa.Table.from_pylist([{"problem": str(error)}], _CHUNKS)
        yield _CHUNKS.empty_table()


class ChunkWorker:
    """Segments chunks: the names of images -> their files, written.

    Args:
        config: settings of the pipeline.
        connect: makes the network available to this process.
        reporter: receives the counts.
        shared: the files that a node has to see.
    """

    def __init__(
        self,
        config: PipelineConfig,
        connect: Callable[[], Predictor],
        reporter: RemoteReporter,
        shared: SharedFiles,
    ) -> None:
        self._pipeline = Pipeline(config, connect(), reporter)
        self._shared = shared

    def __call__(self, chunks: pa.Table) -> pa.Table:
        problems = []
        for chunk in chunks.to_pylist():
            problem = chunk["problem"]
            try:
                self._shared.check()
                self._pipeline.segment([Entry(**image) for image in chunk["images"] or []])
            except InputError as error:
                problem = str(error)
            problems.append({"problem": problem})
        return pa.Table.from_pylist(problems, _WRITTEN)
