"""Thumbnails: small copies of an image and of its mask, in the image's proportions."""

import io
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from segray.pixels.decoding import DecodeError, Picture, read_picture
from segray.pixels.framing import Box
from segray.pixels.limits import MAX_PIXELS
from segray.pixels.wide import ValueRange

_JPEG_QUALITY = 80
# How much larger an image is left by the fast means of blocks, before it is filtered.
_REDUCING_GAP = 4.0
# The rows of blocks that are read at a time.
_BLOCKS = 16


def fit_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the width and height of an image's thumbnail, in pixels, neither above `side`.

    Proportions are kept, except that no side becomes 0; small images keep their size.
    """
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrink(picture: Picture, side: int) -> Picture:
    """Return a picture without its padding, in its own proportions, with both sides at most `side`.

    Args:
        picture: the picture, decoded to a frame of any size.
        side: as in `fit_size`.
    """
    width, height = fit_size(picture.width, picture.height, side)
    image = Image.fromarray(_read_coarsely(picture, side))
    small = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP)
    return replace(picture, pixels=np.asarray(small), box=Box(0, 0, height, width), rows=None)


def _read_coarsely(picture: Picture, side: int) -> npt.NDArray[np.uint8]:
    """Return the pixels of a picture without padding; if they are read in rows, means of blocks."""
    rows = picture.rows
    if rows is None:
        return picture.content
    factor = max(1, max(picture.height, picture.width) // (2 * side))
    bands = (
        rows[top : top + factor * _BLOCKS] for top in range(0, picture.height, factor * _BLOCKS)
    )
    return np.concatenate([np.asarray(Image.fromarray(band).reduce(factor)) for band in bands])


def encode_thumbnail(picture: Picture, side: int) -> bytes:
    """Encode a picture as JPEG in its own proportions, with both sides at most `side` pixels.

    Args:
        picture: the picture, decoded to a frame of any size.
        side: as in `fit_size`.
    """
    buffer = io.BytesIO()
    Image.fromarray(shrink(picture, side).pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def read_small(
    content: bytes, width: int, height: int, side: int, value_range: ValueRange | None
) -> npt.NDArray[np.uint8]:
    """Decode an image that was segmented, with both sides at most `side`: uint8 [h, w, 3] RGB.

    Args:
        content: the content of the image file.
        width: its width when it was segmented, in pixels.
        height: its height, likewise.
        side: as in `fit_size`.
        value_range: the range that it was segmented with.

    Raises:
        DecodeError: it cannot be decoded, or has another size now.
    """
    size = fit_size(width, height, side)
    picture = read_segmented(content, width, height, max(size), value_range)
    return np.asarray(Image.fromarray(picture.pixels).resize(size, Image.Resampling.BILINEAR))


def read_segmented(
    content: bytes, width: int, height: int, side: int, value_range: ValueRange | None
) -> Picture:
    """Decode an image that was segmented, and squash it to a square.

    Args:
        content: the content of the image file.
        width: its width when it was segmented, in pixels.
        height: its height, likewise.
        side: the side of the square, in pixels.
        value_range: the range that it was segmented with.

    Raises:
        DecodeError: it cannot be decoded, or has another size now.
    """
    # The run that segmented it may have raised the limit.
    most = max(MAX_PIXELS, width * height)
    picture = read_picture(content, side, value_range, max_pixels=most)
    if (picture.width, picture.height) != (width, height):
        raise DecodeError(
            f"has changed since it was segmented: it is {picture.width} x {picture.height} "
            f"pixels, and its mask is of {width} x {height}"
        )
    return picture


def scale_mask(mask: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Scale a mask by nearest neighbour (of pixel centres), which creates no new values.

    Args:
        mask: uint8 [H, W] of class ids.
        width: the number of columns of the result.
        height: the number of rows of the result.
    """
    rows = (np.arange(height) * 2 + 1) * mask.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * mask.shape[1] // (2 * width)
    return mask[rows[:, None], columns]
