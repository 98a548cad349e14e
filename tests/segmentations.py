"""Segmentations as jobs/segment.py writes them, made without a model."""

import dataclasses
import json
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.pixels.labels import Labels
from segray.pixels.masks import encode_mask
from segray.storage.files import write_bytes
from segray.storage.listing import Entry
from segray.storage.tables import MANIFEST_SCHEMA, results_schema, write_table
from segray.storage.uri import join_uri

LABELS = Labels(("pet", "background", "border"), (1, 2, 3))

MODEL = "0123456789abcdef"

#: Rows in a results file.
FILE_ROWS = 4


def draw_mask(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """Class ids 0 to 2 in blocks and specks; with some seeds one class is missing."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices((height, width))
    mask = ((rows // 5 + columns // 7 + seed) % (2 if seed % 3 == 0 else 3)).astype(np.uint8)
    mask[random.random((height, width)) < 0.05] = seed % 2
    return mask


@dataclasses.dataclass
class Made:
    """A segmentation, and what is in it.

    Attributes:
        uri: of the segmentation.
        images: the root of the images.
        entries: the images that are in the manifest.
        masks: by their URIs, uint8 [H, W].
        expected: the expected IoU of images by their URIs; 0.5 for others.
    """

    uri: str
    images: str
    entries: list[Entry] = dataclasses.field(default_factory=list)
    masks: dict[str, npt.NDArray[np.uint8]] = dataclasses.field(default_factory=dict)
    expected: dict[str, float] = dataclasses.field(default_factory=dict)

    def add(self, keys: list[str], version: int = 0) -> None:
        """Segment images, in place of other versions of them."""
        added = []
        for number, key in enumerate(keys):
            uri = f"{self.images}/{key}"
            height, width = 20 + 3 * (number % 7), 30 + 5 * (number % 5)
            self.masks[uri] = draw_mask(height, width, number + 100 * version)
            added.append(Entry(uri, number, f"version {version}"))
        self.list([*self.entries, *added])
        self.write_rows(added)

    def list(self, entries: "list[Entry]") -> None:
        """Make these the images of the manifest; of two versions the later one counts."""
        self.entries = list({entry.uri: entry for entry in entries}.values())
        rows = [dataclasses.asdict(entry) | {"id": entry.id} for entry in self.entries]
        table = pa.Table.from_pylist(rows, MANIFEST_SCHEMA)
        write_table(join_uri(self.uri, "manifest", "part-00000.parquet"), table)

    def write_rows(self, entries: "list[Entry]", name: str = "part", **columns: object) -> None:
        """Write results files with a row for each entry."""
        for start in range(0, len(entries), FILE_ROWS):
            chosen = entries[start : start + FILE_ROWS]
            rows = [self._row(entry) | columns for entry in chosen]
            file = f"{name}-{chosen[0].id & (1 << 64) - 1:016x}.parquet"
            table = pa.Table.from_pylist(rows, results_schema(LABELS))
            write_table(join_uri(self.uri, "results", file), table)

    def _row(self, entry: Entry) -> dict[str, Any]:
        mask = self.masks[entry.uri]
        counts = np.bincount(mask.ravel(), minlength=len(LABELS)).tolist()
        pixels = {f"pixels_{name}": n for name, n in zip(LABELS.names, counts, strict=True)}
        expected = self.expected.get(entry.uri, 0.5)
        for name, n in zip(LABELS.names, counts, strict=True):
            pixels[f"expected_pixels_{name}"] = n
            # The confidence that gives that expected IoU.
            pixels[f"confidence_{name}"] = 2 * expected / (1 + expected) if n else None
            pixels[f"expected_iou_{name}"] = expected if n else None
        png = encode_mask(mask, LABELS.palette)
        return {
            "id": entry.id,
            "uri": entry.uri,
            "width": mask.shape[1],
            "height": mask.shape[0],
            "mask": {"bytes": png, "path": f"{PurePosixPath(entry.uri).stem}.png"},
            "expected_iou": expected,
            "model": MODEL,
            **pixels,
        }


def make_segmentation(
    folder: str, keys: list[str], images: str | None = None, name: str = "segmented"
) -> Made:
    """Write the segmentation ``folder/NAME`` of images with these keys.

    Args:
        folder: URI.
        keys: of the images below their root.
        images: the root; by default ``folder/images``.
        name: of the folder.
    """
    made = Made(join_uri(folder, name), images or join_uri(folder, "images"))
    made.add(keys)
    settings = {
        "model": MODEL,
        "mask_size": "original",
        "images": made.images,
        "value_range": None,
        "labels": LABELS.to_json(),
        "usual_shares": [0.04] * len(LABELS),
    }
    write_bytes(join_uri(made.uri, "config.json"), json.dumps(settings).encode())
    ious = dict.fromkeys(LABELS.names, 0.625)
    record = {"expected_iou": ious, "expected_mean_iou": 0.625}
    write_bytes(join_uri(made.uri, "run.json"), json.dumps(record).encode())
    return made
