"""The forecast of the requests that a run sends to S3.

Planning and listing are what the forecast itself has just done, and were counted there. What the
run sends besides, follows from its chunks. Requests of s3fs are left out, as in
`segray.storage.requests`.
"""

import math
from collections import Counter
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from segray.bulk.census import GALLERY_FILES
from segray.bulk.forecast.trial import Trial
from segray.bulk.manifest import FILE_ROWS
from segray.bulk.pipeline import CHUNKS_AT_ONCE
from segray.bulk.plan import Plan
from segray.bulk.sample import SHOWN
from segray.bulk.sizes import Chunks
from segray.bulk.writer import FILE_BYTES, FILE_SECONDS
from segray.storage.lock import BEAT
from segray.storage.ranges import TAIL_BYTES
from segray.storage.requests import REPEATED
from segray.storage.uri import is_local

_GET, _PUT, _LIST, _DELETE = "GetObject", "PutObject", "ListObjectsV2", "DeleteObject"

# The names in a page of a listing, and the bytes of a row of the manifest.
_PAGE = 1000
_MANIFEST_BYTES = 60.0
# Standard deviation of the size of a picture, as a share of it.
_PICTURE_DEVIATION = 0.3


@dataclass(frozen=True)
class Files:
    """The files that a chunk writes.

    Attributes:
        rows: number of rows of results.
        row_bytes: mean size of such a row.
        row_deviation: standard deviation of that.
        file_bytes: size of a file without its rows.
        pictures: number of pictures in the gallery.
        picture_bytes: mean size of a picture.
        error_bytes: size of the errors.
        region_bytes: size of the regions.
        failures: share of the images that fail, 0 to 1.
    """

    rows: float
    row_bytes: float
    row_deviation: float
    file_bytes: float
    pictures: float
    picture_bytes: float
    error_bytes: float
    region_bytes: float
    failures: float

    @classmethod
    def of(cls, trial: Trial, chunks: Chunks, failures: float, pictures: float) -> "Files":
        """Expect what the files of a trial had.

        Args:
            trial: the trial.
            chunks: the chunks of the run.
            failures: share of the images that fail, 0 to 1.
            pictures: number of pictures of a chunk.
        """
        images = chunks.images / chunks.count
        rows = trial.bytes["results"] - trial.files * trial.file_bytes
        failed = trial.images - len(trial.masks)
        return cls(
            rows=images * (1 - failures),
            row_bytes=rows / max(1, len(trial.masks)),
            row_deviation=float(np.std(trial.masks)) if trial.masks else 0.0,
            file_bytes=trial.file_bytes,
            pictures=pictures,
            picture_bytes=trial.bytes["gallery"] / max(1, trial.pictures),
            error_bytes=images * failures * trial.bytes["errors"] / max(1, failed),
            region_bytes=images
            * (1 - failures)
            * trial.bytes["regions"]
            / max(1, len(trial.masks)),
            failures=failures,
        )

    @property
    def bytes(self) -> float:
        """The size of all of them."""
        results = self.rows * self.row_bytes + self.file_bytes
        return results + self.pictures * self.picture_bytes + self.error_bytes + self.region_bytes

    def result_reads(self, parts: float) -> float:
        """Requests that read small columns of one of so many files with the results."""
        rows = self.rows / parts
        return _reads(self.file_bytes + rows * self.row_bytes, self.row_deviation * rows**0.5)

    def gallery_reads(self) -> float:
        """Requests that read the ids of the gallery."""
        deviation = _PICTURE_DEVIATION * self.picture_bytes * self.pictures**0.5
        return _reads(self.pictures * self.picture_bytes, deviation)


