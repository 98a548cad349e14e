"""Versions: the version of the image that each exported file was made from.

An export keeps a list that maps each key to the id of an image, which identifies the version of the
image. A file of another version is removed before the list is written, and the list is written
before the new files are. At any moment, every file that exists is therefore complete and of the
version in the list, and whatever is missing is still to be exported.
"""

import logging

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.export.keys import Mirror
from segray.export.rows import Rows
from segray.storage.files import remove, remove_partial
from segray.storage.ids import Ids, are_in, as_ids, find_ids
from segray.storage.listing import Shard, list_pages, relative_key
from segray.storage.parallel import map_ahead
from segray.storage.tables import read_table, write_table
from segray.storage.uri import exists, join_uri

log = logging.getLogger(__name__)

# In a hidden folder, which no exported file can be in.
_VERSIONS = ".export/versions.parquet"
_SCHEMA = pa.schema([("key", pa.int64()), ("id", pa.int64())])

# Files that are removed concurrently.
_REQUESTS = 16


def claim_files(output: str, rows: Rows, mirror: Mirror) -> npt.NDArray[np.bool]:
    """Prepare an output for the files of some rows, by removing files of other versions.

    Args:
        output: the absolute URI of the output.
        rows: the rows of all masks that belong in it.
        mirror: the mapping from URIs to keys.

    Returns:
        bool [N], True for the rows whose file exists already.

    Raises:
        InputError: the output cannot be read or written.
    """
    uri = join_uri(output, _VERSIONS)
    if not exists(uri):
        _write_versions(uri, rows.keys, rows.ids)
        return np.zeros(len(rows.ids), bool)
    remove_partial(output, deep=True)
    table = read_table(uri, ["key", "id"])
    keys, ids = as_ids(table["key"]), as_ids(table["id"])
    place = find_ids(keys, rows.keys)
    known = keys[place] == rows.keys
    stale = rows.keys[known & (ids[place] != rows.ids)]
    there, stale_uris = _list_keys(output, mirror, stale)
    gone = np.setdiff1d(there, rows.keys)
    if len(gone):
        log.info(f"{len(gone)} files of images that no longer exist are left as they are")
    for _ in map_ahead(remove, stale_uris, _REQUESTS):
        pass
    done = known & (ids[place] == rows.ids) & are_in(rows.keys, there)
    if not done.all():
        # The file of an image that is gone stays in the list, because the image may come back.
        kept = np.isin(keys, gone)
        _write_versions(
            uri, np.concatenate([rows.keys, keys[kept]]), np.concatenate([rows.ids, ids[kept]])
        )
    return done


def _write_versions(uri: str, keys: Ids, ids: Ids) -> None:
    order = np.argsort(keys)
    columns = {"key": keys[order], "id": ids[order]}
    write_table(uri, pa.table(columns, schema=_SCHEMA))


def _list_keys(output: str, mirror: Mirror, wanted: Ids) -> tuple[Ids, list[str]]:
    """Return the sorted digests of all exported files' keys, and the URIs of the wanted ones."""
    found: list[Ids] = []
    uris: list[str] = []
    chosen = set(wanted.tolist())
    for page in list_pages(Shard(output), strict=True):
        names = [e.uri for e in page.entries if e.uri.endswith(mirror.suffix)]
        digests = [mirror.digest(relative_key(output, uri)) for uri in names]
        found.append(np.array(digests, np.int64))
        uris += [uri for uri, key in zip(names, digests, strict=True) if key in chosen]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64), uris
