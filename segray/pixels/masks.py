"""Masks: from logits at the network's resolution to class ids at the original one, and to PNG."""

import io
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from segray.pixels.cells import Band, Runs, cut_bands, find_winner, softmax_of_winner
from segray.pixels.labels import MAX_CLASSES, Labels
from segray.pixels.limits import MAX_MASK
from segray.pixels.regions import RegionFinder
from segray.pixels.statistics import ClassStatistics, Tally

#: Larger logits are refused: the difference of two must be finite in float32.
MAX_LOGIT = 1e38

# Up to this number of pixels all confidences are computed; sampling would save 0.5 ms.
_FEW_PIXELS = 1 << 14
# The number of pixels that are processed at once, if each logit is a pixel.
_PIXELS_AT_ONCE = 1 << 18


def segment_logits(
    logits: npt.NDArray[np.float32], height: int, width: int
) -> tuple[npt.NDArray[np.uint8], ClassStatistics]:
    """Interpolate logits to a resolution, find the winner of each pixel, and count.

    The interpolation is bilinear with half-pixel centres and clamped edges. The confidence of a
    pixel is the softmax probability of its winner, from the interpolated logits. Of classes with
    equal logits the first wins.

    The pixels between the same four logits are a cell. A cell whose four corners have the same
    winner is filled with it, which is exact (see `segray.pixels.cells`). In all other cells every
    pixel is computed, in float64.

    Counts are exact. So is the confidence of every computed pixel, and of all pixels if the image
    has at most 16,384 of them or if cells are at most two by two pixels. In the filled cells of
    other images the confidence is sampled at two by two points, placed so that polynomials of third
    degree are summed exactly. Compared with all pixels, on 36 photographs at four resolutions, the
    error of the mean confidence of a class is at most 2e-5 with the logits of a trained network,
    and at most 4e-4 if these are made 2, 4 and 16 times as steep. With independent noise on a grid
    of 16 by 16 logits or fewer, which no network outputs, it can be 2e-2.

    Args:
        logits: float32 [h, w, C], with C from 1 to 255.
        height: the number of rows of the mask.
        width: the number of columns of the mask.

    Returns:
        The mask, uint8 [height, width] of class ids, and its `ClassStatistics`.

    Raises:
        ValueError: a logit is not finite or beyond `MAX_LOGIT`, there are too many classes, or the
            mask would have no pixel.
    """
    builder = MaskBuilder(logits.shape, height, width)
    builder.add(logits)
    return builder.finish()


