"""Inventory: a table of objects, such as an S3 Inventory, that is used instead of a listing."""

import contextlib
import csv
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.csv as pa_csv

from segray.errors import InputError
from segray.storage.delimiter import pick_delimiter
from segray.storage.files import read_bytes
from segray.storage.listing import Entry
from segray.storage.ranges import open_stream
from segray.storage.tables import check_text, open_parquet, table_uris
from segray.storage.uri import absolute_uri, explain_errors, file_system, is_local

# The names of columns in lower case: in a user's table, and in the CSV and Parquet files of S3
# Inventory.
_NAMES = {
    "uri": ("uri",),
    "bucket": ("bucket",),
    "key": ("key",),
    "size": ("size",),
    "etag": ("etag", "e_tag"),
    "latest": ("is_latest", "islatest"),
    "deleted": ("is_delete_marker", "isdeletemarker"),
}

_WANTED = {name for names in _NAMES.values() for name in names}

# The maximum length of a header line.
_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class Part:
    """A file of an inventory.

    Attributes:
        uri: a .csv, .csv.gz or .parquet file.
        columns: the names of the columns, for a CSV file without a header, as S3 Inventory writes
            it; else empty.
        of_s3: True if it is from S3 Inventory, which lists every object of a bucket.
    """

    uri: str
    columns: tuple[str, ...] = ()
    of_s3: bool = False


def open_inventory(uri: str) -> list[Part]:
    """Find the files of an inventory.

    Args:
        uri: a CSV file (optionally .gz, delimited by commas, semicolons or tabs) or a Parquet file
            with a column ``uri`` and, optionally, ``size`` and ``etag``; a folder of such Parquet
            files; or the ``manifest.json`` of an S3 Inventory in CSV or Parquet.

    Raises:
        InputError: the URI is none of these.
    """
    uri = absolute_uri(uri)
    if uri.endswith(".json"):
        return _open_s3_inventory(uri)
    with explain_errors(uri):
        files = file_system(uri)
        if not files.exists(uri):
            raise InputError(f"cannot read {uri}: no such file or folder")
        parts = [Part(name) for name in table_uris(uri)] if files.isdir(uri) else [Part(uri)]
    for part in parts[:1]:
        next(_read_tables(part), None)  # refuse a table without URIs early
    if not parts:
        raise InputError(f"{uri} holds no .parquet file: give --manifest a table of URIs")
    return parts


def read_part(part: Part) -> Iterator[list[Entry]]:
    """Yield the objects that a file of an inventory lists, some thousands at a time.

    A relative path is resolved against the folder of the inventory. Deleted objects, and all but
    the latest version of an object, are skipped. A row without a URI is an error.

    Raises:
        InputError: the file cannot be read, or a row cannot be used.
    """
    folder = part.uri.rpartition("/")[0]
    encoded = part.uri.removesuffix(".gz").endswith(".csv")
    with explain_errors(part.uri):
        for table in _read_tables(part):
            yield [_make_entry(row, part.uri, folder, encoded) for row in table.to_pylist()]


def _make_entry(row: dict[str, Any], place: str, folder: str, encoded: bool) -> Entry:
    uri = row.get("uri", "")
    if "uri" not in row and row["bucket"] and row["key"]:
        # S3 Inventory URL-encodes the keys in its CSV files.
        uri = f"s3://{row['bucket']}/{unquote_plus(row['key']) if encoded else row['key']}"
    elif uri and uri.strip():
        uri = uri.strip()
        if is_local(uri) and not uri.startswith("/"):
            uri = f"{folder}/{uri}"
        # S3 URIs are not normalised: a key is any text, and a slash at its end is part of it. URIs
        # of other schemes end up as rows in errors.
        uri = absolute_uri(uri) if is_local(uri) or uri.startswith("file://") else uri
    else:
        raise InputError(f"{place}: a row has no URI: remove or complete it")
    size = row.get("size")
    try:
        if isinstance(size, str):
            size = size.removesuffix(".0")  # pandas writes 5 as 5.0 where other sizes are missing
        size = None if size in (None, "") else int(size)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{place}: the size {size!r} is no number of bytes") from error
    return Entry(uri, size, (row.get("etag") or "").strip('"'))


