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
    """Return what an image is compared by: its small pixels, of length 1.

    The mean of each channel is 0, so that images are not alike because they have the same colours.
    Images of a single colour are like each other, and like no other image.

    Args:
        content: the content of the image file.
        width: its width when it was segmented, in pixels.
        height: its height, likewise.
        value_range: the range that it was segmented with.

    Raises:
        DecodeError: it cannot be decoded, or has another size now.
    """
    picture = read_segmented(content, width, height, _SIDE, value_range)
    pixels = picture.pixels.astype(np.float32)
    values = (pixels - pixels.mean(axis=(0, 1))).ravel()
    if not values.any():
        values += 1
    return values / np.linalg.norm(values)


class Gathering:
    """Images of which no two are alike.

    Args:
        most: the number of images that it may hold.
    """

    def __init__(self, most: int) -> None:
        self._described = np.empty((most, 3 * _SIDE * _SIDE), dtype=np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def admit(self, described: npt.NDArray[np.float32]) -> bool:
        """Take an image, unless it is like one that is there, and return whether it was taken."""
        there = self._described[: self._count]
        if len(there) and float((there @ described).max()) > _ALIKE:
            return False
        self._described[self._count] = described
        self._count += 1
        return True
