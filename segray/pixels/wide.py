"""Wide images: those of more than 8 bits a channel, and what their values become in 8 bits."""

import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from segray.errors import InputError
from segray.pixels.bands import cut_bands
from segray.pixels.refusals import DecodeError

#: The values of wide pixels that stand for black and for white, each in 0 to 65535.
ValueRange = tuple[int, int]

#: The greatest value of a channel that is read.
MAX_VALUE = 65535

# Ends the names of raw modes of 16 bits a channel; ";16" alone is one of 16 bits a pixel.
_WIDE = re.compile(";16[LBN]$")

# Pillow takes the upper of two bytes; told the other order of bytes, it takes the lower one.
_NATIVE = "L" if sys.byteorder == "little" else "B"
_OTHER_ORDER = {"L": "B", "B": "L", "N": {"L": "B", "B": "L"}[_NATIVE]}


def is_grey(image: Image.Image) -> bool:
    """Whether it is wide and grey, so that Pillow keeps all of its bits."""
    return image.mode.startswith("I")


def is_coloured(image: Image.Image) -> bool:
    """Whether it is wide and has several channels, of which Pillow reads the upper bytes alone.

    Args:
        image: of a file, and not loaded; of none in memory there is anything left to know.
    """
    return not is_grey(image) and any(_WIDE.search(_raw_mode(tile)) for tile in _tiles(image))


def take_lower_bytes(image: ImageFile.ImageFile) -> None:
    """Make an `is_coloured` image load the lower byte of each value instead of the upper one.

    Raises:
        DecodeError: Pillow cannot do that for this kind.
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
    """Bring a loaded image of several wide channels to 8 bits, in place.

    Args:
        upper: as Pillow loads it.
        lower: as it loads after `take_lower_bytes`.
        table: of `tabulate`.
    """
    for place, part in cut_bands(upper):
        values = _join(part, lower.crop((*place, place[0] + part.width, place[1] + part.height)))
        upper.paste(Image.frombytes(upper.mode, part.size, table[values].tobytes()), place)


def find_highest(image: Image.Image, lower: Image.Image | None = None) -> int:
    """The greatest value of a loaded wide image; alpha does not count.

    Args:
        image: `is_grey`, or the upper bytes of one that `is_coloured`.
        lower: of that, the lower bytes.

    Raises:
        DecodeError: a value is not in 0 to 65535.
    """
    return max(check_values(values) for values in _cut_values(image, lower))


def find_reach(image: Image.Image, lower: Image.Image | None = None) -> int:
    """The greatest value of a loaded wide image, but for one in a thousand.

    A dead pixel, or a value for what is not known, says nothing of how far the others reach. For
    the arguments and errors see `find_highest`.
    """
    counts = np.zeros(MAX_VALUE + 1, dtype=np.int64)
    for values in _cut_values(image, lower):
        check_values(values)
        counts += np.bincount(values.ravel(), minlength=MAX_VALUE + 1)
    from_above = np.cumsum(counts[::-1])
    passed_over = counts.sum() // 1000
    return MAX_VALUE - int(np.argmax(from_above > passed_over))


def _cut_values(image: Image.Image, lower: Image.Image | None) -> Iterator[npt.NDArray[Any]]:
    for (left, top), part in cut_bands(image):
        if lower is None:
            yield np.asarray(part)
        else:
            box = (left, top, left + part.width, top + part.height)
            yield _join(part, lower.crop(box))[..., :3]


def check_values(values: npt.NDArray[np.integer]) -> int:
    """The largest of an image's values.

    Raises:
        DecodeError: not all are within 0 to 65535.
    """
    lowest, highest = values.min(), values.max()
    if lowest < 0 or highest > MAX_VALUE:
        raise DecodeError(f"has pixel values outside 0 to {MAX_VALUE}", "unsupported")
    return int(highest)


def tabulate(value_range: ValueRange | None, highest: int) -> npt.NDArray[np.uint8]:
    """What each value of a wide image becomes, uint8 [65536].

    Args:
        value_range: what stands for black and white; what is beyond is clipped. None: the upper
            8 of 16 bits are taken, or the value itself if none of the image is over 255. A wide
            type does not say how much of it is used: 8 bits that were saved in 16 or 32 would all
            be black if the upper ones were taken.
        highest: the greatest value of the image.
    """
    values = np.arange(MAX_VALUE + 1)
    if value_range is None:
        return (values >> (8 if highest > 255 else 0)).astype(np.uint8)
    low, high = value_range
    scaled = (values - low) * (255 / (high - low))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def check_range(value_range: ValueRange | None) -> None:
    """Refuse what --value-range cannot be.

    Raises:
        InputError: it is no range of values from 0 to 65535.
    """
    if value_range is not None and not 0 <= value_range[0] < value_range[1] <= MAX_VALUE:
        raise InputError(
            f"--value-range {value_range[0]} {value_range[1]}: give two values of 0 to "
            f"{MAX_VALUE}, the one that is black and a greater one that is white, as in 0 4095"
        )


def choose_range(highest: Iterable[int]) -> ValueRange | None:
    """0 to 2**k - 1 with the smallest k of 8 or more that holds all values; None for no image.

    Args:
        highest: the greatest value of each wide image of a sample.
    """
    greatest = max(highest, default=None)
    return None if greatest is None else (0, (1 << max(8, greatest.bit_length())) - 1)


def _join(upper: Image.Image, lower: Image.Image) -> npt.NDArray[np.uint16]:
    return np.asarray(upper).astype(np.uint16) << 8 | np.asarray(lower)


def _tiles(image: Image.Image) -> list[Any]:
    return image.tile if isinstance(image, ImageFile.ImageFile) else []


def _raw_mode(tile: Any) -> str:
    args = tile.args
    return str(args[0] if isinstance(args, tuple) and args else args)
