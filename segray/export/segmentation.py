"""A segmentation as an export finds it: what it is of, and its rows a few at a time."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segray.errors import InputError
from segray.pixels.wide import ValueRange
from segray.storage.files import child_names, read_bytes
from segray.storage.ids import Ids, as_ids, find_ids
from segray.storage.tables import open_parquet, read_parquet, read_tables, table_uris
from segray.storage.uri import absolute_uri, join_uri

# What of a row an export uses, and what a file of results is known by.
_COLUMNS = ["id", "uri", "width", "height", "mask"]
_PIXELS = "pixels_"
# Where a segmentation keeps what it was started with, and what it writes last.
_SETTINGS, _RECORD = "config.json", "run.json"
# Masks in memory at a time while a file is read.
_BATCH_ROWS = 32


@dataclass(frozen=True)
class Segmentation:
    """The output of jobs/segment.py.

    Attributes:
        uri: its absolute URI.
        files: the URIs of its results files, sorted; there is one at least.
        classes: their names, in the order of their ids.
        model: the digest of the model.
        images: the URI of the folder that was segmented; None where a table named the images.
        mask_size: ``original`` or ``model``.
        value_range: which values of images wider than 8 bits were black and white.
    """

    uri: str
    files: list[str]
    classes: list[str]
    model: str
    images: str | None
    mask_size: str
    value_range: ValueRange | None


def open_segmentation(uri: str) -> Segmentation:
    """Find out what a folder holds.

    Args:
        uri: as --results gives it.

    Raises:
        InputError: it holds no segmentation, or one that is not finished or without results.
    """
    uri = absolute_uri(uri)
    settings = _read_settings(uri)
    files = table_uris(join_uri(uri, "results"))
    if not files:
        raise InputError(f"{uri} has no segmented image: see its {_RECORD}")
    names: list[str] = read_parquet(files[0], lambda file: file.schema_arrow.names)
    classes = [name.removeprefix(_PIXELS) for name in names if name.startswith(_PIXELS)]
    missing = [name for name in _COLUMNS if name not in names]
    if missing or not classes:
        raise InputError(
            f"{files[0]} is not of a segmentation (it has no column "
            f"{', '.join(missing) or _PIXELS + '<class>'}): give --results the folder that "
            "jobs/segment.py was given as --output"
        )
    return Segmentation(uri, files, classes, **settings)


def _read_settings(uri: str) -> dict[str, Any]:
    """How a finished segmentation was made."""
    names = child_names(uri)
    if _SETTINGS not in names:
        raise InputError(
            f"{uri} holds no segmentation ({_SETTINGS} is missing): give --results the folder that "
            "jobs/segment.py was given as --output"
        )
    if _RECORD not in names:
        # Its manifest may have two versions of an image, or not all images yet.
        raise InputError(
            f"{uri} is not finished ({_RECORD} is missing): run jobs/segment.py to its end"
        )
    record = join_uri(uri, _SETTINGS)
    try:
        document = json.loads(read_bytes(record))
        model, mask_size = str(document["model"]), str(document["mask_size"])
        low_high = document.get("value_range")  # outputs from before there were ranges have none
        return {
            "model": model,
            "mask_size": mask_size,
            "images": document["images"] or None,
            "value_range": low_high and (int(low_high[0]), int(low_high[1])),
        }
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{record} is no record of a segmentation: run jobs/segment.py again"
        ) from error


def read_current_ids(segmentation: Segmentation) -> Ids:
    """The ids of all images that are in the manifest now, int64 [N], sorted, none twice.

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


@dataclass(frozen=True)
class Listed:
    """What the manifest knows of some images.

    Attributes:
        ids: int64 [N], ascending.
        table: ``size`` and ``etag`` of each, in the same order.
    """

    ids: Ids
    table: pa.Table

    def find(self, ids: Ids) -> tuple[list[int | None], list[str | None]]:
        """The sizes and the ETags of images that all are among them."""
        found = self.table.take(find_ids(self.ids, ids))
        return found["size"].to_pylist(), found["etag"].to_pylist()


def read_listed(segmentation: Segmentation) -> Listed:
    """What the manifest says of all images.

    Raises:
        InputError: it cannot be read.
    """
    folder = join_uri(segmentation.uri, "manifest")
    table = pa.concat_tables(read_tables(folder, ["id", "size", "etag"])).sort_by("id")
    return Listed(as_ids(table["id"]), table.select(["size", "etag"]))


def read_rows(uri: str, ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Some rows of a results file: ``id, uri, width, height, mask`` (the PNG file's bytes).

    An id that the file has twice is read once. The masks of a few rows are in memory at a time.

    Raises:
        InputError: the file cannot be read, or lacks one of the rows.
    """
    missing = pa.array(ids, pa.int64())
    with open_parquet(uri) as file:
        batches = file.iter_batches(_BATCH_ROWS, columns=_COLUMNS)
        while len(missing):
            batch = next(batches, None)
            if batch is None:
                raise InputError(
                    f"{uri} has changed while it was exported: run the same command again"
                )
            batch = batch.filter(pc.is_in(batch["id"], value_set=missing))
            missing = missing.filter(pc.invert(pc.is_in(missing, value_set=batch["id"])))
            seen: set[int] = set()
            for row in batch.to_pylist():
                if row["id"] not in seen:
                    seen.add(row["id"])
                    yield {**row, "mask": (row["mask"] or {}).get("bytes") or b""}
