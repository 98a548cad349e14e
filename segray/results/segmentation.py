"""A segmentation as the input of another job: its settings, and its rows a few at a time."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segray.errors import InputError
from segray.pixels.labels import Labels
from segray.pixels.wide import ValueRange
from segray.storage.files import child_names, read_bytes
from segray.storage.ids import FirstRows, Ids, are_in, as_ids, find_ids
from segray.storage.parallel import map_ahead
from segray.storage.tables import (
    open_parquet,
    read_parquet,
    read_table,
    read_tables,
    table_uris,
)
from segray.storage.uri import absolute_uri, join_uri, lies_in

# The columns that are read.
_COLUMNS = ["id", "uri", "width", "height", "mask"]
# The columns of the manifest that are read. One array of tens of millions of ETags has more bytes
# than 32-bit offsets count, hence a large string.
_LISTED_SCHEMA = pa.schema([("id", pa.int64()), ("size", pa.int64()), ("etag", pa.large_string())])
# The files of a segmentation with its settings, and with its record, which it writes last.
_SETTINGS, _RECORD = "config.json", "run.json"
# What its configuration has besides settings that a user chooses.
_NOT_CHOSEN = ("labels", "columns", "usual_shares")
# Results files that are read at once.
_READERS = 16
# Masks that are in memory at a time while a file is read.
_BATCH_ROWS = 32


@dataclass(frozen=True)
class Segmentation:
    """The output of jobs/segment.py.

    Attributes:
        uri: its absolute URI.
        files: the URIs of its results files, sorted; at least one.
        labels: the classes.
        model: the digest of the model.
        images: the URI of the folder that was segmented; None if a table listed the images.
        usual_shares: see `segray.model.bundle.Bundle`; None if an earlier version of segray made
            the segmentation.
        value_range: the pixel values of black and white in images of more than 8 bits per channel.
        expected_iou: the IoU that the model expects of each class over all of its images
            (`segray.pixels.expected`), by its name; None for a class that is not there.
        expected_mean_iou: the mean over the classes that are there; None if there are none.
        settings: all settings of its configuration that a user may choose, by their names,
            JSON-ready; not the labels.
    """

    uri: str
    files: list[str]
    labels: Labels
    model: str
    images: str | None
    usual_shares: tuple[float, ...] | None
    value_range: ValueRange | None
    expected_iou: dict[str, float | None]
    expected_mean_iou: float | None
    settings: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of their ids."""
        return list(self.labels.names)

    def check_output(self, output: str, writes_images: bool) -> None:
        """Refuse an output in which the next segmentation would meet the files of another job.

        Args:
            output: the absolute URI of the folder of that job.
            writes_images: True if it writes files that could be taken for images.

        Raises:
            InputError: it lies in this segmentation, or among the images of it.
        """
        if lies_in(output, self.uri):
            raise InputError(
                f"--output {output} lies in --results {self.uri}, which jobs/segment.py reads as "
                "its own: give another --output"
            )
        if writes_images and self.images and lies_in(output, self.images):
            raise InputError(
                f"--output {output} lies among the images below {self.images}, and the next "
                "jobs/segment.py would take its files for images: give another --output"
            )


def open_segmentation(uri: str) -> Segmentation:
    """Open the segmentation in a folder.

    Args:
        uri: the value of --results.

    Raises:
        InputError: the folder contains no segmentation, or one that is not finished or has no
            results.
    """
    uri = absolute_uri(uri)
    settings = _read_settings(uri)
    files = table_uris(join_uri(uri, "results"))
    if not files:
        raise InputError(f"{uri} has no segmented image: see its {_RECORD}")
    names: list[str] = read_parquet(files[0], lambda file: file.schema_arrow.names)
    labels: Labels = settings["labels"]
    columns = [*_COLUMNS, *(f"pixels_{name}" for name in labels.names)]
    missing = [name for name in columns if name not in names]
    if missing:
        raise InputError(
            f"{files[0]} is not of a segmentation (it has no column "
            f"{', '.join(missing)}): give --results the folder that "
            "jobs/segment.py was given as --output"
        )
    return Segmentation(uri, files, **settings, **_read_record(uri))


