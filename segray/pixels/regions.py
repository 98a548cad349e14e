"""Regions: the connected pixels of one class in a mask, found while the mask is made.

The mask arrives a few rows at a time. Only regions that reach the last row may go on in the next
ones, so memory is needed for one part of the mask and for the regions, whatever the mask's size.
"""

from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt

#: The least pixels of a region that counts, unless others are asked for.
MIN_AREA = 20

# Beyond every coordinate.
_FAR = 1 << 30


@dataclass(frozen=True)
class Regions:
    """The regions of a mask, N of them, by class and then from top to bottom.

    Attributes:
        class_ids: uint8 [N], the class of each region.
        areas: int64 [N], its pixels.
        boxes: int64 [N, 4], the smallest box that contains it: x and y of the upper left pixel,
            width and height.
        centroids: float64 [N, 2], the mean x and y of the centres of its pixels; the centre of the
            mask's first pixel is at 0, 0.
        confidences: float64 [N], the mean confidence of its pixels in [0, 1], of the same samples
            as the confidence of a class: see `segray.pixels.masks.segment_logits`.
        touch_border: bool [N], True if a pixel of it lies at the border of the mask.
    """

    class_ids: npt.NDArray[np.uint8]
    areas: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.int64]
    centroids: npt.NDArray[np.float64]
    confidences: npt.NDArray[np.float64]
    touch_border: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.areas)


@dataclass(frozen=True)
class _Pieces:
    """Pieces of regions, N of them.

    Attributes:
        class_ids: uint8 [N].
        sums: float64 [4, N], over the pixels of a piece: 1, x, y and the confidence. They are exact
            up to 2**53, the confidence apart.
        corners: int64 [4, N], the box: least x and y, and beyond the largest, these negated.
    """

    class_ids: npt.NDArray[np.uint8]
    sums: npt.NDArray[np.float64]
    corners: npt.NDArray[np.int64]

    @classmethod
    def none(cls) -> "_Pieces":
        return cls(np.empty(0, np.uint8), np.empty((4, 0)), np.empty((4, 0), np.int64))

    @classmethod
    def concatenate(cls, parts: "list[_Pieces]") -> "_Pieces":
        return cls(
            np.concatenate([part.class_ids for part in parts]),
            np.concatenate([part.sums for part in parts], axis=1),
            np.concatenate([part.corners for part in parts], axis=1),
        )

    def take(self, wanted: npt.NDArray[np.bool_ | np.intp]) -> "_Pieces":
        return _Pieces(self.class_ids[wanted], self.sums[:, wanted], self.corners[:, wanted])

    def merge(self, numbers: npt.NDArray[np.intp], count: int) -> "_Pieces":
        """Merge the pieces of equal numbers, intp [N], each from 0 to ``count - 1``."""
        class_ids = np.empty(count, dtype=np.uint8)
        class_ids[numbers] = self.class_ids
        corners = np.full((4, count), _FAR, dtype=np.int64)
        for merged, values in zip(corners, self.corners, strict=True):
            np.minimum.at(merged, numbers, values)
        sums = [np.bincount(numbers, values, count) for values in self.sums]
        return _Pieces(class_ids, np.stack(sums, dtype=np.float64), corners)


