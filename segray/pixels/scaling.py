"""Scaling: convert an image of any mode and size to a small RGB image."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from segray.pixels.bands import cut_bands, fits_a_band
from segray.pixels.refusals import DecodeError
from segray.pixels.wide import ValueRange, is_grey, tabulate_grey

#: When a codec decodes an image at a reduced scale, it keeps at least this many times the requested
#: size, so that the anti-aliasing filter, and not the codec, determines the small image. The same
#: holds for the means of blocks that Pillow computes before the filter; without those, the filter's
#: weights would fill the memory for a column of millions of pixels.
REDUCED_MARGIN = 4


def scale_to_rgb(
    image: Image.Image,
    size: tuple[int, int],
    extent: tuple[float, float],
    value_range: ValueRange | None = None,
) -> Image.Image:
    """Scale a loaded image with an anti-aliasing filter; alpha is dropped.

    Args:
        image: an image of any mode.
        size: the requested width and height, in pixels.
        extent: the right and lower end of the image's content, in its pixels; the rest is left out.
        value_range: see `segray.pixels.wide.tabulate`, for grey wider than 8 bits.

    Returns:
        An image in mode RGB.

    Raises:
        DecodeError: the pixels are floating-point numbers, or grey outside 0 to 65535.
    """
    if image.mode in ("RGB", "L"):
        return to_rgb(_resize(image, size, extent))
    refuse_floats(image)
    table = tabulate_grey(image, value_range) if is_grey(image) else None
    (width, height), (right, bottom) = image.size, extent
    if fits_a_band(image):
        return _resize(to_rgb(image, table), size, extent)
    # The long side first: Pillow, too, scales one side after the other and rounds in between.
    wide = width >= height
    narrow = Image.new("RGB", (size[0], height) if wide else (width, size[1]))
    for place, part in cut_bands(image):
        band = to_rgb(part, table)
        if wide:
            band = _resize(band, (size[0], band.height), (right, band.height))
        else:
            band = _resize(band, (band.width, size[1]), (band.width, bottom))
        narrow.paste(band, place)
    return _resize(narrow, size, (size[0], bottom) if wide else (right, size[1]))


def to_rgb(image: Image.Image, table: npt.NDArray[np.uint8] | None = None) -> Image.Image:
    """Convert to mode RGB; grey wider than 8 bits needs a table of 8-bit values."""
    if table is not None:
        # Pillow's own conversion clips 16 bits to 8 instead of scaling them.
        return Image.fromarray(table[np.asarray(image)]).convert("RGB")
    if image.mode == "RGB":
        return image  # Pillow would copy it
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        # In one step, Pillow would warn of the lost alpha, which is intended here.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _resize(image: Image.Image, size: tuple[int, int], extent: tuple[float, float]) -> Image.Image:
    if image.size == size == extent:
        return image  # Pillow would copy it
    return image.resize(
        size, Image.Resampling.BILINEAR, (0, 0, *extent), reducing_gap=REDUCED_MARGIN
    )


def refuse_floats(image: Image.Image) -> None:
    """Refuse an image of floating-point numbers, whose black and white are unknown.

    Raises:
        DecodeError: the image is one.
    """
    if image.mode == "F":
        raise DecodeError(
            "has floating-point pixels: save it with 8 or 16 bits a channel", "unsupported"
        )
