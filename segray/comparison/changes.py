"""Changes: what differs between two masks of each image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.pixels.masks import decode_class_ids
from segray.pixels.metrics import Confusion, class_iou, confusion_matrix
from segray.pixels.thumbnails import fit_size, scale_mask

#: The longer side of the pictures of an image, in pixels.
SIDE = 320


@dataclass(frozen=True)
class Change:
    """What differs between two masks of an image.

    Attributes:
        id: the id of the image.
        uri: its URI.
        width: its width, in pixels.
        height: its height, likewise.
        confusion: the pixels by their class before (rows) and after (columns).
        small: the masks before and after, made small, uint8 [h, w] of the class ids of the first
            segmentation; None if they are not wanted.
    """

    id: int
    uri: str
    width: int
    height: int
    confusion: Confusion
    small: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None

    @property
    def changed(self) -> float:
        """The share of pixels that have another class, 0 to 1."""
        return 1 - float(np.trace(self.confusion) / self.confusion.sum())

    def columns(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return a row of ``changes/*.parquet``."""
        kept, agreement = np.diag(self.confusion), class_iou(self.confusion).tolist()
        lost = self.confusion.sum(axis=1) - kept
        gained = self.confusion.sum(axis=0) - kept
        columns: dict[str, Any] = {"id": self.id, "uri": self.uri, "changed": self.changed}
        for i, name in enumerate(classes):
            columns[f"agreement_{name}"] = None if np.isnan(agreement[i]) else agreement[i]
            columns[f"lost_{name}"], columns[f"gained_{name}"] = int(lost[i]), int(gained[i])
        return columns


def find_change(
    row: dict[str, Any], other: dict[str, Any], ids: npt.NDArray[np.uint8], classes: int
) -> Change:
    """Compare the masks of an image.

    Masks of different resolutions are compared at the higher one.

    Args:
        row: its row in the first segmentation, see `segray.results.segmentation.read_rows`.
        other: its row in the second one.
        ids: uint8 [C], the class of the first segmentation for each class of the second one.
        classes: C.

    Raises:
        ValueError: a mask is damaged.
    """
    before = decode_class_ids(row["mask"], classes)
    after = ids[decode_class_ids(other["mask"], classes)]
    height, width = max(before.shape, after.shape, key=np.prod)
    before, after = (
        mask if mask.shape == (height, width) else scale_mask(mask, width, height)
        for mask in (before, after)
    )
    size = fit_size(row["width"], row["height"], SIDE)
    return Change(
        row["id"],
        row["uri"],
        row["width"],
        row["height"],
        confusion_matrix(before, after, classes),
        (scale_mask(before, *size), scale_mask(after, *size)),
    )


def changes_schema(classes: Sequence[str]) -> pa.Schema:
    """Return the columns of ``changes/*.parquet``."""
    fields = [("id", pa.int64()), ("uri", pa.string()), ("changed", pa.float32())]
    for name in classes:
        fields += [
            (f"agreement_{name}", pa.float32()),
            (f"lost_{name}", pa.int64()),
            (f"gained_{name}", pa.int64()),
        ]
    return pa.schema(fields)
