"""Cells: the pixels between the same four logits, and the cells with a single winner.

The set of logit vectors that a class wins (with the first of the largest logits) is convex, and a
bilinear value is a convex combination of its corners. A cell whose corners have the same winner
therefore has it everywhere, ties included. Only the other cells need a computation for each pixel.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segray.pixels.labels import IGNORED
from segray.pixels.statistics import Tally

# The maximum side of a cell, in pixels; larger ones are divided.
_CELL_SIDE = 32
# Limits of the logits of a band of cells, and of the pixels and the logits of a block of computed
# pixels. They bound the memory for any size of the image and number of classes.
_BAND_LOGITS = 1 << 20
_BLOCK_PIXELS = 1 << 15
_BLOCK_LOGITS = 1 << 17

_Floats = npt.NDArray[np.floating[Any]]
# For each class, its logits at the upper left, upper right, lower left and lower right of cells.
_FourArrays = tuple[_Floats, _Floats, _Floats, _Floats]


@dataclass(frozen=True)
class Runs:
    """The pixels of one axis, in runs of up to `_CELL_SIDE` that lie between the same two logits.

    Attributes:
        before, after: intp [R], the indices of the two logits.
        first, count: intp [R], the first pixel of the run and its number of pixels.
        place: float64 [pixels of the axis], the position of a pixel between its two logits, 0 to 1.
        samples: float64 [2, R] (or [1, R], if all runs are one pixel long), positions that
            represent all pixels of a run: its middle, minus and plus the standard deviation of its
            pixels. This is the two-point Gauss rule of n equidistant points, whose variance is
            (n**2 - 1) / 12. For two pixels these are the pixels themselves.
    """

    before: npt.NDArray[np.intp]
    after: npt.NDArray[np.intp]
    first: npt.NDArray[np.intp]
    count: npt.NDArray[np.intp]
    place: npt.NDArray[np.float64]
    samples: npt.NDArray[np.float64]

    @classmethod
    def between(cls, size: int, target: int) -> "Runs":
        """Return the runs of an axis of ``target`` pixels over ``size`` logits."""
        position = (np.arange(target) + 0.5) * (size / target) - 0.5
        below = np.floor(position)
        first = np.flatnonzero(np.diff(below, prepend=-2))
        # Divide a run that is too long into equal pieces.
        count = np.diff(first, append=target)
        pieces = -(-count // _CELL_SIDE)
        run = np.repeat(np.arange(len(first)), pieces)
        piece = np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        first = first[run] + piece * count[run] // pieces[run]

        count = np.diff(first, append=target)
        last = first + count - 1
        place = position - below
        middle = (place[first] + place[last]) / 2
        deviation = np.sqrt((count**2 - 1) / 12) * (size / target)
        return cls(
            before=np.maximum(below[first], 0).astype(np.intp),
            # Equal to `before` if a pixel lies exactly on a logit.
            after=np.clip(np.ceil(position[last]), 0, size - 1).astype(np.intp),
            first=first,
            count=count,
            place=place,
            samples=np.stack([middle - deviation, middle + deviation][: count.max()]),
        )

    def __len__(self) -> int:
        return len(self.first)

    @property
    def longest(self) -> int:
        """The number of pixels of the longest run."""
        return int(self.count.max())

    def part(self, some: slice) -> "Runs":
        """Return a slice of the runs, whose logits are counted from the first of them."""
        top = self.before[some][0]
        return replace(
            self,
            before=self.before[some] - top,
            after=self.after[some] - top,
            first=self.first[some],
            count=self.count[some],
            samples=self.samples[:, some],
        )

    def pixels(
        self, runs: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Return the pixels of runs, intp [longest, len(runs)].

        A run shorter than the longest repeats its last pixel; the second array, bool of the same
        shape, is True for repetitions.
        """
        number = np.arange(self.longest)[:, None]
        last = self.count[runs] - 1
        return self.first[runs] + np.minimum(number, last), number > last


