"""Crops: parts of images of any size, which the network sees in place of whole images."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
        focus: float64 [b, 4], numbers from 0 to 1 that choose a class of the mask and a pixel of
            it; and the row and column of the crop at which that pixel is to be, instead. NaN for
            none.
        views: float64 [b, 4], the first row and column of a crop that its augmentation shows, and
            those behind the last. What a focused crop shows lies inside of the image.
        shape: height and width of the crops, in pixels.
    """

    examples: _Indices
    corners: npt.NDArray[np.int64]
    focus: npt.NDArray[np.float64]
    views: npt.NDArray[np.float64]
    shape: tuple[int, int]

    def take(self, numbers: Sequence[int]) -> "Crops":
        """Return some of the crops."""
        some = list(numbers)
        return replace(
            self,
            examples=self.examples[some],
            corners=self.corners[some],
            focus=self.focus[some],
            views=self.views[some],
        )

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
                corner = self._find_corner(mask, number)
            inside = np.clip([corner, corner + self.shape], 0, mask.shape)
            source = tuple(slice(*ends) for ends in inside.T)
            target = tuple(slice(*ends) for ends in (inside - corner).T)
            pixels[number][target] = image[source]
            class_ids[number][target] = mask[source]
        return pixels, class_ids

    def _find_corner(self, mask: _Image, number: int) -> npt.NDArray[np.int64]:
        """Return the corner of a crop that has a pixel of a class, each equally likely."""
        stride = math.ceil(math.sqrt(mask.size / _LOOKED_AT))
        some = mask[::stride, ::stride]
        present = np.flatnonzero(np.bincount(some.ravel(), minlength=IGNORED + 1)[:IGNORED])
        if not len(present):
            return self.corners[number]
        focus, view = self.focus[number], self.views[number]
        chosen = present[int(focus[0] * len(present))]
        places = np.flatnonzero(some == chosen)
        place = places[int(focus[1] * len(places))]
        pixel = stride * np.array(np.unravel_index(place, some.shape))
        corner = pixel - np.floor(focus[2:])
        ends = -view[:2], np.array(mask.shape) - view[2:]
        return np.rint(np.clip(corner, np.minimum(*ends), np.maximum(*ends))).astype(np.int64)


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
    warps: npt.NDArray[np.float32],
    window: tuple[int, int],
    shape: tuple[int, int],
    foreground_share: float,
) -> Crops:
    """Lay windows anywhere inside of images, and return the crops with a margin around them.

    Args:
        examples: int64 [b], the index of each crop's example.
        sizes: int64 [b, 2], height and width of each image.
        places: float64 [b, 7], random numbers from 0 to 1.
        warps: float32 [b, 8], what the augmentation makes of the crops, see
            `segray.training.data.batches.Draw`.
        window: height and width of the windows. An image that is smaller lies anywhere inside.
        shape: height and width of the crops, at least those of a window.
        foreground_share: the share of the crops that show, after their augmentation, a pixel of a
            class that is drawn.
    """
    room = sizes - window
    inner = np.where(
        room >= 0, np.floor(places[:, :2] * (room + 1)), -np.floor(places[:, :2] * (1 - room))
    )
    margins = (shape[0] - window[0]) // 2, (shape[1] - window[1]) // 2
    corners = inner.astype(np.int64) - np.array(margins)

    def find(y: Any, x: Any) -> npt.NDArray[np.float64]:
        """Return the row and the column of the crop that the augmentation brings to (x, y)."""
        rows = warps[:, 3] * x + warps[:, 4] * y + warps[:, 5]
        return np.stack([rows, warps[:, 0] * x + warps[:, 1] * y + warps[:, 2]], axis=1)

    focus = np.concatenate([places[:, 3:5], find(*(places[:, 5:] * window).T)], axis=1)
    focus[places[:, 2] >= foreground_share] = np.nan
    ends = [find(y, x) for y in (0, window[0] - 1) for x in (0, window[1] - 1)]
    views = np.concatenate([np.min(ends, axis=0), np.max(ends, axis=0) + 1], axis=1)
    return Crops(examples, corners, focus, views, shape)


class Readable(Protocol):
    """Examples that can be read by their indices, or by crops."""

    def read(self, batches: Iterable[Any]) -> Iterator[tuple[_Image, _Image]]:
        """Yield the images and masks of each batch."""
        ...


class WindowedExamples:
    """Examples of any size, as windows like those that segmenting slides over them.

    Windows lie inside of their image, unless that is smaller. What an earlier one has is ignored,
    so that each pixel counts once.

    Args:
        examples: the examples.
        sizes: int64 [N, 2], height and width of each image.
        window: height and width of a window.
    """

    def __init__(
        self, examples: Readable, sizes: npt.NDArray[np.int64], window: tuple[int, int]
    ) -> None:
        self._examples, self._window = examples, window
        # For each window its example, its corner, and the rows and columns that others have.
        places = []
        for number, (height, width) in enumerate(sizes.tolist()):
            grid = Grid(height, width, window, overlap=0)
            places += [
                (number, top, left, seen_above, seen_left)
                for top, seen_above in _starts(grid.rows.starts, window[0])
                for left, seen_left in _starts(grid.columns.starts, window[1])
            ]
        self._places = np.array(places, dtype=np.int64).reshape(-1, 5)

    def __len__(self) -> int:
        return len(self._places)

    def read(self, batches: Iterable[_Indices]) -> Iterator[tuple[_Image, _Image]]:
        """Yield the images and masks of each batch of windows."""
        batches, again = itertools.tee(batches)
        arrays = self._examples.read(self._find(indices) for indices in batches)
        for indices, (images, masks) in zip(again, arrays, strict=True):
            yield images, np.where(self.counts(indices), masks, IGNORED).astype(np.uint8)

    def counts(self, indices: _Indices) -> npt.NDArray[np.bool_]:
        """Return which pixels of some windows count, bool [b, H, W]: those no earlier one has."""
        above, left = self._places[indices, 3:].T
        rows, columns = map(np.arange, self._window)
        return (rows >= above[:, None])[:, :, None] & (columns >= left[:, None])[:, None]

    def _find(self, indices: _Indices) -> Crops:
        places = self._places[indices]
        nowhere = np.full((len(indices), 4), np.nan)
        return Crops(places[:, 0], places[:, 1:3], nowhere, nowhere, self._window)


def _starts(starts: Sequence[int], side: int) -> Iterator[tuple[int, int]]:
    """Yield the start of each window, and the number of its pixels that the one before has."""
    end = 0
    for start in starts:
        yield start, end - start
        end = start + side
