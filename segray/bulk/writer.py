"""The writer of a chunk: rows on their way into files.

The files have names made of the ids of the chunk's images. A chunk that is done once more, because
its process died, finds the files of the first attempt, and only the rest of it is done.

A file of regions has the name of the file of results with their images' rows, and is written first:
the regions of a row are there whenever the row is, and others have no file of results.
"""

import hashlib
import time

import numpy as np
import pyarrow as pa

from segray.bulk.candidates import SIDE, Candidates
from segray.bulk.rows import Failure, Result
from segray.bulk.tally import Reporter, process_name
from segray.pixels.labels import Labels
from segray.pixels.thumbnails import encode_thumbnail
from segray.storage.listing import Entry
from segray.storage.tables import (
    ERRORS_SCHEMA,
    GALLERY_SCHEMA,
    PartWriter,
    results_schema,
    write_table,
)
from segray.storage.uri import join_uri

#: Rows are written before their chunk is done when they hold so many bytes, or after so long.
FILE_BYTES = 1 << 26
FILE_SECONDS = 20.0


class ChunkWriter:
    """Writes the rows of a chunk, and reports how far it is.

    Args:
        entries: the images of the chunk; of an id that is there twice the first counts.
        output: absolute URI of the output.
        labels: the classes.
        reporter: receives the counts.
        regions: True if the results come with their regions.

    Attributes:
        name: the name of the chunk, which the names of its files begin with.
        missing: the images that have no row of an earlier attempt.
    """

    def __init__(
        self,
        entries: list[Entry],
        output: str,
        labels: Labels,
        reporter: Reporter,
        regions: bool = False,
    ) -> None:
        entry_of = {entry.id: entry for entry in reversed(entries)}
        ids = sorted(entry_of)
        self.name = hashlib.blake2b(np.array(ids, "<i8").tobytes(), digest_size=12).hexdigest()
        self._reporter = reporter
        self._process = process_name()
        self._classes = labels.names
        self._candidates = Candidates(len(ids))
        schema = results_schema(labels, regions)
        self._results = PartWriter(join_uri(output, "results"), self.name, schema)
        self._regions_folder = join_uri(output, "regions")
        self._regions: list[pa.Table] = []  # of the rows of results that are not written yet
        self._errors = PartWriter(join_uri(output, "errors"), self.name, ERRORS_SCHEMA)
        self._gallery = PartWriter(join_uri(output, "gallery"), self.name, GALLERY_SCHEMA)
        segmented, failed = self._results.found_ids(), self._errors.found_ids()
        self.missing = [
            entry
            for id, entry in reversed(entry_of.items())
            if id not in segmented and id not in failed
        ]
        self._size_of = {entry.id: entry.size or 0 for entry in entries}
        self._counts = {"segmented": len(segmented), "failed": len(failed)}
        self._counts |= {"bytes": 0, "retries": 0}
        self._bytes = 0
        self._written = time.monotonic()
        self._report()  # that it has been begun

    def count_retry(self) -> None:
        """Count a request that is about to be tried again."""
        self._counts["retries"] += 1

    def add(self, item: Result | Failure) -> None:
        """Take a row; the next `write_if_due` or `finish` writes it."""
        row = item.row
        if isinstance(item, Failure):
            self._errors.rows.append(row)
            self._count("failed", row["id"], len(item.message))
            return
        self._results.rows.append(row)
        shares = [row[f"fraction_{name}"] for name in self._classes]
        self._candidates.add(row["id"], shares, row["expected_iou"], item.picture)
        self._count("segmented", row["id"], len(row["mask"]["bytes"]))
        if item.regions is not None:
            self._regions.append(item.regions)
            self._bytes += item.regions.nbytes

    def write_if_due(self) -> None:
        """Write the rows if they are many or old, and report.

        Raises:
            InputError: a file cannot be written.
        """
        now = time.monotonic()
        if self._bytes > FILE_BYTES or now - self._written > FILE_SECONDS:
            self.write_rows()
        self._report()

    def write_rows(self) -> None:
        """Write the rows that were taken so far.

        Raises:
            InputError: a file cannot be written.
        """
        if self._regions:
            uri = join_uri(self._regions_folder, self._results.next_file)
            write_table(uri, pa.concat_tables(self._regions))
            self._regions = []
        self._results.flush()
        self._errors.flush()
        self._bytes, self._written = 0, time.monotonic()

    def finish(self) -> None:
        """Write the rest, and the pictures of the gallery.

        Those of images that an earlier attempt has segmented are lost.

        Raises:
            InputError: a file cannot be written.
        """
        self.write_rows()
        self._gallery.rows = [
            {"id": id, "image": encode_thumbnail(picture, SIDE)}
            for id, picture in self._candidates.pictures.items()
        ]
        self._gallery.flush()
        self._report(last=True)

    def _count(self, kind: str, id: int, bytes: int) -> None:
        self._counts[kind] += 1
        self._counts["bytes"] += self._size_of[id]
        self._bytes += bytes

    def _report(self, last: bool = False) -> None:
        self._reporter.done(self.name, self._process, self._counts, last=last)
