"""Changes: what differs between two masks of each image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.pixels.masks import decode_mask
from segray.pixels.metrics import Confusion, class_iou, confusion_matrix
from segray.pixels.thumbnails import scale_mask


@dataclass(frozen=True)
class Change:
    """What differs between two masks of an image.

    Attributes:
        row: the row of the image in the first segmentation.
        masks: the masks before and after, uint8 [H, W] of the class ids of the first segmentation.
        confusion: the pixels by their class before (rows) and after (columns).
    """

    row: dict[str, Any]
    masks: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
    confusion: Confusion

    @property
    def changed(self) -> float:
        """The share of pixels that have another class, 0 to 1."""
        return 1 - float(np.trace(self.confusion) / self.confusion.sum())

    def columns(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return a row of ``changes/*.parquet``."""
        kept, agreement = np.diag(self.confusion), class_iou(self.confusion).tolist()
        lost = self.confusion.sum(axis=1) - kept
        gained = self.confusion.sum(axis=0) - kept
        columns = {"id": self.row["id"], "uri": self.row["uri"], "changed": self.changed}
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
    before, after = _decode(row["mask"], classes), ids[_decode(other["mask"], classes)]
    height, width = max(before.shape, after.shape, key=np.prod)
    before, after = (
        mask if mask.shape == (height, width) else scale_mask(mask, width, height)
        for mask in (before, after)
    )
    return Change(row, (before, after), confusion_matrix(before, after, classes))


def _decode(png: bytes, classes: int) -> npt.NDArray[np.uint8]:
    try:
        mask = decode_mask(png)
    except Exception as error:
        # Codecs raise errors of many kinds: OSError, SyntaxError, struct.error, ...
        raise ValueError(f"its mask is damaged ({type(error).__name__})") from error
    if mask.max() >= classes:
        raise ValueError(f"its mask has the class id {mask.max()}")
    return mask


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
