"""Mask files: turn their bytes into the numbers or the colours of their pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segray.pixels.limits import MEMORY, memory_needed
from segray.pixels.opening import load_oriented, name_format, open_image
from segray.pixels.orientation import turn_upright
from segray.pixels.refusals import DecodeError, reasons
from segray.pixels.scaling import refuse_floats, to_rgb
from segray.pixels.wide import check_values, is_grey, raw_modes

# Pillow's modes that can be converted to RGB without rounding.
_COLOUR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")


@dataclass(frozen=True)
class Mask:
    """The content of a mask file.

    Attributes:
        values: uint8 or uint16 [H, W] of numbers, or uint32 [H, W] of 0xRRGGBB, with the file's own
            EXIF orientation applied.
        orientation: that orientation, 1 to 8; 1 if there is none.
    """

    values: npt.NDArray[np.integer[Any]]
    orientation: int = 1


def read_mask(data: bytes, coloured: bool = False) -> Mask:
    """Decode a mask file to the numbers or the colours of its pixels.

    Args:
        data: the content of an image file. For numbers it must have one channel; a palette image
            gives its indices. For colours it must be grey, RGB or a palette image, which gives the
            colours of its palette; alpha is dropped.
        coloured: True to decode colours.

    Raises:
        DecodeError: as for `read_picture`; or the compression is lossy, so that the values are not
            exact; or the mask has colour channels although numbers are expected.
    """
    with reasons(name_format(data)):
        image = open_image(data)
        lossy = _lossy_coding(image, data)
        if lossy:
            raise DecodeError(
                f"the mask is a {lossy}, which does not keep the exact values or colours that "
                "stand for the classes: save it as PNG, from the original and not from this file; "
                "or give images and masks the other way round, if this is the image",
                "unsupported",
            )
        with MEMORY.reserved(memory_needed(image, data, image.size)):
            return _read_colours(image) if coloured else _read_numbers(image)


def _read_numbers(image: Image.Image) -> Mask:
    refuse_floats(image)
    # Pillow scales grey of two and four bits to eight, and inverts it where white is zero ("L;4I");
    # a mask's values are the stored ones.
    coding = "".join(raw_modes(image)[:1])
    stretch = {"L;2": 85, "L;4": 17}.get(coding[:3], 1)
    inverted = coding.startswith("L;") and "I" in coding
    told, left = load_oriented(image)
    upright = turn_upright(image, left)
    if upright.mode == "1":
        return Mask(np.asarray(upright, dtype=np.uint8), told)
    if upright.mode in ("L", "P") or is_grey(upright):
        values = _unsigned(np.asarray(upright))
        return Mask((255 - values if inverted else values) // stretch, told)
    raise DecodeError(
        f"the mask has the channels {'+'.join(upright.getbands())}, and one of numbers has a "
        "single channel: if colours stand for the classes, give --classes name=#rrggbb, or else "
        "save it as a grey or palette image whose pixel values are the classes",
        "unsupported",
    )


def _read_colours(image: Image.Image) -> Mask:
    refuse_floats(image)
    if image.mode not in _COLOUR_MODES:
        raise DecodeError(
            f"the mask has pixels of the kind {image.mode}, and --classes name=#rrggbb needs red, "
            "green and blue of 8 bits: save it as an RGB or palette PNG",
            "unsupported",
        )
    told, left = load_oriented(image)
    pixels = np.asarray(to_rgb(turn_upright(image, left)))
    colours = pixels[..., 0].astype(np.uint32)
    for channel in (1, 2):
        colours <<= 8
        colours |= pixels[..., channel]
    return Mask(colours, told)


def _lossy_coding(image: Image.Image, data: bytes) -> str | None:
    """Return the name of the image's compression if it is lossy, else None."""
    if image.format == "JPEG":
        return "JPEG"
    if image.format == "TIFF" and "jpeg" in str(image.info.get("compression")):
        return "TIFF with JPEG compression"
    if image.format == "WEBP" and "VP8 " in _webp_chunks(data):
        return "lossy WEBP"
    return None


def _webp_chunks(data: bytes) -> Iterator[str]:
    """Yield the types of a WEBP file's chunks; "VP8 " has lossy pixels, "VP8L" lossless ones.

    https://developers.google.com/speed/webp/docs/riff_container
    """
    place = len("RIFF") + 4 + len("WEBP")
    while place + 8 <= len(data):
        kind = data[place : place + 4].decode("latin-1")
        yield kind
        # The frame of an animation has chunks of its own, after 16 bytes about the frame.
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8 + (16 if kind == "ANMF" else length + length % 2)


def _unsigned(values: npt.NDArray[Any]) -> npt.NDArray[np.integer[Any]]:
    if values.dtype == np.uint8:
        return values
    check_values(values)
    return values.astype(np.uint16)
