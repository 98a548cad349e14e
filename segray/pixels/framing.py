"""Frames: the rectangle of pixels that the network takes, and where an image lies in it."""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from segray.pixels.labels import IGNORED

Fit = Literal["squash", "letterbox", "tile"]

#: The greatest factor by which images are enlarged before windows are cut from them.
MAX_SCALE = 16.0
#: The grey around an image that is smaller than its frame: black and white are equally far from it.
PADDING = 128


class Box(NamedTuple):
    """The place of an image in a frame, in pixels of the frame."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and the columns of the box."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )


@dataclass(frozen=True)
class Frame:
    """The rectangle that images of every size are brought to.

    Attributes:
        height: the number of rows, in pixels.
        width: the number of columns, in pixels.
        fit: ``squash`` scales each side of an image to that of the frame. ``letterbox`` scales both
            sides alike, so that the image just fits, and centres it between bars of grey. ``tile``
            keeps the image, whatever its size; the frame is that of a window.
        scale: the factor by which an image is scaled before windows are cut from it.
    """

    height: int
    width: int
    fit: Fit = "squash"
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """The height and the width."""
        return self.height, self.width

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        return self.height * self.width

    def resize(self, factor: float) -> "Frame":
        """Return the same frame at another resolution."""
        return replace(self, height=round(self.height * factor), width=round(self.width * factor))

    def place(self, height: int, width: int) -> Box:
        """Return where an image lies in the frame; with ``tile``, the size that it is scaled to.

        Args:
            height: the original height of the image, upright, in pixels.
            width: its original width.
        """
        if self.fit == "squash":
            return Box(0, 0, self.height, self.width)
        if self.fit == "tile":
            return Box(0, 0, round(height * self.scale), round(width * self.scale))
        factor = min(self.height / height, self.width / width)
        inner_height = min(self.height, max(1, round(height * factor)))
        inner_width = min(self.width, max(1, round(width * factor)))
        top, left = (self.height - inner_height) // 2, (self.width - inner_width) // 2
        return Box(top, left, inner_height, inner_width)

    def crop(self, array: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
        """Return the part of an array in which an image lies, without a copy.

        Args:
            array: pixels, class ids or logits of the whole frame, [H, W] or [H, W, C].
            height: the original height of the image, upright, in pixels.
            width: its original width.
        """
        return array[self.place(height, width).slices]

    def pad(self, pixels: npt.NDArray[np.uint8], box: Box) -> npt.NDArray[np.uint8]:
        """Surround an image that has been scaled to its place by grey, to the size of the frame.

        Args:
            pixels: uint8 [h, w, 3], of the size of the box.
            box: the place.

        Returns:
            uint8 [H, W, 3]; with ``tile``, the image.
        """
        return self._surround(pixels, box, PADDING)

    def scale_mask(self, class_ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Scale class ids to the place of their image, by nearest neighbour.

        Args:
            class_ids: uint8 [h, w] at the original resolution of the image.

        Returns:
            uint8 [H, W], `segray.pixels.labels.IGNORED` around the image; with ``tile``, of the
            size of the scaled image.
        """
        box = self.place(*class_ids.shape)
        small = Image.fromarray(class_ids).resize((box.width, box.height), Image.Resampling.NEAREST)
        return self._surround(np.asarray(small), box, IGNORED)

    def _surround(
        self, inner: npt.NDArray[np.uint8], box: Box, value: int
    ) -> npt.NDArray[np.uint8]:
        if inner.shape[:2] == self.shape or self.fit == "tile":
            return inner
        framed = np.full((*self.shape, *inner.shape[2:]), value, dtype=np.uint8)
        framed[box.slices] = inner
        return framed
