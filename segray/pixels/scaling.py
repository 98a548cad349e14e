"""Scaling: an image of any mode and size becomes a small one in RGB."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from segray.pixels.refusals import DecodeError

#: An image keeps at least this many times the size asked for when a codec decodes it at a
#: reduced scale, so that the anti-aliasing filter, and not the codec, decides what the small
#: image looks like. The same goes for the means of blocks that Pillow takes before the filter:
#: without those, its weights alone would fill the memory for a column of millions of pixels.
REDUCED_MARGIN = 4

# Pixels that are not RGB are converted in bands of about this many, so that there are never
# two copies of a large image.
_BAND_PIXELS = 1 << 22


def scale_to_rgb(
    image: Image.Image, size: tuple[int, int], extent: tuple[float, float]
) -> Image.Image:
    """Scale a loaded image with an anti-aliasing filter; alpha is dropped.

    Args:
        image: of any mode.
        size: the width and height wanted, in pixels.
        extent: how far the image reaches to the right and downwards, in its pixels; what is
            beyond is left out.

    Returns:
        An image in mode RGB.

    Raises:
        DecodeError: the pixels are floating-point numbers, or grey outside 0 to 65535.
    """
    if image.mode in ("RGB", "L"):
        return _resize(image, size, extent).convert("RGB")
    shift = _grey_shift(image)
    (width, height), (right, bottom) = image.size, extent
    if width * height <= _BAND_PIXELS:
        return _resize(to_rgb(image, shift), size, extent)
    # The long side first: Pillow, too, scales one side after the other and rounds in between.
    wide = width >= height
    narrow = Image.new("RGB", (size[0], height) if wide else (width, size[1]))
    for place, part in _bands(image):
        band = to_rgb(part, shift)
        if wide:
            band = _resize(band, (size[0], band.height), (right, band.height))
        else:
            band = _resize(band, (band.width, size[1]), (band.width, bottom))
        narrow.paste(band, place)
    return _resize(narrow, size, (size[0], bottom) if wide else (right, size[1]))


def to_rgb(image: Image.Image, shift: int = 0) -> Image.Image:
    """The same pixels in mode RGB; of grey wider than 8 bits, ``shift`` bits are dropped."""
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16 bits to 8 where it should scale.
        return Image.fromarray((np.asarray(image) >> shift).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        # In one step Pillow warns of the alpha lost, and here it is to be lost.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def check_grey(values: npt.NDArray[np.integer]) -> int:
    """The largest of an image's values.

    Raises:
        DecodeError: not all are within 0 to 65535.
    """
    lowest, highest = values.min(), values.max()
    if lowest < 0 or highest > np.iinfo(np.uint16).max:
        raise DecodeError("has pixel values outside 0 to 65535", "unsupported")
    return int(highest)


def _resize(image: Image.Image, size: tuple[int, int], extent: tuple[float, float]) -> Image.Image:
    return image.resize(
        size, Image.Resampling.BILINEAR, (0, 0, *extent), reducing_gap=REDUCED_MARGIN
    )


def _grey_shift(image: Image.Image) -> int:
    """How many bits to drop so that the image's grey values are of eight bits.

    A wide type does not say how much of it is used: 8 bits that were saved in 16 or 32 would all
    be black if the upper ones were taken.
    """
    if image.mode == "F":
        raise DecodeError(
            "has floating-point pixels: save it with 8 or 16 bits a channel", "unsupported"
        )
    if not image.mode.startswith("I"):
        return 0
    highest = max(check_grey(np.asarray(band)) for _, band in _bands(image))
    return 8 if highest > np.iinfo(np.uint8).max else 0


def _bands(image: Image.Image) -> Iterator[tuple[tuple[int, int], Image.Image]]:
    """Copies of parts of an image along its long side, each with its upper left corner."""
    width, height = image.size
    thickness = max(1, _BAND_PIXELS // max(width, height))
    if width >= height:
        for top in range(0, height, thickness):
            yield (0, top), image.crop((0, top, width, min(top + thickness, height)))
    else:
        for left in range(0, width, thickness):
            yield (left, 0), image.crop((left, 0, min(left + thickness, width), height))
