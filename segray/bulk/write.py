"""Writing: rows of results and of errors become Parquet files, whole or not at all."""

import hashlib
from typing import Any

import pyarrow as pa

from segray.bulk.config import MaskSize
from segray.bulk.stages import make_masks
from segray.pixels.labels import Labels
from segray.storage.tables import ERRORS_SCHEMA, results_schema, write_table
from segray.storage.uri import join_uri

#: One row per written batch, for the driver: how many images of each kind, and the bytes read.
SUMMARY_SCHEMA = pa.schema(
    [("segmented", pa.int64()), ("failed", pa.int64()), ("bytes", pa.int64())]
)


def write(
    images: pa.Table,
    output: str,
    labels: Labels,
    image_size: int,
    mask_size: MaskSize,
    model: str,
) -> pa.Table:
    """Make masks of ``logits``, write one file of results and one of errors; tell how many."""
    results, errors = make_masks(images, labels, image_size, mask_size, model)
    for folder, rows, schema in (
        ("results", results, results_schema(labels)),
        ("errors", errors, ERRORS_SCHEMA),
    ):
        if rows:
            uri = join_uri(output, folder, f"{_batch_name(rows)}.parquet")
            write_table(uri, pa.Table.from_pylist(rows, schema))
    summary = {
        "segmented": len(results),
        "failed": len(errors),
        "bytes": sum(images["size"].to_pylist()),
    }
    return pa.Table.from_pylist([summary], SUMMARY_SCHEMA)


def _batch_name(rows: list[dict[str, Any]]) -> str:
    """The same rows, the same name: a task that Ray runs again replaces its file."""
    ids = sorted(row["id"] for row in rows)
    return hashlib.blake2b(repr(ids).encode(), digest_size=12).hexdigest()
