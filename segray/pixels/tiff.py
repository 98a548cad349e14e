"""TIFF: pixel formats that Pillow does not read, or misreads."""

import io
from typing import Any

from PIL import TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from segray.pixels.formats import check_tiff, identify
from segray.pixels.limits import MAX_PIXELS

# TIFF 6.0, section 19; 5 and 6 are complex numbers.
_SIGNED, _FLOATING = (2,), (3, 5, 6)
_BIG_HEADER, _HEADER = 16, 8


def _read_tags(content: bytes) -> ImageFileDirectory_v2:
    file = io.BytesIO(content)
    tags = ImageFileDirectory_v2(file.read(_BIG_HEADER if 43 in content[2:4] else _HEADER))
    file.seek(tags.next)
    tags.load(file)
    return tags


def explain_pixels(content: bytes) -> str:
    """Explain why Pillow has no mode for a TIFF's pixels, and how to save it, on one line.

    Args:
        content: the content of the file, which Pillow has refused for its pixel format.

    Raises:
        Exception: the directory of the file is invalid.
    """
    tags = _read_tags(content)
    bands = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
    bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    kinds = tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
    if any(kind in _FLOATING for kind in kinds):
        return "the TIFF has floating-point pixels: save it with 8 or 16 bits a channel"
    if any(kind in _SIGNED for kind in kinds):
        return f"the TIFF has signed {bits}-bit pixels: save it with unsigned ones of 8 or 16 bits"
    if bands not in (1, 3, 4):
        return f"the TIFF has {bands} bands of {bits} bits: save it with 1, 3 or 4"
    meaning = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0)
    return (
        f"the TIFF has {bands} band(s) of {bits} bits with the photometric interpretation "
        f"{meaning}, which is not read: save it as grey or RGB with 8 or 16 bits a channel"
    )


def is_large_tiff(content: bytes, max_pixels: int) -> bool:
    """Return True if a file is a TIFF with more pixels than are decoded at once.

    Args:
        content: the content of the file.
        max_pixels: the maximum number of pixels of an image that is decoded at once; a limit that
            is raised above `MAX_PIXELS` leaves such a file to be read in rows.
    """
    if identify(content) != "TIFF":
        return False
    check_tiff(content)
    tags = _read_tags(content)
    size = tags.get(TiffImagePlugin.IMAGEWIDTH, 0), tags.get(TiffImagePlugin.IMAGELENGTH, 0)
    return bool(size[0] * size[1] > min(max_pixels, MAX_PIXELS))


def has_signed_bytes(image: TiffImageFile) -> bool:
    """Return True if pixels are signed numbers of 8 bits, which Pillow takes for unsigned ones."""
    tags = image.tag_v2
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    kinds = tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
    return max(bits) == 8 and any(kind in _SIGNED for kind in kinds)


def mend_planes(image: TiffImageFile) -> None:
    """Make Pillow read planar channels of 16 bits correctly.

    Pillow 13 takes each of their bytes for a pixel if they are not compressed.
    """
    wide = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, ()) == (16,) * len(image.getbands())
    planar = image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2
    if wide and planar and image.info["compression"] == "raw" and len(image.getbands()) > 1:
        order = ";16L" if image.tag_v2.prefix == b"II" else ";16B"
        tiles: list[Any] = image.tile
        image.tile = [t._replace(args=(f"{t.args[0]}{order}", *t.args[1:])) for t in tiles]
