"""The rows of a segmentation: an image's mask and its statistics, or the reason why it has none."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.bulk.candidates import SIDE
from segray.bulk.config import MaskSize
from segray.model.bundle import Bundle
from segray.pixels.appearance import measure_appearance
from segray.pixels.canvas import Canvas
from segray.pixels.decoding import Picture
from segray.pixels.expected import ExpectedOverlap, ExpectedPixels
from segray.pixels.labels import Labels
from segray.pixels.masks import MaskBuilder, encode_mask
from segray.pixels.regions import RegionFinder, Regions
from segray.pixels.statistics import ClassStatistics
from segray.pixels.thumbnails import shrink
from segray.storage.listing import Entry
from segray.storage.tables import REGIONS_SCHEMA


@dataclass(frozen=True)
class DecodedImage:
    """An image that is ready for the network.

    Attributes:
        entry: the image as it was listed.
        picture: its pixels in the frame of the network.
    """

    entry: Entry
    picture: Picture


@dataclass(frozen=True)
class Result:
    """A row of results.

    Attributes:
        row: its columns.
        picture: the image as the network saw it, or smaller.
        regions: the rows of its regions, if they are wanted.
    """

    row: dict[str, Any]
    picture: Picture
    regions: pa.Table | None


@dataclass(frozen=True)
class Failure:
    """The reason why an image has no mask: a row of errors.

    Attributes:
        entry: the image as it was listed.
        stage: the stage that failed; ``process`` if the process died, whatever it was at.
        error: the kind of error, to group by.
        message: the reason, for a person.
    """

    entry: Entry
    stage: Literal["fetch", "decode", "predict", "process"]
    error: str
    message: str

    @property
    def row(self) -> dict[str, Any]:
        """The columns."""
        return {
            "id": self.entry.id,
            "uri": self.entry.uri,
            "stage": self.stage,
            "error": self.error,
            "message": self.message,
        }


class Composition:
    """An image whose mask is being made, window by window.

    Args:
        image: the image.
        bundle: the model.
        mask_size: size of the mask.
        overlap: see `segray.pixels.canvas.Canvas`.
        min_area: the pixels of the smallest region that counts; None: regions are not wanted.
    """

    def __init__(
        self,
        image: DecodedImage,
        bundle: Bundle,
        mask_size: MaskSize,
        overlap: float,
        min_area: int | None,
    ) -> None:
        self._image, self._bundle = image, bundle
        picture = image.picture
        self._canvas = Canvas(picture, bundle.frame, len(bundle.labels), overlap)
        shape = self._canvas.shape
        height, width = shape[:2] if mask_size == "model" else (picture.height, picture.width)
        self._expected = ExpectedPixels(shape)
        self._regions = None if min_area is None else RegionFinder(height, width, min_area)
        self._builder = MaskBuilder(shape, height, width, self._regions)
        self._left = len(self._canvas)

    @property
    def id(self) -> int:
        """The id of the image."""
        return self._image.entry.id

    def windows(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield what the network takes, uint8 [H, W, 3] RGB, until all is done or has failed."""
        return itertools.takewhile(lambda _: self._left > 0, self._canvas.windows())

    def add(self, logits: npt.NDArray[np.float32]) -> Result | Failure | None:
        """Add the logits of the next windows, float32 [n, H, W, C].

        Returns:
            A row of results with the last window, or a failure where the logits are not finite;
            None before and after.
        """
        if not self._left:
            return None
        try:
            for window in logits:
                rows = self._canvas.add(window)
                if rows is not None:
                    self._builder.add(rows)
                    self._expected.add(rows)
        except ValueError as error:
            self._left = 0
            return Failure(self._image.entry, "predict", "NotFinite", str(error))
        self._left -= len(logits)
        return None if self._left else self._make_result()

    def _make_result(self) -> Result:
        entry, picture = self._image.entry, self._image.picture
        mask, statistics = self._builder.finish()
        name = entry.uri.rpartition("/")[2].rpartition(".")
        row = {
            "id": entry.id,
            "uri": entry.uri,
            "width": picture.width,
            "height": picture.height,
            "mask": {
                "bytes": encode_mask(mask, self._bundle.labels.palette),
                "path": f"{name[0] or name[2]}.png",
            },
            **_statistics_columns(statistics, self._bundle.labels),
            **self._expected_columns(statistics),
            **vars(measure_appearance(picture)),
            "model": self._bundle.digest,
        }
        table = None
        if self._regions:
            regions = self._regions.finish()
            row |= _count_regions(regions, self._bundle.labels)
            table = _make_table(entry.id, regions, self._bundle.labels)
        # The gallery keeps it until the chunk is done.
        small = shrink(picture, SIDE) if self._bundle.fit == "tile" else picture
        return Result(row, small, table)

    def _expected_columns(self, statistics: ClassStatistics) -> dict[str, Any]:
        names, exponent = self._bundle.labels.names, self._bundle.iou_exponent
        usual = self._bundle.usual_shares
        pixels = self._expected.finish(statistics)
        overlap = ExpectedOverlap.of(statistics.pixels, statistics.summed_confidence, pixels)
        row: dict[str, Any] = {"expected_iou": float(overlap.image_iou(usual, exponent))}
        for name, count, iou in zip(names, pixels, overlap.class_iou(exponent), strict=True):
            row[f"expected_pixels_{name}"] = float(count)
            row[f"expected_iou_{name}"] = None if np.isnan(iou) else float(iou)
        return row


def _statistics_columns(statistics: ClassStatistics, labels: Labels) -> dict[str, Any]:
    columns = zip(
        labels.names,
        statistics.pixels.tolist(),
        statistics.fractions.tolist(),
        statistics.confidences,
        strict=True,
    )
    row = {}
    for name, pixels, fraction, confidence in columns:
        row[f"pixels_{name}"] = pixels
        row[f"fraction_{name}"] = fraction
        row[f"confidence_{name}"] = confidence
    return row


def _count_regions(regions: Regions, labels: Labels) -> dict[str, int]:
    counts = np.bincount(regions.class_ids, minlength=len(labels)).tolist()
    return {f"regions_{name}": count for name, count in zip(labels.names, counts, strict=True)}


def _make_table(id: int, regions: Regions, labels: Labels) -> pa.Table:
    """The regions of an image as rows of regions/*.parquet."""
    columns = [
        pa.array(np.full(len(regions), id)),
        pa.array(labels.names).take(pa.array(regions.class_ids)),
        pa.array(regions.areas),
        *(pa.array(side.astype(np.int32)) for side in regions.boxes.T),
        *(pa.array(mean.astype(np.float32)) for mean in regions.centroids.T),
        pa.array(regions.confidences.astype(np.float32)),
        pa.array(regions.touch_border),
    ]
    return pa.table(columns, schema=REGIONS_SCHEMA)
