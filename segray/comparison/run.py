"""A comparison: from two segmentations to the share of pixels that changed, image by image."""

import heapq
import json
import logging
import os
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from segray.comparison.changes import Change, changes_schema, find_change
from segray.comparison.comparison import Comparison
from segray.comparison.config import CompareConfig
from segray.comparison.page import write_page
from segray.comparison.pairing import Pairing, pair_images
from segray.data.skipped import Skipped, write_skipped
from segray.errors import InputError
from segray.progress import ProgressLine
from segray.results.segmentation import Segmentation, open_segmentation, read_rows
from segray.storage.files import remove, write_bytes
from segray.storage.ids import Ids
from segray.storage.lock import hold_lock
from segray.storage.output import Output
from segray.storage.parallel import map_ahead
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
    with hold_lock(output, config.lock):
        pairing = pair_images(before, after)
        _claim(output, before, after)
        classes = len(before.classes)
        nothing = np.zeros((classes, classes), dtype=np.int64)
        comparison = Comparison(output, before, after, pairing.alone, nothing)
        _compare(comparison, pairing, config.show)
        comparison.seconds = time.monotonic() - started
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


def _compare(comparison: Comparison, pairing: Pairing, show: int) -> None:
    """Compare all images, write a row of each, and keep those that changed most."""
    before, after = comparison.before, comparison.after
    ids = np.array([before.classes.index(name) for name in after.classes], dtype=np.uint8)
    folder, schema = join_uri(comparison.output, CHANGES), changes_schema(before.classes)
    progress = ProgressLine("comparing", "images", len(pairing.ids))
    waiting: list[dict[str, Any]] = []
    most: list[tuple[float, int, Change]] = []

    def work(piece: tuple[int, int, Ids]) -> tuple[list[Change], list[Skipped]]:
        first, second, wanted = piece
        others = {row["id"]: row for row in read_rows(after.files[second], wanted.tolist())}
        found, skipped = list[Change](), list[Skipped]()
        for row in read_rows(before.files[first], wanted.tolist()):
            try:
                found.append(find_change(row, others[row["id"]], ids, len(ids)))
            except ValueError as error:
                skipped.append(Skipped(row["uri"], None, str(error)))
        shown = {change.id for change in heapq.nlargest(show, found, key=lambda c: c.changed)}
        return [c if c.id in shown else replace(c, small=None) for c in found], skipped

    def write() -> None:
        name = f"{comparison.compared:012d}.parquet"
        write_table(join_uri(folder, name), pa.Table.from_pylist(waiting, schema))
        waiting.clear()

    # A results file holds some 64 MB of compressed masks, so a piece does, too.
    for found, skipped in map_ahead(work, pairing.pieces(), os.cpu_count() or 1):
        comparison.skipped += skipped
        for change in found:
            comparison.confusion += change.confusion
            comparison.compared += 1
            waiting.append(change.columns(before.classes))
            heapq.heappush(most, (change.changed, change.id, change))
            if len(most) > show:
                heapq.heappop(most)
        if len(waiting) >= _FILE_ROWS:
            write()
        progress.add(len(found) + len(skipped), failed=len(skipped))
    if waiting:
        write()
    comparison.most = [change for *_, change in sorted(most, key=lambda item: item[:2])[::-1]]
