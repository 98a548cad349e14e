"""Wide images: images of more than 8 bits per channel, and their conversion to 8 bits."""

import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from segray.errors import InputError
from segray.pixels.bands import cut_bands
from segray.pixels.refusals import DecodeError

#: The values of wide pixels that stand for black and for white, each in 0 to 65535.
ValueRange = tuple[int, int]

#: The greatest value of a channel that is supported.
MAX_VALUE = 65535

# The end of the names of raw modes of 16 bits per channel; ";16" alone is 16 bits per pixel.
_WIDE = re.compile(";16[LBN]$")

# Pillow reads the upper of two bytes; with the opposite byte order it reads the lower one.
_NATIVE = "L" if sys.byteorder == "little" else "B"
_OTHER_ORDER = {"L": "B", "B": "L", "N": {"L": "B", "B": "L"}[_NATIVE]}


def is_grey(image: Image.Image) -> bool:
    """Return True if an image is wide and grey; Pillow then keeps all of its bits."""
    return image.mode.startswith("I")


def is_coloured(image: Image.Image) -> bool:
    """Return True if an image is wide with several channels; Pillow reads their upper bytes only.

    Args:
        image: an image file, not yet loaded. An image in memory does not show it any more.
    """
    return not is_grey(image) and any(map(_WIDE.search, raw_modes(image)))


def _is_inverted(image: Image.Image) -> bool:
    """Return True for a wide grey TIFF whose white is zero; Pillow inverts only those of 8 bits."""
    if not isinstance(image, TiffImageFile) or not is_grey(image):
        return False
    return bool(image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0) == 0)


def raw_modes(image: Image.Image) -> list[str]:
    """Return Pillow's names of how the pixels of an image file are stored, such as ``L;4``.

    Args:
        image: an image file, not yet loaded.
    """
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    return [_raw_mode(tile) for tile in tiles]


def take_lower_bytes(image: ImageFile.ImageFile) -> None:
    """Make an `is_coloured` image load the lower byte of each value instead of the upper one.

    Raises:
        DecodeError: Pillow cannot do that for this format.
    """
    tiles = []
    for tile in image.tile:
        raw = _raw_mode(tile)
        if raw.startswith("LA"):
            raise DecodeError(
                "has grey and alpha of 16 bits, of which only the upper 8 bits can be read: save "
                "it as grey of 16 bits, without alpha",
                "unsupported",
            )
        lower = raw[:-1] + _OTHER_ORDER[raw[-1]]
        args = tile.args
        tiles.append(tile._replace(args=(lower, *args[1:]) if isinstance(args, tuple) else lower))
    image.tile = tiles


def join_bytes(upper: Image.Image, lower: Image.Image, table: npt.NDArray[np.uint8]) -> None:
    """Convert a loaded image of several wide channels to 8 bits, in place.

    Args:
        upper: the image as Pillow loads it.
        lower: the image as it loads after `take_lower_bytes`.
        table: the result of `tabulate`.
    """
    for place, part in cut_bands(upper):
        values = _join(part, lower.crop((*place, place[0] + part.width, place[1] + part.height)))
        upper.paste(Image.frombytes(upper.mode, part.size, table[values].tobytes()), place)


def tabulate_grey(image: Image.Image, value_range: ValueRange | None) -> npt.NDArray[np.uint8]:
    """Return the 8-bit value of each stored value of a loaded image that `is_grey`, uint8 [65536].

    Args:
        image: the image.
        value_range: as in `tabulate`.

    Raises:
        DecodeError: a value is not in 0 to 65535.
    """
    highest = max(check_values(values) for values in _cut_values(image, None))
    table = tabulate(value_range, highest)
    return table[::-1] if _is_inverted(image) else table


def find_reach(image: Image.Image, lower: Image.Image | None = None) -> int:
    """Return the greatest value of a loaded wide image, apart from one value in a thousand.

    A dead pixel, or a value for unknown pixels, is no evidence of the range of the others. Alpha
    does not count.

    Args:
        image: an image that `is_grey`, or the upper bytes of one that `is_coloured`.
        lower: the lower bytes of the latter.

    Raises:
        DecodeError: a value is not in 0 to 65535.
    """
    counts = np.zeros(MAX_VALUE + 1, dtype=np.int64)
    for values in _cut_values(image, lower):
        check_values(values)
        counts += np.bincount(values.ravel(), minlength=MAX_VALUE + 1)
    from_above = np.cumsum(counts[::-1])
    passed_over = counts.sum() // 1000
    return MAX_VALUE - int(np.argmax(from_above > passed_over))


def _cut_values(image: Image.Image, lower: Image.Image | None) -> Iterator[npt.NDArray[Any]]:
    inverted = _is_inverted(image)
    for (left, top), part in cut_bands(image):
        if lower is None:
            yield MAX_VALUE - np.asarray(part) if inverted else np.asarray(part)
        else:
            box = (left, top, left + part.width, top + part.height)
            yield _join(part, lower.crop(box))[..., :3]


def check_values(values: npt.NDArray[np.integer]) -> int:
    """Return the largest of an image's values.

    Raises:
        DecodeError: a value is not in 0 to 65535.
    """
    lowest, highest = values.min(), values.max()
    if lowest < 0 or highest > MAX_VALUE:
        raise DecodeError(f"has pixel values outside 0 to {MAX_VALUE}", "unsupported")
    return int(highest)


def tabulate(value_range: ValueRange | None, highest: int) -> npt.NDArray[np.uint8]:
    """Return the 8-bit value of each value of a wide image, uint8 [65536].

    Args:
        value_range: the values of black and white, beyond which values are clipped. None: the upper
            8 of 16 bits, or the value itself if none in the image is above 255. The type of a wide
            image does not tell how much of it is used: the upper bits of 8 bits that were saved in
            16 or 32 would all be black.
        highest: the greatest value of the image.
    """
    values = np.arange(MAX_VALUE + 1)
    if value_range is None:
        return (values >> (8 if highest > 255 else 0)).astype(np.uint8)
    low, high = value_range
    scaled = (values - low) * (255 / (high - low))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def check_range(value_range: ValueRange | None) -> None:
    """Refuse an invalid --value-range.

    Raises:
        InputError: it is not a range of values from 0 to 65535.
    """
    if value_range is not None and not 0 <= value_range[0] < value_range[1] <= MAX_VALUE:
        raise InputError(
            f"--value-range {value_range[0]} {value_range[1]}: give two values of 0 to "
            f"{MAX_VALUE}, the one that is black and a greater one that is white, as in 0 4095"
        )


def choose_range(highest: Iterable[int]) -> ValueRange | None:
    """Return (0, 2**k - 1) with the least k of 8 or more that covers all values.

    Args:
        highest: the greatest value of each wide image of a sample.

    Returns:
        The range; None if there is no image.
    """
    greatest = max(highest, default=None)
    return None if greatest is None else (0, (1 << max(8, greatest.bit_length())) - 1)


def _join(upper: Image.Image, lower: Image.Image) -> npt.NDArray[np.uint16]:
    return np.asarray(upper).astype(np.uint16) << 8 | np.asarray(lower)


def _raw_mode(tile: Any) -> str:
    args = tile.args
    return str(args[0] if isinstance(args, tuple) and args else args)
