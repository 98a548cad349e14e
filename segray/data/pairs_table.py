"""A user's tables of pairs of images and masks, with an optional split, as --pairs takes them."""

import csv
import io
import posixpath
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from segray.data.pairs import Pair
from segray.errors import InputError
from segray.storage.delimiter import pick_delimiter
from segray.storage.files import read_bytes
from segray.storage.listing import relative_key
from segray.storage.s3 import split_uri
from segray.storage.tables import check_text, table_uris
from segray.storage.uri import absolute_uri, explain_errors, file_system, is_local

#: The values of the column ``split``, case-insensitive, and the splits that they mean.
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}

_COLUMNS = ("image", "mask", "split")


class _PairRow(NamedTuple):
    """An image's row: its location, for messages, its mask and split, and its table's folder."""

    place: str
    mask: str
    split: str
    folder: str


# A row as it was written: its location, for messages, and its cells in the order of `_COLUMNS`, the
# last of which may be missing.
_Row = tuple[str, list[str | None]]


def read_manifest(*uris: str) -> dict[str, list[Pair]]:
    """Read the pairs that tables list.

    A table is a CSV file, a Parquet file or a folder of Parquet files, with the columns ``image``,
    ``mask`` and, optionally, ``split`` (see `SPLITS`; default: train). A path is relative to the
    folder of the table, unless it is absolute or an s3:// URI. If several tables list an image, the
    mask in the last of them counts; but an image that is not in ``train`` never comes there.

    Args:
        uris: the URIs of the tables, as given by --pairs; at least one.

    Returns:
        The pairs of ``train``, ``validation`` and ``test``, each in the order of their keys. A key
        is the path of the image in the table's folder, or else its URI; without suffix, if all keys
        remain distinct. With several tables, it is the URI if two paths are the same.

    Raises:
        InputError: there is no such table, it has another format, lacks a column or has no rows; or
            a row cannot be used, and the message has its location.
    """
    _follow_folder.cache_clear()  # links may have changed since an earlier call
    rows: dict[str, _PairRow] = {}
    files: dict[str, str] = {}  # that images lead to
    for uri in map(absolute_uri, uris):
        added = _read_table(uri)
        before = {files[image]: image for image in rows}
        files |= {image: follow_link(image) for image in added}
        for image in added if before else ():
            earlier = rows.pop(before.get(files[image], ""), None)
            if earlier and earlier.split != "train":
                added[image] = added[image]._replace(split=earlier.split)
        rows |= added
    images = {files[image]: row.place for image, row in rows.items()}
    for row in rows.values():
        if place := images.get(follow_link(row.mask)):
            raise InputError(
                f"{row.mask} is an image in {place} and a mask in {row.place}: "
                "name another file in one of these columns"
            )
    parts: dict[str, list[Pair]] = {split: [] for split in SPLITS.values()}
    for key, (image, row) in sorted(
        zip(_keys(rows), rows.items(), strict=True), key=lambda item: item[0]
    ):
        parts[row.split].append(Pair(key, image, row.mask))
    return parts


def _folder_of(uri: str) -> str:
    """Return the folder that paths in a table are relative to."""
    with explain_errors(uri):
        return uri if file_system(uri).isdir(uri) else uri.rpartition("/")[0]


def _read_table(uri: str) -> dict[str, _PairRow]:
    """Return the row of each image in a table."""
    folder = _folder_of(uri)
    rows: dict[str, _PairRow] = {}
    for file in table_uris(uri) if folder == uri else [uri]:
        for place, cells in _read_rows(file):
            image, mask, split = _parse_row(place, cells, folder)
            if image in rows:
                raise InputError(
                    f"{place}: the image {image} is listed before, in {rows[image].place}: remove "
                    "one of these rows"
                )
            rows[image] = _PairRow(place, mask, split, folder)
    if not rows:
        raise InputError(
            f"{uri} lists no pairs: give --pairs a CSV or Parquet file, or a folder of *.parquet, "
            "with a row for each pair"
        )
    return rows


def _read_rows(uri: str) -> Iterator[_Row]:
    content = read_bytes(uri)
    if content.startswith(b"PAR1") or uri.endswith(".parquet"):
        return _read_parquet(uri, content)
    return _read_csv(uri, content)


