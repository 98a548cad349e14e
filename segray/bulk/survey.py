"""The survey of a segmentation: what all of its rows say, in one pass that keeps none of them.

Memory is nine bytes for each image listed, and a row group's numbers at a time; the masks are not
read.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from segray.errors import InputError
from segray.pixels.labels import Labels
from segray.storage.ids import Ids, are_in
from segray.storage.parallel import map_ahead
from segray.storage.tables import read_parquet, table_uris
from segray.storage.uri import join_uri

#: Parts of 0 to 1 that images are counted in.
BINS = 2000

_READERS = 8  # files that are fetched at once
_EXAMPLES = 5  # of each kind of error
_KINDS = 1000  # of errors; all others are counted together
_OTHER = ("", "all other kinds")

# Of 60 images in a sample, as many are those of which the model is least sure, and as many those
# with most and with least of a class; the others are chosen without regard to what is in them.
_UNSURE, _EXTREMES, _OF = 12, 24, 60


@dataclass(frozen=True)
class Place:
    """Where a row of results stands.

    Attributes:
        uri: of the Parquet file.
        group: number of the row group in it.
        row: number of the row in that.
    """

    uri: str
    group: int
    row: int


@dataclass
class Failures:
    """Errors of one kind.

    Attributes:
        stage: in which they came up.
        error: what kind it is.
        count: how many images it befell.
        examples: URI and message of some of them.
    """

    stage: str
    error: str
    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Survey:
    """Counts over the images of a manifest.

    Attributes:
        listed: images in the manifest.
        segmented: of them, those in results.
        failed: of them, those in errors and not in results.
        pixels: int64 [C], of each class.
        confidence: float64 [C], the mean over those pixels; NaN where there are none.
        images: int64 [C], those with at least one pixel of the class.
        shares: int64 [C, BINS], the same images by the share of the class in them.
        confidences: int64 [C, BINS], the same images by the mean confidence of the class in them.
        failures: kinds of errors, the most frequent first.
        sample: rows for people to look at.
    """

    listed: int
    segmented: int
    failed: int
    pixels: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    images: npt.NDArray[np.int64]
    shares: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.int64]
    failures: list[Failures]
    sample: list[Place]


def make_survey(output: str, labels: Labels, sample: int, among: Ids) -> Survey:
    """Read a segmentation and count. Only images in the manifest count, and each of them once.

    Args:
        output: URI of the folder with manifest, results and errors.
        labels: the classes.
        sample: images to choose: a random spread over all, those of which the model is least
            sure, and those with most and with least of each class. The same output, the same
            sample.
        among: the ids to choose from, int64 [N], ascending; all, if none of them counts.

    Raises:
        InputError: a file cannot be read, or lacks a column.
    """
    listed = _Listed(output)
    among = among[are_in(among, listed.ids)]
    classes = len(labels)
    pixels, images = np.zeros((2, classes), dtype=np.int64)
    summed = np.zeros(classes)
    shares, confidences = np.zeros((2, classes, BINS), dtype=np.int64)
    pool = _Pool(classes, sample)
    segmented = 0
    columns = ["id", *(f"{p}_{name}" for name in labels.names for p in ("pixels", "confidence"))]
    for uri, group, table in _read_groups(join_uri(output, "results"), columns):
        ids = table["id"].to_numpy()
        rows = listed.claim(ids)
        counted = _matrix(table, "pixels", labels)[rows].astype(np.int64)
        sure = _matrix(table, "confidence", labels)[rows].astype(np.float64)
        fractions = counted / np.maximum(1, counted.sum(axis=1, keepdims=True))
        segmented += len(rows)
        pixels += counted.sum(axis=0)
        images += (counted > 0).sum(axis=0)
        summed += np.nansum(counted * sure, axis=0)
        for class_id in range(classes):
            there = counted[:, class_id] > 0
            shares[class_id] += _count_bins(fractions[there, class_id])
            confidences[class_id] += _count_bins(sure[there, class_id])
        able = are_in(ids[rows], among) if len(among) else np.ones(len(rows), dtype=np.bool_)
        means = np.nansum(fractions * sure, axis=1)
        pool.add(ids[rows][able], rows[able], fractions[able], means[able], (uri, group))
    failures = _read_failures(output, listed)
    with np.errstate(invalid="ignore"):
        confidence = summed / pixels
    return Survey(
        listed=len(listed.ids),
        segmented=segmented,
        failed=sum(kind.count for kind in failures),
        pixels=pixels,
        confidence=confidence,
        images=images,
        shares=shares,
        confidences=confidences,
        failures=failures,
        sample=pool.choose(pixels),
    )


class _Listed:
    """The ids of the manifest, sorted, and which of them have been met."""

    def __init__(self, output: str) -> None:
        groups = _read_groups(join_uri(output, "manifest"), ["id"])
        found = [table["id"].to_numpy() for _, _, table in groups]
        self.ids: Ids = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *found]))
        self._met = np.zeros(len(self.ids), dtype=np.bool_)

    def claim(self, ids: Ids) -> npt.NDArray[np.intp]:
        """The places in `ids` of those that are listed and are met for the first time."""
        distinct, firsts = np.unique(ids, return_index=True)
        if not len(self.ids):
            return firsts[:0]
        places = np.minimum(np.searchsorted(self.ids, distinct), len(self.ids) - 1)
        new = (self.ids[places] == distinct) & ~self._met[places]
        self._met[places[new]] = True
        return np.sort(firsts[new])


class _Pool:
    """Candidates for the sample: few rows, however many are added."""

    def __init__(self, classes: int, size: int) -> None:
        self._size = size
        self._unsure = size * _UNSURE // _OF
        self._extremes = size * _EXTREMES // _OF
        self._each = max(1, self._extremes // classes)  # of either end of a class
        self._origins: list[tuple[str, int]] = []
        # Per candidate: its id, how sure the model is, and the share of each class; and place in
        # _origins and row.
        self._values = np.empty((0, 2 + classes))
        self._places = np.empty((0, 2), dtype=np.int64)

    def add(
        self,
        ids: Ids,
        rows: npt.NDArray[np.intp],
        fractions: npt.NDArray[np.float64],
        sure: npt.NDArray[np.float64],
        origin: tuple[str, int],
    ) -> None:
        """Take rows of a row group: int64 [N], int [N], float64 [N, C], float64 [N]."""
        # An id is a digest: the smallest ones are a random sample.
        values = np.column_stack([ids.astype(np.float64), sure, fractions])
        places = np.column_stack([np.full(len(rows), len(self._origins)), rows])
        self._origins.append(origin)
        self._values = np.concatenate([self._values, values])
        self._places = np.concatenate([self._places, places])
        kept = np.unique(
            np.concatenate(
                [
                    _lowest(self._values[:, :1], self._size),
                    _lowest(self._values[:, 1:2], self._unsure),
                    _lowest(self._values[:, 2:], self._each),
                    _lowest(-self._values[:, 2:], self._each),
                ]
            )
        )
        self._values, self._places = self._values[kept], self._places[kept]

    def choose(self, pixels: npt.NDArray[np.int64]) -> list[Place]:
        """The sample, in the order of the rows; `pixels` int64 [C] says which classes matter."""
        order = np.argsort(self._values, axis=0, kind="stable")
        spread, unsure = order[:, 0].tolist(), order[:, 1].tolist()
        ranked = order[:, 2:][:, np.argsort(-pixels, kind="stable")]
        # In turn: each class's image with most of it, each one's with least, the second ones, …
        most, least = ranked[::-1][: self._each], ranked[: self._each]
        extremes = np.stack([most, least], axis=1).ravel().tolist()
        chosen = dict.fromkeys(unsure[: self._unsure])
        for candidates, size in (
            (extremes, len(chosen) + self._extremes),
            (spread, self._size),
        ):
            for candidate in candidates:
                if len(chosen) < size:
                    chosen.setdefault(candidate)
        return [
            Place(uri, group, row)
            for origin, row in sorted(self._places[list(chosen)].tolist())
            for uri, group in [self._origins[origin]]
        ]


def _lowest(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.intp]:
    """The rows with the `count` smallest values of each column, float64 [N, K]; in no order."""
    if len(values) <= count:
        return np.arange(len(values))
    return np.argpartition(values, count, axis=0)[:count].ravel()


def _count_bins(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """How many of the values lie in each of `BINS` parts of 0 to 1; int64 [BINS]."""
    known = values[~np.isnan(values)]
    # A hair is added because 0.29 * 2000 may come out a hair below 580.
    places = np.clip((known * BINS + 1e-6).astype(np.int64), 0, BINS - 1)
    return np.bincount(places, minlength=BINS)


def _matrix(table: pa.Table, prefix: str, labels: Labels) -> npt.NDArray[np.generic]:
    """The columns of that prefix of all classes, [N, C]; null is NaN."""
    return np.column_stack([table[f"{prefix}_{name}"].to_numpy() for name in labels.names])


_Group = tuple[str, int, pa.Table]


def _read_groups(folder: str, columns: list[str]) -> Iterator[_Group]:
    """Some columns of every row group of the Parquet files right in a folder.

    With each comes its file's URI and its number in it. A store takes its time to answer, so some
    files are on their way while one is worked on.
    """

    def read(uri: str, file: pq.ParquetFile) -> list[_Group]:
        absent = set(columns) - set(file.schema_arrow.names)
        if absent:
            raise InputError(
                f"{uri} has no column {min(absent)}, so it is not of this segmentation: remove it "
                "and run again"
            )
        groups = range(file.num_row_groups)
        return [(uri, group, file.read_row_group(group, columns=columns)) for group in groups]

    uris = table_uris(folder)
    for groups in map_ahead(lambda uri: read_parquet(uri, partial(read, uri)), uris, _READERS):
        yield from groups


def _read_failures(output: str, listed: _Listed) -> list[Failures]:
    columns = ["id", "stage", "error", "uri", "message"]
    kinds: dict[tuple[str, str], Failures] = {}
    for _, _, table in _read_groups(join_uri(output, "errors"), columns):
        rows = table.take(listed.claim(table["id"].to_numpy()))
        for _, *texts in zip(*(rows[name].to_pylist() for name in columns), strict=True):
            stage, error, uri, message = (text or "" for text in texts)
            key = (stage, error)
            if key not in kinds and len(kinds) >= _KINDS:
                key = _OTHER
            kind = kinds.setdefault(key, Failures(*key))
            kind.count += 1
            if len(kind.examples) < _EXAMPLES:
                kind.examples.append((uri, message))
    return sorted(kinds.values(), key=lambda kind: -kind.count)
