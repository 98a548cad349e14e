"""Thumbnails: small copies of an image and of its mask, in the image's proportions."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from segray.pixels.decoding import Picture

_JPEG_QUALITY = 80


def fit_size(width: int, height: int, side: int) -> tuple[int, int]:
    """The width and height in pixels of an image's thumbnail: neither more than `side`.

    Proportions are kept but for a side that would vanish; small images keep their size.
    """
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def encode_thumbnail(picture: Picture, side: int) -> bytes:
    """A JPEG file of a picture in its own proportions, at most `side` pixels wide and high.

    Args:
        picture: decoded to a square of any size.
        side: as in `fit_size`.
    """
    size = fit_size(picture.width, picture.height, side)
    buffer = io.BytesIO()
    image = Image.fromarray(picture.pixels).resize(size, Image.Resampling.BICUBIC)
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def scale_mask(mask: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Scale a mask, each pixel the one whose centre is nearest; no class is made up.

    Args:
        mask: uint8 [H, W] of class ids.
        width: columns of the result.
        height: rows of the result.
    """
    rows = (np.arange(height) * 2 + 1) * mask.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * mask.shape[1] // (2 * width)
    return mask[rows[:, None], columns]
