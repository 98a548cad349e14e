"""Windows: overlapping parts of a large image, and one map of logits blended from theirs."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Axis:
    """The windows along one side of an image.

    Attributes:
        starts: the first pixel of each window, in ascending order.
        weights: float32 [windows, side], the weight of each pixel of each window. The weights of
            all windows at a pixel of the image sum to one.
    """

    starts: list[int]
    weights: npt.NDArray[np.float32]

    @classmethod
    def cover(cls, length: int, side: int, overlap: float) -> "Axis":
        """Return the fewest equidistant windows that cover a side of an image.

        Args:
            length: the length of the image's side, in pixels, at least that of a window.
            side: the length of a window's side.
            overlap: the least share of a window that the next one overlaps, 0 to 1 (excluded).
        """
        step = max(1, math.floor(side * (1 - overlap)))
        count = 1 + -(-(length - side) // step)
        starts = [round(i * (length - side) / max(1, count - 1)) for i in range(count)]
        # The nearer a pixel is to a border of its window, the less of its surroundings the network
        # sees. Squared, the weights change smoothly over the whole overlap, however wide it is.
        pixels = np.arange(side)
        bell = np.minimum(pixels + 0.5, side - 0.5 - pixels) ** 2
        total = np.zeros(length)
        for start in starts:
            total[start : start + side] += bell
        weights = np.stack([bell / total[start : start + side] for start in starts])
        return cls(starts, weights.astype(np.float32))

    def __len__(self) -> int:
        return len(self.starts)


class Grid:
    """The windows of an image, row by row from the upper left.

    An image that is smaller than a window has a margin on the right or below.

    Args:
        height: the height of the image, in pixels.
        width: the width of the image.
        window: the height and width of a window.
        overlap: see `Axis.cover`.
    """

    def __init__(self, height: int, width: int, window: tuple[int, int], overlap: float) -> None:
        self.height, self.width, self.window = height, width, window
        self.rows = Axis.cover(max(height, window[0]), window[0], overlap)
        self.columns = Axis.cover(max(width, window[1]), window[1], overlap)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)


class Blender:
    """Blends the logits of windows, in no more memory than one row of windows takes.

    Args:
        grid: the windows.
        classes: C, the number of classes.
    """

    def __init__(self, grid: Grid, classes: int) -> None:
        self._grid = grid
        height, width = grid.window[0], max(grid.width, grid.window[1])
        self._row = self._column = 0
        # The sums of all windows so far, from the first row of pixels that is not complete.
        self._sums = np.zeros((height, width, classes), dtype=np.float32)

    def add(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
        """Add the logits of the next window, float32 [h, w, C].

        Returns:
            The rows of the image that this window completes, float32 [n, W, C], not to be kept;
            None if there is none.
        """
        grid, row, column = self._grid, self._row, self._column
        weights = grid.rows.weights[row][:, None] * grid.columns.weights[column]
        left = grid.columns.starts[column]
        self._sums[:, left : left + grid.window[1]] += weights[..., None] * logits
        self._column += 1
        if self._column < len(grid.columns):
            return None
        self._row, self._column = row + 1, 0
        if self._row == len(grid.rows):
            return self._sums[: grid.height - grid.rows.starts[row], : grid.width]
        done = grid.rows.starts[self._row] - grid.rows.starts[row]
        finished = self._sums[:done, : grid.width].copy()
        kept = len(self._sums) - done
        self._sums[:kept] = self._sums[done:]
        self._sums[kept:] = 0
        return finished