def _read_tables(part: Part) -> Iterator[pa.Table]:
    """Yield tables with those columns of `_NAMES` that exist, without the rows to skip."""
    if part.uri.endswith(".parquet"):
        with open_parquet(part.uri) as file:
            _check_names(file.schema_arrow.names, part.uri)
            names = [name for name in file.schema_arrow.names if _plain(name) in _WANTED]
            for batch in file.iter_batches(batch_size=10_000, columns=names):
                yield _take_columns(pa.Table.from_batches([batch]), part.uri)
        return
    with explain_errors(part.uri), open_stream(part.uri) as raw:
        for batch in _read_csv(raw, part):
            yield _take_columns(pa.Table.from_batches([batch]), part.uri)


def _header(raw: Any, part: Part) -> str:
    """Return the beginning of a text without consuming it."""
    begun: bytes = raw.peek()
    if part.uri.endswith(".gz"):
        with contextlib.suppress(zlib.error):  # damage is found when it is read
            begun = zlib.decompressobj(31).decompress(begun, _HEADER_BYTES)
    return begun[:_HEADER_BYTES].decode("utf-8-sig", errors="replace")


def _read_csv(raw: Any, part: Part) -> Iterator[pa.RecordBatch]:
    # CSV files of S3 Inventory have no header and are delimited by commas.
    names, delimiter = list(part.columns), ","
    if not names:
        header = _header(raw, part)
        delimiter = pick_delimiter(header)
        lines = csv.reader(io.StringIO(header, newline=""), delimiter=delimiter)
        names = next(filter(None, lines), [])
    # As text, because a column of digits may consist of names. The types of other columns would be
    # guessed from the first rows, and what is behind them might not fit.
    wanted = {name: pa.string() for name in names if _plain(name) in _WANTED}
    batches = pa_csv.open_csv(
        pa.input_stream(raw, compression="gzip" if part.uri.endswith(".gz") else None),
        read_options=pa_csv.ReadOptions(column_names=list(part.columns) or None),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(include_columns=list(wanted), column_types=wanted),
    )
    _check_names(names, part.uri)
    return cast(Iterator[pa.RecordBatch], batches)


def _plain(name: str) -> str:
    """Return the name of a column as `_NAMES` spells it."""
    return name.lower().replace(" ", "")


def _check_names(names: Sequence[str], place: str) -> None:
    """Refuse a table whose columns do not say where images are."""
    there = {_plain(name) for name in names}
    if "uri" not in there and not {"bucket", "key"} <= there:
        raise InputError(
            f"{place} has no column uri (but {', '.join(names[:5])}): "
            "give --manifest a table with the URI of an image in each row"
        )


def _take_columns(table: pa.Table, place: str) -> pa.Table:
    names = {_plain(name): name for name in table.column_names}
    taken = {
        wanted: table[names[name]]
        for wanted, choices in _NAMES.items()
        for name in choices
        if name in names
    }
    for wanted in ("uri", "bucket", "key", "etag"):
        if wanted in taken:
            check_text(place, wanted, taken[wanted].type)
    rows = pa.table(taken)
    for name, counted in (("latest", "true"), ("deleted", "false")):
        if name in taken:
            values = [str(value).lower() for value in rows[name].to_pylist()]
            rows = rows.filter(pa.array([value in (counted, "none") for value in values]))
    return rows


def _open_s3_inventory(uri: str) -> list[Part]:
    try:
        document = json.loads(read_bytes(uri))
        kind = document["fileFormat"].lower()
        bucket = document["destinationBucket"].rpartition(":")[2]
        keys = [file["key"] for file in document["files"]]
        columns = [name.strip().lower() for name in document["fileSchema"].split(",")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{uri} is no manifest.json of an S3 Inventory") from error
    if kind not in ("csv", "parquet"):
        raise InputError(f"{uri} is an inventory in {kind.upper()}: have it made as CSV or Parquet")
    if kind == "csv" and not {"bucket", "key"} <= set(columns):
        raise InputError(f"{uri} has no columns Bucket and Key")
    # The files of a local copy have the same keys below the folder of manifest.json.
    folder = uri.rpartition("/")[0] if is_local(uri) else f"s3://{bucket}"
    return [Part(f"{folder}/{key}", tuple(columns) * (kind == "csv"), True) for key in keys]
