"""The outcome: what is in an output after a run, and that each image is there once."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from segray.bulk.search import COUNTS_KEY, Found, Search
from segray.errors import InputError
from segray.pixels.labels import Labels
from segray.storage.files import remove
from segray.storage.ids import Ids, are_in
from segray.storage.parallel import map_ahead
from segray.storage.tables import read_table, table_uris, write_table
from segray.storage.uri import join_uri

_READERS = 16

_WAY_OUT = (
    "run again; on several nodes --output must be in S3 or on a file system that all of them share"
)


@dataclass(frozen=True)
class Outcome:
    """What an output holds of the images that a search has found.

    Attributes:
        listed: images that were found, each once.
        segmented: of them, those with a row in results.
        failed: of them, those with a row in errors.
        stale: rows of images that are gone or have changed.
        pixels: int64 [C], of each class in all segmented images.
        left_out: what the search passed over.
    """

    listed: int
    segmented: int
    failed: int
    stale: int
    pixels: npt.NDArray[np.int64]
    left_out: Found


def read_ids(folder: str, tell: Callable[[str], None]) -> Ids:
    """The ids of all rows in a folder of the output, int64, in no order.

    A file that is no Parquet file is deleted: its images have no row then, and are done again.

    Raises:
        InputError: a file cannot be read or deleted, or has no such ids.
    """

    def read(uri: str) -> Ids:
        try:
            ids = read_table(uri, ["id"])["id"]
        except InputError as error:
            if not isinstance(error.__cause__, pa.ArrowInvalid):
                raise
            remove(uri)
            tell(f"deleted {uri}: it is damaged, and its images are done again")
            return np.empty(0, dtype=np.int64)
        if ids.type != pa.int64() or ids.null_count:
            raise InputError(f"{uri} has other values in its column id: is it of another program?")
        return ids.to_numpy()

    with ThreadPoolExecutor(_READERS) as readers:
        found = list(readers.map(read, table_uris(folder)))
    return np.concatenate([np.empty(0, dtype=np.int64), *found])


def settle(search: Search, labels: Labels, prune: bool, tell: Callable[[str], None]) -> Outcome:
    """Make sure that each image has one row, and count.

    The manifest of earlier runs is deleted. Of two rows for one image, as two runs or a lost worker
    may have left them, one stays; a row of results replaces one of errors.

    Args:
        search: which has been at work on the output; the files of its manifest count.
        labels: the model's classes.
        prune: whether rows of images that the manifest does not have are removed, and pictures of
            them.
        tell: is called with lines for the user's terminal.

    Raises:
        InputError: two images have the same id, the manifest is not whole, an image has no row, or
            a file cannot be read or written.
    """
    output = search.output
    manifest = table_uris(join_uri(output, "manifest"))
    current = [uri for uri in manifest if uri.rpartition("/")[2].startswith(search.run)]
    listed, left_out = _read_manifest(current, search)
    for uri in set(manifest) - set(current):
        remove(uri)
    results = _Folder(join_uri(output, "results"), listed, prune, len(labels))
    none = np.empty(0, dtype=np.int64)
    results.settle([f"pixels_{name}" for name in labels.names], none)
    errors = _Folder(join_uri(output, "errors"), listed, prune, 0)
    errors.settle([], results.ids)
    if results.doubled:
        tell(f"removed {results.doubled} rows that were there twice")
    if prune:
        _Folder(join_uri(output, "gallery"), listed, prune, 0).settle([], none)
        tell(f"removed {results.stale + errors.stale} rows of images that are gone or have changed")
    lost = len(listed) - len(results.ids) - len(errors.ids)
    if lost:
        raise InputError(f"{output} has no row for {lost} images that were found: {_WAY_OUT}")
    return Outcome(
        listed=len(listed),
        segmented=len(results.ids),
        failed=len(errors.ids),
        stale=0 if prune else results.stale + errors.stale,
        pixels=results.pixels,
        left_out=left_out,
    )


def _read_manifest(uris: list[str], search: Search) -> tuple[Ids, Found]:
    """The ids that were found, ascending and each once, and what was passed over."""
    left_out = Found()
    found = [np.empty(0, dtype=np.int64)]
    finished = 0
    for _, table in _read_all(uris, ["id"]):
        found.append(table["id"].to_numpy())
        counts = json.loads((table.schema.metadata or {})[COUNTS_KEY])
        finished += bool(counts)
        for name, count in counts.items():
            setattr(left_out, name, getattr(left_out, name) + count)
    ids = np.concatenate(found)
    del found
    # What cannot be seen from here would otherwise count as an empty bucket.
    if finished != len(search.parts) or len(ids) != left_out.images:
        raise InputError(
            f"{search.output} lacks files of the manifest: {len(ids)} rows and the ends of "
            f"{finished} of {len(search.parts)} parts are there: {_WAY_OUT}"
        )
    ids.sort()  # in place: there may be a hundred million
    again = ids[1:] == ids[:-1]
    if again.any():
        _check_doubled(uris, np.unique(ids[1:][again]))
        ids = ids[np.concatenate([[True], ~again])]
    return ids, left_out


def _check_doubled(uris: list[str], doubled: Ids) -> None:
    """An object may be listed twice in an inventory; two objects may not have one id."""
    uri_of: dict[int, str] = {}
    for _, table in _read_all(uris, ["id", "uri"]):
        for row in table.filter(pc.is_in(table["id"], pa.array(doubled))).to_pylist():
            other = uri_of.setdefault(row["id"], row["uri"])
            if other != row["uri"]:
                raise InputError(
                    f"{other} and {row['uri']} have the same 64-bit id: rename one of them"
                )


class _Folder:
    """The rows of results, of errors, or of the gallery.

    Attributes:
        ids: of the images that have a row, ascending.
        pixels: int64 [C], their sums.
        doubled: rows that were removed because there was another one.
        stale: rows of images that the manifest does not have.
    """

    def __init__(self, folder: str, listed: Ids, prune: bool, classes: int) -> None:
        self._folder, self._listed, self._prune = folder, listed, prune
        self.ids: Ids = np.empty(0, dtype=np.int64)
        self.pixels = np.zeros(classes, dtype=np.int64)
        self.doubled = self.stale = 0

    def settle(self, columns: list[str], replaced: Ids) -> None:
        """Go through all files; a row whose id is among `replaced` (ascending) is removed."""
        seen = np.zeros(len(self._listed), dtype=np.bool_)
        for uri, table in _read_all(table_uris(self._folder), ["id", *columns]):
            ids = table["id"].to_numpy()
            current = are_in(ids, self._listed)
            places = np.searchsorted(self._listed, ids[current])
            # The first of several rows in this file, and none in an earlier one.
            first = np.zeros(len(places), dtype=np.bool_)
            first[np.unique(places, return_index=True)[1]] = True
            new = first & ~seen[places] & ~are_in(ids[current], replaced)
            seen[places] = seen[places] | new
            counts = current.copy()
            counts[current] = new
            self.stale += int(np.count_nonzero(~current))
            self.doubled += int(np.count_nonzero(current)) - int(np.count_nonzero(new))
            mask = pa.array(counts)
            for place, column in enumerate(columns):
                self.pixels[place] += pc.sum(table[column].filter(mask)).as_py() or 0
            kept = counts if self._prune else counts | ~current
            if not kept.all():
                _keep_rows(uri, kept)
        self.ids = self._listed[seen]


def _keep_rows(uri: str, kept: npt.NDArray[np.bool_]) -> None:
    if kept.any():
        write_table(uri, read_table(uri).filter(pa.array(kept)))
    else:
        remove(uri)


def _read_all(uris: list[str], columns: list[str]) -> Iterator[tuple[str, pa.Table]]:
    """Some columns of files, several read at once, in order."""
    yield from map_ahead(lambda uri: (uri, read_table(uri, columns)), uris, _READERS)