def _read_parquet(uri: str, content: bytes) -> Iterator[_Row]:
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        names = _check_columns(uri, file.schema_arrow.names)
        for name in names:
            check_text(uri, name, file.schema_arrow.field(name).type)
        table = file.read(columns=names)
        columns = [table[name].to_pylist() for name in names]
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{uri} is no readable Parquet file ({reason}): write it again") from error
    for number, cells in enumerate(zip(*columns, strict=True), start=1):
        yield f"{uri}, row {number}", list(cells)


def _read_csv(uri: str, content: bytes) -> Iterator[_Row]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{uri} is neither a Parquet file nor a CSV file in UTF-8: save it as one of these"
        ) from error
    delimiter = pick_delimiter(text)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    try:
        header = [name.strip() for name in next(reader, [])]
        positions = [header.index(name) for name in _check_columns(uri, header)]
        for row in reader:
            place = f"{uri}, line {reader.line_num}"
            cells = [cell.rstrip(" \t") for cell in row]
            if cells in ([], [""]):
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"{place}: has {len(cells)} cells under {len(header)} column names: put a name "
                    f"with a {delimiter!r} in it between double quotes"
                )
            yield place, [cells[position] for position in positions]
    except csv.Error as error:
        raise InputError(
            f"{uri}, line {reader.line_num}: {error}: check the quotes up to there"
        ) from error


def _check_columns(uri: str, names: list[str]) -> list[str]:
    """Return those columns of `_COLUMNS` that exist."""
    wanted = [name for name in _COLUMNS if name in names or name != "split"]
    for name in wanted:
        count = names.count(name)
        if count != 1:
            has = ", ".join(repr(other) for other in names[:10]) or "none"
            raise InputError(
                f"{uri} has {f'{count} columns' if count else 'no column'} called {name}: name the "
                f"columns image, mask and, if you like, split; what is there: {has[:200]}"
            )
    return wanted


def _parse_row(place: str, cells: list[str | None], folder: str) -> tuple[str, str, str]:
    """Return the URI of the image, the URI of the mask, and the split."""
    texts = [_check_text(place, name, cell) for name, cell in zip(_COLUMNS, cells, strict=False)]
    split = SPLITS.get(texts[2].strip().lower()) if len(texts) > 2 else "train"
    if split is None:
        raise InputError(
            f"{place}: the split {texts[2]!r} is not known: write train, validation or test"
        )
    try:
        return _resolve(folder, texts[0]), _resolve(folder, texts[1]), split
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def _check_text(place: str, name: str, cell: str | None) -> str:
    if cell is None or not cell.strip():
        raise InputError(f"{place}: the cell {name} is empty: fill it in, or remove the row")
    if cell.splitlines() != [cell]:
        raise InputError(f"{place}: the cell {name} has several lines: check the quotes there")
    if "\0" in cell:
        raise InputError(f"{place}: the cell {name} has a zero byte: write the table again")
    return cell


def follow_link(uri: str) -> str:
    """Return the file that a URI leads to, by links on a disk."""
    if not is_local(uri):
        return uri
    folder, name = posixpath.split(uri)
    path = posixpath.join(_follow_folder(folder), name)
    return posixpath.realpath(path) if posixpath.islink(path) else path


@cache
def _follow_folder(folder: str) -> str:
    # Each folder has many files, and every part of its path is looked at.
    return posixpath.realpath(folder)


def _resolve(folder: str, path: str) -> str:
    """Return the absolute URI of a path, relative to the folder of a manifest."""
    if path.startswith("/"):
        return posixpath.normpath(path)
    if not is_local(path):
        return absolute_uri(path)
    if is_local(folder):
        return posixpath.normpath(f"{folder}/{path}")
    bucket, prefix = split_uri(folder)
    key = f"{prefix}/{path}".lstrip("/")
    return f"s3://{bucket}{posixpath.normpath('/' + key)}"


def _keys(rows: Mapping[str, _PairRow]) -> list[str]:
    """Return the shortest kind of keys that is different for all images."""
    paths = [relative_key(row.folder, image) for image, row in rows.items()]
    stems = [posixpath.splitext(path)[0] for path in paths]
    for keys in (stems, paths):
        if len(set(keys)) == len(keys):
            return keys
    return list(rows)
