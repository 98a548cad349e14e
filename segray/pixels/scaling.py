"""Scaling: an image of any mode and size becomes a small one in RGB."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from segray.pixels.bands import cut_bands, fits_a_band
from segray.pixels.refusals import DecodeError
from segray.pixels.wide import ValueRange, find_highest, is_grey, tabulate

#: An image keeps at least this many times the size asked for when a codec decodes it at a
#: reduced scale, so that the anti-aliasing filter, and not the codec, decides what the small
#: image looks like. The same goes for the means of blocks that Pillow takes before the filter:
#: without those, its weights alone would fill the memory for a column of millions of pixels.
REDUCED_MARGIN = 4


def scale_to_rgb(
    image: Image.Image,
    size: tuple[int, int],
    extent: tuple[float, float],
    value_range: ValueRange | None = None,
) -> Image.Image:
    """Scale a loaded image with an anti-aliasing filter; alpha is dropped.

    Args:
        image: of any mode.
        size: the width and height wanted, in pixels.
        extent: how far the image reaches to the right and downwards, in its pixels; what is
            beyond is left out.
        value_range: see `segray.pixels.wide.tabulate`, of grey wider than 8 bits.

    Returns:
        An image in mode RGB.

    Raises:
        DecodeError: the pixels are floating-point numbers, or grey outside 0 to 65535.
    """
    if image.mode in ("RGB", "L"):
        return _resize(image, size, extent).convert("RGB")
    refuse_floats(image)
    table = tabulate(value_range, find_highest(image)) if is_grey(image) else None
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
    """The same pixels in mode RGB; grey wider than 8 bits needs a table of what it becomes."""
    if table is not None:
        # Pillow's own conversion clips 16 bits to 8 where it should scale.
        return Image.fromarray(table[np.asarray(image)]).convert("RGB")
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        # In one step Pillow warns of the alpha lost, and here it is to be lost.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _resize(image: Image.Image, size: tuple[int, int], extent: tuple[float, float]) -> Image.Image:
    return image.resize(
        size, Image.Resampling.BILINEAR, (0, 0, *extent), reducing_gap=REDUCED_MARGIN
    )


def refuse_floats(image: Image.Image) -> None:
    """Refuse an image of floating-point numbers, of which nothing says what is black and white.

    Raises:
        DecodeError: it is one.
    """
    if image.mode == "F":
        raise DecodeError(
            "has floating-point pixels: save it with 8 or 16 bits a channel", "unsupported"
        )
