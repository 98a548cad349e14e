"""Changes: what differs between two masks of each image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.pixels.masks import decode_class_ids
from segray.pixels.metrics import Confusion, divide
from segray.pixels.thumbnails import fit_size, scale_mask

#: The longer side of the pictures of an image, in pixels.
SIDE = 320

ClassIds = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Change:
    """An image whose mask changed, to be shown.

    Attributes:
        id: the id of the image.
        uri: its URI.
        width: its width, in pixels.
        height: its height, likewise.
        changed: the share of its pixels that have another class, 0 to 1.
        before: the mask before, made small, uint8 [h, w] of the class ids of the first
            segmentation.
        after: the mask after, likewise.
    """

    id: int
    uri: str
    width: int
    height: int
    changed: float
    before: ClassIds
    after: ClassIds


def make_change(row: dict[str, Any], changed: float, before: ClassIds, after: ClassIds) -> Change:
    """Return an image to be shown, with its masks made small.

    Args:
        row: its row in the first segmentation, see `segray.results.segmentation.read_rows`.
        changed: the share of its pixels that have another class, 0 to 1.
        before: the mask before, see `read_masks`.
        after: the mask after.
    """
    size = fit_size(row["width"], row["height"], SIDE)
    before, after = scale_mask(before, *size), scale_mask(after, *size)
    return Change(row["id"], row["uri"], row["width"], row["height"], changed, before, after)


def read_masks(
    row: dict[str, Any], other: dict[str, Any], ids: ClassIds, classes: int
) -> tuple[ClassIds, ClassIds]:
    """Read the masks of an image before and after, uint8 [H, W] of the first one's class ids.

    Masks of different resolutions are returned at the higher one.

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
    return before, after


def share_changed(confusion: Confusion) -> float:
    """Return the share of pixels that have another class, 0 to 1.

    Args:
        confusion: int64 [C, C], pixels by their class before (rows) and after (columns).
    """
    return 1 - float(np.trace(confusion) / max(1, confusion.sum()))


class ChangesTable:
    """The rows of ``changes/*.parquet``, one for each image, in little memory.

    Args:
        classes: the names of the C classes.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._images: list[tuple[int, str, float]] = []
        self._pixels: list[npt.NDArray[np.int64]] = []

    def add(self, row: dict[str, Any], confusion: Confusion, changed: float) -> None:
        """Append the row of an image.

        Args:
            row: its row in the first segmentation.
            confusion: int64 [C, C], its pixels by their class before and after.
            changed: see `share_changed`.
        """
        kept = np.diag(confusion)
        lost, gained = confusion.sum(axis=1) - kept, confusion.sum(axis=0) - kept
        self._images.append((row["id"], row["uri"], changed))
        self._pixels.append(np.stack([kept, lost, gained]))

    def finish(self) -> pa.Table:
        """Return the table of all rows."""
        ids, uris, changed = zip(*self._images, strict=True) if self._images else ((), (), ())
        columns = [pa.array(ids, pa.int64()), pa.array(uris, pa.string())]
        columns.append(pa.array(changed, pa.float32()))
        pixels = np.reshape(self._pixels, (len(ids), 3, len(self._classes))).astype(np.int64)
        kept, lost, gained = pixels.transpose(1, 2, 0)
        agreement = divide(kept, kept + lost + gained)
        for figures in zip(agreement, lost, gained, strict=True):
            # NaN, of a class that neither mask has, becomes null.
            columns.append(pa.array(figures[0], pa.float32(), from_pandas=True))
            columns += [pa.array(values, pa.int64()) for values in figures[1:]]
        names = ["id", "uri", "changed"]
        for name in self._classes:
            names += [f"agreement_{name}", f"lost_{name}", f"gained_{name}"]
        return pa.table(columns, names)