class MaskBuilder:
    """Makes a mask as `segment_logits` does, from logits that arrive row by row.

    Args:
        shape: h, w and C of all logits together.
        height: the number of rows of the mask.
        width: the number of columns of the mask.
        regions: is given the rows of the mask, and the confidences.

    Raises:
        ValueError: there are too many classes, or the mask would have no pixel.
    """

    def __init__(
        self, shape: tuple[int, ...], height: int, width: int, regions: RegionFinder | None = None
    ) -> None:
        _check_shape(shape, height, width)
        self._mask = np.empty((height, width), dtype=np.uint8)
        self._tally, self._regions = Tally(shape[2], regions), regions
        # The rows of logits that the next band may need, and the number of the first of them.
        self._waiting: npt.NDArray[np.float32] = np.empty((0, *shape[1:]), dtype=np.float32)
        self._first = 0
        self._as_they_are = shape[:2] == (height, width)
        self._rows = Runs.between(shape[0], height)
        self._columns = Runs.between(shape[1], width)
        longest = max(self._rows.longest, self._columns.longest)
        self._few = height * width <= _FEW_PIXELS and longest > 2
        self._bands = deque(cut_bands(shape, self._rows, self._columns))

    def add(self, logits: npt.NDArray[np.float32]) -> None:
        """Add the next rows of logits, float32 [n, w, C].

        Raises:
            ValueError: a logit is not finite or beyond `MAX_LOGIT`.
        """
        _check_logits(logits)
        if self._as_they_are:
            self._add_pixels(logits)
            return
        waiting = np.concatenate([self._waiting, logits]) if len(self._waiting) else logits
        end = self._first + len(waiting)
        while self._bands and self._rows.after[self._bands[0]][-1] < end:
            self._add_band(self._bands.popleft(), waiting)
        if self._bands:
            start = min(int(self._rows.before[self._bands[0]][0]), end)
            self._waiting, self._first = waiting[start - self._first :].copy(), start

    def finish(self) -> tuple[npt.NDArray[np.uint8], ClassStatistics]:
        """Return the mask and its statistics, when all rows have been added."""
        return self._mask, self._tally.statistics()

    def _add_pixels(self, logits: npt.NDArray[np.float32]) -> None:
        """Add rows of which each logit is a pixel."""
        step = max(1, _PIXELS_AT_ONCE // logits.shape[1])
        for start in range(0, len(logits), step):
            planes = np.moveaxis(logits[start : start + step], -1, 0)
            winner, best = find_winner(planes)
            confidence = softmax_of_winner(planes, best)
            self._tally.add(winner, confidence)
            if self._regions:
                self._regions.add(winner, confidence)
            self._mask[self._first : self._first + len(winner)] = winner
            self._first += len(winner)

    def _add_band(self, some: slice, waiting: npt.NDArray[np.float32]) -> None:
        """Add a band of cells, whose logits are among those waiting."""
        top, bottom = self._rows.before[some][0], self._rows.after[some][-1] + 1
        between = waiting[top - self._first : bottom - self._first]
        band = Band(between, self._rows.part(some), self._columns)
        if self._few:
            band.decided[:] = False
        else:
            band.fill(self._mask)
            band.sample(self._mask, self._tally)
        band.compute(self._mask, self._tally)
        if self._regions:
            first, count = self._rows.first[some], self._rows.count[some]
            self._regions.add(self._mask[first[0] : first[-1] + count[-1]])


def _check_shape(shape: tuple[int, ...], height: int, width: int) -> None:
    if len(shape) != 3 or not all(shape) or shape[2] > MAX_CLASSES:
        raise ValueError(
            f"logits of the shape {list(shape)} make no mask: they have to be [h, w, C] with at "
            f"most {MAX_CLASSES} classes"
        )
    if height < 1 or width < 1:
        raise ValueError(f"a mask of {width}x{height} pixels has none")


def _check_logits(logits: npt.NDArray[np.float32]) -> None:
    low, high = logits.min(), logits.max()
    # NaN is on neither side of a limit.
    if not (low >= -MAX_LOGIT and high <= MAX_LOGIT):
        raise ValueError(
            f"the network's logits reach from {low} to {high}, and have to be finite numbers "
            f"within {MAX_LOGIT:g}: the model is damaged, or has diverged in training"
        )


def encode_mask(mask: npt.NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> bytes:
    """Encode a mask as an indexed PNG, with as few bits per pixel as its palette needs.

    Args:
        mask: uint8 [H, W] of class ids, each below ``len(palette)``.
        palette: the RGB colour of each class.
    """
    image = _as_image(mask, "P")
    image.putpalette([channel for colour in palette for channel in colour])
    return _encode(image)


def encode_grey(mask: npt.NDArray[np.uint8]) -> bytes:
    """Encode a mask as a grey PNG of 8 bits, whose values every program reads as class ids.

    Args:
        mask: uint8 [H, W] of class ids.
    """
    return _encode(_as_image(mask, "L"))


def encode_values(mask: npt.NDArray[np.uint8], labels: Labels) -> bytes:
    """Encode a mask as a PNG of its mask values, as `segray.pixels.mask_files.read_mask` reads it.

    Values up to 255 get the colours of their classes, so that viewers and editors show them.

    Args:
        mask: uint8 [H, W] of class ids.
        labels: the classes.
    """
    if labels.coloured:
        return _encode(Image.fromarray(np.array(labels.palette, dtype=np.uint8)[mask]))
    if max(labels.values) > 255:
        return _encode(Image.fromarray(np.array(labels.values, dtype=np.uint16)[mask]))
    image = _as_image(np.array(labels.values, dtype=np.uint8)[mask], "P")
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[list(labels.values)] = labels.palette
    image.putpalette(palette.tobytes())
    return _encode(image)


def _as_image(mask: npt.NDArray[np.uint8], mode: str) -> Image.Image:
    # Without copying the mask, which for a large mask costs as much as writing it.
    height, width = mask.shape
    return Image.frombuffer(mode, (width, height), np.ascontiguousarray(mask), "raw", mode, 0, 1)


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Level 1 is twice as fast as the default on large masks, and masks are small in any case.
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode_mask(png: bytes) -> npt.NDArray[Any]:
    """Decode the class ids that `encode_mask` or `encode_grey` encoded, uint8 [H, W].

    Raises:
        ValueError: the mask has more pixels than those of any image that is segmented.
        Exception: it is no PNG, or damaged.
    """
    # Not by `Image.open`, which refuses the masks of large images.
    with PngImageFile(io.BytesIO(png)) as image:
        if image.width * image.height > MAX_MASK:
            raise ValueError(f"the mask claims {image.width} x {image.height} pixels")
        return np.asarray(image, dtype=np.uint8)


def decode_class_ids(png: bytes, classes: int) -> npt.NDArray[np.uint8]:
    """Decode a mask as `decode_mask` does, and verify that all of its classes exist.

    Args:
        png: the content of the file.
        classes: the number of classes.

    Raises:
        ValueError: it is damaged, or has another class; the message is the reason, for a person.
    """
    try:
        mask: npt.NDArray[np.uint8] = decode_mask(png)
    except Exception as error:
        # Codecs raise errors of many kinds: OSError, SyntaxError, struct.error, ...
        raise ValueError(f"its mask is damaged ({type(error).__name__})") from error
    if mask.max() >= classes:
        raise ValueError(f"its mask has the class id {mask.max()}")
    return mask