def forecast_requests(
    plan: Plan,
    already: tuple[Counter[str], Counter[str]],
    listed: int,
    trial: Trial,
    chunks: Chunks,
    files: Files,
    seconds: float,
    rate: float,
) -> Counter[str]:
    """Compute the requests of a run, by operation and `segray.storage.requests.REPEATED`.

    Args:
        plan: the plan of the run.
        already: the requests that the plan and the listing have taken.
        listed: number of images that were listed, those with a row among them.
        trial: what became of a sample.
        chunks: the chunks of the run.
        files: the files of a chunk.
        seconds: the time that the run takes.
        rate: images per second of a worker.
    """
    planned, listing = already
    requests = planned + listing
    tried = trial.requests[_GET] - trial.requests[REPEATED]
    gets = chunks.images * tried / max(1, trial.images)
    repeated = gets * trial.requests[REPEATED] / max(1, tried)
    # Parts of a request are none.
    requests += Counter({_GET: round(gets + repeated), REPEATED: round(repeated)})
    if is_local(plan.output):
        return requests
    requests += _of_lock(plan, seconds)
    requests += _of_chunks(chunks, files, rate)
    requests += _of_end(plan, listed, chunks, files, rate)
    if plan.config.regions:
        requests += _of_regions(chunks, files, rate)
    if len(plan.done):
        requests[_GET] += planned[_GET]  # the rows that are there already are read again
    return requests


def _of_lock(plan: Plan, seconds: float) -> Counter[str]:
    """Taking the lock, refusing it to oneself, keeping it alive, and giving it back."""
    if not plan.config.lock:
        return Counter()
    return Counter({_GET: 2, _PUT: 2 + int(seconds / BEAT), _DELETE: 1})


def _of_chunks(chunks: Chunks, files: Files, rate: float) -> Counter[str]:
    """Looking for the rows of an earlier attempt, and writing results, errors and pictures."""
    puts = chunks.count * (_result_files(chunks, files, rate) + 1 + _with_errors(chunks, files))
    return Counter({_LIST: 2 * chunks.count, _PUT: round(puts)})


def _of_regions(chunks: Chunks, files: Files, rate: float) -> Counter[str]:
    """Writing a file of regions for each file with results, and counting them all in the end."""
    parts = _result_files(chunks, files, rate)
    written = chunks.count * parts
    gets = written * _reads(files.region_bytes / max(1.0, parts))
    lists = math.ceil(max(1, written) / _PAGE)
    return Counter({_GET: round(gets), _LIST: lists, _PUT: round(written)})


def _of_end(plan: Plan, listed: int, chunks: Chunks, files: Files, rate: float) -> Counter[str]:
    """The settings and the manifest, written and read; the census; the report and the record."""
    manifests = len(plan.search.parts) + listed // FILE_ROWS
    results = chunks.count * _result_files(chunks, files, rate)
    errors = chunks.count * _with_errors(chunks, files)
    shown = min(SHOWN, chunks.images)
    # Files that have one of the images of the report, which are spread over all.
    of_report = chunks.count * (1 - (1 - 1 / chunks.count) ** shown)
    of_results = files.result_reads(max(1.0, results / chunks.count))
    gets = manifests * _reads(_MANIFEST_BYTES * listed / manifests) + errors
    gets += results * of_results + min(chunks.count, GALLERY_FILES) * files.gallery_reads()
    # The small columns, and the masks.
    gets += of_report * (2 * of_results - 1 + files.gallery_reads())
    lists = 1 + sum(
        math.ceil(max(1, n) / _PAGE) for n in (manifests, results, errors, chunks.count)
    )
    return Counter({_GET: round(gets), _LIST: lists, _PUT: manifests + 3})


def _result_files(chunks: Chunks, files: Files, rate: float) -> float:
    """Files with the results of a chunk: they are written when they are old or large."""
    if files.failures == 1:
        return 0.0
    seconds = min(chunks.size, chunks.images) * CHUNKS_AT_ONCE / rate
    return 1 + max(seconds // FILE_SECONDS, chunks.size * files.row_bytes // FILE_BYTES)


def _with_errors(chunks: Chunks, files: Files) -> float:
    """The probability that a chunk has a file of errors."""
    return 1 - (1 - files.failures) ** min(chunks.size, chunks.images)


def _reads(bytes: float, deviation: float = 0.0) -> float:
    """Requests that read some columns of a Parquet file of that size: one, if that has it all."""
    if not deviation:
        return 1.0 if bytes <= TAIL_BYTES else 2.0
    return 2 - NormalDist(bytes, deviation).cdf(TAIL_BYTES)
