"""Crops: parts of images of any size, which the network sees in place of whole images."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from segray.pixels.framing import PADDING
from segray.pixels.labels import IGNORED
from segray.pixels.windows import Grid

_Image = npt.NDArray[np.uint8]
_Indices = npt.NDArray[np.int64]

# The number of pixels of a mask that are looked at for a class: of a larger one, every second or
# third row and column, and so on.
_LOOKED_AT = 1 << 20


@dataclass(frozen=True)
class Crops:
    """The places of some crops, all of one size.

    Attributes:
        examples: int64 [b], the index of each crop's example.
        corners: int64 [b, 2], the row and column of its upper left pixel, which may lie outside of
            the image. What lies outside is grey and ignored.
        focus: float64 [b, 2], numbers from 0 to 1 that choose a class of the mask, and a pixel of
            it that the crop is laid around instead; NaN for none.
        shape: height and width of the crops, in pixels.
    """

    examples: _Indices
    corners: npt.NDArray[np.int64]
    focus: npt.NDArray[np.float64]
    shape: tuple[int, int]

    def cut(self, images: Sequence[_Image], masks: Sequence[_Image]) -> tuple[_Image, _Image]:
        """Cut the crops from their images and masks.

        Args:
            images: the image of each crop, uint8 [H, W, 3].
            masks: its class ids, uint8 [H, W].

        Returns:
            uint8 [b, h, w, 3] and uint8 [b, h, w].
        """
        count = len(self.examples)
        pixels = np.full((count, *self.shape, 3), PADDING, dtype=np.uint8)
        class_ids = np.full((count, *self.shape), IGNORED, dtype=np.uint8)
        for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
            corner = self.corners[number]
            if not np.isnan(self.focus[number, 0]):
                corner = _find_corner(mask, self.focus[number], self.shape, corner)
            inside = np.clip([corner, corner + self.shape], 0, mask.shape)
            source = tuple(slice(*ends) for ends in inside.T)
            target = tuple(slice(*ends) for ends in (inside - corner).T)
            pixels[number][target] = image[source]
            class_ids[number][target] = mask[source]
        return pixels, class_ids


def _find_corner(
    mask: _Image,
    focus: npt.NDArray[np.float64],
    shape: tuple[int, int],
    corner: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Return the corner of a crop around a pixel of a class; every class is equally likely."""
    stride = math.ceil(math.sqrt(mask.size / _LOOKED_AT))
    some = mask[::stride, ::stride]
    present = np.flatnonzero(np.bincount(some.ravel(), minlength=IGNORED + 1)[:IGNORED])
    if not len(present):
        return corner
    chosen = present[int(focus[0] * len(present))]
    places = np.flatnonzero(some == chosen)
    place = places[int(focus[1] * len(places))]
    pixel = stride * np.array(np.unravel_index(place, some.shape))
    return np.asarray(pixel - np.array(shape) // 2, dtype=np.int64)


def count_crops(sizes: npt.NDArray[np.int64], shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the number of crops of each image in an epoch: as many as its pixels are worth.

    Args:
        sizes: int64 [N, 2], height and width of each image.
        shape: height and width of a crop.
    """
    return np.maximum(1, np.rint(sizes.prod(axis=1) / np.prod(shape))).astype(np.int64)


def place_crops(
    examples: _Indices,
    sizes: npt.NDArray[np.int64],
    places: npt.NDArray[np.float64],
    window: tuple[int, int],
    shape: tuple[int, int],
    foreground_share: float,
) -> Crops:
    """Lay windows anywhere inside of images, and return the crops with a margin around them.

    Args:
        examples: int64 [b], the index of each crop's example.
        sizes: int64 [b, 2], height and width of each image.
        places: float64 [b, 5], random numbers from 0 to 1.
        window: height and width of the windows. An image that is smaller lies anywhere inside.
        shape: height and width of the crops, at least those of a window.
        foreground_share: the share of the crops that are laid around a pixel of a class.
    """
    room = sizes - window
    inner = np.where(
        room >= 0, np.floor(places[:, :2] * (room + 1)), -np.floor(places[:, :2] * (1 - room))
    )
    margin = (np.array(shape) - window) / 2
    corners = (inner - margin).astype(np.int64)
    focus = np.where(places[:, 2:3] < foreground_share, places[:, 3:], np.nan)
    return Crops(examples, corners, focus, shape)


class Readable(Protocol):
    """Examples that can be read by their indices, or by crops."""

    def read(self, batches: Iterable[Any]) -> Iterator[tuple[_Image, _Image]]:
        """Yield the images and masks of each batch."""
        ...


class WindowedExamples:
    """Examples of any size, as windows that cover each of their pixels once.

    Args:
        examples: the examples.
        sizes: int64 [N, 2], height and width of each image.
        window: height and width of a window.
    """

    def __init__(
        self, examples: Readable, sizes: npt.NDArray[np.int64], window: tuple[int, int]
    ) -> None:
        self._examples, self._window = examples, window
        places = []
        for number, (height, width) in enumerate(sizes.tolist()):
            grid = Grid(height, width, window, overlap=0)
            # Side by side, not shifted to end at the border: no pixel is in two of them.
            places += [
                (number, row * window[0], column * window[1])
                for row in range(len(grid.rows))
                for column in range(len(grid.columns))
            ]
        self._places = np.array(places, dtype=np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self._places)

    def read(self, batches: Iterable[_Indices]) -> Iterator[tuple[_Image, _Image]]:
        """Yield the images and masks of each batch of windows."""
        return self._examples.read(self._find(indices) for indices in batches)

    def _find(self, indices: _Indices) -> Crops:
        places = self._places[indices]
        nowhere = np.full((len(indices), 2), np.nan)
        return Crops(places[:, 0], places[:, 1:], nowhere, self._window)
