"""Pairs: masks as PNG files of mask values, and a table for jobs/train.py --pairs."""

import csv
import io

from segray.pixels.labels import Labels
from segray.pixels.masks import encode_values
from segray.review.chosen import Chosen
from segray.storage.files import write_bytes
from segray.storage.uri import join_uri

#: The files of this format; the table is written last.
PAIRS, MASKS = "pairs.csv", "masks"

_COLUMNS = ("image", "mask", "split", "expected_iou")


class Pairs:
    """Writes ``pairs.csv`` and a mask for each image.

    Args:
        output: the absolute URI of the output folder.
        labels: the classes, whose mask values are written.
    """

    def __init__(self, output: str, labels: Labels) -> None:
        self._output, self._labels = output, labels
        self._rows: list[tuple[str, ...]] = []

    def add(self, chosen: Chosen) -> None:
        """Write the mask of an image."""
        mask = f"{MASKS}/{chosen.file_stem}.png"
        write_bytes(join_uri(self._output, mask), encode_values(chosen.mask, self._labels))
        self._rows.append((chosen.uri, mask, "train", f"{chosen.expected_iou:.4f}"))

    def finish(self) -> list[str]:
        """Write the table, and return the names of what was written."""
        buffer = io.StringIO(newline="")
        table = csv.writer(buffer)
        table.writerow(_COLUMNS)
        table.writerows(self._rows)
        write_bytes(join_uri(self._output, PAIRS), buffer.getvalue().encode())
        return [PAIRS, MASKS]
