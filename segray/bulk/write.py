"""Writing: rows of results and of errors become Parquet files, whole or not at all."""

import hashlib
from typing import Any

import pyarrow as pa

from segray.bulk.config import MaskSize
from segray.bulk.stages import make_masks
from segray.errors import InputError
from segray.pixels.labels import Labels
from segray.storage.tables import ERRORS_SCHEMA, results_schema, write_table
from segray.storage.uri import join_uri

#: One row per written batch, for the driver: how many images of each kind, the bytes read, and why
#: nothing could be written. An exception would reach the driver without its cause.
SUMMARY_SCHEMA = pa.schema(
    [
        ("segmented", pa.int64()),
        ("failed", pa.int64()),
        ("bytes", pa.int64()),
        ("problem", pa.string()),
    ]
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
    problem = None
    try:
        _write_rows(join_uri(output, "results"), results, results_schema(labels))
        _write_rows(join_uri(output, "errors"), errors, ERRORS_SCHEMA)
    except InputError as error:
        problem = str(error)
    summary = {
        "segmented": len(results),
        "failed": len(errors),
        "bytes": sum(images["size"].to_pylist()),
        "problem": problem,
    }
    return pa.Table.from_pylist([summary], SUMMARY_SCHEMA)


def _write_rows(folder: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    if not rows:
        return
    # The same rows, the same name: a task that Ray runs again replaces its file.
    ids = sorted(row["id"] for row in rows)
    name = hashlib.blake2b(repr(ids).encode(), digest_size=12).hexdigest()
    write_table(join_uri(folder, f"{name}.parquet"), pa.Table.from_pylist(rows, schema))
