"""The canvas: what the network sees of a picture, and the map of logits that comes of it."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from segray.errors import require
from segray.pixels.decoding import Picture
from segray.pixels.framing import PADDING, Frame
from segray.pixels.windows import Blender, Grid

#: The least share of a window that the next one overlaps.
OVERLAP = 0.25
# With more, a pixel would be in hundreds of windows.
_MOST_OVERLAP = 0.9


def check_overlap(overlap: float) -> None:
    """Refuse an overlap at which windows would hardly advance.

    Raises:
        InputError: it is not in 0 to `_MOST_OVERLAP`.
    """
    require(
        0 <= overlap <= _MOST_OVERLAP, f"--overlap {overlap:g} must be in 0 to {_MOST_OVERLAP:g}"
    )


class Canvas:
    """Hands out the windows of a picture, and puts together the logits of the whole of it.

    A picture that was squashed or letterboxed is one window.

    Args:
        picture: the picture, brought to the frame.
        frame: the frame of the network.
        classes: C, the number of classes.
        overlap: the least share of a window that the next one overlaps, 0 to 0.9.

    Attributes:
        shape: h, w and C of all logits together.
    """

    def __init__(
        self, picture: Picture, frame: Frame, classes: int, overlap: float = OVERLAP
    ) -> None:
        self._picture, self._frame = picture, frame
        self.shape = (picture.box.height, picture.box.width, classes)
        self._blender: Blender | None = None
        if frame.fit == "tile":
            self._grid = Grid(*self.shape[:2], frame.shape, overlap)
            self._blender = Blender(self._grid, classes)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._grid) if self._blender else 1

    def windows(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the windows, uint8 [H, W, 3] RGB."""
        if not self._blender:
            yield self._picture.pixels
            return
        height, width = self._frame.shape
        for top in self._grid.rows.starts:
            bottom = top + height
            if self._picture.rows is None:
                rows = self._picture.pixels[top:bottom]
            else:
                rows = self._picture.rows[top:bottom]
            for left in self._grid.columns.starts:
                window = rows[:, left : left + width]
                if window.shape[:2] != (height, width):
                    margins = [(0, height - window.shape[0]), (0, width - window.shape[1]), (0, 0)]
                    window = np.pad(window, margins, constant_values=PADDING)
                yield window

    def add(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
        """Add the logits of the next window, float32 [H, W, C].

        Returns:
            The next rows of the logits of the whole picture, float32 [n, w, C], not to be kept;
            None if the window completes none.
        """
        if self._blender:
            return self._blender.add(logits)
        return logits[self._picture.box.slices]