class RegionFinder:
    """Finds the regions of a mask that arrives in rows, and the confidence of each.

    Pixels of one class that share a side are in one region; those that only share a corner are not.

    Args:
        height, width: the size of the mask.
        min_area: the pixels of the smallest region that counts.
    """

    def __init__(self, height: int, width: int, min_area: int) -> None:
        self._height, self._width, self._min_area = height, width, min_area
        self._row = 0
        self._evidence: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.floating]]] = []
        # The last row: its class ids, and which of the open regions, those that reach it, is where.
        self._last = np.empty(0, dtype=np.uint8)
        self._number = np.empty(0, dtype=np.intp)
        self._open = _Pieces.none()
        self._closed: list[_Pieces] = []

    def note(self, places: npt.NDArray[np.intp], confidence: npt.NDArray[np.floating]) -> None:
        """Note the confidence of pixels that `add` is about to take.

        Args:
            places: intp [N], positions in the flattened mask.
            confidence: [N], each that of the pixel, or the sum over more pixels of its region.
        """
        self._evidence.append((places, confidence))

    def add(
        self, rows: npt.NDArray[np.uint8], confidence: npt.NDArray[np.floating] | None = None
    ) -> None:
        """Take the next rows of the mask.

        Args:
            rows: uint8 [n, width] of class ids below 255.
            confidence: [n, width], that of each pixel, unless it has been noted.
        """
        # cc3d leaves out zeros.
        labels, count = cc3d.connected_components(rows + np.uint8(1), connectivity=4, return_N=True)
        pieces = self._find_pieces(rows, confidence, labels.ravel(), count)
        below = labels[0].astype(np.intp) - 1
        last = labels[-1].astype(np.intp) - 1
        known = len(self._open.class_ids)
        if known:
            goes_on = self._last == rows[0]
            root = _connect(known + count, self._number[goes_on], below[goes_on] + known)
            distinct, number = np.unique(root, return_inverse=True)
            pieces = _Pieces.concatenate([self._open, pieces]).merge(number, len(distinct))
            last = number[last + known]
        is_open = np.zeros(len(pieces.class_ids), dtype=np.bool_)
        is_open[last] = True
        self._closed.append(pieces.take(~is_open & (pieces.sums[0] >= self._min_area)))
        self._open = pieces.take(is_open)
        self._number = (np.cumsum(is_open) - 1)[last]
        self._last = rows[-1].copy()
        self._row += len(rows)

    def finish(self) -> Regions:
        """Return the regions, when all rows have been added."""
        wanted = self._open.sums[0] >= self._min_area
        found = _Pieces.concatenate([*self._closed, self._open.take(wanted)])
        left, top = found.corners[:2]
        found = found.take(np.lexsort((left, top, found.class_ids)))
        left, top, right, bottom = found.corners * np.array([[1], [1], [-1], [-1]])
        area, x, y, confidence = found.sums
        return Regions(
            class_ids=found.class_ids,
            areas=area.astype(np.int64),
            boxes=np.stack([left, top, right - left, bottom - top], axis=1),
            centroids=np.stack([x / area, y / area], axis=1),
            # Rounding may make a mean of ones slightly greater than one.
            confidences=np.minimum(confidence / area, 1),
            touch_border=(left == 0)
            | (top == 0)
            | (right == self._width)
            | (bottom == self._height),
        )

    def _find_pieces(
        self,
        rows: npt.NDArray[np.uint8],
        confidence: npt.NDArray[np.floating] | None,
        labels: npt.NDArray[np.unsignedinteger],
        count: int,
    ) -> _Pieces:
        """Return the pieces that these rows have, by their labels of 1 to ``count``.

        They are put together from runs, the pixels of one class side by side in a row. There are
        far fewer of these than pixels, so it takes a tenth of the time of `cc3d.statistics`.
        """
        flat = rows.ravel()
        begins = np.empty(flat.shape, dtype=np.bool_)
        np.not_equal(flat[1:], flat[:-1], out=begins[1:])
        begins[:: self._width] = True
        starts = np.flatnonzero(begins)
        length = np.diff(starts, append=len(flat))
        row, x = np.divmod(starts, self._width)
        y = row + self._row
        middle = x + (length - 1) / 2
        if confidence is None:
            sure = np.zeros(len(starts))
        else:
            sure = np.add.reduceat(confidence.ravel(), starts, dtype=np.float64)
        runs = _Pieces(
            flat[starts],
            np.stack([length, length * middle, length * y, sure]),
            np.stack([x, y, -x - length, -y - 1], dtype=np.int64),
        )
        pieces = runs.merge(labels[starts].astype(np.intp) - 1, count)
        before = self._row * self._width
        for places, values in self._evidence:
            label = labels[places - before].astype(np.intp)
            pieces.sums[3] += np.bincount(label - 1, values, count)
        self._evidence.clear()
        return pieces


def _connect(
    count: int, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Return for each of ``count`` nodes the least of those that edges connect it with.

    Args:
        first, second: intp [E], the ends of the edges.
    """
    root = np.arange(count)
    while not np.array_equal(root[first], root[second]):
        least = np.minimum(root[first], root[second])
        for end in (first, second):
            np.minimum.at(root, root[end], least)
        while not np.array_equal(root, jumped := root[root]):
            root = jumped
    return root
