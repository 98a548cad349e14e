"""The census: one pass over the rows of an output, in which each image of the manifest counts once.

Rows that are there twice are removed, and if asked for, those of images that are gone; the regions
of a row go with it. The same pass adds up what the report shows. It reads no masks, and its memory
is nine bytes for each image of the manifest and the numbers of some files.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from segray.bulk.claims import Claims
from segray.bulk.drift import Drift, DriftCounter
from segray.bulk.histograms import ClassHistograms
from segray.bulk.manifest import Found, Manifest
from segray.bulk.regions import RegionFiles, RegionSizes, read_regions
from segray.bulk.sample import Place, Sample
from segray.errors import InputError
from segray.model.reference import Counts
from segray.pixels.labels import Labels
from segray.storage.parallel import map_ahead
from segray.storage.tables import (
    GALLERY_SCHEMA,
    read_parquet,
    read_table,
    table_uris,
)
from segray.storage.uri import join_uri

log = logging.getLogger(__name__)

_READERS = 16  # files that are fetched at once
GALLERY_FILES = 1000  # that are read: the pictures of half a million images
_EXAMPLES = 5  # of each kind of error
_KINDS = 1000  # of errors; all others are counted together
_OTHER = ("", "all other kinds")


@dataclass
class ErrorKind:
    """Errors of one kind.

    Attributes:
        stage: the stage in which they occurred.
        error: name of the kind.
        count: number of images that failed so.
        examples: URI and message of some of them.
    """

    stage: str
    error: str
    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Census:
    """The content of an output, counted.

    Attributes:
        listed: images in the manifest.
        segmented: listed images with a row in results.
        failed: listed images with a row in errors, and none in results.
        stale: rows that are left of images that are gone or have changed.
        left_out: counts of the search.
        histograms: histograms and sums of the classes over the segmented images.
        regions: the regions of these images, counted; None if they were not wanted.
        drift: how far the images are from the training images; None without a reference or images.
        errors: the kinds of errors, the most frequent first.
        sample: rows of results for people to look at, in the order of files and rows.
        unlike: rows of the images that are most unlike the training images, likewise.
        pictures: rows of the gallery, by the ids of listed images.
    """

    listed: int
    segmented: int
    failed: int
    stale: int
    left_out: Found
    histograms: ClassHistograms
    regions: RegionSizes | None
    drift: Drift | None
    errors: list[ErrorKind]
    sample: list[Place]
    unlike: list[Place]
    pictures: dict[int, Place]


def take_census(
    output: str,
    manifest: Manifest,
    labels: Labels,
    prune: bool,
    with_regions: bool = False,
    reference: Mapping[str, Counts] | None = None,
) -> Census:
    """Read all rows once, see to it that no image has two, and count.

    Of two rows for one image, as two runs or a lost worker may have left them, the first one stays;
    a row of results replaces one of errors. The sample is chosen among the images that have a
    picture in the gallery; if none has, among all.

    Args:
        output: absolute URI of the output.
        manifest: the images that count.
        labels: the classes of the model.
        prune: True to remove the rows and pictures of other images.
        with_regions: True if the output has regions.
        reference: what the images are compared with, see `segray.model.reference`.

    Raises:
        InputError: a file cannot be read or written, or lacks a column or regions.
    """
    listed = manifest.ids
    pictures = _find_pictures(output, Claims(listed, prune), prune)
    rows = Claims(listed, prune)
    histograms = ClassHistograms(len(labels))
    sample = Sample(len(labels), np.array(sorted(pictures), dtype=np.int64))
    files = RegionFiles(output, labels) if with_regions else None
    drift = DriftCounter(reference, labels) if reference else None
    kinds = ["pixels", "confidence", "expected_pixels", *(["regions"] if files else [])]
    columns = ["id", "expected_iou", *(f"{p}_{name}" for name in labels.names for p in kinds)]
    if drift:
        columns = sorted({*columns, *drift.columns})

    def read(uri: str) -> tuple[str, pa.Table, pa.Table | None]:
        return uri, read_table(uri, columns), read_regions(output, uri) if files else None

    uris = table_uris(join_uri(output, "results"))
    for uri, table, regions in map_ahead(read, uris, _READERS):
        places, table, kept = rows.claim(uri, table)
        if files:
            files.add(uri, regions, kept, table)
        pixels = _matrix(table, "pixels", labels).astype(np.int64)
        confidences = _matrix(table, "confidence", labels).astype(np.float64)
        shares = pixels / np.maximum(1, pixels.sum(axis=1, keepdims=True))
        expected = _matrix(table, "expected_pixels", labels).astype(np.float64)
        histograms.add(pixels, shares, confidences, expected)
        ids, ious = table["id"].to_numpy(), table["expected_iou"].to_numpy()
        unlike = drift.add(table) if drift else np.zeros(len(table))
        sample.add(uri, places, ids, shares, ious, unlike)
    if files:
        files.remove_others()
    segmented = rows.claimed
    if rows.doubled:
        log.info(f"removed {rows.doubled} duplicate rows")
    errors = _count_errors(output, rows)
    if prune:
        log.info(f"removed {rows.stale} rows of images that are gone or have changed")
    return Census(
        listed=len(listed),
        segmented=segmented,
        failed=rows.claimed - segmented,
        stale=0 if prune else rows.stale,
        left_out=manifest.left_out,
        histograms=histograms,
        regions=files.sizes if files else None,
        drift=drift.finish() if drift else None,
        errors=errors,
        sample=sample.choose(histograms.pixels),
        unlike=sample.choose_unlike() if drift else [],
        pictures=pictures,
    )


def _read_tables(folder: str, columns: list[str]) -> Iterator[tuple[str, pa.Table]]:
    """Some columns of the files in a folder, with their URIs, in order."""
    uris = table_uris(folder)
    yield from map_ahead(lambda uri: (uri, read_table(uri, columns)), uris, _READERS)


def _matrix(table: pa.Table, prefix: str, labels: Labels) -> npt.NDArray[np.generic]:
    """The columns of that prefix of all classes, [N, C]; null is NaN."""
    return np.column_stack([table[f"{prefix}_{name}"].to_numpy() for name in labels.names])


def _find_pictures(output: str, rows: Claims, prune: bool) -> dict[int, Place]:
    """The rows of the gallery by the ids of their images; a damaged file is passed over.

    Of very many files only some are read, unless the pictures of other images are to be removed.
    """

    def read(uri: str) -> tuple[str, pa.Table | InputError]:
        try:
            return uri, read_parquet(uri, partial(_read_gallery, uri))
        except InputError as error:
            return uri, error

    # The names are digests, so the first of them are a random sample.
    uris = table_uris(join_uri(output, "gallery"))
    wanted = set(uris[:GALLERY_FILES])
    pictures: dict[int, Place] = {}
    for uri, table in map_ahead(read, uris if prune else sorted(wanted), _READERS):
        if isinstance(table, InputError):
            log.info(f"the report does without some pictures: {table}")
            continue
        places, table, _ = rows.claim(uri, table)
        if uri in wanted:
            ids = table["id"].to_pylist()
            pictures |= {id: Place(uri, row) for id, row in zip(ids, places.tolist(), strict=True)}
    return pictures


def _read_gallery(uri: str, file: pq.ParquetFile) -> pa.Table:
    """The ids of a file of pictures."""
    if not file.schema_arrow.equals(GALLERY_SCHEMA):
        raise InputError(f"{uri} has other columns than id and image")
    return file.read(columns=["id"])


def _count_errors(output: str, rows: Claims) -> list[ErrorKind]:
    columns = ["id", "stage", "error", "uri", "message"]
    kinds: dict[tuple[str, str], ErrorKind] = {}
    for file, table in _read_tables(join_uri(output, "errors"), columns):
        _, table, _ = rows.claim(file, table)
        for row in table.to_pylist():
            key = (row["stage"] or "", row["error"] or "")
            if key not in kinds and len(kinds) >= _KINDS:
                key = _OTHER
            kind = kinds.setdefault(key, ErrorKind(*key))
            kind.count += 1
            if len(kind.examples) < _EXAMPLES:
                kind.examples.append((row["uri"] or "", row["message"] or ""))
    return sorted(kinds.values(), key=lambda kind: -kind.count)