def cut_bands(shape: tuple[int, ...], rows: Runs, columns: Runs) -> Iterator[slice]:
    """Cut the rows of cells into bands of about `_BAND_LOGITS` logits."""
    height, width, classes = shape
    # With few classes the number of cells matters, because each has four samples.
    values = max(classes, 32) * max(width, len(columns)) * -(-height // len(rows))
    step = max(1, _BAND_LOGITS // values)
    return (slice(start, start + step) for start in range(0, len(rows), step))


class Band:
    """Some rows of cells, and the logits that they lie between.

    Args:
        logits: float32 [n, w, C].
        rows: the rows of cells, with logits counted from the first of these.
        columns: the columns of cells.
    """

    def __init__(self, logits: npt.NDArray[np.float32], rows: Runs, columns: Runs) -> None:
        self._logits = np.ascontiguousarray(np.moveaxis(logits, -1, 0))
        self._winner, self._best = find_winner(self._logits)
        self._rows, self._columns = rows, columns
        upper, lower = self._winner[rows.before], self._winner[rows.after]
        #: uint8 [rows, columns], the winner at the upper left corner of each cell.
        self.winner = upper[:, columns.before]
        #: bool [rows, columns], True if the other corners have the same winner.
        self.decided = self.winner == upper[:, columns.after]
        self.decided &= self.winner == lower[:, columns.before]
        self.decided &= self.winner == lower[:, columns.after]

    def fill(self, mask: npt.NDArray[np.uint8]) -> None:
        """Fill each cell of the mask with its winner, even if it is not decided."""
        first, count = self._rows.first[0], self._rows.count
        wide = np.repeat(self.winner, self._columns.count, axis=1)
        row = np.repeat(np.arange(len(count)), count)
        # Any mode but the default one writes directly into the mask.
        np.take(wide, row, axis=0, out=mask[first : first + len(row)], mode="clip")

    def sample(self, mask: npt.NDArray[np.uint8], tally: Tally) -> None:
        """Count the decided cells of the mask, with their confidence at a few points."""
        down, along = self._rows.samples[:, :, None], self._columns.samples[:, None]
        corners = map(self._corners_of_all, self._logits)
        planes = _interpolate(corners, down.astype(np.float32), along.astype(np.float32))
        tally.add(
            np.where(self.decided, self.winner, np.uint8(IGNORED)),
            # The winner's logits of a decided cell are 0. The samples are the first two axes.
            softmax_of_winner(planes, 0).mean(axis=(0, 1)),
            np.multiply.outer(self._rows.count, self._columns.count, dtype=np.float64),
            self._rows.first[:, None] * mask.shape[1] + self._columns.first,
        )

    def compute(self, mask: npt.NDArray[np.uint8], tally: Tally) -> None:
        """Compute and count every pixel of the cells that are not decided."""
        rows, columns = np.nonzero(~self.decided)
        block = min(
            _BLOCK_PIXELS // (self._rows.longest * self._columns.longest),
            _BLOCK_LOGITS // len(self._logits),
        )
        for start in range(0, len(rows), block):
            some = slice(start, start + block)
            self._compute_some(rows[some], columns[some], mask, tally)

    def _compute_some(
        self,
        rows: npt.NDArray[np.intp],
        columns: npt.NDArray[np.intp],
        mask: npt.NDArray[np.uint8],
        tally: Tally,
    ) -> None:
        """Compute the cells at ``rows``, ``columns`` (intp [N]); arrays are [rows, columns, N]."""
        y, no_row = self._rows.pixels(rows)
        x, no_column = self._columns.pixels(columns)
        down, along = self._rows.place[y], self._columns.place[x]
        corners = list(self._corners_of(rows, columns))
        winner, best = find_winner(_interpolate(zip(*corners, strict=True), down, along))
        places = (y * mask.shape[1])[:, None] + x
        mask.reshape(-1)[places] = winner

        # Interpolating again costs no more than keeping the logits of all classes.
        confidence = softmax_of_winner(_interpolate(zip(*corners, strict=True), down, along), best)
        winner[no_row[:, None] | no_column] = IGNORED
        tally.add(winner, confidence, places=places)

    def _corners_of_all(self, plane: npt.NDArray[np.float32]) -> _FourArrays:
        """Return the corners of all cells for a class, float32 [rows, columns], minus the best."""
        less = plane - self._best
        left, right = less.take(self._columns.before, 1), less.take(self._columns.after, 1)
        before, after = self._rows.before, self._rows.after
        return (
            left.take(before, 0),
            right.take(before, 0),
            left.take(after, 0),
            right.take(after, 0),
        )

    def _corners_of(
        self, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
    ) -> Iterator[npt.NDArray[np.float64]]:
        """Yield the corners of some cells for all classes, float64 [C, N], minus the best."""
        planes, best = self._logits.reshape(len(self._logits), -1), self._best.ravel()
        for row in (self._rows.before[rows], self._rows.after[rows]):
            for column in (self._columns.before[columns], self._columns.after[columns]):
                place = row * self._best.shape[1] + column
                yield planes.take(place, 1).astype(np.float64) - best.take(place)


def _interpolate(
    corners: Iterable[_FourArrays], down: _Floats, along: _Floats
) -> Iterator[_Floats]:
    """Interpolate the logits between four corners, class by class.

    Args:
        corners: for each class, four arrays [...].
        down, along: the weights of the lower and of the right corners, [D, ...] and [A, ...].

    Yields:
        For each class an array [D, A, ...].
    """
    for upper_left, upper_right, lower_left, lower_right in corners:
        upper = along * (upper_right - upper_left)
        upper += upper_left
        difference = along * (lower_right - lower_left)
        difference += lower_left
        difference -= upper
        values = down[:, None] * difference
        values += upper
        yield values


def find_winner(planes: Iterable[_Floats]) -> tuple[npt.NDArray[np.uint8], _Floats]:
    """Return the class with the largest logit, and that logit.

    Computed class by class, because numpy's argmax over a short axis takes several times as long.

    Args:
        planes: the logits of each class, all of one shape.

    Returns:
        The class ids, uint8, and the logits, in the dtype of the planes, both of that shape. Of
        equal logits the first wins.
    """
    planes = iter(planes)
    best = np.array(next(planes))
    winner = np.zeros(best.shape, dtype=np.uint8)
    for class_id, values in enumerate(planes, start=1):
        better = (values > best).view(np.uint8)
        better *= np.uint8(class_id)
        # Class ids ascend, so the maximum is the last class that was better than all before it.
        np.maximum(winner, better, out=winner)
        np.maximum(best, values, out=best)
    return winner, best


def softmax_of_winner(planes: Iterable[_Floats], best: _Floats | float) -> npt.NDArray[np.float32]:
    """Return the softmax probability of the class whose logits are ``best``.

    Args:
        planes: the logits of each class, all of one shape.
        best: the logits of the winner, of that shape, or a constant.
    """
    total: Any = np.float32(0)
    for values in planes:
        share = np.empty(values.shape, dtype=np.float32)
        np.subtract(values, best, out=share)
        total += np.exp(share, out=share)
    # The winner's own term is 1. It can be missing in a sample of an undecided cell, which is not
    # counted.
    return 1 / np.maximum(total, 1)
