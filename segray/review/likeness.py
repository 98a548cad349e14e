"""Likeness: whether two images show much the same, such as neighbouring frames of a video."""

import numpy as np
import numpy.typing as npt

from segray.pixels.thumbnails import read_segmented
from segray.pixels.wide import ValueRange

# The side to which images are squashed to be compared, in pixels.
_SIDE = 16
# The correlation of their pixels above which two images are alike.
_ALIKE = 0.95


def describe_image(
    content: bytes, width: int, height: int, value_range: ValueRange | None
) -> npt.NDArray[np.float32]:
    """Return what an image is compared by: its small pixels, of mean 0 and length 1.

    An image of a single colour is described by zeros, and is like no other one.

    Args:
        content: the content of the image file.
        width: its width when it was segmented, in pixels.
        height: its height, likewise.
        value_range: the range that it was segmented with.

    Raises:
        DecodeError: it cannot be decoded, or has another size now.
    """
    picture = read_segmented(content, width, height, _SIDE, value_range)
    values = picture.pixels.astype(np.float32).ravel()
    values -= values.mean()
    length = np.linalg.norm(values)
    return values / length if length else values


class Gathering:
    """Images of which no two are alike."""

    def __init__(self) -> None:
        self._described: list[npt.NDArray[np.float32]] = []

    def __len__(self) -> int:
        return len(self._described)

    def admit(self, described: npt.NDArray[np.float32]) -> bool:
        """Take an image, unless it is like one that is there, and return whether it was taken."""
        if self._described and float((np.stack(self._described) @ described).max()) > _ALIKE:
            return False
        self._described.append(described)
        return True
