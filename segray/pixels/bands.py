"""Bands: cut a large image into parts, so that memory never holds a second copy of all of it."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

# The approximate number of pixels of a band.
_BAND_PIXELS = 1 << 22


def fits_a_band(image: Image.Image) -> bool:
    """Return True if an image is small enough not to be cut."""
    return image.width * image.height <= _BAND_PIXELS


def cut_bands(image: Image.Image) -> Iterator[tuple[tuple[int, int], Image.Image]]:
    """Yield copies of parts of an image along its long side, each with its upper left corner."""
    width, height = image.size
    thickness = max(1, _BAND_PIXELS // max(width, height))
    if width >= height:
        for top in range(0, height, thickness):
            yield (0, top), image.crop((0, top, width, min(top + thickness, height)))
    else:
        for left in range(0, width, thickness):
            yield (left, 0), image.crop((left, 0, min(left + thickness, width), height))


def to_array(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the pixels of an image in mode RGB, uint8 [H, W, 3].

    Pillow would hold them twice on the way.
    """
    if fits_a_band(image):
        return np.asarray(image)
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for (left, top), part in cut_bands(image):
        pixels[top : top + part.height, left : left + part.width] = np.asarray(part)
    return pixels
