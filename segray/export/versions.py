"""Versions: of which version of its image each exported file is.

Beside the files an export keeps a list: of which version, by the image's id, the file under a key
is, if there is one. It is written before the files are, and a file of another version is removed
before that. So at any moment a file that is there is of the version that the list has, and whole;
and what is not there is what has to be done.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.export.keys import Mirror
from segray.export.rows import Rows
from segray.storage.files import remove, remove_partial
from segray.storage.ids import Ids, are_in, as_ids, find_ids
from segray.storage.listing import Shard, list_pages, relative_key
from segray.storage.tables import read_table, write_table
from segray.storage.uri import exists, join_uri

# In a hidden folder, and so never in the way of an exported file.
_VERSIONS = ".export/versions.parquet"
_SCHEMA = pa.schema([("key", pa.int64()), ("id", pa.int64())])

# Files to remove at once.
_REQUESTS = 16


def claim_files(
    output: str, rows: Rows, mirror: Mirror, tell: Callable[[str], None]
) -> npt.NDArray[np.bool]:
    """Make an output ready for the files of some rows: no other version's is left.

    Args:
        output: its absolute URI.
        rows: of all masks that belong in it.
        mirror: how keys come from URIs.
        tell: is called with lines for the user's terminal.

    Returns:
        bool [N], whose files are there.

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
        tell(f"{len(gone)} files are left of images that are gone; nothing is done to them")
    with ThreadPoolExecutor(_REQUESTS) as requests:
        list(requests.map(remove, stale_uris))
    done = known & (ids[place] == rows.ids) & are_in(rows.keys, there)
    if not done.all():
        # A file of an image that is gone stays known: its image may come back.
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
    """The digests of the keys of all exported files, sorted; and the URIs of the wanted ones."""
    found: list[Ids] = []
    uris: list[str] = []
    chosen = set(wanted.tolist())
    for page in list_pages(Shard(output), strict=True):
        names = [e.uri for e in page.entries if e.uri.endswith(mirror.suffix)]
        digests = [mirror.digest(relative_key(output, uri)) for uri in names]
        found.append(np.array(digests, np.int64))
        uris += [uri for uri, key in zip(names, digests, strict=True) if key in chosen]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64), uris
