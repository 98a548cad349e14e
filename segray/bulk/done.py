"""The images of an output that have a row already, in results or in errors."""

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from segray.errors import InputError
from segray.storage.files import remove
from segray.storage.ids import Ids
from segray.storage.parallel import map_ahead
from segray.storage.tables import read_table, table_uris
from segray.storage.uri import join_uri

log = logging.getLogger(__name__)

_READERS = 16  # files that are fetched at once


def read_done(
    output: str, folders: Sequence[str] = ("results", "errors"), delete: bool = True
) -> Ids:
    """Read the ids of the images that have a row: int64, ascending.

    A file that is no Parquet file is deleted: its images have no row then, and are done again.

    Args:
        output: absolute URI of the output.
        folders: the folders in it whose rows count.
        delete: False to pass over such a file instead.

    Raises:
        InputError: a file cannot be read or deleted, or has no such ids.
    """
    uris = [uri for name in folders for uri in table_uris(join_uri(output, name))]
    found = map_ahead(_read_ids, uris, _READERS)
    columns = [np.empty(0, dtype=np.int64)]
    for uri, ids in zip(uris, found, strict=True):
        if ids is not None:
            columns.append(ids)
        elif delete:
            remove(uri)
            log.info(f"deleted {uri}: it is damaged, and its images are done again")
    done = np.concatenate(columns)
    del columns
    done.sort()  # in place: there may be a hundred million
    return done


def _read_ids(uri: str) -> Ids | None:
    """The ids in a file; None if it is damaged."""
    try:
        ids = read_table(uri, ["id"])["id"]
    except InputError as error:
        if not isinstance(error.__cause__, pa.ArrowInvalid):
            raise
        return None
    if ids.type != pa.int64() or ids.null_count:
        raise InputError(f"{uri} has other values in its column id: is it of another program?")
    return ids.to_numpy()
