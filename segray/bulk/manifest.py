"""The manifest of an output: every image that a search has found, in Parquet files."""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segray.errors import InputError
from segray.storage.files import remove
from segray.storage.ids import Ids
from segray.storage.listing import Entry
from segray.storage.parallel import map_ahead
from segray.storage.tables import MANIFEST_SCHEMA, read_table, table_uris, write_table
from segray.storage.uri import join_uri

#: The advice to a user whose output lacks files or rows.
RUN_AGAIN = (
    "run again; on several nodes --output must be in S3 or on a file system that all of them share"
)

# A writer holds so many rows in memory before it writes a file.
FILE_ROWS = 1 << 17
_READERS = 16  # files that are fetched at once

# The key of a file's schema metadata that holds the counts of its search, as JSON: those of `Found`
# in the last file of a part, none in the others.
_COUNTS_KEY = b"segray"


@dataclass
class Found:
    """The files that a search has met so far, counted.

    Attributes:
        images: files that count as images.
        missing: images that are still to be done.
        other: files with another suffix.
        excluded: files that --include or --exclude leave out.
        hidden: files with a name, or in a folder, that begins with a dot.
        placeholders: empty objects that stand for folders.
        unreadable: names on a local disk that are no files or not UTF-8, see
            `segray.storage.listing.Page`.
        unseen: files and folders of a local disk that could not be looked at, likewise.
    """

    images: int = 0
    missing: int = 0
    other: int = 0
    excluded: int = 0
    hidden: int = 0
    placeholders: int = 0
    unreadable: int = 0
    unseen: int = 0


@dataclass(frozen=True)
class Manifest:
    """The images that all parts of a search have found.

    Attributes:
        ids: int64 [N], ascending, each once.
        left_out: the counts of the search, those of passed-over files among them.
    """

    ids: Ids
    left_out: Found


class ManifestWriter:
    """Writes the images of one part of a search, some files of many rows.

    Args:
        output: absolute URI of the output.
        run: name of the run.
        part: number of the part.
    """

    def __init__(self, output: str, run: str, part: int) -> None:
        self._stem = join_uri(output, "manifest", f"{run}-{part:05}")
        self._tables: list[pa.Table] = []
        self._rows = self._files = 0

    def add(self, ids: Ids, entries: list[Entry]) -> None:
        """Take images, and write a file when there are enough for one."""
        columns = [
            pa.array(ids),
            pa.array([entry.uri for entry in entries], pa.string()),
            pa.array([entry.size for entry in entries], pa.int64()),
            pa.array([entry.etag for entry in entries], pa.string()),
        ]
        self._tables.append(pa.table(columns, schema=MANIFEST_SCHEMA))
        self._rows += len(entries)
        if self._rows >= FILE_ROWS:
            self._write({})

    def finish(self, found: Found) -> None:
        """Write the rest, with the counts of the part, without which it counts as unfinished."""
        self._write(vars(found))

    def _write(self, counts: dict[str, int]) -> None:
        table = pa.concat_tables([MANIFEST_SCHEMA.empty_table(), *self._tables])
        table = table.replace_schema_metadata({_COUNTS_KEY: json.dumps(counts)})
        write_table(f"{self._stem}-{self._files:05}.parquet", table)
        self._tables, self._rows = [], 0
        self._files += 1


def read_manifest(output: str, run: str, parts: int) -> Manifest:
    """Read the manifest of a run that has searched all parts; those of earlier runs are deleted.

    Args:
        output: absolute URI of the output.
        run: name of the run.
        parts: number of parts that its search had.

    Raises:
        InputError: the manifest is not whole, two images have the same id, or a file cannot be
            read or deleted.
    """
    uris = table_uris(join_uri(output, "manifest"))
    current = [uri for uri in uris if uri.rpartition("/")[2].startswith(run)]
    manifest = _read_files(current, output, parts)
    for uri in set(uris) - set(current):
        remove(uri)
    return manifest


def _read_files(uris: list[str], output: str, parts: int) -> Manifest:
    left_out = Found()
    columns = [np.empty(0, dtype=np.int64)]
    finished = 0
    for table in map_ahead(lambda uri: read_table(uri, ["id"]), uris, _READERS):
        columns.append(table["id"].to_numpy())
        counts = json.loads((table.schema.metadata or {})[_COUNTS_KEY])
        finished += bool(counts)
        for name, count in counts.items():
            setattr(left_out, name, getattr(left_out, name) + count)
    ids = np.concatenate(columns)
    del columns
    # Files that cannot be seen from here would otherwise look like an empty bucket.
    if finished != parts or len(ids) != left_out.images:
        raise InputError(
            f"{output} lacks files of the manifest: {len(ids)} rows and the ends of "
            f"{finished} of {parts} parts are there: {RUN_AGAIN}"
        )
    ids.sort()  # in place: there may be a hundred million
    again = ids[1:] == ids[:-1]
    if again.any():
        _check_doubled(uris, np.unique(ids[1:][again]))
        ids = ids[np.concatenate([[True], ~again])]
    return Manifest(ids, left_out)


def _check_doubled(uris: list[str], doubled: Ids) -> None:
    """Allow an object that an inventory lists twice, and refuse two objects with one id."""
    uri_of: dict[int, str] = {}
    for table in map_ahead(lambda uri: read_table(uri, ["id", "uri"]), uris, _READERS):
        for row in table.filter(pc.is_in(table["id"], pa.array(doubled))).to_pylist():
            other = uri_of.setdefault(row["id"], row["uri"])
            if other != row["uri"]:
                raise InputError(
                    f"{other} and {row['uri']} have the same 64-bit id: rename one of them"
                )
