"""Tables: the Parquet files of a segmentation, their columns, and writing them atomically."""

import contextlib
import glob
import importlib
import io
import json
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from segray.errors import InputError
from segray.pixels.appearance import APPEARANCE
from segray.pixels.labels import Labels
from segray.storage.failures import FetchError
from segray.storage.files import child_names, read_bytes, write_bytes
from segray.storage.listing import list_keys
from segray.storage.parallel import map_ahead
from segray.storage.ranges import CHANGED, open_ranges
from segray.storage.s3 import split_uri
from segray.storage.uri import explain_errors, is_local, join_uri

# pyarrow imports these, if pandas is there, when it first makes an array of a column. Within its
# import an interrupt is lost, or leaves Python's import lock taken; here it is neither.
with contextlib.suppress(ImportError):
    for _name in ("pandas", "pyarrow.pandas_compat", "pyarrow.vendored.version"):
        importlib.import_module(_name)

_Content = TypeVar("_Content")

MANIFEST_SCHEMA = pa.schema(
    [("id", pa.int64()), ("uri", pa.string()), ("size", pa.int64()), ("etag", pa.string())]
)

ERRORS_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("uri", pa.string()),
        ("stage", pa.string()),  # fetch, decode, predict or process
        ("error", pa.string()),  # a kind to group by
        ("message", pa.string()),  # the reason, for a person
    ]
)

REGIONS_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("class", pa.string()),
        ("area", pa.int64()),
        ("x", pa.int32()),
        ("y", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("centroid_x", pa.float32()),
        ("centroid_y", pa.float32()),
        ("confidence", pa.float32()),
        ("touches_border", pa.bool_()),
    ]
)

GALLERY_SCHEMA = pa.schema([("id", pa.int64()), ("image", pa.binary())])  # a JPEG file

# Hugging Face's type of a column whose bytes are an image file.
_HUGGINGFACE_IMAGE = {"_type": "Image"}

_READERS = 16  # files that are read at once