def _read_settings(uri: str) -> dict[str, Any]:
    """Return the settings of a finished segmentation."""
    names = child_names(uri)
    if _SETTINGS not in names:
        raise InputError(
            f"{uri} holds no segmentation ({_SETTINGS} is missing): give --results the folder that "
            "jobs/segment.py was given as --output"
        )
    if _RECORD not in names:
        # The manifest may still list two versions of an image, or not all images.
        raise InputError(
            f"{uri} is not finished ({_RECORD} is missing): run jobs/segment.py to its end"
        )
    record = join_uri(uri, _SETTINGS)
    content = read_bytes(record)
    try:
        document = json.loads(content)
        model = str(document["model"])
        low_high, shares = document["value_range"], document.get("usual_shares")
        return {
            "labels": Labels.from_json(document["labels"]),
            "model": model,
            "images": document["images"] or None,
            "usual_shares": shares and tuple(map(float, shares)),
            "value_range": low_high and (int(low_high[0]), int(low_high[1])),
            "settings": {
                name: value for name, value in document.items() if name not in _NOT_CHOSEN
            },
        }
    except (InputError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{record} is no record of a segmentation: run jobs/segment.py again"
        ) from error


def _read_record(uri: str) -> dict[str, Any]:
    """Return what the model expects of its masks; nothing if an earlier version did not ask it."""
    record = join_uri(uri, _RECORD)
    try:
        document = json.loads(read_bytes(record))
        return {
            "expected_iou": dict(document.get("expected_iou") or {}),
            "expected_mean_iou": document.get("expected_mean_iou"),
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{record} is no record of a segmentation: run jobs/segment.py again"
        ) from error


def read_current_ids(segmentation: Segmentation) -> Ids:
    """Return the ids of all images that are now in the manifest, int64 [N], sorted and distinct.

    Raises:
        InputError: there is no manifest, or it cannot be read.
    """
    folder = join_uri(segmentation.uri, "manifest")
    ids = [as_ids(table["id"]) for table in read_tables(folder, ["id"])]
    if not ids:
        raise InputError(
            f"{segmentation.uri} has no manifest, which says which rows count: run "
            "jobs/segment.py again"
        )
    return np.unique(np.concatenate(ids))


def read_current(
    segmentation: Segmentation, columns: Sequence[str]
) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows that count: the first row of each image that is in the manifest.

    Args:
        segmentation: the segmentation.
        columns: the names of the columns; ``id`` is among them.

    Yields:
        The index of a results file, and columns of those of its rows that count.

    Raises:
        InputError: a file cannot be read, or lacks a column.
    """
    first = FirstRows(read_current_ids(segmentation))
    tables = map_ahead(lambda uri: read_table(uri, list(columns)), segmentation.files, _READERS)
    for file, table in enumerate(tables):
        # A task that ran twice may have left two rows for an image.
        yield file, table.take(first.find(as_ids(table["id"])))


@dataclass(frozen=True)
class Listed:
    """The manifest's entries of some images.

    Attributes:
        ids: int64 [N], ascending.
        table: the ``size`` and ``etag`` of each, in the same order.
    """

    ids: Ids
    table: pa.Table

    def find(self, ids: Ids) -> tuple[list[int | None], list[str | None]]:
        """Return the sizes and the ETags of images, all of which must be listed."""
        found = self.table.take(find_ids(self.ids, ids))
        return found["size"].to_pylist(), found["etag"].to_pylist()


def read_listed(segmentation: Segmentation, ids: Ids | None = None) -> Listed:
    """Read the manifest's entries of images.

    Args:
        segmentation: the segmentation.
        ids: int64 [N], ascending: the images; None for all.

    Raises:
        InputError: the manifest cannot be read.
    """
    folder = join_uri(segmentation.uri, "manifest")
    tables = (table.cast(_LISTED_SCHEMA) for table in read_tables(folder, _LISTED_SCHEMA.names))
    if ids is not None:
        tables = (table.filter(pa.array(are_in(as_ids(table["id"]), ids))) for table in tables)
    table = pa.concat_tables(tables).sort_by("id")
    return Listed(as_ids(table["id"]), table.select(["size", "etag"]))


def read_rows(uri: str, ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield rows of a results file: ``id, uri, width, height, mask`` (the content of the PNG file).

    An id that occurs twice is read once. The masks of a few rows are in memory at a time.

    Raises:
        InputError: the file cannot be read, or lacks one of the rows.
    """
    missing = pa.array(ids, pa.int64())
    with open_parquet(uri) as file:
        batches = file.iter_batches(_BATCH_ROWS, columns=_COLUMNS)
        while len(missing):
            batch = next(batches, None)
            if batch is None:
                raise InputError(f"{uri} has changed while it was read: run the same command again")
            batch = batch.filter(pc.is_in(batch["id"], value_set=missing))
            missing = missing.filter(pc.invert(pc.is_in(missing, value_set=batch["id"])))
            seen: set[int] = set()
            for row in batch.to_pylist():
                if row["id"] not in seen:
                    seen.add(row["id"])
                    yield {**row, "mask": (row["mask"] or {}).get("bytes") or b""}
