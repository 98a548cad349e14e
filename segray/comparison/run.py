"""A comparison: from two segmentations to the share of pixels that changed, image by image."""

import heapq
import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.comparison.changes import (
    Change,
    ChangesTable,
    make_change,
    read_masks,
    share_changed,
)
from segray.comparison.comparison import Comparison
from segray.comparison.config import CompareConfig
from segray.comparison.page import write_page
from segray.comparison.pairing import Pairing, pair_images
from segray.data.skipped import Skipped, write_skipped
from segray.errors import InputError
from segray.pixels.metrics import Confusion, confusion_matrix
from segray.progress import ProgressLine
from segray.results.segmentation import Segmentation, open_segmentation, read_rows
from segray.storage.files import remove, write_bytes
from segray.storage.ids import Ids
from segray.storage.lock import hold_lock
from segray.storage.output import Output
from segray.storage.parallel import count_cpus, map_ahead
from segray.storage.tables import table_uris, write_table
from segray.storage.uri import absolute_uri, exists, join_uri

log = logging.getLogger(__name__)

#: The files of a comparison; the first is written last.
RECORD, PAGE, CHANGES, SKIPPED = "comparison.json", "compare.html", "changes", "skipped.jsonl"

# The rows of a file of changes.
_FILE_ROWS = 1 << 16


def compare(config: CompareConfig) -> Comparison:
    """Compare two segmentations, and write what differs.

    Raises:
        InputError: something that the user gave cannot be used.
    """
    started = time.monotonic()
    before, after = (open_segmentation(uri) for uri in config.results)
    if sorted(before.classes) != sorted(after.classes):
        raise InputError(
            f"{before.uri} has the classes {' '.join(before.classes)}, and {after.uri} "
            f"{' '.join(after.classes)}: compare segmentations of the same classes"
        )
    output = absolute_uri(config.output)
    for segmentation in (before, after):
        segmentation.check_output(output, writes_images=False)
    with hold_lock(output, config.lock) as check_lock:
        pairing = pair_images(before, after)
        check_lock()
        _claim(output, before, after)
        classes = len(before.classes)
        nothing = np.zeros((classes, classes), dtype=np.int64)
        comparison = Comparison(output, before, after, pairing.alone, nothing)
        _compare(comparison, pairing, config.show)
        comparison.seconds = time.monotonic() - started
        check_lock()
        write_page(join_uri(output, PAGE), comparison)
        uri = join_uri(output, SKIPPED)
        if comparison.skipped or exists(uri):
            write_skipped(uri, comparison.skipped)
        text = json.dumps(comparison.to_json(), indent=2)
        write_bytes(join_uri(output, RECORD), text.encode())
    return comparison


def _claim(output: str, before: Segmentation, after: Segmentation) -> None:
    """Remove an earlier comparison of the same two segmentations."""
    folder = Output(output, "comparison")
    settings = {"results": [before.uri, after.uri]}
    earlier = folder.read_settings({"results": list})
    if earlier is None:
        folder.write_settings(settings)
    elif earlier["results"] != settings["results"]:
        folder.refuse("results", earlier["results"], settings["results"])
    for uri in (join_uri(output, RECORD), *table_uris(join_uri(output, CHANGES))):
        remove(uri)


@dataclass(frozen=True)
class _Part:
    """The comparison of some images.

    Attributes:
        confusion: their pixels by their class before (rows) and after (columns).
        rows: a row of ``changes/*.parquet`` for each image that was compared.
        most: the images of them that changed most, in any order.
        skipped: the images of them whose masks are damaged.
    """

    confusion: Confusion
    rows: pa.Table
    most: list[Change]
    skipped: list[Skipped]


def _compare(comparison: Comparison, pairing: Pairing, show: int) -> None:
    """Compare all images, write a row of each, and keep those that changed most."""
    before, after = comparison.before, comparison.after
    ids = np.array([before.classes.index(name) for name in after.classes], dtype=np.uint8)
    folder = join_uri(comparison.output, CHANGES)
    progress = ProgressLine("comparing", "images", len(pairing.ids))
    waiting: list[pa.Table] = []

    def work(piece: tuple[int, int, Ids]) -> _Part:
        first, second, wanted = piece
        others = read_rows(after.files[second], wanted.tolist())
        rows = read_rows(before.files[first], wanted.tolist())
        return _compare_rows(rows, {row["id"]: row for row in others}, before.classes, ids, show)

    def write() -> None:
        table = pa.concat_tables(waiting)
        name = f"{comparison.compared:012d}.parquet"
        write_table(join_uri(folder, name), table)
        waiting.clear()

    # A results file holds some 64 MB of compressed masks, so a piece does, too.
    for part in map_ahead(work, pairing.pieces(), count_cpus()):
        comparison.skipped += part.skipped
        comparison.confusion += part.confusion
        comparison.compared += len(part.rows)
        comparison.most = heapq.nlargest(show, comparison.most + part.most, key=_by_change)
        if len(part.rows):
            waiting.append(part.rows)
        if sum(map(len, waiting)) >= _FILE_ROWS:
            write()
        progress.add(len(part.rows) + len(part.skipped), failed=len(part.skipped))
    if not comparison.compared:
        raise InputError(
            f"all masks that {before.uri} and {after.uri} have in common are damaged: "
            f"{comparison.skipped[0].reason}; segment the images again"
        )
    if waiting:
        write()


def _compare_rows(
    rows: Iterable[dict[str, Any]],
    others: dict[int, dict[str, Any]],
    classes: Sequence[str],
    ids: npt.NDArray[np.uint8],
    show: int,
) -> _Part:
    """Compare the masks of some images.

    Args:
        rows: their rows in the first segmentation.
        others: their rows in the second one, by id.
        classes: the names of the classes in the first one.
        ids: see `segray.comparison.changes.read_masks`.
        show: the number of images to keep.
    """
    total = np.zeros((len(classes), len(classes)), dtype=np.int64)
    table, most, skipped = ChangesTable(classes), list[Change](), list[Skipped]()
    for row in rows:
        try:
            masks = read_masks(row, others[row["id"]], ids, len(classes))
        except ValueError as error:
            skipped.append(Skipped(row["uri"], None, str(error)))
            continue
        confusion = confusion_matrix(*masks, len(classes))
        total += confusion
        changed = share_changed(confusion)
        table.add(row, confusion, changed)
        rank = (changed, row["id"])
        if changed and (len(most) < show or (most and rank > min(map(_by_change, most)))):
            most = heapq.nlargest(show, [*most, make_change(row, changed, *masks)], key=_by_change)
    return _Part(total, table.finish(), most, skipped)


def _by_change(change: Change) -> tuple[float, int]:
    """Return the key that orders images by how much they changed."""
    return change.changed, change.id
