"""Masks: from logits at the model's size to class ids at the image's own size, and to PNG."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segray.pixels.statistics import ClassStatistics

# Output rows are worked on in bands of about this many float32 values, which stay in the cache
# and bound the memory whatever the size of the image and the number of classes.
_BAND_VALUES = 1 << 19


def segment_logits(
    logits: npt.NDArray[np.float32], height: int, width: int
) -> tuple[npt.NDArray[np.uint8], ClassStatistics]:
    """Interpolate logits to a size, take the winner of each pixel, and count.

    Interpolation is bilinear with half-pixel centres and clamped edges. The confidence of a
    pixel is the softmax probability of its winner, from the interpolated logits.
    Of classes with equal logits the first wins.

    Args:
        logits: float32 [h, w, C].
        height: rows of the mask.
        width: columns of the mask.

    Returns:
        The mask, uint8 [height, width] of class ids, and its `ClassStatistics`.
    """
    planes = np.ascontiguousarray(np.moveaxis(logits, -1, 0))
    classes = len(planes)
    left, right, weight_x = _neighbours(planes.shape[2], width)
    top, bottom, weight_y = _neighbours(planes.shape[1], height)

    mask = np.empty((height, width), dtype=np.uint8)
    pixels = np.zeros(classes, dtype=np.int64)
    confidence = np.zeros(classes, dtype=np.float64)
    band = max(1, _BAND_VALUES // (classes * width))
    for start in range(0, height, band):
        rows = slice(start, min(start + band, height))
        # Only the few rows of logits that this band lies between are widened.
        first, last = top[rows][0], bottom[rows][-1] + 1
        narrow = planes[:, first:last]
        wide = narrow[:, :, left] + weight_x * (narrow[:, :, right] - narrow[:, :, left])
        upper, lower = wide[:, top[rows] - first], wide[:, bottom[rows] - first]
        values = upper + weight_y[rows, None] * (lower - upper)

        winner, probability = _winner(values)
        mask[rows] = winner
        flat = winner.ravel()
        pixels += np.bincount(flat, minlength=classes)
        confidence += np.bincount(flat, weights=probability.ravel(), minlength=classes)
    return mask, ClassStatistics(pixels, confidence)


def _neighbours(
    size: int, target: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """The two source cells of each target pixel along one axis, and the weight of the second."""
    position = (np.arange(target) + 0.5) * (size / target) - 0.5
    position = np.clip(position, 0, size - 1)
    lower = np.floor(position).astype(np.intp)
    upper = np.minimum(lower + 1, size - 1)
    return lower, upper, (position - lower).astype(np.float32)


def _winner(
    values: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The class of the largest value and its softmax probability; values float32 [C, h, w].

    Class by class, because numpy's argmax over a short axis costs several times as much.
    """
    best = values[0].copy()
    winner = np.zeros(best.shape, dtype=np.uint8)
    for class_id in range(1, len(values)):
        better = values[class_id] > best
        winner[better] = class_id
        np.maximum(best, values[class_id], out=best)
    total = np.zeros_like(best)
    for plane in values:
        total += np.exp(plane - best)
    return winner, 1 / total


def encode_mask(mask: npt.NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> bytes:
    """Write a mask as an indexed PNG, with as few bits a pixel as its palette needs.

    Args:
        mask: uint8 [H, W] of class ids, each below ``len(palette)``.
        palette: one RGB colour per class.
    """
    height, width = mask.shape
    image = Image.frombytes("P", (width, height), np.ascontiguousarray(mask).tobytes())
    image.putpalette([channel for colour in palette for channel in colour])
    buffer = io.BytesIO()
    # Level 1: twice as fast as the default on large masks, and masks are small in any case.
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode_mask(png: bytes) -> npt.NDArray[Any]:
    """The class ids that `encode_mask` wrote, uint8 [H, W]."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        return np.asarray(image, dtype=np.uint8)
