"""Outputs of segmentations that never were, and what their reports say."""

import html
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from segray.bulk.census import take_census
from segray.bulk.manifest import Found, Manifest
from segray.bulk.progress import Moment
from segray.bulk.report.page import write_report
from segray.model.reference import count_features, features_of
from segray.pixels.appearance import APPEARANCE
from segray.pixels.labels import Labels
from segray.pixels.masks import encode_mask
from segray.storage.files import read_bytes
from segray.storage.tables import (
    ERRORS_SCHEMA,
    GALLERY_SCHEMA,
    MANIFEST_SCHEMA,
    REGIONS_SCHEMA,
    results_schema,
    write_table,
)
from segray.storage.uri import join_uri
from tests.support import draw_picture, encode, logged_lines

RECORD = {
    "configuration": {"images": "s3://bucket/pets", "model": "s3://bucket/model", "limit": None},
    "model": "0123456789abcdef",
    "engine": "onnx",
    "versions": {"segray": "1.2.3"},
    "counts": {"processed": 44, "left_out": {"images": 44, "other": 3, "hidden": 0}},
    "seconds": 20.0,
    "images_per_second": 2.2,
}
TIMELINE = [Moment(10, 10, 0, 2_000_000), Moment(15, 30, 4, 8_000_000), Moment(20, 40, 4, 9e6)]


def digest(number: int) -> int:
    """An id as those of images are: any 64 bits; each number has its own."""
    return number * 0x9E3779B97F4A7C15 % 2**64 - 2**63


@dataclass
class Output:
    """A segmentation made by a test; there are no images, but pictures of them.

    It has regions as soon as some are added, by `add_regions`.
    """

    uri: str
    labels: Labels
    listed: list[tuple[int, str]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    regions: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def add(
        self, uri: str, seed: int, size: tuple[int, int] = (40, 30), picture: bool = True
    ) -> dict[str, Any]:
        """The row of an image of random shares and confidences, and its picture, if wanted."""
        rng = np.random.default_rng(seed)
        width, height = size
        if picture:
            image = encode(draw_picture(height, width, seed), "JPEG")
            self.pictures.append({"id": digest(len(self.listed)), "image": image})
        shares = rng.dirichlet(np.full(len(self.labels), 2 / len(self.labels)))
        shares[shares < 0.1] = 0  # so that not every image has every class
        mask = rng.choice(len(self.labels), (height, width), p=shares / shares.sum())
        return self.add_mask(uri, mask.astype(np.uint8), rng.uniform(0.4, 1, len(self.labels)))

    def add_mask(self, uri: str, mask: np.ndarray, sure: np.ndarray) -> dict[str, Any]:
        row = {
            "id": digest(len(self.listed)),
            "uri": uri,
            "width": mask.shape[1],
            "height": mask.shape[0],
            "mask": {"bytes": encode_mask(mask, self.labels.palette), "path": None},
            "model": RECORD["model"],
        }
        for i, name in enumerate(self.labels.names):
            pixels = int((mask == i).sum())
            row[f"pixels_{name}"] = pixels
            row[f"fraction_{name}"] = pixels / mask.size
            row[f"confidence_{name}"] = float(np.float32(sure[i])) if pixels else None
            # As much of it is expected where other classes won as not where it did.
            row[f"expected_pixels_{name}"] = pixels
            row[f"expected_iou_{name}"] = sure[i] / (2 - sure[i]) if pixels else None
        row |= dict.fromkeys(APPEARANCE, 0.25)
        known = [row[f"expected_iou_{name}"] for name in self.labels.names]
        row["expected_iou"] = float(np.float32(np.mean([iou for iou in known if iou is not None])))
        self.listed.append((row["id"], uri))
        self.results.append(row)
        return row

    def add_regions(self, row: dict[str, Any], areas: dict[str, list[int]]) -> None:
        """Regions of an image of these areas, by the names of their classes."""
        box = {"x": 0, "y": 0, "width": 1, "height": 1, "centroid_x": 0.0, "centroid_y": 0.0}
        for name in self.labels.names:
            row[f"regions_{name}"] = len(areas.get(name, []))
        self.regions += [
            {"id": row["id"], "class": name, "area": area, **box}
            for name, some in areas.items()
            for area in some
        ]

    def fail(self, uri: str, stage: str, error: str, message: str) -> None:
        id = digest(len(self.listed))
        self.errors.append(
            {"id": id, "uri": uri, "stage": stage, "error": error, "message": message}
        )
        self.listed.append((id, uri))

    def write(self, rows_per_file: int = 16) -> None:
        """The files of the output, except for the report."""
        entries = [{"id": i, "uri": uri, "size": 1, "etag": "e"} for i, uri in self.listed]
        self._write("manifest", entries, MANIFEST_SCHEMA, max(1, len(entries)))
        schema = results_schema(self.labels, bool(self.regions))
        self._write("results", self.results, schema, rows_per_file)
        for first in range(0, len(self.results) if self.regions else 0, rows_per_file):
            ids = {row["id"] for row in self.results[first : first + rows_per_file]}
            some = [region for region in self.regions if region["id"] in ids]
            table = pa.Table.from_pylist(some, REGIONS_SCHEMA)
            write_table(join_uri(self.uri, "regions", f"{first:06}.parquet"), table)
        self._write("errors", self.errors, ERRORS_SCHEMA, rows_per_file)
        self._write("gallery", self.pictures, GALLERY_SCHEMA, rows_per_file)

    def _write(self, folder: str, rows: list[Any], schema: pa.Schema, per_file: int) -> None:
        for first in range(0, len(rows), per_file):
            table = pa.Table.from_pylist(rows[first : first + per_file], schema)
            write_table(join_uri(self.uri, folder, f"{first:06}.parquet"), table)

    def reference(self) -> dict[str, np.ndarray]:
        """What a model keeps of images and masks like these."""
        names = [field.name for field in results_schema(self.labels) if field.name != "mask"]
        columns = {name: np.array([row[name] for row in self.results]) for name in names}
        return count_features(features_of(self.labels), columns)

    def report(
        self,
        record: dict[str, Any] = RECORD,
        timeline: Any = TIMELINE,
        reference: dict[str, np.ndarray] | None = None,
    ) -> str:
        """The page."""
        ids = np.unique(np.array([id for id, _ in self.listed], dtype=np.int64))
        manifest = Manifest(ids, Found())
        with logged_lines() as lines:
            census = take_census(
                *(self.uri, manifest, self.labels, False, bool(self.regions), reference)
            )
        self.lines += lines
        write_report(self.uri, self.labels, census, record, timeline)
        return read_bytes(join_uri(self.uri, "report.html")).decode()


def text_of(page: str) -> str:
    """What a reader sees of the page, in one line."""
    body = page.partition("<body>")[2].partition("<script>")[0].replace("<wbr>", "")
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def tile_names(page: str) -> list[str]:
    found = re.findall(r'<li class="tile[^"]*".*?<h3 title="[^"]*">(.*?)</h3>', page, re.DOTALL)
    return [html.unescape(re.sub(r"<[^>]*>", "", name)) for name in found]


def shares_of(row: dict[str, Any], labels: Labels) -> list[float]:
    counts = [row[f"pixels_{name}"] for name in labels.names]
    return [count / sum(counts) for count in counts]
