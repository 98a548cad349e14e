"""Rows: the rows of a segmentation that are exported, and the keys of their files."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from segray.errors import InputError
from segray.export.keys import Mirror
from segray.results.segmentation import Segmentation
from segray.storage.ids import Ids, are_in, as_ids
from segray.storage.parallel import map_ahead
from segray.storage.tables import read_table

# Results files that are read concurrently.
_REQUESTS = 16


@dataclass(frozen=True)
class Rows:
    """The rows of a segmentation that count, which are the first row of each image.

    Attributes:
        ids: int64 [N], the ids of the images.
        keys: int64 [N], the digests of their keys.
        files: int64 [N], the indices of the results files that they are in.
    """

    ids: Ids
    keys: Ids
    files: npt.NDArray[np.int64]


def scan_rows(segmentation: Segmentation, current: Ids, mirror: Mirror) -> tuple[Rows, str | None]:
    """Read the rows of a segmentation.

    Args:
        segmentation: the segmentation whose files are read.
        current: the ids of the images in the manifest, ascending.
        mirror: the mapping from URIs to keys.

    Returns:
        The rows of these images; and the URI of an image without a key, or None. If there is such
        an image, no rows are returned.

    Raises:
        InputError: a file cannot be read.
    """

    def scan_file(uri: str) -> tuple[Ids, Ids, str | None]:
        table = read_table(uri, ["id", "uri"])
        table = table.filter(pa.array(are_in(as_ids(table["id"]), current)))
        uris = table["uri"].to_pylist()
        keys = [mirror.key(uri) for uri in uris]
        stray = uris[keys.index(None)] if None in keys else None
        digests = [mirror.digest(key) for key in keys if key is not None]
        return as_ids(table["id"]), np.array(digests, np.int64), stray

    scanned = list(map_ahead(scan_file, segmentation.files, _REQUESTS))
    stray = next((stray for *_, stray in scanned if stray is not None), None)
    if stray is not None:
        nothing = np.zeros(0, np.int64)
        return Rows(nothing, nothing, nothing), stray
    ids = np.concatenate([ids for ids, *_ in scanned])
    keys = np.concatenate([keys for _, keys, _ in scanned])
    files = np.repeat(np.arange(len(scanned)), [len(ids) for ids, *_ in scanned])
    # A task that ran twice may have left two rows for an image.
    first = np.sort(np.unique(ids, return_index=True)[1])
    return Rows(ids[first], keys[first], files[first]), None


def check_keys(segmentation: Segmentation, rows: Rows, mirror: Mirror) -> None:
    """Verify that no two images share a key.

    Raises:
        InputError: two images share a key.
    """
    order = np.argsort(rows.keys, kind="stable")
    same = np.flatnonzero(np.diff(rows.keys[order]) == 0)
    if not len(same):
        return
    uris = []
    for row in order[same[0] : same[0] + 2]:
        table = read_table(segmentation.files[rows.files[row]], ["id", "uri"])
        uris.append(table.filter(pc.equal(table["id"], int(rows.ids[row])))["uri"][0].as_py())
    key = mirror.key(uris[0])
    raise InputError(
        f"{uris[0]} and {uris[1]} would both be exported as {key}, and one would be lost: rename "
        "one of them, or segment them into two outputs"
    )