def results_schema(labels: Labels, regions: bool = False) -> pa.Schema:
    """Return the columns of ``results/*.parquet`` for the given classes, with or without regions.

    The schema carries the features key of Hugging Face `datasets`, which then displays the mask as
    an image: https://huggingface.co/docs/datasets/about_arrow.
    """
    fields = [
        pa.field("id", pa.int64()),
        pa.field("uri", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("mask", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ]
    for name in labels.names:
        fields += [
            pa.field(f"pixels_{name}", pa.int64()),
            pa.field(f"fraction_{name}", pa.float32()),
            pa.field(f"confidence_{name}", pa.float32()),
            pa.field(f"expected_pixels_{name}", pa.float32()),
            pa.field(f"expected_iou_{name}", pa.float32()),
        ]
        if regions:
            fields.append(pa.field(f"regions_{name}", pa.int64()))
    fields.append(pa.field("expected_iou", pa.float32()))
    fields += [pa.field(name, pa.float32()) for name in APPEARANCE]
    fields.append(pa.field("model", pa.string()))
    features = {
        field.name: _HUGGINGFACE_IMAGE
        if field.name == "mask"
        else {"dtype": str(field.type).replace("float", "float32"), "_type": "Value"}
        for field in fields
    }
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


def write_table(uri: str, table: pa.Table) -> None:
    """Write a Parquet file atomically: readers see all of it or nothing.

    Raises:
        InputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    # Columns of bytes hold PNG and JPEG files. These are compressed already, so neither compression
    # nor a dictionary would help.
    is_files = {name: pa.types.is_binary(kind) for name, kind in _leaves(table.schema)}
    pq.write_table(
        table,
        buffer,
        compression={name: "none" if is_file else "zstd" for name, is_file in is_files.items()},
        use_dictionary=[name for name, is_file in is_files.items() if not is_file],
        write_page_checksum=True,
    )
    write_bytes(uri, buffer.getvalue())


def _leaves(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    """Return the columns by their Parquet names, which list the fields of a struct, and types."""
    return [
        (f"{field.name}.{inner.name}", inner.type) if inner else (field.name, field.type)
        for field in schema
        for inner in (field.type if pa.types.is_struct(field.type) else [None])
    ]


def table_uris(folder: str) -> list[str]:
    """Return the sorted URIs of the Parquet files directly in a folder; empty if there is none."""
    return [join_uri(folder, n) for n in child_names(folder) if n.endswith(".parquet")]


def read_tables(folder: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Read every Parquet file directly in a folder, as one table per file, in order.

    A few files are read ahead of use.

    Raises:
        InputError: a file cannot be read or is not a Parquet file.
    """
    return map_ahead(partial(read_table, columns=columns), table_uris(folder), _READERS)


@contextlib.contextmanager
def open_parquet(uri: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file to read it in batches from beginning to end.

    Raises:
        InputError: the file cannot be read or is not a Parquet file.
    """
    with explain_errors(uri), open_ranges(uri) as file:
        # Pre-buffering would keep everything in memory until the file is closed.
        parquet = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
        _check_types(uri, parquet.schema_arrow)
        yield parquet


def read_parquet(uri: str, read: Callable[[pq.ParquetFile], _Content]) -> _Content:
    """Apply a function to a Parquet file; only the parts that it reads are fetched from a store.

    Args:
        uri: the URI of the file.
        read: the function; it may be called twice.

    Raises:
        InputError: the file cannot be read or is not a Parquet file.
    """
    try:
        with explain_errors(uri), open_ranges(uri) as file:
            return read(_parquet(uri, file))
    except InputError as error:
        cause = error.__cause__
        failed = isinstance(cause, FetchError) and cause.kind != CHANGED
        if is_local(uri) or not cause or failed:
            raise
    # Before an object is considered damaged, read it once more, whole, and verify its ETag.
    content = read_bytes(uri)
    with explain_errors(uri):
        return read(_parquet(uri, io.BytesIO(content)))


def _parquet(uri: str, file: BinaryIO) -> pq.ParquetFile:
    parquet = pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)
    _check_types(uri, parquet.schema_arrow)
    return parquet


def _check_types(place: str, schema: pa.Schema) -> None:
    """Refuse a file with values that a library's Python code constructs as they are read.

    If Ray Data is imported, a column of its pickled objects would run any code of its writer.

    Raises:
        InputError: there is such a column; the message has the location, the column and its type.
    """
    for field in schema:
        kinds = [field.type]
        while kinds:
            kind = kinds.pop()
            if isinstance(kind, pa.ExtensionType):
                raise InputError(
                    f"{place}: the column {field.name!r} is of the type {kind.extension_name}, "
                    "whose values are made by code: have it written as plain columns, or without "
                    "this one"
                )
            if pa.types.is_dictionary(kind):
                kinds.append(kind.value_type)
            kinds += [kind.field(i).type for i in range(kind.num_fields)]


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """Read some columns of a Parquet file, or all of them. Other columns are not fetched.

    Raises:
        InputError: the file cannot be read, is not a Parquet file, or lacks a column.
    """
    return read_parquet(uri, lambda file: _read(uri, file, columns))


def _read(uri: str, file: pq.ParquetFile, columns: list[str] | None) -> pa.Table:
    absent = set(columns or []) - set(file.schema_arrow.names)
    if absent:
        raise InputError(f"{uri} has no column {min(absent)}: is it of another program?")
    return file.read(columns=columns)


def check_text(place: str, column: str, kind: pa.DataType) -> None:
    """Refuse a column whose values are not text.

    Raises:
        InputError: the message has the location, the column and its type.
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    # A column without any value has the type null.
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_null,
    )
    if not any(test(kind) for test in tests):
        raise InputError(f"{place}: the column {column} is of the type {kind}, and has to be text")


class PartWriter:
    """Writes rows into files with a common name, ``NAME-ATTEMPT-0000.parquet`` and so on.

    Two attempts at the same rows never write the same file: an attempt that was presumed dead, but
    is not, must not replace the finished files of another. Duplicate rows can be detected, lost
    ones cannot.

    Args:
        folder: the URI of the folder.
        name: identifies the rows; other attempts at them use the same name.
        schema: the schema of the rows.

    Attributes:
        rows: the rows of the next file.
    """

    def __init__(self, folder: str, name: str, schema: pa.Schema) -> None:
        self._folder, self._name, self._schema = folder, name, schema
        self._attempt = secrets.token_hex(4)
        self._files = 0
        self.rows: list[dict[str, Any]] = []

    def found_ids(self) -> set[int]:
        """Return the ids in the files of earlier attempts.

        Raises:
            InputError: a file cannot be read.
        """
        ids: set[int] = set()
        for uri in _uris_that_begin(join_uri(self._folder, f"{self._name}-")):
            ids.update(read_table(uri, ["id"])["id"].to_pylist())
        return ids

    @property
    def next_file(self) -> str:
        """The name of the file that `flush` writes next."""
        return f"{self._name}-{self._attempt}-{self._files:04}.parquet"

    def flush(self) -> None:
        """Write the rows, if there are any, to a file.

        Raises:
            InputError: the file cannot be written.
        """
        if self.rows:
            uri = join_uri(self._folder, self.next_file)
            write_table(uri, pa.Table.from_pylist(self.rows, self._schema))
            self._files += 1
            self.rows = []


def _uris_that_begin(stem: str) -> list[str]:
    """Return the Parquet files whose URIs begin with a stem, by a prefix listing in S3."""
    if is_local(stem):
        folder, _, name = stem.rpartition("/")
        return [str(path) for path in Path(folder).glob(f"{glob.escape(name)}*.parquet")]
    bucket, key = split_uri(stem)
    with explain_errors(stem, "list"):
        keys = [key for page in list_keys(bucket, key) for key, *_ in page.objects]
    return [f"s3://{bucket}/{key}" for key in keys if key.endswith(".parquet")]
