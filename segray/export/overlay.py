"""Overlays: an image with its mask drawn over it."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from segray.pixels.decoding import DecodeError
from segray.pixels.thumbnails import read_small, scale_mask
from segray.pixels.wide import ValueRange

_JPEG_QUALITY = 85
_BOUNDARY = 255  # white


def draw_overlay(
    content: bytes,
    mask_png: bytes,
    width: int,
    height: int,
    max_side: int,
    value_range: ValueRange | None = None,
) -> bytes:
    """Draw a mask over its image, half transparent, with a white line between classes.

    Args:
        content: the content of the image file.
        mask_png: an indexed PNG of class ids, drawn in the colours of its palette, of any
            resolution.
        width: the width, in pixels, of the image that was segmented, after its EXIF orientation.
        height: the height, likewise.
        max_side: the overlay has the resolution of the image, but at most this longer side, in
            pixels.
        value_range: the range that the image was segmented with, see
            `segray.pixels.decoding.read_picture`.

    Returns:
        The content of a JPEG file.

    Raises:
        DecodeError: the image or the mask cannot be decoded, or the image has another size.
    """
    image = read_small(content, width, height, max_side, value_range)
    try:
        # Not by `Image.open`, which refuses the masks of large images.
        with PngImageFile(io.BytesIO(mask_png)) as file:
            mask = scale_mask(np.asarray(file, np.uint8), image.shape[1], image.shape[0])
            palette = np.frombuffer(bytes(file.getpalette() or []), np.uint8).reshape(-1, 3)
            colours = palette[mask]
    except Exception as error:
        raise DecodeError(f"its mask is damaged ({type(error).__name__})") from error
    blend = ((image.astype(np.uint16) + colours) // 2).astype(np.uint8)
    blend[_boundaries(mask)] = _BOUNDARY
    buffer = io.BytesIO()
    # JPEG usually halves the resolution of colour, which would blur lines one pixel wide.
    Image.fromarray(blend).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _boundaries(class_ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool]:
    """Return the pixels whose right or lower neighbour has another class, bool [H, W]."""
    found = np.zeros(class_ids.shape, bool)
    found[:, :-1] = class_ids[:, 1:] != class_ids[:, :-1]
    found[:-1] |= class_ids[1:] != class_ids[:-1]
    return found
